//! Where a sum over the inputs is cut.
//!
//! A segment's weights, `[n, out]`, lie in memory without a gap: a thread that takes one reads the longest possible
//! piece front to back, which is what memory does best. (Threads that share the columns of every row instead read
//! pieces of a few kilobytes and stop short of what the hardware has already fetched for them: measured, a tenth less
//! where the cores share their last cache, a third less where they do not.)

use super::LANES;
use std::ops::Range;

/// The most inputs of a segment.
const MOST: usize = 512;

/// The segments of `inputs` inputs, in order: an even number of equal length, as near as whole vectors allow, because
/// threads come in even numbers too.
pub(super) fn segments(inputs: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let length = length(inputs);
    (0..inputs.div_ceil(length)).map(move |i| i * length..inputs.min((i + 1) * length))
}

fn length(inputs: usize) -> usize {
    let wanted = inputs.div_ceil(MOST).next_multiple_of(2).max(2);
    inputs.div_ceil(wanted).next_multiple_of(LANES).max(LANES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_one_another_to_the_end() {
        for inputs in 0..3000 {
            let mut next = 0;
            for segment in segments(inputs) {
                assert_eq!(segment.start, next);
                assert!(segment.start < segment.end && segment.len() <= MOST);
                next = segment.end;
            }
            assert_eq!(next, inputs);
        }
    }

    #[test]
    fn gpt2s_layers_have_equal_segments() {
        for (inputs, n, length) in
            [(768, 2, 384), (1024, 2, 512), (1280, 4, 320), (1600, 4, 400), (3072, 6, 512)]
        {
            let lengths: Vec<usize> = segments(inputs).map(|segment| segment.len()).collect();
            assert_eq!(lengths, vec![length; n]);
        }
    }
}
