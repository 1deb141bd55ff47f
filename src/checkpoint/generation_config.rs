//! `generation_config.json`: a model's own defaults of text generation
//! (<https://huggingface.co/docs/transformers/main_classes/text_generation#transformers.GenerationConfig>).

use super::{Checkpoint, embedded, json_file};
use crate::error::{Error, Result};
use crate::sampling::{Overrides, Scalar};
use serde::Deserialize;
use std::path::Path;

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
    /// The sampling parameters that transformers' `GenerationConfig` has too.
    #[serde(skip)]
    pub sampling: Overrides,
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
        let file = self.folder.as_deref().unwrap_or(Path::new(embedded::NAME)).join(GENERATION_CONFIG);
        match (&self.folder, self.tokenizer_json) {
            (Some(_), _) if file.exists() => GenerationConfig::parse(&file, &json_file::read_bytes(&file)?),
            (None, Some(_)) => GenerationConfig::parse(&file, embedded::GENERATION_CONFIG),
            _ => Ok(GenerationConfig::default()),
        }
    }
}

impl GenerationConfig {
    /// The defaults that the file sets: names as in the file, and values.
    pub fn defaults(&self) -> Vec<(&'static str, String)> {
        let max_new_tokens = self.max_new_tokens.map(|n| ("max_new_tokens", n.to_string()));
        let do_sample = self.do_sample.map(|it| ("do_sample", it.to_string()));
        let sampling = self.sampling.iter().map(|(parameter, value)| (parameter.name, value.to_string()));
        max_new_tokens.into_iter().chain(do_sample).chain(sampling).collect()
    }

    fn parse(file: &Path, json: &[u8]) -> Result<Self> {
        let mut config: Self = json_file::parse(file, json)?;
        let given: Overrides = json_file::parse(file, json)?;
        let known = given.iter().filter(|(parameter, _)| parameter.in_generation_config);
        config.sampling.0.extend(known.map(|(parameter, value)| (parameter.name, value)));
        if config.do_sample == Some(false) {
            config.sampling.0.insert("temperature", Scalar::Number(0.0));
        }
        let problem = if config.stop_strings.iter().flatten().any(String::is_empty) {
            "stop_strings: found an empty string, expected at least one character"
        } else if config.max_new_tokens == Some(0) {
            "max_new_tokens: found 0, expected a positive integer"
        } else {
            return Ok(config);
        };
        Err(Error::Checkpoint { file: file.into(), problem: problem.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<GenerationConfig> {
        GenerationConfig::parse(Path::new(GENERATION_CONFIG), json.as_bytes())
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
            let temperature = temperature.map(Scalar::Number);
            assert_eq!(parse(json).unwrap().sampling.0.get("temperature").copied(), temperature, "{json}");
        }
    }

    #[test]
    fn parameters_unknown_to_transformers_are_ignored() {
        let config = parse(r#"{"presence_penalty": 1.5, "top_k": 3, "min_p": null, "top_p": 0.5}"#).unwrap();
        assert_eq!(config.defaults(), [("top_k", "3".to_string()), ("top_p", "0.5".to_string())]);
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
