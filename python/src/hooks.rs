//! Observers of a pass: one that records activations, and one that calls Python functions with them.

use crate::errors::parameter;
use crate::shared::Shared;
use hornbook::model::{Observer, Site};
use ndarray::{ArrayD, ArrayViewMutD};
use numpy::{PyArrayDyn, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The site of a name, in a model that has it.
///
/// # Errors
/// `ValueError` with the names there are.
pub fn site(model: &Shared, name: &str) -> PyResult<Site> {
    let site: Site = name.parse().map_err(PyValueError::new_err)?;
    let n_layer = model.config().n_layer;
    match site.layer() {
        Some(layer) if layer >= n_layer => {
            Err(parameter(name, format!("block {layer}"), format!("0 to {}", n_layer - 1)))
        }
        _ => Ok(site),
    }
}

/// The activations of a site in Python's shape: queries, keys, values and the heads' outputs have an axis of
/// heads, `[T, n_head, head_dim]`, as TransformerLens has it.
fn to_python_shape(site: Site, values: ArrayD<f32>, n_head: usize) -> ArrayD<f32> {
    match (site, values.shape()) {
        (Site::Q(_) | Site::K(_) | Site::V(_) | Site::Z(_), &[n, n_embd]) => values
            .into_shape_with_order(vec![n, n_head, n_embd / n_head])
            .expect("heads are of the same width"),
        _ => values,
    }
}

/// Records the activations of some sites, in the order of the pass.
pub struct Recorder {
    sites: Vec<Site>,
    n_head: usize,
    /// The activations so far.
    pub recorded: Vec<(Site, ArrayD<f32>)>,
}

impl Recorder {
    /// Records the sites of these names; without names, all there are.
    pub fn new(model: &Shared, names: Option<Vec<String>>) -> PyResult<Self> {
        let sites = match names {
            None => Site::all(model.config().n_layer).collect(),
            Some(names) => names.iter().map(|name| site(model, name)).collect::<PyResult<_>>()?,
        };
        Ok(Self { sites, n_head: model.config().n_head, recorded: vec![] })
    }
}

impl Observer for Recorder {
    fn is_interested(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        self.recorded.push((site, to_python_shape(site, values.to_owned(), self.n_head)));
    }
}

/// Calls Python functions with the activations of their sites. What a function returns, or what it changes in
/// the array, takes their place. After an exception no function is called.
pub struct Hooks {
    functions: Vec<(Site, Py<PyAny>)>,
    n_head: usize,
    error: Option<PyErr>,
}

impl Hooks {
    /// Takes the functions of a dict from names to functions.
    pub fn new(model: &Shared, functions: &Bound<'_, PyDict>) -> PyResult<Self> {
        let functions = functions.iter().map(|(name, function)| {
            let name = name.extract::<String>()?;
            match function.is_callable() {
                true => Ok((site(model, &name)?, function.unbind())),
                false => Err(parameter(&name, function.repr()?, "a function of an array")),
            }
        });
        let functions = functions.collect::<PyResult<_>>()?;
        Ok(Self { functions, n_head: model.config().n_head, error: None })
    }

    /// A copy, for another pass.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        let functions = self.functions.iter().map(|(site, function)| (*site, function.clone_ref(py)));
        Self { functions: functions.collect(), n_head: self.n_head, error: None }
    }

    /// The exception of a function, if one was raised.
    pub fn take_error(&mut self) -> PyResult<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    fn call(&self, site: Site, function: &Py<PyAny>, values: &mut ArrayViewMutD<'_, f32>) -> PyResult<()> {
        Python::attach(|py| {
            let array = to_python_shape(site, values.to_owned(), self.n_head);
            let shape = array.shape().to_vec();
            let array = PyArrayDyn::from_owned_array(py, array);
            let is_pattern = matches!(site, Site::Pattern(_));
            if is_pattern {
                array.call_method1("setflags", (false,))?;
            }
            let returned = function.call1(py, (&array,))?.into_bound(py);
            let changed = match (returned.is_none(), is_pattern) {
                (true, true) => return Ok(()),
                (false, true) => {
                    let expected = "None: attention weights are read-only; change hook_q, _k, _v or _z";
                    return Err(parameter(&site.to_string(), "a changed array", expected));
                }
                (true, false) => array.into_any(),
                (false, false) => returned,
            };
            let changed = py.import("numpy")?.call_method1("asarray", (changed, "float32"))?;
            let changed: PyReadonlyArrayDyn<f32> = changed.extract()?;
            if changed.shape() != shape {
                let found = format!("an array of shape {:?}", changed.shape());
                return Err(parameter(&site.to_string(), found, format!("one of shape {shape:?}")));
            }
            values.iter_mut().zip(changed.as_array()).for_each(|(to, from)| *to = *from);
            Ok(())
        })
    }
}

impl Observer for Hooks {
    fn is_interested(&self, site: Site) -> bool {
        self.error.is_none() && self.functions.iter().any(|(hooked, _)| *hooked == site)
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        let mut functions = self.functions.iter().filter(|(hooked, _)| *hooked == site);
        self.error = functions.find_map(|(_, function)| self.call(site, function, &mut values).err());
    }
}
