//! Attention patterns as bytes, for pages: a weight has one byte, and only those that the causal mask leaves
//! are kept.
//!
//! A byte is 255 times the square root of the weight, which resolves small weights; 1 is a weight of
//! 0.000015.

use super::ActivationCache;

/// The patterns of all heads.
#[derive(Clone, Debug)]
pub struct PackedPatterns {
    n_tokens: usize,
    /// For each layer and head the rows, each up to the diagonal: `[n_layer, n_head, n * (n + 1) / 2]`.
    bytes: Vec<u8>,
}

impl PackedPatterns {
    /// Packs the patterns of a pass.
    pub fn new(activations: &ActivationCache) -> Self {
        let n_tokens = activations.len();
        let mut bytes = vec![];
        for (row, weights) in activations.patterns.rows().into_iter().enumerate() {
            let row = weights.iter().take(row % n_tokens + 1);
            bytes.extend(row.map(|weight| (255.0 * weight.max(0.0).sqrt()).round() as u8));
        }
        Self { n_tokens, bytes }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pattern of one head, counted over all layers: `[n * (n + 1) / 2]`.
    pub fn head(&self, index: usize) -> Option<&[u8]> {
        self.bytes.chunks(self.n_tokens * (self.n_tokens + 1) / 2).nth(index)
    }

    /// Every pattern as an image of `size` times `size` pixels, or of a pixel per weight if that is less. A
    /// pixel is the largest weight in its area, so that no column of a large pattern vanishes. Returns the
    /// images, `[n_layer, n_head, size, size]`, and their size.
    pub fn thumbnails(&self, size: usize) -> (Vec<u8>, usize) {
        let n = self.n_tokens;
        let size = size.clamp(1, n);
        let mut images = vec![];
        for head in self.bytes.chunks(n * (n + 1) / 2) {
            let mut image = vec![0; size * size];
            let mut weights = head.iter();
            for i in 0..n {
                for (j, &weight) in weights.by_ref().take(i + 1).enumerate() {
                    let pixel = &mut image[i * size / n * size + j * size / n];
                    *pixel = weight.max(*pixel);
                }
            }
            images.extend(image);
        }
        (images, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnail_keeps_the_largest_weight_of_each_area() {
        // Rows: 1; 2 3; 4 5 6; 7 8 9 10.
        let patterns = PackedPatterns { n_tokens: 4, bytes: (1..=10).chain(21..=30).collect() };
        assert_eq!(patterns.head(1).unwrap()[0], 21);
        assert!(patterns.head(2).is_none());
        let (images, size) = patterns.thumbnails(2);
        assert_eq!((size, &images[..]), (2, &[3, 0, 8, 10, 23, 0, 28, 30][..]));
        let (image, size) = patterns.thumbnails(99);
        assert_eq!((size, &image[..8]), (4, &[1, 0, 0, 0, 2, 3, 0, 0][..]));
    }
}
