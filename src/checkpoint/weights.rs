//! The weights of a GPT-2 by name, each checked against the configuration before anything uses it.
//!
//! Two lineages exist. OpenAI's code, and Hugging Face after it, keep a linear layer's weight as Conv1D does,
//! `[in, out]`, and compute `x·W + b`. nanoGPT, minGPT and llm.c use PyTorch's `nn.Linear`, `[out, in]`, and `x·Wᵀ + b`.
//! The names are the same, so the shape of `c_attn` tells: it makes 3 vectors out of 1 and is never square.

use safetensors::Dtype as StoredDtype;

use super::config::{Config, PositionEmbedding};
use super::quantized::{LAYOUT, file_shapes};
use super::shards::{Shards, Stored};
use super::source::Bytes;
use super::tensor::{Dtype, Tensor};
use crate::error::{Error, Result};

/// Everything a GPT-2 learned.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Token embeddings, `[vocab_size, n_embd]`.
    pub wte: Tensor,
    /// Position embeddings, `[n_positions, n_embd]`; none where positions are sinusoidal.
    pub wpe: Option<Tensor>,
    /// The blocks, first to last.
    pub h: Vec<BlockWeights>,
    /// The layer norm after the last block.
    pub ln_f: LayerNormWeights,
    /// The head, `[vocab_size, n_embd]`, or quantized `[n_embd, vocab_size]`; none where it is tied to `wte`.
    pub lm_head: Option<Tensor>,
}

/// One block.
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// The layer norm before attention.
    pub ln_1: LayerNormWeights,
    /// Attention.
    pub attn: AttentionWeights,
    /// The layer norm before the MLP.
    pub ln_2: LayerNormWeights,
    /// The MLP.
    pub mlp: MlpWeights,
}

/// The linear layers of attention.
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// To queries, keys and values side by side, `[n_embd, 3 * n_embd]`.
    pub c_attn: LinearWeights,
    /// Back to the residual stream, `[n_embd, n_embd]`.
    pub c_proj: LinearWeights,
}

/// The linear layers of the MLP.
#[derive(Clone, Debug)]
pub struct MlpWeights {
    /// Up, `[n_embd, n_inner]`.
    pub c_fc: LinearWeights,
    /// Down, `[n_inner, n_embd]`.
    pub c_proj: LinearWeights,
}

/// `y = x·weight + bias`.
#[derive(Clone, Debug)]
pub struct LinearWeights {
    /// `[in, out]`, in any precision.
    pub weight: Tensor,
    /// `[out]`, always f32.
    pub bias: Tensor,
}

/// The scale and shift of a layer norm.
#[derive(Clone, Debug)]
pub struct LayerNormWeights {
    /// The scale, `[n_embd]`, always f32.
    pub weight: Tensor,
    /// The shift, `[n_embd]`, always f32.
    pub bias: Tensor,
}

impl Weights {
    /// Finds, checks and lays out every tensor `config` calls for. Tensors it does not call for, such as the buffers
    /// `attn.bias` and `attn.masked_bias`, are left alone.
    ///
    /// Sets `position_embedding_type` to `Learned` if the checkpoint carries a `wpe` after all.
    pub(super) fn load(shards: &Shards, config: &mut Config) -> Result<Weights> {
        let prefix = prefix(shards)?;
        let mut reader = Reader { shards, prefix, layout: Layout::Conv1d };
        reader.layout = reader.layout(config)?;
        let packed = matches!(reader.layout, Layout::Packed(_));

        if shards.contains(&reader.name("wpe.weight")) {
            config.position_embedding_type = PositionEmbedding::Learned;
        }
        let wpe = match config.position_embedding_type {
            PositionEmbedding::Learned => {
                Some(reader.tensor("wpe.weight", &[config.n_positions, config.n_embd])?)
            }
            PositionEmbedding::Sinusoidal if !config.n_embd.is_multiple_of(2) => {
                return Err(Error::Tensor {
                    file: shards.listing.clone(),
                    tensor: reader.name("wpe.weight"),
                    found: "no such tensor".into(),
                    expected: format!(
                        "it, since sinusoidal positions need an even n_embd and this one is {}",
                        config.n_embd
                    ),
                });
            }
            PositionEmbedding::Sinusoidal => None,
        };
        // The head stands beside the transformer, not within it.
        let head = format!("{}lm_head.weight", prefix.trim_end_matches("transformer."));
        let lm_head = match config.tie_word_embeddings {
            _ if packed => Some(reader.packed(&head, Dtype::Int8, config.n_embd, config.vocab_size)?),
            true => None,
            false => Some(reader.named(&head, &[config.vocab_size, config.n_embd])?),
        };
        Ok(Weights {
            wte: reader.tensor("wte.weight", &[config.vocab_size, config.n_embd])?,
            wpe,
            h: (0..config.n_layer).map(|layer| reader.block(layer, config)).collect::<Result<_>>()?,
            ln_f: reader.layer_norm("ln_f", config)?,
            lm_head,
        })
    }

