//! The partition of k, the summation index, into K-blocks.
//!
//! A K-block's weights, `[KC, out]`, are contiguous in memory. Threads that process different K-blocks read
//! whole rows; if they split the columns instead, each would read a few kilobytes of every row, too short for
//! hardware prefetching.

use super::LANES;
use std::ops::Range;

/// The maximum length of a K-block.
const MAX_KC: usize = 512;

/// Returns the K-blocks of `inputs` inputs in order. All have the same length, a multiple of sixteen, except
/// for the last, which may be shorter. Their number is even where the inputs suffice, since thread counts
/// usually are.
pub(super) fn k_blocks(inputs: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let kc = kc(inputs);
    (0..inputs.div_ceil(kc)).map(move |i| i * kc..inputs.min((i + 1) * kc))
}

fn kc(inputs: usize) -> usize {
    let blocks = inputs.div_ceil(MAX_KC).next_multiple_of(2).max(2);
    inputs.div_ceil(blocks).next_multiple_of(LANES).max(LANES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_blocks_cover_all_inputs_in_order() {
        for inputs in 0..3000 {
            let mut next = 0;
            for block in k_blocks(inputs) {
                assert_eq!(block.start, next);
                assert!(block.start < block.end && block.len() <= MAX_KC);
                next = block.end;
            }
            assert_eq!(next, inputs);
        }
    }

    #[test]
    fn gpt2_layers_have_k_blocks_of_equal_length() {
        for (inputs, n, kc) in [(768, 2, 384), (1024, 2, 512), (1280, 4, 320), (1600, 4, 400), (3072, 6, 512)]
        {
            let lengths: Vec<usize> = k_blocks(inputs).map(|block| block.len()).collect();
            assert_eq!(lengths, vec![kc; n]);
        }
    }
}
