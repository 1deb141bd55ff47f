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
    #[error("model '{name}' not found: {looked}; {hint}")]
    ModelNotFound {
        /// What the user typed.
        name: String,
        /// Where it was looked for.
        looked: String,
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
