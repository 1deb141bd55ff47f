//! MLP: after attention has brought a token what it needs from the others, each token is thought about on its own:
//! widened four times, bent, and narrowed again.
//!
//! ```text
//! y += activation(x · W_fc + b_fc) · W_proj + b_proj
//! ```
//!
//! `W_fc` is `[n_embd, n_inner]`, `W_proj` `[n_inner, n_embd]`: two thirds of a block's weights and of its work. Both
//! products are [`linear`] layers, with the activation and the residual connection in their last step, so the MLP
//! itself adds nothing but the order.

use super::activation::Activation;
use super::linear::{Then, Weights, linear};
use super::rows::{Rows, RowsMut};
use super::threads::Team;

/// The weights of an MLP.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// `[n_embd, n_inner]`
    pub c_fc: Weights<'a>,
    /// `[n_inner]`
    pub c_fc_bias: &'a [f32],
    /// What bends.
    pub activation: Activation,
    /// `[n_inner, n_embd]`
    pub c_proj: Weights<'a>,
    /// `[n_embd]`
    pub c_proj_bias: &'a [f32],
}

impl Mlp<'_> {
    /// The widened and bent tokens, `[n_tokens, n_inner]`.
    pub fn widen(&self, team: &Team, x: Rows, hidden: RowsMut) {
        linear(team, x, self.c_fc, self.c_fc_bias, Then::Activate(self.activation), hidden);
    }

    /// The widened tokens before they are bent.
    pub fn widen_only(&self, team: &Team, x: Rows, hidden: RowsMut) {
        linear(team, x, self.c_fc, self.c_fc_bias, Then::Store, hidden);
    }

    /// Bends them: after [`Mlp::widen_only`] they are what [`Mlp::widen`] makes, bit for bit.
    pub fn bend(&self, team: &Team, mut hidden: RowsMut) {
        for t in 0..hidden.len() {
            self.activation.apply(team.isa(), hidden.row_mut(t));
        }
    }

    /// Narrows them again, into or onto `y`, `[n_tokens, n_embd]`.
    pub fn narrow(&self, team: &Team, hidden: Rows, then: Then, y: RowsMut) {
        linear(team, hidden, self.c_proj, self.c_proj_bias, then, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::check::{assert_close, numbers};
    use crate::kernels::elements::Elements;
    use crate::kernels::isa::Isa;
    use crate::kernels::linear::Matrix;

    #[test]
    fn an_mlp_is_its_formula() {
        let (n, n_embd, n_inner) = (3, 12, 40);
        let (fc, proj) = (numbers(1, n_embd * n_inner), numbers(2, n_embd * n_inner));
        let (fc_bias, proj_bias) = (numbers(3, n_inner), numbers(4, n_embd));
        let (x, before) = (numbers(5, n * n_embd), numbers(6, n * n_embd));
        let mlp = Mlp {
            c_fc: Matrix::new(Elements::F32(&fc), n_embd, n_inner).into(),
            c_fc_bias: &fc_bias,
            activation: Activation::GeluTanh,
            c_proj: Matrix::new(Elements::F32(&proj), n_inner, n_embd).into(),
            c_proj_bias: &proj_bias,
        };
        let expected: Vec<f32> = (0..n * n_embd)
            .map(|at| {
                let (t, i) = (at / n_embd, at % n_embd);
                let inner = |j: usize| {
                    let sum: f32 = (0..n_embd).map(|k| x[t * n_embd + k] * fc[k * n_inner + j]).sum();
                    Activation::GeluTanh.of(sum + fc_bias[j])
                };
                let sum: f32 = (0..n_inner).map(|j| inner(j) * proj[j * n_embd + i]).sum();
                before[at] + sum + proj_bias[i]
            })
            .collect();
        let team = Team::new(2, Isa::available()[0]);
        let (mut hidden, mut y) = (vec![0.0; n * n_inner], before);
        mlp.widen(&team, Rows::dense(&x, n_embd), RowsMut::dense(&mut hidden, n_inner));
        mlp.narrow(&team, Rows::dense(&hidden, n_inner), Then::Add, RowsMut::dense(&mut y, n_embd));
        assert_close(&y, &expected, 1e-5);

        let mut in_steps = vec![0.0; n * n_inner];
        mlp.widen_only(&team, Rows::dense(&x, n_embd), RowsMut::dense(&mut in_steps, n_inner));
        assert_ne!(in_steps, hidden);
        mlp.bend(&team, RowsMut::dense(&mut in_steps, n_inner));
        assert_eq!(in_steps, hidden);
    }
}
