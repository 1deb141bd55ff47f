//! Position embedding: attention by itself treats tokens as a set, not a sequence. Adding a vector that
//! depends on the position tells the model their order.
//!
//! GPT-2 learns these vectors (`wpe`, `[n_positions, n_embd]`). "Attention Is All You Need" (Vaswani et al.
//! 2017, section 3.5) computes them instead:
//!
//! ```text
//! PE[pos, 2i]     = sin(pos / 10000^(2i / n_embd))
//! PE[pos, 2i + 1] = cos(pos / 10000^(2i / n_embd))
//! ```

use super::embedding;
use super::linear::Matrix;

/// The formula: the embedding `x` of a token, `[n_embd]`, plus row `position` of the table.
pub fn reference(x: &[f32], table: Matrix, position: usize) -> Vec<f32> {
    x.iter().zip(embedding::reference(table, position)).map(|(x, p)| x + p).collect()
}

/// Returns the sinusoidal table, `[n_positions, n_embd]`, computed in f64.
pub fn sinusoidal(n_positions: usize, n_embd: usize) -> Vec<f32> {
    let angle = |pos: usize, i: usize| {
        let exponent = (i / 2 * 2) as f64 / n_embd as f64;
        pos as f64 / libm::pow(10000.0, exponent)
    };
    (0..n_positions * n_embd)
        .map(|index| (index / n_embd, index % n_embd))
        .map(|(pos, i)| match i % 2 {
            0 => libm::sin(angle(pos, i)) as f32,
            _ => libm::cos(angle(pos, i)) as f32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Elements;

    #[test]
    fn sinusoidal_matches_paper() {
        let table = sinusoidal(3, 4);
        assert_eq!(table[..4], [0.0, 1.0, 0.0, 1.0]);
        let expected = [0.841_471, 0.540_302_3, 0.009_999_833, 0.999_95];
        for (found, expected) in table[4..8].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn reference_adds_table_row() {
        let table = [1.0, 2.0, 3.0, 4.0];
        let table = Matrix::new(Elements::F32(&table), 2, 2);
        assert_eq!(reference(&[10.0, 20.0], table, 1), [13.0, 24.0]);
    }
}
