//! `config.json`: the hyperparameters of a GPT-2, in the format of Hugging Face transformers
//! (<https://huggingface.co/docs/transformers/model_doc/gpt2#transformers.GPT2Config>).

use std::path::Path;

use serde_json::{Map, Value};

use super::source::read_file;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;

/// The largest file read. Typical files have a few hundred bytes; label tables can add a few hundred
/// kilobytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

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

/// The configuration of a GPT-2: the fields of `config.json`, with transformers' defaults for missing ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The width of the residual stream.
    pub n_embd: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// The number of attention heads per block; divides `n_embd`.
    pub n_head: usize,
    /// The context length in tokens (`n_positions`, or `n_ctx` if only that is present).
    pub n_positions: usize,
    /// The width of the MLP's hidden layer; `4 * n_embd` if the file has null.
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
    /// Tied embeddings: whether the LM head is `wte`, even if the file has an `lm_head.weight`.
    pub tie_word_embeddings: bool,
    /// The token that begins a text, which may be outside a small vocabulary. A tokenizer's own replaces it.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text: one, several or none. A tokenizer's own replaces them.
    pub eos_token_ids: Vec<u32>,
    /// The kind of position embedding.
    pub position_embedding_type: PositionEmbedding,
}

impl Config {
    /// Reads and validates `file`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`] if the file cannot be read, [`Error::Config`] for a field that
    /// is malformed, out of range or describes a model other than a GPT-2.
    pub fn from_file(file: &Path) -> Result<Config> {
        Config::from_json(file, &read_file(file, MAX_CONFIG_BYTES)?)
    }

    /// Parses and validates the JSON of a `config.json`; `file` is its name in error messages.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is malformed, out of range or describes a model other than a GPT-2.
    pub fn from_json(file: &Path, json: &[u8]) -> Result<Config> {
        let value: Value = serde_json::from_slice(json).map_err(|error| syntax_error(file, json, &error))?;
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

        let n_embd = fields.size("n_embd", 768, 1 << 20)?;
        let n_head = fields.size("n_head", 12, 1 << 20)?;
        if !n_embd.is_multiple_of(n_head) {
            let expected = format!("a divisor of n_embd, which is {n_embd}");
            return Err(fields.invalid("n_head", n_head.to_string(), expected));
        }
        // transformers uses n_positions; older files have n_ctx in addition or instead.
        let positions = if map.contains_key("n_positions") { "n_positions" } else { "n_ctx" };
        let n_inner = match map.get("n_inner") {
            None | Some(Value::Null) => 4 * n_embd,
            Some(_) => fields.size("n_inner", 0, 1 << 22)?,
        };
        let vocab_size = fields.size("vocab_size", 50257, 1 << 24)?;
        let end_of_text =
            Some(GPT2_END_OF_TEXT).filter(|&id| usize::try_from(id).is_ok_and(|id| id < vocab_size));

        Ok(Config {
            n_embd,
            n_layer: fields.size("n_layer", 12, 1 << 12)?,
            n_head,
            n_positions: fields.size(positions, 1024, 1 << 20)?,
            n_inner,
            vocab_size,
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
                None => end_of_text,
                Some(Value::Null) => None,
                Some(id) => Some(fields.token_id("bos_token_id", id)?),
            },
            eos_token_ids: match map.get("eos_token_id") {
                None => end_of_text.into_iter().collect(),
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
        })
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

/// The fields of one file: missing ones get a default, invalid ones an error.
struct Fields<'a> {
    file: &'a Path,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn invalid(&self, field: &str, found: String, expected: impl Into<String>) -> Error {
        Error::Config { file: self.file.to_path_buf(), field: field.into(), found, expected: expected.into() }
    }

    /// An integer from 1 to `max`, which is far above any real model and low enough that products of sizes
    /// fit.
    fn size(&self, field: &str, default: usize, max: usize) -> Result<usize> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_u64())
            .and_then(|size| usize::try_from(size).ok())
            .filter(|size| (1..=max).contains(size))
            .ok_or_else(|| {
                let expected = format!("an integer from 1 to {max}");
                self.invalid(field, excerpt(value), expected)
            })
    }

    fn bool(&self, field: &str, default: bool) -> Result<bool> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_bool()).ok_or_else(|| self.invalid(field, excerpt(value), "true or false"))
    }

    /// A normal (not subnormal) f32 above 0 and at most 1.
    fn epsilon(&self, field: &str, default: f32) -> Result<f32> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_f64())
            .map(|epsilon| epsilon as f32)
            .filter(|epsilon| epsilon.is_normal() && (0.0..=1.0).contains(epsilon))
            .ok_or_else(|| self.invalid(field, excerpt(value), "a number above 0 and at most 1"))
    }

    fn choice<T>(
        &self,
        field: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        accepted: &str,
    ) -> Result<T> {
        let Some(value) = self.map.get(field) else {
            return Ok(default);
        };
        (value.as_str()).and_then(parse).ok_or_else(|| self.invalid(field, excerpt(value), accepted))
    }

    fn token_id(&self, field: &str, value: &Value) -> Result<u32> {
        (value.as_u64()).and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            let expected = format!("a token id (0 to {}), a list of them, or null", u32::MAX);
            self.invalid(field, excerpt(value), expected)
        })
    }
}

/// A value as JSON on one line, truncated to 60 characters.
fn excerpt(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let json = value.to_string();
    match json.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json,
    }
}

/// The error for invalid JSON. Names the field whose value the parser failed at, such as the `NaN` that
/// Python writes.
fn syntax_error(file: &Path, json: &[u8], error: &serde_json::Error) -> Error {
    let line_start: usize = json
        .split_inclusive(|&byte| byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let error_offset = (line_start + error.column()).min(json.len());
    Error::Config {
        file: file.to_path_buf(),
        field: last_key(&json[..error_offset]).unwrap_or_else(|| "top level".into()),
        found: format!("invalid JSON ({error})"),
        expected: "a JSON value".into(),
    }
}

/// The last `"key":` of a text.
fn last_key(text: &[u8]) -> Option<String> {
    let colon = text.iter().rposition(|&byte| byte == b':')?;
    let key = text[..colon].trim_ascii_end().strip_suffix(b"\"")?;
    let start = key.iter().rposition(|&byte| byte == b'"')? + 1;
    let key = std::str::from_utf8(&key[start..]).ok()?;
    Some(key.escape_debug().take(60).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config> {
        Config::from_json(Path::new("config.json"), json.as_bytes())
    }

    #[test]
    fn empty_object_gives_defaults_of_gpt2() {
        let config = parse("{}").unwrap();
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
            r#"{"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 4, "n_ctx": 6, "n_inner": 20,
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
                n_inner: 20,
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
    fn aliases_and_special_cases_are_handled() {
        let small = parse(r#"{"vocab_size": 100, "n_positions": 7, "n_ctx": 9}"#).unwrap();
        assert_eq!(small.n_positions, 7);
        assert_eq!(small.bos_token_id, None, "50256 is outside this vocabulary");
        assert!(small.eos_token_ids.is_empty());
        let one = parse(r#"{"eos_token_id": 5, "n_inner": null}"#).unwrap();
        assert_eq!((one.eos_token_ids, one.n_inner), (vec![5], 3072));
        for (name, kind) in [
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("gelu", Activation::GeluErf),
            ("silu", Activation::Silu),
            ("swish", Activation::Silu),
        ] {
            let config = parse(&format!(r#"{{"activation_function": "{name}"}}"#)).unwrap();
            assert_eq!(config.activation_function, kind, "{name}");
        }
    }
}
