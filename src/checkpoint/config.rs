//! `config.json`: the hyperparameters of a GPT-2, in the format of Hugging Face transformers
//! (<https://huggingface.co/docs/transformers/model_doc/gpt2#transformers.GPT2Config>).

use serde_json::Value;
use std::path::{Path, PathBuf};

use super::config_fields::{Fields, excerpt};
use super::json_file;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;

/// The default of `bos_token_id` and `eos_token_id`: GPT-2's `<|endoftext|>`.
const GPT2_END_OF_TEXT: u32 = 50256;

/// The kind of position embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionEmbedding {
    /// A learned table, `wpe`: GPT-2's own.
    Learned,
    /// Sines and cosines computed from the position, as in "Attention Is All You Need".
    Sinusoidal,
}

/// The largest sizes, far above any real model and low enough that products of sizes fit.
const MAX_N_EMBD: usize = 1 << 20;
const MAX_N_HEAD: usize = 1 << 20;
const MAX_N_LAYER: usize = 1 << 12;
const MAX_N_POSITIONS: usize = 1 << 20;
const MAX_N_INNER: usize = 1 << 22;
const MAX_VOCAB_SIZE: usize = 1 << 24;

/// The configuration of a GPT-2: the fields of `config.json`, with transformers' defaults for missing ones.
/// Sizes have no default: missing ones are read off the tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The width of the residual stream.
    pub n_embd: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// The number of attention heads per block; divides `n_embd`.
    pub n_head: usize,
    /// The context length in tokens.
    pub n_positions: usize,
    /// The width of the MLP's hidden layer.
    pub n_inner: usize,
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_epsilon: f32,
    /// The MLP's activation function.
    pub activation_function: Activation,
    /// Whether attention scores are divided by the square root of the head dimension.
    pub scale_attn_weights: bool,
    /// Whether attention scores are also divided by (block index + 1).
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The order in which half-precision training scales scores; without effect in f32, the precision used
    /// here.
    pub reorder_and_upcast_attn: bool,
    /// Tied embeddings: whether the LM head is `wte`. The tensors decide if they contain both.
    pub tie_word_embeddings: bool,
    /// The token that begins a text, which may be outside a small vocabulary. A tokenizer's own replaces it.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text: one, several or none. A tokenizer's own replaces them.
    pub eos_token_ids: Vec<u32>,
    /// The kind of position embedding.
    pub position_embedding_type: PositionEmbedding,
}

impl Config {
    /// The factor that scales attention scores in a block: 1/√head_dim, unless the configuration says
    /// otherwise.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let scale = match self.scale_attn_weights {
            true => 1.0 / ((self.n_embd / self.n_head) as f32).sqrt(),
            false => 1.0,
        };
        match self.scale_attn_by_inverse_layer_idx {
            true => scale / (layer + 1) as f32,
            false => scale,
        }
    }
}

/// A validated `config.json`, whose missing sizes are not known yet.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    file: PathBuf,
    /// Missing sizes are 0.
    config: Config,
}

/// The sizes that the tensors' shapes tell; none for a tensor that is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InferredSizes {
    pub(super) n_embd: Option<usize>,
    pub(super) n_layer: Option<usize>,
    pub(super) n_positions: Option<usize>,
    pub(super) n_inner: Option<usize>,
    pub(super) vocab_size: Option<usize>,
}

impl ConfigFile {
    /// Reads and validates `file`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] if the file cannot be read or is not JSON, [`Error::Config`]
    /// for a field that is malformed, out of range or describes a model other than a GPT-2, and for a missing
    /// `n_head`, which no tensor tells.
    pub fn open(file: &Path) -> Result<ConfigFile> {
        ConfigFile::from_value(file, json_file::read(file)?)
    }

    /// Parses and validates the JSON of a `config.json`; `file` is its name in error messages.
    ///
    /// # Errors
    /// As [`ConfigFile::open`].
    pub fn from_json(file: &Path, json: &[u8]) -> Result<ConfigFile> {
        ConfigFile::from_value(file, json_file::parse(file, json)?)
    }

