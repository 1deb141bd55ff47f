//! Models of GPT-2's shapes with random weights: to measure speed, which does not depend on what a model has
//! learned, and to begin training with.

use super::write::{create_folder, write_file};
use super::{AlignedBuffer, Checkpoint, SINGLE_FILE};
use crate::kernels::parallel::*;
use crate::kernels::positions::sinusoidal;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The shape of a GPT-2 model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// The model's name.
    pub name: &'static str,
    /// The number of blocks.
    pub n_layer: usize,
    /// The width of the residual stream.
    pub n_embd: usize,
    /// Attention heads per block.
    pub n_head: usize,
    /// The context length in tokens.
    pub n_positions: usize,
    /// The size of the vocabulary.
    pub vocab_size: usize,
}

const GPT2: ModelShape =
    ModelShape { name: "gpt2", n_layer: 12, n_embd: 768, n_head: 12, n_positions: 1024, vocab_size: 50257 };

/// The four sizes that OpenAI published.
pub const GPT2_SHAPES: [ModelShape; 4] = [
    GPT2,
    ModelShape { name: "gpt2-medium", n_layer: 24, n_embd: 1024, n_head: 16, ..GPT2 },
    ModelShape { name: "gpt2-large", n_layer: 36, n_embd: 1280, n_head: 20, ..GPT2 },
    ModelShape { name: "gpt2-xl", n_layer: 48, n_embd: 1600, n_head: 25, ..GPT2 },
];

