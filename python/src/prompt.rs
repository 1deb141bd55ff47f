//! Texts, or token ids, as arguments.

use crate::errors::{exception, parameter};
use crate::shared::Shared;
use hornbook::Hornbook;
use numpy::PyReadonlyArray1;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

/// The token ids of a text, or token ids as they are: a list, a tuple or an array.
///
/// # Errors
/// `ValueError` for a text without a tokenizer or an id that is no token id, `TypeError` for anything else.
pub fn ids(hornbook: &Hornbook, prompt: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if let Ok(text) = prompt.extract::<String>() {
        let tokenizer = hornbook.tokenizer_or("give token ids instead").map_err(exception)?;
        return prompt.py().detach(|| tokenizer.encode(&text, false)).map_err(exception);
    }
    token_ids(prompt)
}

/// Token ids: a list, a tuple or an array of integers.
pub fn token_ids(ids: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match ids.extract::<PyReadonlyArray1<i64>>() {
        Ok(array) => array.as_array().iter().map(|&id| token_id(id)).collect(),
        Err(_) => items(ids)?.iter().map(|id| token_id(id.extract().map_err(|_| wrong_type(id))?)).collect(),
    }
}

/// The items of a list, an array or an iterator.
fn items<'py>(all: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    all.try_iter().map_err(|_| wrong_type(all))?.collect()
}

fn wrong_type(found: &Bound<'_, PyAny>) -> PyErr {
    let class = found.get_type();
    PyTypeError::new_err(format!("found {class}, expected a text or a sequence of token ids"))
}

fn token_id(id: i64) -> PyResult<u32> {
    u32::try_from(id).map_err(|_| parameter("token id", id, "a non-negative integer"))
}

/// The ids of a text to read, at least one: an empty text stands for the end-of-text token.
pub fn validated(model: &Shared, prompt: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    model.validate_prompt(&ids(model, prompt)?).map_err(exception)
}

/// One prompt, or several.
pub enum Prompts {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

impl Prompts {
    /// A text or token ids are one prompt; a list of texts, or of lists of token ids, is several.
    pub fn new(hornbook: &Hornbook, prompts: &Bound<'_, PyAny>) -> PyResult<Self> {
        if prompts.is_instance_of::<PyString>() {
            return ids(hornbook, prompts).map(Self::One);
        }
        let items = items(prompts)?;
        match items.first().is_some_and(|first| first.extract::<i64>().is_err()) {
            true => items.iter().map(|prompt| ids(hornbook, prompt)).collect::<PyResult<_>>().map(Self::Many),
            false => token_ids(PyList::new(prompts.py(), items)?.as_any()).map(Self::One),
        }
    }

    /// Calls `each` with all prompts at once, and returns its result for the one prompt, or the list of all.
    pub fn map<'py, T: IntoPyObject<'py>>(
        self,
        py: Python<'py>,
        each: impl FnOnce(Vec<Vec<u32>>) -> PyResult<Vec<T>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::One(ids) => each(vec![ids])?.remove(0).into_bound_py_any(py),
            Self::Many(ids) => each(ids)?.into_bound_py_any(py),
        }
    }
}