    fn from_value(file: &Path, value: Value) -> Result<ConfigFile> {
        let Value::Object(map) = value else {
            return Err(Error::Config {
                file: file.to_path_buf(),
                field: "top level".into(),
                found: excerpt(&value),
                expected: "a JSON object".into(),
            });
        };
        let fields = Fields { file, map: &map };

        let gpt2 = |name: &str| (name == "gpt2").then_some(());
        fields.choice("model_type", (), gpt2, "\"gpt2\", the only supported architecture")?;

        // The other names are those of GPT2Config.attribute_map, which take precedence in transformers too.
        let config = Config {
            n_embd: fields.size(&["hidden_size", "n_embd"], MAX_N_EMBD)?,
            n_layer: fields.size(&["num_hidden_layers", "n_layer"], MAX_N_LAYER)?,
            n_head: fields.size(&["num_attention_heads", "n_head"], MAX_N_HEAD)?,
            n_positions: fields
                .size(&["max_position_embeddings", "n_positions", "n_ctx"], MAX_N_POSITIONS)?,
            n_inner: match map.get("n_inner") {
                None | Some(Value::Null) => fields.size(&["intermediate_size"], MAX_N_INNER)?,
                Some(_) => fields.size(&["n_inner"], MAX_N_INNER)?,
            },
            vocab_size: fields.size(&["vocab_size"], MAX_VOCAB_SIZE)?,
            layer_norm_epsilon: fields.epsilon("layer_norm_epsilon", 1e-5)?,
            activation_function: fields.choice(
                "activation_function",
                Activation::GeluTanh,
                activation,
                "gelu_new, gelu_pytorch_tanh, gelu, relu, silu or swish",
            )?,
            scale_attn_weights: fields.bool("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: fields.bool("scale_attn_by_inverse_layer_idx", false)?,
            reorder_and_upcast_attn: fields.bool("reorder_and_upcast_attn", false)?,
            tie_word_embeddings: fields.bool("tie_word_embeddings", true)?,
            bos_token_id: match map.get("bos_token_id") {
                None => Some(GPT2_END_OF_TEXT),
                Some(Value::Null) => None,
                Some(id) => Some(fields.token_id("bos_token_id", id)?),
            },
            eos_token_ids: match map.get("eos_token_id") {
                None => vec![GPT2_END_OF_TEXT],
                Some(Value::Null) => Vec::new(),
                Some(Value::Array(ids)) => {
                    (ids.iter()).map(|id| fields.token_id("eos_token_id", id)).collect::<Result<_>>()?
                }
                Some(id) => vec![fields.token_id("eos_token_id", id)?],
            },
            position_embedding_type: fields.choice(
                "position_embedding_type",
                PositionEmbedding::Learned,
                position_embedding,
                "learned, absolute or sinusoidal",
            )?,
        };
        if config.n_head == 0 {
            let expected = "the number of attention heads (n_head), which the tensors do not tell";
            return Err(fields.invalid("n_head", "no such field".into(), expected));
        }
        let file = ConfigFile { file: file.into(), config };
        file.check_n_head()?;
        Ok(file)
    }

    /// Completes the configuration with the sizes that the file leaves out.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that neither the file nor the tensors tell, and for an `n_embd` that
    /// `n_head` does not divide.
    pub(super) fn complete(mut self, inferred: InferredSizes) -> Result<Config> {
        let config = &mut self.config;
        for (field, size, inferred, max) in [
            ("n_embd", &mut config.n_embd, inferred.n_embd, MAX_N_EMBD),
            ("n_layer", &mut config.n_layer, inferred.n_layer, MAX_N_LAYER),
            ("n_positions", &mut config.n_positions, inferred.n_positions, MAX_N_POSITIONS),
            ("n_inner", &mut config.n_inner, inferred.n_inner, MAX_N_INNER),
            ("vocab_size", &mut config.vocab_size, inferred.vocab_size, MAX_VOCAB_SIZE),
        ] {
            if *size == 0 {
                *size = inferred.filter(|size| (1..=max).contains(size)).ok_or_else(|| Error::Config {
                    file: self.file.clone(),
                    field: field.into(),
                    found: "no such field".into(),
                    expected: "the size, which the tensors do not tell".into(),
                })?;
            }
        }
        let in_vocabulary = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < config.vocab_size);
        config.bos_token_id = config.bos_token_id.filter(in_vocabulary);
        config.eos_token_ids.retain(in_vocabulary);
        self.check_n_head()?;
        Ok(self.config)
    }

    /// Checks that `n_head` divides `n_embd`, as every number divides a missing one.
    fn check_n_head(&self) -> Result<()> {
        let Config { n_embd, n_head, .. } = self.config;
        match n_embd.is_multiple_of(n_head) {
            true => Ok(()),
            false => Err(Error::Config {
                file: self.file.clone(),
                field: "n_head".into(),
                found: n_head.to_string(),
                expected: format!("a divisor of n_embd, which is {n_embd}"),
            }),
        }
    }
}

fn activation(name: &str) -> Option<Activation> {
    match name {
        "gelu_new" | "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
        "gelu" => Some(Activation::GeluErf),
        "relu" => Some(Activation::Relu),
        "silu" | "swish" => Some(Activation::Silu),
        _ => None,
    }
}

