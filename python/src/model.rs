//! A model: opened, and everything that can be done with it.

use crate::completion;
use crate::config::Config;
use crate::errors::{exception, not_picklable, parameter};
use crate::forward;
use crate::hooks::Hooks;
use crate::options::Arguments;
use crate::prompt::{self, Prompts};
use crate::shared::Shared;
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;
use hornbook::Hornbook;
use hornbook::checkpoint::Checkpoint;
use hornbook::checkpoint::adapter::Adapter;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::{MAX_THREADS, ThreadPool};
use hornbook::model::{Precision, Site};
use numpy::{PyArray2, PyArray4, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::ffi::CString;
use std::path::PathBuf;

/// A GPT-2 model, opened with ``Model.from_pretrained``. Several threads may use it at the same time.
#[pyclass(frozen, module = "hornbook")]
pub struct Model(Shared);

#[pymethods]
impl Model {
    /// Opens ``"fable"``, which is part of the package, a folder, or a name in the Hugging Face cache.
    ///
    /// ``precision`` converts the weights: f32, f16, bf16, bf16-dot, int8 or int4; the default keeps them as
    /// stored. ``threads`` is one per core by default. ``adapter`` is the folder of a LoRA adapter.
    /// ``draft``, int8 or int4, drafts texts with a quantized copy of the model: the same bits, faster. A
    /// smaller model with the same vocabulary, or a folder that ``hornbook quantize`` wrote, can draft too.
    #[staticmethod]
    #[pyo3(signature = (model="fable".into(), *, precision=None, threads=None, adapter=None, draft=None))]
    fn from_pretrained(
        py: Python<'_>,
        model: PathBuf,
        precision: Option<&Bound<'_, PyAny>>,
        threads: Option<i64>,
        adapter: Option<PathBuf>,
        draft: Option<PathBuf>,
    ) -> PyResult<Self> {
        let precision = to_precision("precision", precision)?;
        let (name, threads) = (model.to_string_lossy().into_owned(), n_threads(threads)?);
        let opened = py.detach(|| open(&name, precision, threads, adapter, draft));
        let (hornbook, notes) = opened.map_err(exception)?;
        for note in notes {
            let note = CString::new(note)?;
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), &note, 1)?;
        }
        Shared::new(hornbook).map(Self)
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The model's configuration.
    #[getter]
    fn config(&self) -> Config {
        self.0.config().into()
    }

    /// The model's tokenizer.
    #[getter]
    fn tokenizer(&self) -> Tokenizer {
        Tokenizer(self.0.clone())
    }

    /// The number of threads.
    #[getter]
    fn threads(&self) -> usize {
        self.0.model().pool().threads()
    }

    /// The names of all sites of a pass, in its order, for ``run_with_cache`` and ``run_with_hooks``.
    #[getter]
    fn hook_names(&self) -> Vec<String> {
        Site::all(self.0.config().n_layer).map(|site| site.to_string()).collect()
    }

    /// Writes what follows a prompt: a text, or a list of token ids. Returns a ``Completion``; with ``n``, a
    /// list of as many; for a list of prompts, a list of such results, computed together.
    ///
    /// What is not given is the model's default: temperature 0.8, top_p 0.95, at most 200 tokens, a new seed.
    #[pyo3(signature = (prompt, **arguments), text_signature = "($self, prompt, *, max_new_tokens=None, \
        temperature=None, top_p=None, top_k=None, min_p=None, typical_p=None, seed=None, stop=None, n=None, \
        logprobs=None, num_beams=None, length_penalty=None, early_stopping=None, repetition_penalty=None, \
        presence_penalty=None, frequency_penalty=None, no_repeat_ngram_size=None, min_new_tokens=None, \
        do_sample=None, stop_token_ids=None, logit_bias=None, bad_words_ids=None, allowed_token_ids=None, \
        context=None, hooks=None)")]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = Arguments::new(&self.0, arguments)?;
        Prompts::new(&self.0, prompt)?.map(py, |prompts| {
            let all = completion::generate(py, &self.0, prompts, &arguments)?.into_iter();
            let result = |mut completions: Vec<completion::Completion>| match arguments.n {
                None => completions.remove(0).into_bound_py_any(py),
                Some(_) => completions.into_bound_py_any(py),
            };
            all.map(result).collect()
        })
    }

    /// Writes what follows a prompt, as an iterator of tokens. Takes the arguments of ``generate`` that are
    /// about one text.
    #[pyo3(signature = (prompt, **arguments))]
    fn stream(&self, prompt: &Bound<'_, PyAny>, arguments: Option<&Bound<'_, PyDict>>) -> PyResult<Stream> {
        let arguments = Arguments::new(&self.0, arguments)?;
        Stream::new(&self.0, prompt::ids(&self.0, prompt)?, &arguments)
    }

    /// Returns the logits after each token of a text or of token ids, float32 ``[T, vocab_size]``.
    fn logits<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        forward::logits(py, &self.0, &prompt::validated(&self.0, ids)?)
    }

    /// Returns how well the model predicts a text or token ids: a ``Score``; of a list, a list.
    fn score<'py>(&self, py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Prompts::new(&self.0, text)?.map(py, |texts| forward::score(py, &self.0, texts))
    }

    /// Returns the mean of a text's final hidden states, float32 ``[n_embd]``; of a list of texts,
    /// ``[len(texts), n_embd]``.
    fn embed<'py>(&self, py: Python<'py>, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (texts, is_one) = match Prompts::new(&self.0, texts)? {
            Prompts::One(ids) => (vec![ids], true),
            Prompts::Many(texts) => (texts, false),
        };
        let embeddings = PyArray2::from_owned_array(py, forward::embed(py, &self.0, texts)?);
        match is_one {
            true => Ok(embeddings.reshape([self.0.config().n_embd])?.into_any()),
            false => Ok(embeddings.into_any()),
        }
    }

    /// Returns the attention weights of all heads, float32 ``[n_layer, n_head, T, T]``: row i of a head is
    /// what token i attends to.
    fn attention<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        forward::attention(py, &self.0, &prompt::validated(&self.0, ids)?)
    }

    /// Returns the logits ``[T, vocab_size]`` and a dict of activations by TransformerLens's names: those of
    /// ``names``, one or a list, or all of ``hook_names``.
    ///
    /// The shapes are ``[T, n_embd]``, ``[T, n_inner]``, ``[T, n_head, head_dim]`` (``hook_q``, ``hook_k``,
    /// ``hook_v``, ``hook_z``) and ``[n_head, T, T]`` (``hook_pattern``).
    #[pyo3(signature = (ids, names=None))]
    fn run_with_cache<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        names: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyDict>)> {
        let names = match names {
            Some(name) if name.is_instance_of::<PyString>() => Some(vec![name.extract()?]),
            names => names.map(|names| names.extract()).transpose()?,
        };
        forward::run_with_cache(py, &self.0, &prompt::validated(&self.0, ids)?, names)
    }

    /// Returns the logits ``[T, vocab_size]`` of a pass that functions change: a dict from the names of
    /// ``hook_names`` to functions.
    ///
    /// A function gets the activations as an array, of the shapes of ``run_with_cache``, and changes it or
    /// returns another. ``hook_pattern`` can be read only.
    fn run_with_hooks<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        hooks: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let ids = prompt::validated(&self.0, ids)?;
        forward::run_with_hooks(py, &self.0, &ids, Hooks::new(&self.0, hooks)?)
    }

    /// Trains this model further on texts of your own, and returns the result: ``hornbook.finetune`` with
    /// ``model`` set to this model's name. An adapter that it was opened with is not part of it.
    #[pyo3(signature = (data, output, **options))]
    fn finetune<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        output: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = match options {
            Some(options) => options.copy()?,
            None => PyDict::new(py),
        };
        options.set_item("model", self.name())?;
        py.import("hornbook")?.getattr("finetune")?.call((data, output), Some(&options))
    }

    fn __repr__(&self) -> String {
        let config = self.0.config();
        format!("<hornbook.Model {}: {} layers of {} heads>", self.0.name(), config.n_layer, config.n_head)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Model"))
    }
}

