//! Models of GPT-2's shapes with random weights, made in memory: speed does not depend on what a model has learnt.

use crate::checkpoint::{AlignedBuffer, Checkpoint};
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// The sizes of a GPT-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// Blocks.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Heads of a block.
    pub n_head: usize,
    /// Tokens of context.
    pub n_positions: usize,
    /// Tokens the model knows.
    pub vocab_size: usize,
}

const GPT2: Shape =
    Shape { name: "gpt2", n_layer: 12, n_embd: 768, n_head: 12, n_positions: 1024, vocab_size: 50257 };

/// The four sizes OpenAI published.
pub const SHAPES: [Shape; 4] = [
    GPT2,
    Shape { name: "gpt2-medium", n_layer: 24, n_embd: 1024, n_head: 16, ..GPT2 },
    Shape { name: "gpt2-large", n_layer: 36, n_embd: 1280, n_head: 20, ..GPT2 },
    Shape { name: "gpt2-xl", n_layer: 48, n_embd: 1600, n_head: 25, ..GPT2 },
];

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        SHAPES.into_iter().find(|shape| shape.name == name).ok_or_else(|| {
            let names: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// What a tensor is filled with.
#[derive(Clone, Copy)]
enum Fill {
    /// Uniform with GPT-2's initial standard deviation, 0.02.
    Random,
    One,
    Zero,
}

impl Shape {
    /// A checkpoint of this shape in f32: random matrices, layer norms that scale by 1, biases of 0. The same every time.
    ///
    /// # Errors
    /// [`Error::Message`] where memory does not suffice.
    pub fn random(&self) -> Result<Checkpoint> {
        let mut header = Map::new();
        let (mut end, mut parts) = (0, vec![]);
        for (name, shape, fill) in self.tensors() {
            let bytes = shape.iter().product::<usize>() * size_of::<f32>();
            let offsets = [end, end + bytes];
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
            parts.push((bytes, fill));
            end += bytes;
        }
        let header = Value::Object(header).to_string();

        // Padding is allowed, and puts the tensors on cache lines.
        let data = (8 + header.len()).next_multiple_of(ALIGNMENT);
        let mut file = AlignedBuffer::zeroed(data + end).map_err(|error| {
            Error::Message(format!("no {} bytes for a model of shape {}: {error}", data + end, self.name))
        })?;
        file[..8].copy_from_slice(&(data as u64 - 8).to_le_bytes());
        file[8..data].fill(b' ');
        file[8..8 + header.len()].copy_from_slice(header.as_bytes());

        let (mut rest, mut pieces) = (&mut file[data..], vec![]);
        for (bytes, fill) in parts {
            let tensor;
            (tensor, rest) = rest.split_at_mut(bytes);
            pieces.extend(tensor.chunks_mut(PIECE).map(|piece| (piece, fill)));
        }
        pieces
            .into_par_iter()
            .enumerate()
            .for_each(|(seed, (piece, fill))| fill_with(bytemuck::cast_slice_mut(piece), fill, seed as u64));
        let mut checkpoint = Checkpoint::from_memory(self.config().to_string().as_bytes(), file)?;
        checkpoint.name = self.name.to_string();
        Ok(checkpoint)
    }

    fn config(&self) -> Value {
        let &Shape { n_layer, n_embd, n_head, n_positions, vocab_size, .. } = self;
        json!({
            "model_type": "gpt2", "n_layer": n_layer, "n_embd": n_embd, "n_head": n_head,
            "n_positions": n_positions, "vocab_size": vocab_size,
        })
    }

    /// Every tensor: name, shape, content.
    fn tensors(&self) -> Vec<(String, Vec<usize>, Fill)> {
        let n = self.n_embd;
        let mut all = vec![
            ("wte.weight".to_string(), vec![self.vocab_size, n], Fill::Random),
            ("wpe.weight".to_string(), vec![self.n_positions, n], Fill::Random),
        ];
        let norm = |all: &mut Vec<_>, name: String| {
            all.push((format!("{name}.weight"), vec![n], Fill::One));
            all.push((format!("{name}.bias"), vec![n], Fill::Zero));
        };
        for layer in 0..self.n_layer {
            norm(&mut all, format!("h.{layer}.ln_1"));
            norm(&mut all, format!("h.{layer}.ln_2"));
            let linears = [
                ("attn.c_attn", n, 3 * n),
                ("attn.c_proj", n, n),
                ("mlp.c_fc", n, 4 * n),
                ("mlp.c_proj", 4 * n, n),
            ];
            for (name, inputs, outputs) in linears {
                all.push((format!("h.{layer}.{name}.weight"), vec![inputs, outputs], Fill::Random));
                all.push((format!("h.{layer}.{name}.bias"), vec![outputs], Fill::Zero));
            }
        }
        norm(&mut all, "ln_f".into());
        all
    }
}

/// Bytes of a cache line.
const ALIGNMENT: usize = 64;
/// Bytes that one thread fills at a time.
const PIECE: usize = 1 << 16;

fn fill_with(numbers: &mut [f32], fill: Fill, seed: u64) {
    match fill {
        Fill::Zero => {} // as it is
        Fill::One => numbers.fill(1.0),
        Fill::Random => {
            // xorshift64 (Marsaglia 2003) from a well-mixed start; a uniform number on ±√3 has standard deviation 1.
            let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let scale = 0.02 * 3f32.sqrt() / (1u64 << 31) as f32;
            for number in numbers {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *number = (state >> 32) as u32 as i32 as f32 * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };

    #[test]
    fn random_weights_have_the_spread_they_should() {
        let checkpoint = TINY.random().unwrap();
        let numbers = checkpoint.weights.h[1].mlp.c_fc.weight.as_f32();
        assert_eq!(numbers.len(), 32 * 128);
        let n = numbers.len() as f32;
        let mean = numbers.iter().sum::<f32>() / n;
        let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        assert!(mean.abs() < 0.002 && (deviation - 0.02).abs() < 0.001, "{mean} ± {deviation}");
    }

    #[test]
    fn tensors_lie_on_cache_lines_and_nothing_is_copied() {
        let checkpoint = TINY.random().unwrap();
        for tensor in checkpoint.weights.tensors().filter(|tensor| tensor.len() % 16 == 0) {
            assert!(tensor.is_view());
            assert_eq!(tensor.as_f32().as_ptr().addr() % ALIGNMENT, 0);
        }
    }

    #[test]
    fn the_published_sizes_have_as_many_parameters_as_published() {
        let parameters = |shape: &Shape| -> usize {
            shape.tensors().iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum()
        };
        let all: Vec<usize> = SHAPES.iter().map(parameters).collect();
        assert_eq!(all, [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]);
    }
}