fn position_embedding(name: &str) -> Option<PositionEmbedding> {
    match name {
        "learned" | "absolute" => Some(PositionEmbedding::Learned),
        "sinusoidal" => Some(PositionEmbedding::Sinusoidal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT2: InferredSizes = InferredSizes {
        n_embd: Some(768),
        n_layer: Some(12),
        n_positions: Some(1024),
        n_inner: Some(3072),
        vocab_size: Some(50257),
    };

    fn parse(json: &str) -> Result<Config> {
        ConfigFile::from_json(Path::new("config.json"), json.as_bytes())?.complete(GPT2)
    }

    #[test]
    fn missing_sizes_are_those_of_tensors() {
        let config = parse(r#"{"n_head": 12}"#).unwrap();
        assert_eq!(
            config,
            Config {
                n_embd: 768,
                n_layer: 12,
                n_head: 12,
                n_positions: 1024,
                n_inner: 3072,
                vocab_size: 50257,
                layer_norm_epsilon: 1e-5,
                activation_function: Activation::GeluTanh,
                scale_attn_weights: true,
                scale_attn_by_inverse_layer_idx: false,
                reorder_and_upcast_attn: false,
                tie_word_embeddings: true,
                bos_token_id: Some(50256),
                eos_token_ids: vec![50256],
                position_embedding_type: PositionEmbedding::Learned,
            }
        );
    }

    #[test]
    fn every_field_is_parsed() {
        let config = parse(
            r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 4, "n_ctx": 6, "n_inner": 10,
                "vocab_size": 11, "layer_norm_epsilon": 1e-6, "activation_function": "relu",
                "scale_attn_weights": false, "scale_attn_by_inverse_layer_idx": true,
                "reorder_and_upcast_attn": true, "tie_word_embeddings": false, "bos_token_id": null,
                "eos_token_id": [3, 4], "position_embedding_type": "sinusoidal"}"#,
        )
        .unwrap();
        assert_eq!(
            config,
            Config {
                n_embd: 8,
                n_layer: 2,
                n_head: 4,
                n_positions: 6,
                n_inner: 10,
                vocab_size: 11,
                layer_norm_epsilon: 1e-6,
                activation_function: Activation::Relu,
                scale_attn_weights: false,
                scale_attn_by_inverse_layer_idx: true,
                reorder_and_upcast_attn: true,
                tie_word_embeddings: false,
                bos_token_id: None,
                eos_token_ids: vec![3, 4],
                position_embedding_type: PositionEmbedding::Sinusoidal,
            }
        );
    }

    #[test]
    fn other_names_of_transformers_are_sizes() {
        let all = r#"{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4,
                      "max_position_embeddings": 6, "intermediate_size": 10, "n_inner": null}"#;
        let config = parse(all).unwrap();
        assert_eq!((config.n_embd, config.n_layer, config.n_head), (8, 2, 4));
        assert_eq!((config.n_positions, config.n_inner), (6, 10));
        // As in transformers, they take precedence.
        let both =
            parse(r#"{"n_head": 12, "num_attention_heads": 4, "n_inner": 9, "intermediate_size": 10}"#);
        let both = both.unwrap();
        assert_eq!((both.n_head, both.n_inner), (4, 9));
        let error = parse(r#"{"num_attention_heads": 0}"#).unwrap_err().to_string();
        assert!(error.contains("num_attention_heads: found 0, expected an integer from 1"), "{error}");
    }

    #[test]
    fn size_that_nothing_tells_is_error() {
        let error = parse("{}").unwrap_err().to_string();
        let expected = "config.json: n_head: found no such field, expected the number of attention heads";
        assert!(error.starts_with(expected), "{error}");
        let file = || ConfigFile::from_json(Path::new("config.json"), br#"{"n_head": 5}"#).unwrap();
        for (field, inferred) in [
            ("n_positions", InferredSizes { n_positions: None, ..GPT2 }),
            ("n_layer", InferredSizes { n_layer: Some(1 << 20), ..GPT2 }),
            ("vocab_size", InferredSizes { vocab_size: Some(0), ..GPT2 }),
        ] {
            let error = file().complete(inferred).unwrap_err().to_string();
            let expected = format!("config.json: {field}: found no such field, expected the size");
            assert!(error.starts_with(&expected), "{error}");
        }
        let error = file().complete(GPT2).unwrap_err().to_string();
        assert!(error.contains("n_head: found 5, expected a divisor of n_embd, which is 768"), "{error}");
    }

    #[test]
    fn aliases_and_special_cases_are_handled() {
        let small = parse(r#"{"n_head": 1, "vocab_size": 100, "n_positions": 7, "n_ctx": 9}"#).unwrap();
        assert_eq!(small.n_positions, 7);
        assert_eq!(small.bos_token_id, None, "50256 is outside this vocabulary");
        assert!(small.eos_token_ids.is_empty());
        let one = parse(r#"{"n_head": 1, "eos_token_id": 5, "n_inner": null}"#).unwrap();
        assert_eq!((one.eos_token_ids, one.n_inner), (vec![5], 3072));
        for (name, kind) in [
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu", Activation::GeluErf),
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
        ] {
            let config = parse(&format!(r#"{{"n_head": 1, "activation_function": "{name}"}}"#)).unwrap();
            assert_eq!(config.activation_function, kind, "{name}");
        }
    }
}