    /// Every tensor, in the order the forward pass meets them.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        fn norm(norm: &LayerNormWeights) -> [&Tensor; 2] {
            [&norm.weight, &norm.bias]
        }
        fn linear(linear: &LinearWeights) -> [&Tensor; 2] {
            [&linear.weight, &linear.bias]
        }
        let blocks = self.h.iter().flat_map(|block| {
            [
                norm(&block.ln_1),
                linear(&block.attn.c_attn),
                linear(&block.attn.c_proj),
                norm(&block.ln_2),
                linear(&block.mlp.c_fc),
                linear(&block.mlp.c_proj),
            ]
        });
        [&self.wte]
            .into_iter()
            .chain(&self.wpe)
            .chain(blocks.flatten())
            .chain(norm(&self.ln_f))
            .chain(&self.lm_head)
    }
}

/// What stands before every name: nothing in OpenAI's files, `transformer.` in files saved with a head, `_orig_mod.`
/// in files saved from a compiled PyTorch module.
fn prefix(shards: &Shards) -> Result<&'static str> {
    let prefixes = ["", "transformer.", "_orig_mod.", "_orig_mod.transformer."];
    prefixes.into_iter().find(|prefix| shards.contains(&format!("{prefix}wte.weight"))).ok_or_else(|| {
        Error::Tensor {
            file: shards.listing.clone(),
            tensor: "wte.weight".into(),
            found: "no such tensor".into(),
            expected: "GPT-2's token embeddings, with or without the prefix transformer.".into(),
        }
    })
}

/// How the file keeps the weight of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `[in, out]`
    Conv1d,
    /// `[out, in]`
    Linear,
    /// Quantized, in the blocks the kernels take.
    Packed(Dtype),
}

struct Reader<'a> {
    shards: &'a Shards,
    prefix: &'static str,
    layout: Layout,
}

