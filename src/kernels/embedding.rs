//! Embedding: a token's id selects a row of a table, and that vector represents the token in the model.
//!
//! ```text
//! x[t] = wte[id[t]] + wpe[position[t]]
//! ```
//!
//! `wte` is `[vocab_size, n_embd]`. The lookup reads n_embd elements per token and takes no FLOPs.

use super::elements::Elements;
use super::linear::Matrix;

/// The formula: row `id` of the table, `[n_embd]`.
pub fn reference(table: Matrix, id: usize) -> Vec<f32> {
    (0..table.columns).map(|i| table.weight(id, i)).collect()
}

/// Copies row `index` of a `[_, width]` table to `row`, converted to f32.
pub fn copy_row(table: Elements, index: usize, row: &mut [f32]) {
    table.read(index * row.len(), row);
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn copied_row_is_that_of_reference_in_every_precision() {
        let table: Vec<f32> = (0..12).map(|i| i as f32 - 5.5).collect();
        let f16s: Vec<f16> = table.iter().map(|&x| f16::from_f32(x)).collect();
        let bf16s: Vec<bf16> = table.iter().map(|&x| bf16::from_f32(x)).collect();
        for elements in [Elements::F32(&table), Elements::F16(&f16s), Elements::Bf16(&bf16s)] {
            let mut row = [0.0; 4];
            copy_row(elements, 2, &mut row);
            assert_eq!(row, table[8..12]);
            assert_eq!(row[..], reference(Matrix::new(elements, 3, 4), 2));
        }
    }
}
