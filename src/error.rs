//! The crate's error type. Every message is one line that names the problem, its place (file, tensor, field
//! or option), the value found and the value expected.

use crate::kernels::isa::UnsupportedIsa;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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

    /// A prompt, text or conversation that cannot be continued, such as an empty one.
    #[error("{0}")]
    Prompt(String),

    /// A model without a tokenizer that can be used, where text is given or asked for.
    #[error("model '{model}' {problem}; {hint}")]
    NoTokenizer {
        /// The model's name, as given by the user.
        model: String,
        /// "has no tokenizer" or "has no usable tokenizer", and why.
        problem: String,
        /// The next step for the user.
        hint: &'static str,
    },

    /// A chat template that is invalid or rejects the messages.
    #[error("chat template: {problem}")]
    ChatTemplate {
        /// The problem, and its line in the template if known.
        problem: String,
    },

    /// Results that are NaN or infinite although all weights are finite.
    #[error("{0}")]
    NotFinite(String),

    /// Something that this model, valid as it is, cannot be used for.
    #[error("{0}")]
    Unsupported(String),

    /// A file of another kind than a model's with invalid contents, or one that is no regular file.
    #[error("{}: {}{problem}", file.display(), line.map_or(String::new(), |n| format!("line {n}: ")))]
    InvalidFile {
        /// The file.
        file: PathBuf,
        /// The line, from 1, if the problem is in one and known.
        line: Option<usize>,
        /// The problem, with the values found and expected.
        problem: String,
    },

    /// A name that no API key in a key file has.
    #[error("{}: no key named '{name}'", file.display())]
    KeyNotFound {
        /// The key file.
        file: PathBuf,
        /// The name.
        name: String,
    },

    /// A download that failed: the hub or the network, or the cache on the disk.
    #[error("{problem}")]
    Hub {
        /// The HTTP status with which the hub refused the request.
        status: Option<u16>,
        /// The problem, and the next step for the user.
        problem: String,
    },

    /// A model name that two of the served models have.
    #[error("two models are named '{name}', expected unique names")]
    DuplicateModel {
        /// The name or alias.
        name: String,
    },

    /// An address at which no server can or should listen.
    #[error("{address} {problem}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The problem, and the next step for the user.
        problem: &'static str,
    },

    /// Threads, memory or random numbers that the operating system refuses.
    #[error("cannot {action}: {problem}")]
    System {
        /// The action that failed.
        action: String,
        /// The operating system's error.
        problem: String,
    },

    /// A request that the engine ended, because it failed or was shut down.
    #[error("{reason}")]
    Aborted {
        /// The reason.
        reason: String,
    },

    /// Any other one-line message: the command line's own, and those of a program that uses the library.
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
    /// An [`Error::InvalidFile`] without a line.
    pub(crate) fn invalid_file(file: &Path, problem: impl Into<String>) -> Self {
        Self::InvalidFile { file: file.into(), line: None, problem: problem.into() }
    }

    /// An [`Error::System`] of an error.
    pub(crate) fn system(action: impl Into<String>, error: impl ToString) -> Self {
        Self::System { action: action.into(), problem: error.to_string() }
    }

    /// The choice most similar to `given`, if it is similar enough to be a likely typo.
    pub fn closest_match<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let given = given.to_lowercase();
        let similarity = |choice: &&str| strsim::jaro_winkler(&given, &choice.to_lowercase());
        let best = choices.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        best.filter(|best| similarity(best) > MIN_SIMILARITY)
    }

    /// Whether it says that the disk, or what may be used of it, is full.
    pub fn is_disk_full(&self) -> bool {
        let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { source, .. } if is_full(source.kind()))
    }

    /// Returns the file that the error is about.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } => Some(path),
            Self::Config { file, .. }
            | Self::Checkpoint { file, .. }
            | Self::Tensor { file, .. }
            | Self::Tokenizer { file, .. }
            | Self::InvalidFile { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Returns the message without the path of a file, for those who are not to learn where files are.
    pub fn without_path(&self) -> String {
        let message = self.to_string();
        let Some(file) = self.file() else { return message };
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
    use std::path::Path;

    #[test]
    fn invalid_file_names_its_line_if_known() {
        let error = Error::invalid_file(Path::new("a/keys.toml"), "found no table");
        assert_eq!(error.to_string(), "a/keys.toml: found no table");
        let error = Error::InvalidFile { file: "a/keys.toml".into(), line: Some(3), problem: "bad".into() };
        assert_eq!(error.to_string(), "a/keys.toml: line 3: bad");
        assert_eq!(error.without_path(), "line 3: bad");
    }

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
