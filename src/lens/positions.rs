//! Similarity of position embeddings. A position enters the model as a vector that is added to the token
//! embedding; it is learned in GPT-2 and computed from sines and cosines in the first transformer. The cosine
//! similarity of two positions:
//!
//! ```text
//! similarity(i, j) = (p[i] · p[j]) / (|p[i]| · |p[j]|)         from −1 to 1, and 1 for i = j
//! ```
//!
//! For sinusoidal embeddings (see [`sinusoidal`]) it depends only on the distance i − j. Learned embeddings
//! approach this with enough training data.

use crate::kernels::positions::sinusoidal;
use crate::model::Model;

/// Position embeddings, each normalized to length 1.
#[derive(Clone, Debug)]
pub struct PositionSimilarity {
    n_embd: usize,
    /// `[n_positions, n_embd]`
    rows: Vec<f64>,
}

impl PositionSimilarity {
    /// Normalizes the embeddings of a table `[n_positions, n_embd]`.
    pub fn new(table: &[f32], n_embd: usize) -> Self {
        let mut rows: Vec<f64> = table.iter().map(|&x| f64::from(x)).collect();
        for row in rows.chunks_mut(n_embd) {
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x /= length);
            }
        }
        Self { n_embd, rows }
    }

    /// The position embeddings of a model.
    pub fn from_model(model: &Model) -> Self {
        Self::new(&model.position_embeddings(), model.config().n_embd)
    }

    /// Sinusoidal position embeddings for a model of the same shape.
    pub fn sinusoidal(model: &Model) -> Self {
        let config = model.config();
        Self::new(&sinusoidal(config.n_positions, config.n_embd), config.n_embd)
    }

    /// The number of positions.
    pub fn len(&self) -> usize {
        self.rows.len() / self.n_embd
    }

    /// Whether there are no positions.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&self, position: usize) -> &[f64] {
        &self.rows[position * self.n_embd..][..self.n_embd]
    }

    /// The cosine similarity of two positions.
    ///
    /// # Panics
    /// Panics if a position is out of range.
    pub fn similarity(&self, i: usize, j: usize) -> f64 {
        self.row(i).iter().zip(self.row(j)).map(|(x, y)| x * y).sum()
    }

    /// The mean similarity of all pairs of the first `n` positions at a distance, which must be less than
    /// `n`.
    pub fn mean_at_distance(&self, n: usize, distance: usize) -> f64 {
        let pairs = n - distance;
        (0..pairs).map(|i| self.similarity(i, i + distance)).sum::<f64>() / pairs as f64
    }

    /// The similarity matrix of the first `n` positions, averaged down to `rows` × `columns` cells.
    pub fn heat_map(&self, n: usize, rows: usize, columns: usize) -> Vec<Vec<f64>> {
        // The mean of all dot products is the dot product of the means.
        let mean = |cell: usize, cells: usize| -> Vec<f64> {
            let (start, end) = (cell * n / cells, ((cell + 1) * n / cells).max(cell * n / cells + 1));
            let sum = |k: usize| (start..end).map(|i| self.row(i)[k]).sum::<f64>();
            (0..self.n_embd).map(|k| sum(k) / (end - start) as f64).collect()
        };
        let column_means: Vec<Vec<f64>> = (0..columns).map(|cell| mean(cell, columns)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum();
        (0..rows)
            .map(|cell| {
                let row_mean = mean(cell, rows);
                column_means.iter().map(|column_mean| dot(&row_mean, column_mean)).collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_map_cell_is_mean_of_its_similarities() {
        let table: Vec<f32> = (0..60).map(|i: u32| (i * 37 % 23) as f32 - 11.0).collect();
        let positions = PositionSimilarity::new(&table, 5);
        assert_eq!(positions.len(), 12);
        let map = positions.heat_map(10, 4, 3);
        let mean = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| {
            let n = (rows.len() * columns.len()) as f64;
            let sum: f64 = rows
                .flat_map(|i| columns.clone().map(move |j| (i, j)))
                .map(|(i, j)| positions.similarity(i, j))
                .sum();
            sum / n
        };
        assert!((map[0][0] - mean(0..2, 0..3)).abs() < 1e-12);
        assert!((map[3][1] - mean(7..10, 3..6)).abs() < 1e-12);
        assert!((positions.similarity(4, 4) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn sinusoidal_similarity_depends_only_on_distance() {
        let positions = PositionSimilarity::new(&sinusoidal(100, 32), 32);
        for distance in [1, 7, 40] {
            let mean = positions.mean_at_distance(100, distance);
            assert!((0..100 - distance).all(|i| (positions.similarity(i, i + distance) - mean).abs() < 1e-6));
        }
        assert!(positions.mean_at_distance(100, 1) > positions.mean_at_distance(100, 7));
    }
}