/// The precision of a name.
fn to_precision(argument: &str, name: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Precision>> {
    let Some(name) = name else { return Ok(None) };
    let parsed = name.str()?.to_string().parse::<Precision>();
    parsed.map(Some).map_err(|expected| parameter(argument, name, expected.trim_start_matches("expected ")))
}

/// The size of a thread pool; 0 stands for one per core.
fn n_threads(threads: Option<i64>) -> PyResult<usize> {
    match threads {
        None => Ok(0),
        Some(n) => usize::try_from(n)
            .ok()
            .filter(|n| (1..=MAX_THREADS).contains(n))
            .ok_or_else(|| parameter("threads", n, format!("an integer from 1 to {MAX_THREADS}"))),
    }
}

/// Opens a model, with the notes on its files.
fn open(
    name: &str,
    precision: Option<Precision>,
    threads: usize,
    adapter: Option<PathBuf>,
    draft: Option<PathBuf>,
) -> hornbook::Result<(Hornbook, Vec<String>)> {
    let checkpoint = Checkpoint::open(name)?;
    let mut notes = checkpoint.notes.clone();
    let mut hornbook =
        Hornbook::with_precision(checkpoint, ThreadPool::new(threads, Isa::choose()?), precision)?;
    if let Some(folder) = adapter {
        let adapter = Adapter::open(&folder, hornbook.config())?;
        hornbook = hornbook.with_adapter(&adapter)?;
    }
    if let Some(draft) = draft.map(|draft| draft.to_string_lossy().into_owned()) {
        hornbook = match draft.parse() {
            Ok(precision) => hornbook.with_draft(precision)?,
            Err(_) => hornbook.with_draft_model(Checkpoint::open(&draft)?)?,
        };
    }
    let problems = hornbook.try_tokenizer().map_or(&[][..], |it| &it.special_tokens().problems);
    notes.extend(problems.iter().map(|problem| format!("{problem}; not used")));
    Ok((hornbook, notes))
}