impl Reader<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Which lineage the checkpoint is of, by the shape of the first block's `c_attn`.
    fn layout(&self, config: &Config) -> Result<Layout> {
        let name = self.name("h.0.attn.c_attn.weight");
        for dtype in [Dtype::Int8, Dtype::Int4] {
            if let Some(stored) = self.shards.get(&format!("{name}.{}", dtype.name())) {
                return match stored.metadata.get(LAYOUT.0) {
                    Some(version) if version == LAYOUT.1 => Ok(Layout::Packed(dtype)),
                    found => Err(Error::Checkpoint {
                        file: stored.file.to_path_buf(),
                        problem: format!(
                            "found {} {} of quantized weights, expected {}: quantize the model again",
                            LAYOUT.0,
                            found.map_or("none", |version| version).escape_debug(),
                            LAYOUT.1
                        ),
                    }),
                };
            }
        }
        let (n_in, n_out) = (config.n_embd, 3 * config.n_embd);
        match self.shards.get(&name) {
            Some(stored) if stored.info.shape == [n_out, n_in] => Ok(Layout::Linear),
            Some(stored) if stored.info.shape != [n_in, n_out] => Err(Error::Tensor {
                file: stored.file.to_path_buf(),
                tensor: name,
                found: format!("shape {:?}", stored.info.shape),
                expected: format!("shape [{n_in}, {n_out}] (Conv1D) or [{n_out}, {n_in}] (nn.Linear)"),
            }),
            // Where it is missing, reading the block says so.
            _ => Ok(Layout::Conv1d),
        }
    }

    fn block(&self, layer: usize, config: &Config) -> Result<BlockWeights> {
        let (n_embd, n_inner) = (config.n_embd, config.n_inner);
        let name = |part: &str| format!("h.{layer}.{part}");
        Ok(BlockWeights {
            ln_1: self.layer_norm(&name("ln_1"), config)?,
            attn: AttentionWeights {
                c_attn: self.linear(&name("attn.c_attn"), n_embd, 3 * n_embd)?,
                c_proj: self.linear(&name("attn.c_proj"), n_embd, n_embd)?,
            },
            ln_2: self.layer_norm(&name("ln_2"), config)?,
            mlp: MlpWeights {
                c_fc: self.linear(&name("mlp.c_fc"), n_embd, n_inner)?,
                c_proj: self.linear(&name("mlp.c_proj"), n_inner, n_embd)?,
            },
        })
    }

    fn layer_norm(&self, name: &str, config: &Config) -> Result<LayerNormWeights> {
        Ok(LayerNormWeights {
            weight: self.vector(&format!("{name}.weight"), config.n_embd)?,
            bias: self.vector(&format!("{name}.bias"), config.n_embd)?,
        })
    }

    fn linear(&self, name: &str, n_in: usize, n_out: usize) -> Result<LinearWeights> {
        let weight = format!("{name}.weight");
        Ok(LinearWeights {
            weight: match self.layout {
                Layout::Conv1d => self.tensor(&weight, &[n_in, n_out])?,
                Layout::Linear => self.tensor(&weight, &[n_out, n_in])?.transposed(),
                Layout::Packed(dtype) => self.packed(&self.name(&weight), dtype, n_in, n_out)?,
            },
            bias: self.vector(&format!("{name}.bias"), n_out)?,
        })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        Ok(self.tensor(name, &[len])?.into_dtype(Dtype::F32))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.named(&self.name(name), shape)
    }

    fn named(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let stored = self.find(name, shape)?;
        let dtype = match stored.info.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::Bf16,
            _ => return Err(wrong_dtype(name, &stored, "F32, F16 or BF16")),
        };
        if stored.info.shape != shape {
            return Err(wrong_shape(name, &stored, shape));
        }
        Ok(Tensor::new(stored.source, stored.range(), dtype, shape.to_vec()))
    }

    /// A quantized matrix, `[in, out]`: its weights and its scales.
    fn packed(&self, name: &str, dtype: Dtype, n_in: usize, n_out: usize) -> Result<Tensor> {
        let [of_lines, of_scales] = file_shapes(dtype, n_in, n_out);
        let part = |ending: &str, dtype: StoredDtype, shape: &[usize]| {
            let name = format!("{name}.{ending}");
            let stored = self.find(&name, shape)?;
            if stored.info.dtype != dtype {
                return Err(wrong_dtype(&name, &stored, &dtype.to_string()));
            }
            if stored.info.shape != shape {
                return Err(wrong_shape(&name, &stored, shape));
            }
            Ok(stored)
        };
        let of_scale = if dtype == Dtype::Int4 { StoredDtype::F16 } else { StoredDtype::F32 };
        let lines = part(dtype.name(), StoredDtype::U8, &of_lines)?;
        let scales = part("scale", of_scale, &of_scales)?;
        let lines = Bytes::at(lines.source, lines.range(), 1);
        let scales = Bytes::at(scales.source, scales.range(), align_of::<f32>());
        Ok(Tensor::from_quantized(lines, scales, dtype, [n_in, n_out]))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        self.shards.get(name).ok_or_else(|| Error::Tensor {
            file: self.shards.listing.clone(),
            tensor: name.to_string(),
            found: "no such tensor".into(),
            expected: format!("shape {shape:?}"),
        })
    }
}

fn wrong_dtype(name: &str, stored: &Stored, expected: &str) -> Error {
    Error::Tensor {
        file: stored.file.to_path_buf(),
        tensor: name.to_string(),
        found: format!("dtype {}", stored.info.dtype),
        expected: expected.to_string(),
    }
}

fn wrong_shape(name: &str, stored: &Stored, expected: &[usize]) -> Error {
    Error::Tensor {
        file: stored.file.to_path_buf(),
        tensor: name.to_string(),
        found: format!("shape {:?}", stored.info.shape),
        expected: format!("shape {expected:?}"),
    }
}
