//! `generation_config.json`: a model's own defaults of text generation
//! (<https://huggingface.co/docs/transformers/main_classes/text_generation#transformers.GenerationConfig>).

use super::{Checkpoint, embedded, json_file};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The name of the file.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// The fields of the file that have an effect; a field that is absent or null leaves the program's default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct GenerationConfig {
    /// The tokens that end a text.
    #[serde(default, deserialize_with = "one_or_several")]
    pub eos_token_id: Option<Vec<u32>>,
    /// Strings that end a text.
    #[serde(default, deserialize_with = "one_or_several")]
    pub stop_strings: Option<Vec<String>>,
    /// The maximum number of tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Whether tokens are drawn at random; if false, `temperature` is 0, as transformers decodes greedily.
    pub do_sample: Option<bool>,
    /// The divisor of the logits.
    pub temperature: Option<f32>,
    /// The number of most likely tokens to keep.
    pub top_k: Option<usize>,
    /// The cumulative probability of the most likely tokens to keep.
    pub top_p: Option<f32>,
    /// The least probability of a token to keep, relative to the most likely one.
    pub min_p: Option<f32>,
    /// The cumulative probability of the locally typical tokens to keep.
    pub typical_p: Option<f32>,
    /// The divisor of the logits of tokens in prompt and completion.
    pub repetition_penalty: Option<f32>,
    /// The length of the sequences of tokens that may not be repeated.
    pub no_repeat_ngram_size: Option<usize>,
}

fn one_or_several<'de, D, T>(deserializer: D) -> std::result::Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected one value or a list of values")]
    enum OneOrSeveral<T> {
        One(T),
        Several(Vec<T>),
    }
    Ok(Option::deserialize(deserializer)?.map(|given| match given {
        OneOrSeveral::One(value) => vec![value],
        OneOrSeveral::Several(values) => values,
    }))
}

impl Checkpoint {
    /// The model's `generation_config.json`; without one, the program's defaults.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Checkpoint`] for a file that exists and is unreadable or invalid.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        match (&self.folder, self.tokenizer_json) {
            (Some(folder), _) => {
                let path = folder.join(GENERATION_CONFIG);
                match path.exists() {
                    true => json_file::read::<GenerationConfig>(&path)?.validated(path),
                    false => Ok(GenerationConfig::default()),
                }
            }
            (None, Some(_)) => {
                let path = Path::new(embedded::NAME).join(GENERATION_CONFIG);
                json_file::parse::<GenerationConfig>(&path, embedded::GENERATION_CONFIG)?.validated(path)
            }
            (None, None) => Ok(GenerationConfig::default()),
        }
    }
}

impl GenerationConfig {
    /// The defaults that the file sets: names as in the file, and values.
    pub fn defaults(&self) -> Vec<(&'static str, String)> {
        fn text<T: ToString>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let all = [
            ("max_new_tokens", text(&self.max_new_tokens)),
            ("do_sample", text(&self.do_sample)),
            ("temperature", text(&self.temperature)),
            ("top_k", text(&self.top_k)),
            ("top_p", text(&self.top_p)),
            ("min_p", text(&self.min_p)),
            ("typical_p", text(&self.typical_p)),
            ("repetition_penalty", text(&self.repetition_penalty)),
            ("no_repeat_ngram_size", text(&self.no_repeat_ngram_size)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn validated(mut self, file: PathBuf) -> Result<Self> {
        let stop_strings = self.stop_strings.as_deref().unwrap_or_default();
        let problem = if stop_strings.iter().any(String::is_empty) {
            "stop_strings: found an empty string, expected at least one character"
        } else if self.max_new_tokens == Some(0) {
            "max_new_tokens: found 0, expected a positive integer"
        } else {
            if self.do_sample == Some(false) {
                self.temperature = Some(0.0);
            }
            return Ok(self);
        };
        Err(Error::Checkpoint { file, problem: problem.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<GenerationConfig> {
        let file = Path::new(GENERATION_CONFIG);
        json_file::parse::<GenerationConfig>(file, json.as_bytes())?.validated(file.into())
    }

    #[test]
    fn one_value_and_list_and_null_are_read() {
        let config = parse(r#"{"eos_token_id": 3, "stop_strings": ["x", "y"], "do_sample": true}"#).unwrap();
        assert_eq!(config.eos_token_id, Some(vec![3]));
        assert_eq!(config.stop_strings, Some(vec!["x".into(), "y".into()]));
        let config = parse(r#"{"eos_token_id": [3, 4], "stop_strings": "x"}"#).unwrap();
        assert_eq!((config.eos_token_id, config.stop_strings), (Some(vec![3, 4]), Some(vec!["x".into()])));
        assert_eq!(parse(r#"{"eos_token_id": null}"#).unwrap(), GenerationConfig::default());
    }

    #[test]
    fn greedy_decoding_replaces_temperature() {
        for (json, temperature) in [
            (r#"{"do_sample": false, "temperature": 0.7, "top_p": 0.9}"#, Some(0.0)),
            (r#"{"do_sample": false}"#, Some(0.0)),
            (r#"{"do_sample": true, "temperature": 0.7}"#, Some(0.7)),
            (r#"{"do_sample": null, "temperature": 0.7}"#, Some(0.7)),
            (r#"{"temperature": 0.7}"#, Some(0.7)),
            ("{}", None),
        ] {
            assert_eq!(parse(json).unwrap().temperature, temperature, "{json}");
        }
    }

    #[test]
    fn invalid_field_is_named_in_error() {
        for (json, expected) in [
            ("{", "generation_config.json: found broken JSON at line 1, column 1 (EOF"),
            (r#"{"eos_token_id": -1}"#, "generation_config.json: eos_token_id: expected one value or a list"),
            ("[1]", "generation_config.json: top level: found no JSON object, expected one"),
            (r#"{"do_sample": 0}"#, "do_sample: invalid type: integer `0`, expected a boolean"),
            ("\u{feff}{", "generation_config.json: found broken JSON at line 1, column 1"),
            (r#"{"stop_strings": 1}"#, "generation_config.json: stop_strings: "),
            (r#"{"stop_strings": [""]}"#, "stop_strings: found an empty string"),
            (r#"{"max_new_tokens": 0}"#, "max_new_tokens: found 0, expected a positive integer"),
            (r#"{"top_k": 1.5}"#, "top_k: invalid type: floating point `1.5`, expected a non-negative"),
            (r#"{"top_p": "x"}"#, "top_p: invalid type: string \"x\", expected a number"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
