//! The tokenizer of a model.

use crate::errors::{exception, not_picklable};
use crate::prompt;
use crate::shared::Shared;
use pyo3::prelude::*;

/// A model's tokenizer: text to token ids and back.
#[pyclass(frozen, module = "hornbook")]
pub struct Tokenizer(pub Shared);

impl Tokenizer {
    fn tokenizer(&self) -> PyResult<&hornbook::tokenizer::Tokenizer> {
        self.0.tokenizer_or("use token ids").map_err(exception)
    }
}

#[pymethods]
impl Tokenizer {
    /// Returns a text's token ids. With ``special``, the names of special tokens in the text, such as
    /// ``<|endoftext|>``, become those tokens.
    #[pyo3(signature = (text, *, special=false))]
    fn encode(&self, py: Python<'_>, text: String, special: bool) -> PyResult<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        py.detach(|| tokenizer.encode(&text, special)).map_err(exception)
    }

    /// Returns the text of token ids; invalid UTF-8 becomes U+FFFD.
    fn decode(&self, ids: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(self.tokenizer()?.decode(&prompt::token_ids(ids)?))
    }

    /// Returns the text of each token, with ``·`` for a space and ``↵`` for a line feed: labels for plots.
    fn labels(&self, prompt: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        let ids = prompt::ids(&self.0, prompt)?;
        Ok(ids.into_iter().map(|id| hornbook::lens::label(&self.0, id)).collect())
    }

    /// The number of tokens in the vocabulary.
    #[getter]
    fn vocab_size(&self) -> PyResult<usize> {
        Ok(self.tokenizer()?.vocab_size())
    }

    /// The token that ends a text, as it stands in a text; empty if there is none.
    #[getter]
    fn eos_token(&self) -> &str {
        self.0.eos_token()
    }

    /// The ids that end a text.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.0.stop_ids().to_vec()
    }

    fn __len__(&self) -> PyResult<usize> {
        self.vocab_size()
    }

    fn __repr__(&self) -> String {
        format!("<hornbook.Tokenizer of {}>", self.0.name())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Tokenizer"))
    }
}
