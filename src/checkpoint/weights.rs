//! The weights of a GPT-2 by name, each validated against the configuration.
//!
//! There are two layouts of linear layers. OpenAI's code and Hugging Face store a Conv1D weight, `[in, out]`,
//! and compute `x·W + b`. nanoGPT, minGPT and llm.c use PyTorch's `nn.Linear`, `[out, in]`, and `x·Wᵀ + b`.
//! The tensor names are the same, so the layout is detected from the shape of `c_attn`, `n_embd` by `3 *
//! n_embd`, which is never square.

use safetensors::Dtype as StoredDtype;
use safetensors::tensor::TensorInfo;

use super::config::{Config, ConfigFile, InferredSizes, PositionEmbedding};
use super::quantized::LAYOUT;
use super::shards::{Shards, TensorEntry};
use super::source::Bytes;
use super::tensor::{Origin, Tensor};
use crate::error::{Error, Result};
use crate::kernels::formats::Precision;

/// The weights of a GPT-2.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Token embeddings, `[vocab_size, n_embd]`.
    pub wte: Tensor,
    /// Position embeddings, `[n_positions, n_embd]`; none if positions are sinusoidal.
    pub wpe: Option<Tensor>,
    /// The blocks, first to last.
    pub h: Vec<BlockWeights>,
    /// The layer norm after the last block.
    pub ln_f: LayerNormWeights,
    /// The LM head, `[vocab_size, n_embd]`, or quantized `[n_embd, vocab_size]`; none if it is tied to `wte`.
    pub lm_head: Option<Tensor>,
}

/// The weights of one block.
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
    /// The projection to concatenated queries, keys and values, `[n_embd, 3 * n_embd]`.
    pub c_attn: LinearWeights,
    /// The output projection to the residual stream, `[n_embd, n_embd]`.
    pub c_proj: LinearWeights,
}

/// The linear layers of the MLP.
#[derive(Clone, Debug)]
pub struct MlpWeights {
    /// The up-projection, `[n_embd, n_inner]`.
    pub c_fc: LinearWeights,
    /// The down-projection, `[n_inner, n_embd]`.
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
    /// Loads and validates every tensor that the configuration requires, and adds to `notes` if it shows less
    /// than the tensors. Other tensors, such as the buffers `attn.bias` and `attn.masked_bias`, are ignored.
    ///
    /// The tensors decide `position_embedding_type`, which is `Learned` if there is a `wpe`, and
    /// `tie_word_embeddings` if there is an LM head.
    pub(super) fn load(
        shards: &Shards,
        config: ConfigFile,
        notes: &mut Vec<String>,
    ) -> Result<(Config, Weights)> {
        let prefix = prefix(shards)?;
        let mut loader = Loader { shards, prefix, layout: Layout::Conv1d };
        // The LM head is outside the `transformer.` prefix.
        let lm_head_name = format!("{}lm_head.weight", prefix.trim_end_matches("transformer."));
        let wte_name = Some(loader.name("wte.weight")).filter(|name| shards.contains(name));
        // Of two names of one tensor, safetensors' `save_model` keeps the first in the alphabet.
        let wte_name = wte_name.unwrap_or_else(|| lm_head_name.clone());
        let mut config = config.complete(loader.sizes(&wte_name))?;
        let stored_layers = loader.stored_layers();
        if stored_layers > config.n_layer {
            notes.push(format!(
                "{}: found {stored_layers} layers, but n_layer is {}: the others are not used",
                shards.index_path.display(),
                config.n_layer
            ));
        }
        loader.layout = loader.layout(&config)?;

        if shards.contains(&loader.name("wpe.weight")) {
            config.position_embedding_type = PositionEmbedding::Learned;
        }
        let wpe = match config.position_embedding_type {
            PositionEmbedding::Learned => {
                Some(loader.tensor("wpe.weight", &[config.n_positions, config.n_embd])?)
            }
            PositionEmbedding::Sinusoidal if !config.n_embd.is_multiple_of(2) => {
                return Err(Error::Tensor {
                    file: shards.index_path.clone(),
                    tensor: loader.name("wpe.weight"),
                    found: "no such tensor".into(),
                    expected: format!(
                        "position embeddings, since sinusoidal ones require an even n_embd and it is {}",
                        config.n_embd
                    ),
                });
            }
            PositionEmbedding::Sinusoidal => None,
        };
        let embeddings = |name: &str| loader.tensor_by_full_name(name, &[config.vocab_size, config.n_embd]);
        let wte = embeddings(&wte_name)?;
        let lm_head = if let Layout::Packed(precision) = loader.layout {
            let shape = [config.n_embd, config.vocab_size];
            Some(loader.stored(&lm_head_name, precision.lm_head(), &shape)?)
        } else if wte_name == lm_head_name || config.tie_word_embeddings && !shards.contains(&lm_head_name) {
            None
        } else {
            Some(embeddings(&lm_head_name)?).filter(|lm_head| !lm_head.has_same_bits(&wte))
        };
        if !matches!(loader.layout, Layout::Packed(_)) {
            if lm_head.is_some() && config.tie_word_embeddings {
                notes.push(format!(
                    "{}: {wte_name} and {lm_head_name} differ, although tie_word_embeddings is true: \
                     both are used, as transformers 5 does",
                    shards.index_path.display()
                ));
            }
            config.tie_word_embeddings = lm_head.is_none();
        }
        let weights = Weights {
            wte,
            wpe,
            h: (0..config.n_layer).map(|layer| loader.block(layer, &config)).collect::<Result<_>>()?,
            ln_f: loader.layer_norm("ln_f", &config)?,
            lm_head,
        };
        Ok((config, weights))
    }

