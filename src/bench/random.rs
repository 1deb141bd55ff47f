//! Models of GPT-2's shapes with random weights, made in memory: speed does not depend on what a model has learnt.

use crate::checkpoint::{Checkpoint, Dtype};
use crate::kernels::elements::Element;
use crate::{Error, Result};
use half::{bf16, f16};
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

/// As safetensors spells it.
fn stored_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
    }
}

impl Shape {
    /// A checkpoint of this shape: random matrices, layer norms that scale by 1, biases of 0. The same every time.
    ///
    /// # Errors
    /// [`Error::Message`] where memory does not suffice.
    pub fn random(&self, dtype: Dtype) -> Result<Checkpoint> {
        let mut header = Map::new();
        let (mut end, mut parts) = (0, vec![]);
        for (name, shape, fill) in self.tensors() {
            let bytes = shape.iter().product::<usize>() * dtype.bytes();
            let offsets = [end, end + bytes];
            header
                .insert(name, json!({"dtype": stored_name(dtype), "shape": shape, "data_offsets": offsets}));
            parts.push((bytes, fill));
            end += bytes;
        }
        let header = Value::Object(header).to_string();

        let room = 8 + header.len() + ALIGNMENT + end;
        let mut file: Vec<u8> = Vec::new();
        file.try_reserve_exact(room).map_err(|_| {
            Error::Message(format!("no {room} bytes of memory for a model of shape {}", self.name))
        })?;
        // Padding is allowed, and puts the tensors on cache lines wherever the buffer happens to be.
        let start = (file.as_ptr() as usize + 8 + header.len()).next_multiple_of(ALIGNMENT);
        let padded = start - file.as_ptr() as usize - 8;
        file.extend((padded as u64).to_le_bytes());
        file.extend(header.as_bytes());
        file.resize(8 + padded, b' ');
        file.resize(8 + padded + end, 0);

        let (mut rest, mut pieces) = (&mut file[8 + padded..], vec![]);
        for (bytes, fill) in parts {
            let tensor;
            (tensor, rest) = rest.split_at_mut(bytes);
            pieces.extend(tensor.chunks_mut(PIECE).map(|piece| (piece, fill)));
        }
        pieces.into_par_iter().enumerate().for_each(|(seed, (piece, fill))| match dtype {
            Dtype::F32 => fill_with::<f32>(bytemuck::cast_slice_mut(piece), fill, seed as u64),
            Dtype::F16 => fill_with::<f16>(bytemuck::cast_slice_mut(piece), fill, seed as u64),
            Dtype::Bf16 => fill_with::<bf16>(bytemuck::cast_slice_mut(piece), fill, seed as u64),
        });
        let mut checkpoint = Checkpoint::from_bytes(self.config().to_string().as_bytes(), file)?;
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

fn fill_with<E: Element>(numbers: &mut [E], fill: Fill, seed: u64) {
    match fill {
        Fill::Zero => {} // as it is
        Fill::One => numbers.fill(E::from_f32(1.0)),
        Fill::Random => {
            // xorshift64 (Marsaglia 2003) from a well-mixed start; a uniform number on ±√3 has standard deviation 1.
            let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let scale = 0.02 * 3f32.sqrt() / (1u64 << 31) as f32;
            for number in numbers {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *number = E::from_f32((state >> 32) as u32 as i32 as f32 * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::elements::Elements;

    const TINY: Shape =
        Shape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };

    #[test]
    fn random_weights_have_the_spread_they_should_in_every_precision() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let checkpoint = TINY.random(dtype).unwrap();
            assert_eq!(checkpoint.weights.wte.dtype(), dtype);
            let numbers: Vec<f32> = match checkpoint.weights.h[1].mlp.c_fc.weight.elements() {
                Elements::F32(e) => e.to_vec(),
                Elements::F16(e) => e.iter().map(|x| x.to_f32()).collect(),
                Elements::Bf16(e) => e.iter().map(|x| x.to_f32()).collect(),
            };
            assert_eq!(numbers.len(), 32 * 128);
            let n = numbers.len() as f32;
            let mean = numbers.iter().sum::<f32>() / n;
            let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
            assert!(
                mean.abs() < 0.002 && (deviation - 0.02).abs() < 0.001,
                "{dtype:?}: {mean} ± {deviation}"
            );
        }
    }

    #[test]
    fn matrices_lie_on_cache_lines_and_nothing_is_copied_but_vectors() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let checkpoint = TINY.random(dtype).unwrap();
            for tensor in checkpoint.weights.tensors().filter(|tensor| tensor.shape().len() == 2) {
                let address = match tensor.elements() {
                    Elements::F32(e) => e.as_ptr() as usize,
                    Elements::F16(e) => e.as_ptr() as usize,
                    Elements::Bf16(e) => e.as_ptr() as usize,
                };
                assert!(tensor.is_view());
                assert_eq!(address % ALIGNMENT, 0);
            }
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
