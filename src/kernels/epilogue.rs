//! What becomes of a sum once it is finished, while it is still in a register: bias, activation, residual.

use super::activation::Activation;
use super::simd::{LANES, Simd};

/// What becomes of a finished sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// `y = sum + bias`
    Store,
    /// `y = activation(sum + bias)`
    Activate(Activation),
    /// `y += sum + bias`: the residual connection.
    Add,
}

/// Adds the bias to up to sixteen finished sums and does with them what is to be done.
#[inline(always)]
pub(super) fn finish<S: Simd>(simd: S, sum: S::F32s, bias: &[f32], then: Then, y: &mut [f32]) {
    let biased = simd.add(sum, load(simd, bias));
    let out = match then {
        Then::Store => biased,
        Then::Activate(f) => f.of_lanes(simd, biased),
        Then::Add => simd.add(load(simd, y), biased),
    };
    match y.as_mut_array::<LANES>() {
        Some(whole) => simd.store(out, whole),
        None => simd.store_partial(out, y),
    }
}

/// Sixteen numbers or fewer.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F32s {
    match from.as_array::<LANES>() {
        Some(whole) => simd.load(whole),
        None => simd.load_partial(from),
    }
}