    /// All tensors by the names that transformers gives them, in the order of the forward pass.
    pub(super) fn named(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![("transformer.wte.weight".to_string(), self.wte.clone())];
        all.extend(self.wpe.iter().map(|wpe| ("transformer.wpe.weight".to_string(), wpe.clone())));
        let mut layer = |name: String, weight: &Tensor, bias: &Tensor| {
            all.push((format!("transformer.{name}.weight"), weight.clone()));
            all.push((format!("transformer.{name}.bias"), bias.clone()));
        };
        for (i, block) in self.h.iter().enumerate() {
            let BlockWeights { ln_1, attn, ln_2, mlp } = block;
            layer(format!("h.{i}.ln_1"), &ln_1.weight, &ln_1.bias);
            layer(format!("h.{i}.attn.c_attn"), &attn.c_attn.weight, &attn.c_attn.bias);
            layer(format!("h.{i}.attn.c_proj"), &attn.c_proj.weight, &attn.c_proj.bias);
            layer(format!("h.{i}.ln_2"), &ln_2.weight, &ln_2.bias);
            layer(format!("h.{i}.mlp.c_fc"), &mlp.c_fc.weight, &mlp.c_fc.bias);
            layer(format!("h.{i}.mlp.c_proj"), &mlp.c_proj.weight, &mlp.c_proj.bias);
        }
        layer("ln_f".into(), &self.ln_f.weight, &self.ln_f.bias);
        all.extend(self.lm_head.iter().map(|head| ("lm_head.weight".to_string(), head.clone())));
        all
    }

    /// All tensors, in the order in which the forward pass uses them.
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

/// The prefix of all tensor names: empty in OpenAI's files, `transformer.` in files saved with an LM head,
/// `_orig_mod.` in files saved from a compiled PyTorch module.
fn prefix(shards: &Shards) -> Result<&'static str> {
    let prefixes = ["", "transformer.", "_orig_mod.", "_orig_mod.transformer."];
    let with = |name: &str| prefixes.into_iter().find(|prefix| shards.contains(&format!("{prefix}{name}")));
    // Without token embeddings the LM head stands for them.
    let has_lm_head = |prefix: &&str| {
        shards.contains(&format!("{}lm_head.weight", prefix.trim_end_matches("transformer.")))
    };
    with("wte.weight").or_else(|| with("ln_f.weight").filter(has_lm_head)).ok_or_else(|| Error::Tensor {
        file: shards.index_path.clone(),
        tensor: "wte.weight".into(),
        found: "no such tensor".into(),
        expected: "GPT-2's token embeddings, with or without the prefix transformer.".into(),
    })
}

/// The layout of a linear layer's weight in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `[in, out]`
    Conv1d,
    /// `[out, in]`
    Linear,
    /// Quantized, packed in the blocks that the kernels use.
    Packed(Precision),
}

pub(super) struct Loader<'a> {
    shards: &'a Shards,
    prefix: &'static str,
    layout: Layout,
}

