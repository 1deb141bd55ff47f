//! MLP: after attention has gathered information from other tokens, the MLP processes each token by itself.
//! It projects the vector up to four times its width, applies an activation, and projects it down again.
//!
//! ```text
//! y += activation(x · W_fc + b_fc) · W_proj + b_proj
//! ```
//!
//! `W_fc` is `[n_embd, n_inner]`, `W_proj` is `[n_inner, n_embd]`: two thirds of a block's weights and FLOPs.
//! The fast form is two [linear layers](WeightMatrix::linear): the activation is the epilogue of the first,
//! the residual addition that of the second.

use super::activation::Activation;
use super::formats::WeightMatrix;

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
    let hidden = mlp.c_fc.reference(x, mlp.c_fc_bias);
    let hidden: Vec<f32> = hidden.into_iter().map(|x| mlp.activation.reference(x)).collect();
    mlp.c_proj.reference(&hidden, mlp.c_proj_bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epilogue::Epilogue;
    use crate::formats::Precision;
    use crate::isa::Isa;
    use crate::rows::{Rows, RowsMut};
    use crate::testing::{assert_close, random_values};
    use crate::thread_pool::ThreadPool;

    fn matrix(weights: &[f32], rows: usize, columns: usize) -> WeightMatrix<'_> {
        let weights = bytemuck::cast_slice(weights);
        WeightMatrix { precision: Precision::F32, weights, scales: &[], rows, columns }
    }

    #[test]
    fn two_linear_layers_match_reference_with_epilogues_fused_or_not() {
        for (n, n_embd, n_inner) in [(1, 12, 40), (3, 16, 64), (40, 33, 50)] {
            let (fc, proj) = (random_values(1, n_embd * n_inner), random_values(2, n_embd * n_inner));
            let (fc_bias, proj_bias) = (random_values(3, n_inner), random_values(4, n_embd));
            let (x, before) = (random_values(5, n * n_embd), random_values(6, n * n_embd));
            let mlp = Mlp {
                c_fc: matrix(&fc, n_embd, n_inner),
                c_fc_bias: &fc_bias,
                activation: Activation::GeluTanh,
                c_proj: matrix(&proj, n_inner, n_embd),
                c_proj_bias: &proj_bias,
            };
            let added = x.chunks(n_embd).flat_map(|x| reference(x, &mlp));
            let expected: Vec<f32> = before.iter().zip(added).map(|(y, added)| y + added).collect();
            for isa in Isa::available() {
                let pool = ThreadPool::new(2, isa);
                let c_fc = |epilogue| {
                    let mut hidden = vec![0.0; n * n_inner];
                    let (x, y) = (Rows::dense(&x, n_embd), RowsMut::dense(&mut hidden, n_inner));
                    mlp.c_fc.linear(&pool, x, &fc_bias, epilogue, y);
                    hidden
                };
                let (hidden, mut y) = (c_fc(Epilogue::Activate(mlp.activation)), before.clone());
                let (x, sum) = (Rows::dense(&hidden, n_inner), RowsMut::dense(&mut y, n_embd));
                mlp.c_proj.linear(&pool, x, &proj_bias, Epilogue::Add, sum);
                assert_close(&y, &expected, 1e-5);

                let mut two_steps = c_fc(Epilogue::Store);
                assert_ne!(two_steps, hidden);
                two_steps.chunks_mut(n_inner).for_each(|row| mlp.activation.apply(isa, row));
                assert_eq!(two_steps, hidden);
            }
        }
    }
}