impl FromStr for ModelShape {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        GPT2_SHAPES.into_iter().find(|shape| shape.name == name).ok_or_else(|| {
            let names: Vec<_> = GPT2_SHAPES.iter().map(|shape| shape.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// The initial values of a tensor.
#[derive(Clone, Copy)]
enum Fill {
    /// Uniform, with [`STANDARD_DEVIATION`].
    Random,
    /// Sines and cosines of the position, with the same standard deviation.
    Sinusoidal,
    One,
    Zero,
}

/// The initialization of the matrices that a model for training and one for measuring differ in.
#[derive(Clone, Copy)]
struct Initialization {
    /// The matrices whose output adds to the residual stream.
    projections: Fill,
    /// The position embeddings.
    positions: Fill,
}

impl ModelShape {
    /// Creates a checkpoint of this shape in f32: random matrices, layer norm weights of 1, biases of 0.
    /// Deterministic.
    ///
    /// # Errors
    /// [`Error::System`] if there is not enough memory.
    pub fn random_checkpoint(&self) -> Result<Checkpoint> {
        let random = Initialization { projections: Fill::Random, positions: Fill::Random };
        let file = self.safetensors(random, 0)?;
        let mut checkpoint = Checkpoint::from_memory(self.config().to_string().as_bytes(), file)?;
        checkpoint.name = self.name.to_string();
        Ok(checkpoint)
    }

    /// The number of parameters.
    pub fn n_parameters(&self) -> usize {
        self.tensors(TRAINING).iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum()
    }

    /// Writes a model of this shape to a folder for training to begin with: random matrices, except that what
    /// adds to the residual stream is zero, so that every block begins as the identity (Zhang et al. 2019,
    /// "Fixup"), and that positions begin as sinusoids (Vaswani et al. 2017): a head then finds the previous
    /// token by one rotation for all positions, where random rows have to be learned one by one. The
    /// configuration names the `end_of_text` token; the other files are the tokenizer's.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::System`] if there is not enough memory.
    pub fn write_initial(
        &self,
        folder: &Path,
        seed: u64,
        end_of_text: Option<u32>,
        tokenizer_files: &[(PathBuf, Cow<[u8]>)],
    ) -> Result<()> {
        create_folder(folder)?;
        let mut config = self.config();
        let fields = json!({
            "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
            "n_ctx": self.n_positions,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "layer_norm_epsilon": 1e-5,
            "bos_token_id": end_of_text, "eos_token_id": end_of_text, "tie_word_embeddings": true,
            "torch_dtype": "float32",
        });
        if let (Value::Object(config), Value::Object(fields)) = (&mut config, fields) {
            config.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        write_file(&folder.join("config.json"), format!("{config:#}\n").as_bytes())?;
        for (path, content) in tokenizer_files {
            write_file(&folder.join(path.file_name().unwrap_or_default()), content)?;
        }
        write_file(&folder.join(SINGLE_FILE), &self.safetensors(TRAINING, seed)?)
    }

    fn safetensors(&self, initialization: Initialization, seed: u64) -> Result<AlignedBuffer> {
        let mut header = Map::new();
        let (mut end, mut fills) = (0, vec![]);
        for (name, shape, fill) in self.tensors(initialization) {
            let bytes = shape.iter().product::<usize>() * size_of::<f32>();
            let offsets = [end, end + bytes];
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}));
            fills.push((bytes, fill));
            end += bytes;
        }
        let header = Value::Object(header).to_string();

        // The format allows padding, which aligns the tensors to cache lines.
        let data = (8 + header.len()).next_multiple_of(ALIGNMENT);
        let mut file = AlignedBuffer::zeroed(data + end).map_err(|error| {
            let bytes = data + end;
            Error::system(format!("allocate {bytes} bytes for a {} model", self.name), error)
        })?;
        file[..8].copy_from_slice(&(data as u64 - 8).to_le_bytes());
        file[8..data].fill(b' ');
        file[8..8 + header.len()].copy_from_slice(header.as_bytes());

        let (mut rest, mut chunks) = (&mut file[data..], vec![]);
        for (bytes, fill) in fills {
            let tensor;
            (tensor, rest) = rest.split_at_mut(bytes);
            if matches!(fill, Fill::Sinusoidal) {
                let table = sinusoidal(self.n_positions, self.n_embd);
                // A sine has a standard deviation of 1 / √2.
                let rows = bytemuck::cast_slice_mut(tensor).iter_mut().zip(table);
                rows.for_each(|(value, wave): (&mut f32, f32)| {
                    *value = STANDARD_DEVIATION * 2f32.sqrt() * wave
                });
            }
            chunks.extend(tensor.chunks_mut(CHUNK).map(|chunk| (chunk, fill)));
        }
        chunks.into_par_iter().enumerate().for_each(|(i, (chunk, fill))| {
            fill_with(bytemuck::cast_slice_mut(chunk), fill, (seed << 32).wrapping_add(i as u64));
        });
        Ok(file)
    }

    fn config(&self) -> Value {
        let &ModelShape { n_layer, n_embd, n_head, n_positions, vocab_size, .. } = self;
        json!({
            "model_type": "gpt2", "n_layer": n_layer, "n_embd": n_embd, "n_head": n_head,
            "n_positions": n_positions, "vocab_size": vocab_size,
        })
    }

    /// Returns the name, shape and initial values of every tensor.
    fn tensors(&self, initialization: Initialization) -> Vec<(String, Vec<usize>, Fill)> {
        let n = self.n_embd;
        let mut tensors = vec![
            ("wte.weight".to_string(), vec![self.vocab_size, n], Fill::Random),
            ("wpe.weight".to_string(), vec![self.n_positions, n], initialization.positions),
        ];
        let norm = |tensors: &mut Vec<_>, name: String| {
            tensors.push((format!("{name}.weight"), vec![n], Fill::One));
            tensors.push((format!("{name}.bias"), vec![n], Fill::Zero));
        };
        for layer in 0..self.n_layer {
            norm(&mut tensors, format!("h.{layer}.ln_1"));
            norm(&mut tensors, format!("h.{layer}.ln_2"));
            let linears = [
                ("attn.c_attn", n, 3 * n),
                ("attn.c_proj", n, n),
                ("mlp.c_fc", n, 4 * n),
                ("mlp.c_proj", 4 * n, n),
            ];
            for (name, inputs, outputs) in linears {
                let fill = if name.ends_with("c_proj") { initialization.projections } else { Fill::Random };
                tensors.push((format!("h.{layer}.{name}.weight"), vec![inputs, outputs], fill));
                tensors.push((format!("h.{layer}.{name}.bias"), vec![outputs], Fill::Zero));
            }
        }
        norm(&mut tensors, "ln_f".into());
        tensors
    }
}

/// The weights that training begins with.
const TRAINING: Initialization = Initialization { projections: Fill::Zero, positions: Fill::Sinusoidal };
/// GPT-2's, of the initial matrices.
const STANDARD_DEVIATION: f32 = 0.02;
/// Bytes in a cache line.
const ALIGNMENT: usize = 64;
/// Bytes per task of a thread.
const CHUNK: usize = 1 << 16;

fn fill_with(values: &mut [f32], fill: Fill, seed: u64) {
    match fill {
        Fill::Zero | Fill::Sinusoidal => {} // as allocated, and filled already
        Fill::One => values.fill(1.0),
        Fill::Random => {
            // xorshift64 (Marsaglia 2003) from a well-mixed seed; a uniform value on ±√3 has standard
            // deviation 1.
            let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let scale = STANDARD_DEVIATION * 3f32.sqrt() / (1u64 << 31) as f32;
            for value in values {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *value = (state >> 32) as u32 as i32 as f32 * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: ModelShape =
        ModelShape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };

    #[test]
    fn random_weights_have_gpt2_standard_deviation() {
        let checkpoint = TINY.random_checkpoint().unwrap();
        let weights = checkpoint.weights.h[1].mlp.c_fc.weight.as_f32();
        assert_eq!(weights.len(), 32 * 128);
        let n = weights.len() as f32;
        let mean = weights.iter().sum::<f32>() / n;
        let deviation = (weights.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        assert!(mean.abs() < 0.002 && (deviation - 0.02).abs() < 0.001, "{mean} ± {deviation}");
    }

    #[test]
    fn training_begins_with_sinusoidal_positions_and_silent_projections() {
        let folder = tempfile::tempdir().unwrap();
        TINY.write_initial(folder.path(), 3, None, &[]).unwrap();
        let checkpoint = Checkpoint::from_folder(folder.path()).unwrap();
        let table = checkpoint.weights.wpe.as_ref().unwrap().as_f32();
        let mean_square = table.iter().map(|x| x * x).sum::<f32>() / table.len() as f32;
        assert!((mean_square.sqrt() - 0.02).abs() < 1e-5, "{mean_square}");
        // The product of two rows depends on their distance alone.
        let product = |i: usize, j: usize| {
            let rows = table[i * 32..][..32].iter().zip(&table[j * 32..][..32]);
            rows.map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((product(3, 5) - product(40, 42)).abs() < 1e-6 && product(3, 5) < product(3, 4));
        assert!(checkpoint.weights.h[1].mlp.c_proj.weight.as_f32().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn tensors_are_aligned_views() {
        let checkpoint = TINY.random_checkpoint().unwrap();
        for tensor in checkpoint.weights.tensors().filter(|tensor| tensor.len() % 16 == 0) {
            assert!(tensor.is_view());
            assert_eq!(tensor.as_f32().as_ptr().addr() % ALIGNMENT, 0);
        }
    }

    #[test]
    fn gpt2_shapes_have_published_parameter_counts() {
        let counts: Vec<usize> = GPT2_SHAPES.iter().map(ModelShape::n_parameters).collect();
        assert_eq!(counts, [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]);
    }
}
