//! Epilogues of linear layers: bias, activation and residual addition, fused with the store of the finished
//! sums instead of taking another pass over the outputs.

use super::activation::{Activation, activation};
use super::rows::{Rows, RowsMut};
use super::simd::{LANES, Simd};
use super::thread_pool::ThreadPool;

/// The elements of a chunk of work where an epilogue is applied by itself.
const CHUNK: usize = 1 << 13;

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

/// Applies the epilogue to sums that are finished but for it, `x` and `y` of `[n_tokens, out]`: the bits are
/// those of the fused form.
///
/// # Panics
/// If the shapes do not match.
pub fn apply(pool: &ThreadPool, x: Rows, epilogue: Epilogue, mut y: RowsMut) {
    if let Epilogue::Activate(function) = epilogue {
        return activation(pool, function, x, y);
    }
    let (n, width) = (x.len(), x.width());
    assert_eq!((n, width), (y.len(), y.width()), "x and y are [n_tokens, out]");
    let rows = (CHUNK / width.max(1)).max(1);
    let out = y.as_disjoint();
    pool.run(n.div_ceil(rows), |chunk| {
        for t in chunk * rows..n.min((chunk + 1) * rows) {
            // SAFETY: each row belongs to one chunk.
            let (x, y) = (x.row(t), unsafe { out.row_slice(t, 0, width) });
            match epilogue {
                Epilogue::Add => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
                _ => y.copy_from_slice(x),
            }
        }
    });
}

/// Loads up to sixteen elements; missing lanes are zero.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::F32s {
    match from.as_array::<LANES>() {
        Some(whole) => simd.load(whole),
        None => simd.load_partial(from),
    }
}
