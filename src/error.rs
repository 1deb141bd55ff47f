//! The crate's error type. Every message is one line that names the problem, its place (file, tensor, field
//! or option), the value found and the value expected.

use crate::kernels::isa::UnsupportedIsa;
use std::path::PathBuf;

/// The crate's error type. Its `Display` is the complete message for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that could not be opened, read, mapped or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed: "read", "map", "open".
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A model name that is neither a folder, nor built in, nor in the Hugging Face cache.
    #[error("model '{name}' not found: {searched}; {hint}")]
    ModelNotFound {
        /// The name as the user typed it.
        name: String,
        /// The places searched.
        searched: String,
        /// The next step for the user.
        hint: String,
    },

    /// A field of `config.json` that is missing, malformed or unsupported.
    #[error("{}: {field}: found {found}, expected {expected}", file.display())]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// The field's name in the file.
        field: String,
        /// The value in the file.
        found: String,
        /// The values that are accepted.
        expected: String,
    },

    /// A checkpoint file with an invalid structure.
    #[error("{}: {problem}", file.display())]
    Checkpoint {
        /// The safetensors or index file.
        file: PathBuf,
        /// The problem, with the values found and expected.
        problem: String,
    },

    /// A tensor that is missing or does not match the configuration.
    #[error("{}: tensor {tensor}: found {found}, expected {expected}", file.display())]
    Tensor {
        /// The file that holds, or should hold, the tensor.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape, dtype or size in the file.
        found: String,
        /// The shape, dtype or size that the configuration requires.
        expected: String,
    },

    /// A tokenizer that cannot be built from its files.
    #[error("{}: {problem}", file.display())]
    Tokenizer {
        /// The tokenizer file.
        file: PathBuf,
        /// The problem, with the values found and expected.
        problem: String,
    },

    /// An option or parameter outside its range.
    #[error("{name}: found {found}, expected {expected}")]
    Parameter {
        /// The option's name, as the user types it.
        name: String,
        /// The value given.
        found: String,
        /// The values that are accepted.
        expected: String,
    },

    /// A token id outside the model's vocabulary.
    #[error("token id {id} is outside the vocabulary (0 to {})", vocab_size - 1)]
    TokenId {
        /// The id.
        id: u32,
        /// The number of rows of the token embeddings, `wte`.
        vocab_size: usize,
    },

    /// A prompt longer than the model's context.
    #[error("the prompt is {prompt_tokens} tokens long, but the model's context is {n_positions} tokens")]
    ContextOverflow {
        /// The number of tokens in the prompt.
        prompt_tokens: usize,
        /// The model's context length in tokens.
        n_positions: usize,
    },

    /// Any other one-line message for the user.
    #[error("{0}")]
    Message(String),
}

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The Jaro-Winkler similarity, from 0 to 1, above which a choice is suggested.
const MIN_SIMILARITY: f64 = 0.8;

impl From<UnsupportedIsa> for Error {
    fn from(UnsupportedIsa { found, expected }: UnsupportedIsa) -> Self {
        Error::Parameter { name: "HORNBOOK_ISA".into(), found, expected }
    }
}

impl Error {
    /// The choice most similar to `given`, if it is similar enough to be a likely typo.
    pub fn closest_match<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let given = given.to_lowercase();
        let similarity = |choice: &&str| strsim::jaro_winkler(&given, &choice.to_lowercase());
        let best = choices.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        best.filter(|best| similarity(best) > MIN_SIMILARITY)
    }

    /// Returns the message without the path of a file, for those who are not to learn where files are.
    pub fn without_path(&self) -> String {
        let message = self.to_string();
        let file = match self {
            Self::Io { path, .. } => path,
            Self::Config { file, .. }
            | Self::Checkpoint { file, .. }
            | Self::Tensor { file, .. }
            | Self::Tokenizer { file, .. } => file,
            _ => return message,
        };
        message.strip_prefix(&format!("{}: ", file.display())).unwrap_or(&message).to_string()
    }

    /// Returns `; did you mean 'gpt2'?`, or an empty string if no choice is similar enough.
    pub fn did_you_mean<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> String {
        Self::closest_match(given, choices)
            .map_or_else(String::new, |choice| format!("; did you mean '{choice}'?"))
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn did_you_mean_suggests_typos_only() {
        let names = ["fable", "gpt2", "gpt2-medium", "distilgpt2", "openai-community/gpt2"];
        for (given, expected) in [
            ("fabel", "fable"),
            ("gtp2", "gpt2"),
            ("GPT2-medum", "gpt2-medium"),
            ("distillgpt2", "distilgpt2"),
            ("openai-comunity/gpt2", "openai-community/gpt2"),
        ] {
            assert_eq!(Error::did_you_mean(given, names), format!("; did you mean '{expected}'?"));
        }
        for other in ["llama", "mistral-7b", "", "no-such-model"] {
            assert_eq!(Error::did_you_mean(other, names), "", "{other}");
        }
        assert_eq!(Error::did_you_mean("x", []), "");
    }
}
