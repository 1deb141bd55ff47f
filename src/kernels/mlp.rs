//! MLP: after attention has gathered information from other tokens, the MLP processes each token by itself.
//! It projects the vector up to four times its width, applies an activation, and projects it down again.
//!
//! ```text
//! y += activation(x · W_fc + b_fc) · W_proj + b_proj
//! ```
//!
//! `W_fc` is `[n_embd, n_inner]`, `W_proj` is `[n_inner, n_embd]`: two thirds of a block's weights and FLOPs.
//! Both products are [`linear`] layers; the activation and the residual addition are their epilogues.

use super::activation::Activation;
use super::linear::{self, Epilogue, WeightMatrix, linear};
use super::rows::{Rows, RowsMut};
use super::thread_pool::ThreadPool;

/// The weights of an MLP.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// `[n_embd, n_inner]`
    pub c_fc: WeightMatrix<'a>,
    /// `[n_inner]`
    pub c_fc_bias: &'a [f32],
    /// The activation between the two projections.
    pub activation: Activation,
    /// `[n_inner, n_embd]`
    pub c_proj: WeightMatrix<'a>,
    /// `[n_embd]`
    pub c_proj_bias: &'a [f32],
}

/// The formula for one token: `x` is `[n_embd]`, and so is the result, which is to be added to `y`.
pub fn reference(x: &[f32], mlp: &Mlp) -> Vec<f32> {
    let hidden = linear::reference(x, mlp.c_fc, mlp.c_fc_bias);
    let hidden: Vec<f32> = hidden.into_iter().map(|x| mlp.activation.reference(x)).collect();
    linear::reference(&hidden, mlp.c_proj, mlp.c_proj_bias)
}

impl Mlp<'_> {
    /// Computes `hidden = activation(x · W_fc + b_fc)`, `[n_tokens, n_inner]`.
    pub fn c_fc_act(&self, pool: &ThreadPool, x: Rows, hidden: RowsMut) {
        linear(pool, x, self.c_fc, self.c_fc_bias, Epilogue::Activate(self.activation), hidden);
    }

    /// Computes the pre-activations, `hidden = x · W_fc + b_fc`.
    pub fn c_fc(&self, pool: &ThreadPool, x: Rows, hidden: RowsMut) {
        linear(pool, x, self.c_fc, self.c_fc_bias, Epilogue::Store, hidden);
    }

    /// Applies the activation in place. After [`Mlp::c_fc`], the result equals that of [`Mlp::c_fc_act`] bit
    /// for bit.
    pub fn act(&self, pool: &ThreadPool, mut hidden: RowsMut) {
        for t in 0..hidden.len() {
            self.activation.apply(pool.isa(), hidden.row_mut(t));
        }
    }

    /// Applies the down-projection: `y = epilogue(hidden · W_proj + b_proj)`, `[n_tokens, n_embd]`.
    pub fn c_proj(&self, pool: &ThreadPool, hidden: Rows, epilogue: Epilogue, y: RowsMut) {
        linear(pool, hidden, self.c_proj, self.c_proj_bias, epilogue, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Elements;
    use crate::isa::Isa;
    use crate::linear::Matrix;
    use crate::testing::{assert_close, random_values};

    #[test]
    fn mlp_matches_reference_and_takes_its_steps_fused_or_not() {
        for (n, n_embd, n_inner) in [(1, 12, 40), (3, 16, 64), (40, 33, 50)] {
            let (fc, proj) = (random_values(1, n_embd * n_inner), random_values(2, n_embd * n_inner));
            let (fc_bias, proj_bias) = (random_values(3, n_inner), random_values(4, n_embd));
            let (x, before) = (random_values(5, n * n_embd), random_values(6, n * n_embd));
            let mlp = Mlp {
                c_fc: Matrix::new(Elements::F32(&fc), n_embd, n_inner).into(),
                c_fc_bias: &fc_bias,
                activation: Activation::GeluTanh,
                c_proj: Matrix::new(Elements::F32(&proj), n_inner, n_embd).into(),
                c_proj_bias: &proj_bias,
            };
            let added = x.chunks(n_embd).flat_map(|x| reference(x, &mlp));
            let expected: Vec<f32> = before.iter().zip(added).map(|(y, added)| y + added).collect();
            for isa in Isa::available() {
                let pool = ThreadPool::new(2, isa);
                let (mut hidden, mut y) = (vec![0.0; n * n_inner], before.clone());
                mlp.c_fc_act(&pool, Rows::dense(&x, n_embd), RowsMut::dense(&mut hidden, n_inner));
                let (rows, y_rows) = (Rows::dense(&hidden, n_inner), RowsMut::dense(&mut y, n_embd));
                mlp.c_proj(&pool, rows, Epilogue::Add, y_rows);
                assert_close(&y, &expected, 1e-5);

                let mut two_steps = vec![0.0; n * n_inner];
                mlp.c_fc(&pool, Rows::dense(&x, n_embd), RowsMut::dense(&mut two_steps, n_inner));
                assert_ne!(two_steps, hidden);
                mlp.act(&pool, RowsMut::dense(&mut two_steps, n_inner));
                assert_eq!(two_steps, hidden);
            }
        }
    }
}