impl<'a> Loader<'a> {
    /// A loader of tensors by their full names.
    pub(super) fn plain(shards: &'a Shards) -> Self {
        Self { shards, prefix: "", layout: Layout::Conv1d }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The sizes that the tensors tell; `wte` is the name of the token embeddings.
    fn sizes(&self, wte: &str) -> InferredSizes {
        let shape = |name: &str| Some(&self.shards.get(name)?.info.shape);
        let size = |name: &str, dimension: usize| shape(name)?.get(dimension).copied();
        // The bias alone is the same in every layout; the weight tells whether it is the one that is wrong.
        let c_fc = shape(&self.name("h.0.mlp.c_fc.weight"));
        let n_inner = size(&self.name("h.0.mlp.c_fc.bias"), 0)
            .filter(|n_inner| c_fc.is_none_or(|c_fc| c_fc.contains(n_inner)))
            .or_else(|| size(wte, 1)?.checked_mul(4));
        InferredSizes {
            n_embd: size(wte, 1),
            n_layer: Some(self.stored_layers()),
            n_positions: size(&self.name("wpe.weight"), 0),
            n_inner,
            vocab_size: size(wte, 0),
        }
    }

    /// The number of blocks in the file, whose tensors are named `h.0.` and so on.
    fn stored_layers(&self) -> usize {
        let layer = |name: &str| {
            name.strip_prefix(self.prefix)?.strip_prefix("h.")?.split('.').next()?.parse::<usize>().ok()
        };
        self.shards.names().filter_map(layer).max().map_or(0, |last| last.saturating_add(1))
    }

    /// Detects the layout from the first block's `c_attn`.
    fn layout(&self, config: &Config) -> Result<Layout> {
        let name = self.name("h.0.attn.c_attn.weight");
        for precision in Precision::in_files() {
            if let Some(entry) = self.shards.get(&format!("{name}.{precision}")) {
                return match entry.metadata.get(LAYOUT.0) {
                    Some(version) if version == LAYOUT.1 => Ok(Layout::Packed(precision)),
                    found => Err(Error::Checkpoint {
                        file: entry.file.to_path_buf(),
                        problem: format!(
                            "found quantized weights with {} {}, expected {}: quantize the model again",
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
            Some(entry) if entry.info.shape == [n_out, n_in] => Ok(Layout::Linear),
            Some(entry) if entry.info.shape != [n_in, n_out] => Err(Error::Tensor {
                file: entry.file.to_path_buf(),
                tensor: name,
                found: format!("shape {:?}", entry.info.shape),
                expected: format!("shape [{n_in}, {n_out}] (Conv1D) or [{n_out}, {n_in}] (nn.Linear)"),
            }),
            // If it is missing, loading the block reports it.
            _ => Ok(Layout::Conv1d),
        }
    }

    fn block(&self, layer: usize, config: &Config) -> Result<BlockWeights> {
        let (n_embd, n_inner) = (config.n_embd, config.n_inner);
        let name = |suffix: &str| format!("h.{layer}.{suffix}");
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
                Layout::Packed(precision) => self.stored(&self.name(&weight), precision, &[n_in, n_out])?,
            },
            bias: self.vector(&format!("{name}.bias"), n_out)?,
        })
    }

    /// A vector without the prefix in its name, converted to f32.
    fn vector(&self, name: &str, len: usize) -> Result<Tensor> {
        self.tensor(name, &[len])?.into_precision(Precision::F32)
    }

    /// A plain tensor without the prefix in its name.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.tensor_by_full_name(&self.name(name), shape)
    }

    pub(super) fn tensor_by_full_name(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let entry = self.find(name, shape)?;
        let precision = match entry.info.dtype {
            StoredDtype::F32 => Precision::F32,
            StoredDtype::F16 => Precision::F16,
            StoredDtype::BF16 => Precision::Bf16,
            stored => {
                return Err(mismatch(name, &entry, format!("dtype {stored}"), "F32, F16 or BF16".into()));
            }
        };
        self.stored(name, precision, shape)
    }

    /// A tensor from the one or two in which its precision is stored.
    fn stored(&self, name: &str, precision: Precision, shape: &[usize]) -> Result<Tensor> {
        let mut origin = Origin { name: name.to_string(), ..Origin::default() };
        let mut buffers = vec![];
        for stored in precision.format().tensors(shape) {
            let name = format!("{name}{}", stored.suffix);
            let entry = self.find(&name, &stored.shape)?;
            let TensorInfo { dtype, shape, .. } = entry.info;
            if dtype.to_string() != stored.dtype.name() {
                let expected = stored.dtype.name().into();
                return Err(mismatch(&name, &entry, format!("dtype {dtype}"), expected));
            }
            if *shape != stored.shape {
                let expected = format!("shape {:?}", stored.shape);
                return Err(mismatch(&name, &entry, format!("shape {shape:?}"), expected));
            }
            if buffers.is_empty() {
                origin.file = entry.file.to_path_buf();
            }
            buffers.push(Bytes::view_or_copy(entry.source, entry.range(), stored.dtype.bytes()));
        }
        Ok(Tensor::new(buffers, precision, shape.to_vec(), origin))
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<TensorEntry<'_>> {
        self.shards.get(name).ok_or_else(|| Error::Tensor {
            file: self.shards.index_path.clone(),
            tensor: name.to_string(),
            found: "no such tensor".into(),
            expected: format!("shape {shape:?}"),
        })
    }
}

fn mismatch(name: &str, entry: &TensorEntry, found: String, expected: String) -> Error {
    Error::Tensor { file: entry.file.to_path_buf(), tensor: name.to_string(), found, expected }
}
