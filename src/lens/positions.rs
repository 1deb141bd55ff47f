//! How alike are positions? A token's position enters the model as a row that is added to it, learned in GPT-2, computed
//! from sines and cosines in the first transformer. Both tell a position from others by how alike their rows are:
//!
//! ```text
//! similarity(i, j) = (p[i] · p[j]) / (|p[i]| · |p[j]|)         from −1 to 1, and 1 for i = j
//! ```
//!
//! Of the sinusoidal rows ([`sinusoidal`], where the formula stands) it depends on the distance i − j alone; learned
//! rows come near that by themselves, where there was text enough to learn from.

use crate::kernels::positions::sinusoidal;
use crate::model::Model;

/// The rows of a position table, each of length 1.
#[derive(Clone, Debug)]
pub struct PositionSimilarity {
    n_embd: usize,
    /// `[n_positions, n_embd]`
    rows: Vec<f64>,
}

impl PositionSimilarity {
    /// A table `[n_positions, n_embd]`.
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

    /// The table a model adds.
    pub fn from_model(model: &Model) -> Self {
        Self::new(&model.position_embeddings(), model.config().n_embd)
    }

    /// The table the formula makes for a model of the same shape.
    pub fn sinusoidal(model: &Model) -> Self {
        let config = model.config();
        Self::new(&sinusoidal(config.n_positions, config.n_embd), config.n_embd)
    }

    /// How many positions.
    pub fn len(&self) -> usize {
        self.rows.len() / self.n_embd
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&self, position: usize) -> &[f64] {
        &self.rows[position * self.n_embd..][..self.n_embd]
    }

    /// How alike two positions are.
    ///
    /// # Panics
    /// For a position that is not there.
    pub fn similarity(&self, i: usize, j: usize) -> f64 {
        self.row(i).iter().zip(self.row(j)).map(|(x, y)| x * y).sum()
    }

    /// How alike positions are that are so far apart, in the mean over the first `n`; `distance` is below `n`.
    pub fn mean_at_distance(&self, n: usize, distance: usize) -> f64 {
        let pairs = n - distance;
        (0..pairs).map(|i| self.similarity(i, i + distance)).sum::<f64>() / pairs as f64
    }

    /// The similarities of the first `n` positions in `rows · columns` fields of equal size, each the mean of its own.
    pub fn map(&self, n: usize, rows: usize, columns: usize) -> Vec<Vec<f64>> {
        // The mean of products is the product of the means of the rows.
        let mean = |field: usize, fields: usize| -> Vec<f64> {
            let (start, end) = (field * n / fields, ((field + 1) * n / fields).max(field * n / fields + 1));
            let sum = |k: usize| (start..end).map(|i| self.row(i)[k]).sum::<f64>();
            (0..self.n_embd).map(|k| sum(k) / (end - start) as f64).collect()
        };
        let across: Vec<Vec<f64>> = (0..columns).map(|field| mean(field, columns)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum();
        (0..rows)
            .map(|field| {
                let down = mean(field, rows);
                across.iter().map(|across| dot(&down, across)).collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_mean_of_its_similarities() {
        let table: Vec<f32> = (0..60).map(|i: u32| (i * 37 % 23) as f32 - 11.0).collect();
        let positions = PositionSimilarity::new(&table, 5);
        assert_eq!(positions.len(), 12);
        let map = positions.map(10, 4, 3);
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
    fn the_formulas_similarity_depends_on_the_distance_alone() {
        let positions = PositionSimilarity::new(&sinusoidal(100, 32), 32);
        for distance in [1, 7, 40] {
            let mean = positions.mean_at_distance(100, distance);
            assert!((0..100 - distance).all(|i| (positions.similarity(i, i + distance) - mean).abs() < 1e-6));
        }
        assert!(positions.mean_at_distance(100, 1) > positions.mean_at_distance(100, 7));
    }
}
