//! Epilogues of linear layers: bias, activation and residual addition, fused with the store of the finished
//! sums instead of taking another pass over the outputs.

use super::activation::Activation;
use super::simd::{LANES, Simd};

/// The operation applied to a finished accumulator `acc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `y = acc + bias`
    Store,
    /// `y = activation(acc + bias)`
    Activate(Activation),
    /// `y += acc + bias`, the residual connection.
    Add,
}

/// Applies the epilogue to a vector of at most sixteen accumulators and writes the result to `y`.
#[inline(always)]
pub(super) fn apply_epilogue<S: Simd>(
    simd: S,
    acc: S::F32s,
    bias: &[f32],
    epilogue: Epilogue,
    y: &mut [f32],
) {
    let biased = simd.add(acc, load(simd, bias));
    let out = match epilogue {
        Epilogue::Store => biased,
        Epilogue::Activate(f) => f.apply_lanes(simd, biased),
        Epilogue::Add => simd.add(load(simd, y), biased),
    };
    match y.as_mut_array::<LANES>() {
        Some(whole) => simd.store(out, whole),
        None => simd.store_partial(out, y),
    }
}

/// Loads up to sixteen elements; missing lanes are zero.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F32s {
    match from.as_array::<LANES>() {
        Some(whole) => simd.load(whole),
        None => simd.load_partial(from),
    }
}
