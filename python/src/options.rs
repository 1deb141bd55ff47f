//! The keyword arguments of `generate` and `stream`: the names of transformers where it has them, else those
//! of vLLM and of the command line. The parameters that are numbers come from the library's one table.

use crate::errors::parameter;
use crate::hooks::Hooks;
use crate::shared::Shared;
use hornbook::engine::{CompletionParams, MAX_CHOICES};
use hornbook::generate::ContextPolicy;
use hornbook::sampling::{BeamParams, EarlyStopping, PARAMETERS, random_seed};
use hornbook::{Error, Options};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::collections::BTreeMap;

/// The arguments that are no number of the table.
#[rustfmt::skip]
const OTHERS: [&str; 16] = [
    "max_new_tokens", "min_new_tokens", "do_sample", "seed", "stop", "stop_token_ids", "n", "logprobs",
    "num_beams", "length_penalty", "early_stopping", "logit_bias", "bad_words_ids", "allowed_token_ids",
    "context", "hooks",
];

/// What to generate.
pub struct Arguments {
    /// The library's options.
    pub options: Options,
    /// The number of completions of a prompt; none for one that is not in a list.
    pub n: Option<usize>,
    /// The number of most likely tokens reported with every token.
    pub top_logprobs: usize,
    /// Beam search, if there is more than one beam.
    pub beams: Option<BeamParams>,
    /// Functions that change the pass.
    pub hooks: Option<Hooks>,
}

impl Arguments {
    /// Reads the arguments; `None` is the default. What is not given is the model's default.
    ///
    /// # Errors
    /// `TypeError` for an unknown name, `ValueError` for a value of another kind or out of range.
    pub fn new(model: &Shared, arguments: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut options = model.default_options();
        options.sampling.seed = random_seed();
        let mut beams = BeamParams { num_beams: 1, length_penalty: 1.0, ..BeamParams::default() };
        let (mut n, mut top_logprobs, mut do_sample, mut hooks) = (None, 0, true, None);
        for (name, value) in arguments.into_iter().flatten() {
            let (name, sampling) = (name.extract::<String>()?, &mut options.sampling);
            if value.is_none() {
                check_name(&name)?;
                continue;
            }
            let value = Value { name: &name, value };
            const COUNT: &str = "a non-negative integer";
            match &*name {
                "max_new_tokens" => options.max_tokens = Some(value.get(COUNT)?),
                "min_new_tokens" => sampling.min_tokens = value.get(COUNT)?,
                "do_sample" => do_sample = value.get("True or False")?,
                "seed" => sampling.seed = value.get(COUNT)?,
                "stop" => options.stop = value.texts()?,
                "stop_token_ids" => sampling.stop_ids = value.get("a list of token ids")?,
                "n" => n = Some(value.within(1, MAX_CHOICES)?),
                "logprobs" => top_logprobs = value.within(0, model.config().vocab_size)?,
                "num_beams" => beams.num_beams = value.within(1, usize::MAX)?,
                "length_penalty" => beams.length_penalty = value.get("a number")?,
                "early_stopping" => beams.early_stopping = value.early_stopping()?,
                "logit_bias" => {
                    let biases: BTreeMap<u32, f32> = value.get("a dict of token ids and biases")?;
                    sampling.logit_bias = biases.into_iter().collect();
                }
                "bad_words_ids" => sampling.bad_words_ids = value.get("a list of lists of token ids")?,
                "allowed_token_ids" => sampling.allowed_ids = value.get("a list of token ids")?,
                "context" => options.context = value.context()?,
                "hooks" => hooks = Some(Hooks::new(model, &value.get("a dict of names and functions")?)?),
                _ => match PARAMETERS.iter().find(|parameter| parameter.name == name) {
                    None => check_name(&name)?,
                    Some(it) => {
                        let text = value.value.str()?.extract::<String>()?;
                        it.set(sampling, it.parse(&text).map_err(|expected| value.error(expected))?);
                    }
                },
            }
        }
        if !do_sample {
            options.sampling.temperature = 0.0;
        }
        let beams = (beams.num_beams > 1).then_some(beams);
        match (beams, n) {
            (Some(BeamParams { num_beams, .. }), Some(n)) if n > num_beams => {
                Err(parameter("n", n, format!("at most num_beams, {num_beams}")))
            }
            _ => Ok(Self { options, n, top_logprobs, beams, hooks }),
        }
    }

    /// The engine's parameters, for one prompt.
    pub fn params(&self) -> CompletionParams {
        CompletionParams {
            options: self.options.clone(),
            choices: self.n.unwrap_or(1),
            top_logprobs: self.top_logprobs,
            ..CompletionParams::default()
        }
    }
}

/// Refuses a name that no argument has.
fn check_name(name: &str) -> PyResult<()> {
    let names = || OTHERS.into_iter().chain(PARAMETERS.iter().map(|it| it.name));
    match names().any(|known| known == name) {
        true => Ok(()),
        false => {
            let hint = Error::did_you_mean(name, names());
            Err(PyTypeError::new_err(format!("unexpected keyword argument '{name}'{hint}")))
        }
    }
}

/// The value of an argument.
struct Value<'a, 'py> {
    name: &'a str,
    value: Bound<'py, PyAny>,
}

impl<'py> Value<'_, 'py> {
    fn error(&self, expected: impl Into<String>) -> PyErr {
        parameter(self.name, self.value.repr().map_or_else(|_| "?".into(), |repr| repr.to_string()), expected)
    }

    fn get<T: FromPyObjectOwned<'py>>(&self, expected: &str) -> PyResult<T> {
        self.value.extract().map_err(|_| self.error(expected))
    }

    fn within(&self, min: usize, max: usize) -> PyResult<usize> {
        let expected = match max {
            usize::MAX => format!("an integer of at least {min}"),
            max => format!("an integer from {min} to {max}"),
        };
        let value = self.value.extract().ok().filter(|value| (min..=max).contains(value));
        value.ok_or_else(|| self.error(expected))
    }

    /// A text or a list of texts.
    fn texts(&self) -> PyResult<Vec<String>> {
        match self.value.is_instance_of::<PyString>() {
            true => Ok(vec![self.value.extract()?]),
            false => self.get("a text or a list of texts"),
        }
    }

    fn early_stopping(&self) -> PyResult<EarlyStopping> {
        match (self.value.extract::<bool>(), self.value.extract::<String>().as_deref()) {
            (Ok(true), _) => Ok(EarlyStopping::Immediate),
            (Ok(false), _) => Ok(EarlyStopping::Heuristic),
            (_, Ok("never")) => Ok(EarlyStopping::Never),
            _ => Err(self.error("True, False or 'never'")),
        }
    }

    fn context(&self) -> PyResult<ContextPolicy> {
        match self.value.extract::<String>().as_deref() {
            Ok("stop") => Ok(ContextPolicy::Stop),
            Ok("shift") => Ok(ContextPolicy::Shift),
            _ => Err(self.error("'stop' or 'shift'")),
        }
    }
}
