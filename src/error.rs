//! Everything that can go wrong, said in one line: what, where (file, tensor, field, option), what was found and
//! what was expected.

use std::path::PathBuf;

/// The one error type of the crate. Its `Display` is the whole message a user reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or mapped.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: "read", "map", "open".
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A model name that is neither a folder, nor built in, nor in the Hugging Face cache.
    #[error("model '{name}' not found: {searched}; {hint}")]
    ModelNotFound {
        /// What the user typed.
        name: String,
        /// Where it was searched for.
        searched: String,
        /// How to put it there.
        hint: String,
    },

    /// A field of `config.json` that is missing, malformed or unsupported.
    #[error("{}: {field}: found {found}, expected {expected}", file.display())]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// The field's name in the file.
        field: String,
        /// What the file says.
        found: String,
        /// What would have been accepted.
        expected: String,
    },

    /// A checkpoint file whose structure cannot be trusted.
    #[error("{}: {problem}", file.display())]
    Checkpoint {
        /// The safetensors or index file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A tensor that is missing or not what the configuration says.
    #[error("{}: tensor {tensor}: found {found}, expected {expected}", file.display())]
    Tensor {
        /// The file that holds, or should hold, the tensor.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the file holds.
        found: String,
        /// What the configuration calls for.
        expected: String,
    },

    /// A tokenizer that cannot be built from its files.
    #[error("{}: {problem}", file.display())]
    Tokenizer {
        /// The tokenizer file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// An option or parameter outside its range.
    #[error("{name}: found {found}, expected {expected}")]
    Parameter {
        /// The option, as the user spells it.
        name: String,
        /// Its value.
        found: String,
        /// What would have been accepted.
        expected: String,
    },

    /// A token id the model has no embedding for.
    #[error("token id {id} is outside the vocabulary (0 to {})", vocab_size - 1)]
    TokenId {
        /// The id.
        id: u32,
        /// The number of rows of `wte`.
        vocab_size: usize,
    },

    /// More tokens than the model has positions for.
    #[error("the prompt is {prompt_tokens} tokens long, but the model's context is {n_positions} tokens")]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Positions of the model.
        n_positions: usize,
    },

    /// Anything else a user has to be told in one line.
    #[error("{0}")]
    Message(String),
}

/// `Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// How alike a word must be to one that would have been right, from 0 to 1, to be taken for a slip of the finger.
const ALIKE: f64 = 0.8;

impl Error {
    /// The choice that was probably meant, where one is near what was given.
    pub fn closest_match<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let given = given.to_lowercase();
        let alike = |choice: &&str| strsim::jaro_winkler(&given, &choice.to_lowercase());
        let best = choices.into_iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
        best.filter(|best| alike(best) > ALIKE)
    }

    /// `; did you mean 'gpt2'?`, or nothing where no choice is near what was given.
    pub fn did_you_mean<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> String {
        Self::closest_match(given, choices)
            .map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"))
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_slip_is_known_and_another_word_left_alone() {
        let names = ["fable", "gpt2", "gpt2-medium", "distilgpt2", "openai-community/gpt2"];
        for (given, meant) in [
            ("fabel", "fable"),
            ("gtp2", "gpt2"),
            ("GPT2-medum", "gpt2-medium"),
            ("distillgpt2", "distilgpt2"),
            ("openai-comunity/gpt2", "openai-community/gpt2"),
        ] {
            assert_eq!(Error::did_you_mean(given, names), format!("; did you mean '{meant}'?"));
        }
        for other in ["llama", "mistral-7b", "", "no-such-model"] {
            assert_eq!(Error::did_you_mean(other, names), "", "{other}");
        }
        assert_eq!(Error::did_you_mean("x", []), "");
    }
}
