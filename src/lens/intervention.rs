//! Interventions: ablating or scaling the output of components, and measuring the effect on the prediction.
//!
//! The target is an attention head (`L5H1`, layer and head counted from 0) or an MLP (`mlp3`). Its output is
//! replaced during the pass at every token, in the prompt and in the generated text:
//!
//! ```text
//! zero ablation    z ← 0
//! mean ablation    z ← mean of z over the prompt
//! scaling          z ← s · z
//! ```
//!
//! For a head, z is its columns of `attn.hook_z`, before `c_proj`; for an MLP, it is `hook_mlp_out`. Zero
//! ablation also removes a constant output that later components may rely on; mean ablation keeps it (Wang et
//! al. 2022, "Interpretability in the Wild", section 2). The mean is computed once, over the prompt's tokens,
//! without interventions. The effect is measured by the Kullback-Leibler divergence of the predictions, Σ
//! p_before · ln(p_before / p_after).
//!
//! ```
//! use hornbook::lens::intervention::{Edit, Effect, Intervention, Interventions};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let prompt = fable.encode("Once upon a time there was a")?;
//! let ablation = Intervention { target: "mlp0".parse().unwrap(), edit: Edit::Zero };
//! let ablated = Interventions::new(fable.model(), &prompt, &[ablation])?;
//! let before = fable.generate(&prompt, &Options::default())?;
//! let after = fable.generate_observed(&prompt, &Options::default(), ablated)?;
//! let effect = Effect::measure(before.prompt_logits(), after.prompt_logits(), 5);
//! assert!(effect.kl_divergence > 1.0); // fable depends on its first MLP
//! # Ok(())
//! # }
//! ```

use super::ActivationCache;
use crate::generate::perplexity::kl_divergence;
use crate::kernels::attention::KvPrecision;
use crate::model::{Model, Observer, Session, Site};
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::{Error, Result};
use ndarray::{ArrayViewMutD, Axis, Slice};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The number of most likely tokens of each prediction to compare.
pub const COMPARED_TOKENS: usize = 5;

/// A component whose output can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterventionTarget {
    /// An attention head, e.g. `L5H1`.
    Head {
        /// The layer, from 0.
        layer: usize,
        /// The head within the layer, from 0.
        head: usize,
    },
    /// An MLP, e.g. `mlp3`.
    Mlp {
        /// The layer, from 0.
        layer: usize,
    },
}

/// The replacement of a component's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edit {
    /// Zero ablation: zeros.
    Zero,
    /// Mean ablation: the mean over the prompt's tokens.
    Mean,
    /// The output times a factor.
    Scale(f32),
}

/// An intervention on one component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervention {
    /// The component.
    pub target: InterventionTarget,
    /// The replacement of its output.
    pub edit: Edit,
}

impl InterventionTarget {
    fn site(self) -> Site {
        match self {
            InterventionTarget::Head { layer, .. } => Site::Z(layer),
            InterventionTarget::Mlp { layer } => Site::MlpOut(layer),
        }
    }

    /// The columns of the component at its site.
    fn columns(self, model: &Model) -> Range<usize> {
        let config = model.config();
        let head_dim = config.n_embd / config.n_head;
        match self {
            InterventionTarget::Head { head, .. } => head * head_dim..(head + 1) * head_dim,
            InterventionTarget::Mlp { .. } => 0..config.n_embd,
        }
    }

    /// Checks that the model has the component.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the valid range.
    pub fn check(self, model: &Model) -> Result<()> {
        let config = model.config();
        let (InterventionTarget::Head { layer, .. } | InterventionTarget::Mlp { layer }) = self;
        let expected = match self {
            _ if layer >= config.n_layer => format!("a layer from 0 to {}", config.n_layer - 1),
            InterventionTarget::Head { head, .. } if head >= config.n_head => {
                format!("a head from 0 to {}", config.n_head - 1)
            }
            _ => return Ok(()),
        };
        Err(Error::Parameter { name: "component".into(), found: self.to_string(), expected })
    }
}

impl fmt::Display for InterventionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterventionTarget::Head { layer, head } => write!(f, "L{layer}H{head}"),
            InterventionTarget::Mlp { layer } => write!(f, "mlp{layer}"),
        }
    }
}

impl FromStr for InterventionTarget {
    type Err = String;

    /// Parses `L5H1` or `mlp3`, ignoring case.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let number = |digits: &str| digits.parse::<u16>().map(usize::from).ok();
        let parse = || match lower.strip_prefix("mlp") {
            Some(layer) => Some(InterventionTarget::Mlp { layer: number(layer)? }),
            None => {
                let (layer, head) = lower.strip_prefix('l')?.split_once('h')?;
                Some(InterventionTarget::Head { layer: number(layer)?, head: number(head)? })
            }
        };
        parse().ok_or_else(|| {
            format!(
                "unknown component '{text}', expected an attention head such as L5H1 or an MLP such as mlp3"
            )
        })
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, edit } = self;
        match edit {
            Edit::Zero => write!(f, "{target} zero"),
            Edit::Mean => write!(f, "{target} mean"),
            Edit::Scale(factor) => write!(f, "{target} × {factor}"),
        }
    }
}

/// An observer that applies interventions to a forward pass.
#[derive(Clone, Debug)]
pub struct Interventions(Vec<SiteEdit>);

/// An intervention resolved to the columns of a site.
#[derive(Clone, Debug)]
struct SiteEdit {
    site: Site,
    columns: Range<usize>,
    operation: EditOperation,
}

#[derive(Clone, Debug)]
enum EditOperation {
    /// Replaces the columns by the same vector for every token.
    Constant(Vec<f32>),
    Scale(f32),
}

impl Interventions {
    /// Prepares `interventions` for a model; they are applied in order. The means of mean ablation are
    /// computed over `prompt`, of at least one token, in one pass without interventions.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a component that the model does not have or a scale that is not finite;
    /// errors of [`Model::forward`].
    pub fn new(model: &Model, prompt: &[u32], interventions: &[Intervention]) -> Result<Self> {
        for intervention in interventions {
            intervention.target.check(model)?;
            if let Edit::Scale(factor) = intervention.edit
                && !factor.is_finite()
            {
                let (name, found) = (format!("scale of {}", intervention.target), factor.to_string());
                return Err(Error::Parameter { name, found, expected: "a finite number".into() });
            }
        }
        let mean_ablated = interventions.iter().filter(|intervention| intervention.edit == Edit::Mean);
        let means = Means::compute(model, prompt, mean_ablated.map(|ablation| ablation.target.site()))?;
        let resolve = |intervention: &Intervention| {
            let (site, columns) = (intervention.target.site(), intervention.target.columns(model));
            let operation = match intervention.edit {
                Edit::Zero => EditOperation::Constant(vec![0.0; columns.len()]),
                Edit::Mean => EditOperation::Constant(means.mean(site, columns.clone())),
                Edit::Scale(factor) => EditOperation::Scale(factor),
            };
            SiteEdit { site, columns, operation }
        };
        Ok(Self(interventions.iter().map(resolve).collect()))
    }
}

impl Observer for Interventions {
    fn is_interested(&self, site: Site) -> bool {
        self.0.iter().any(|edit| edit.site == site)
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        for SiteEdit { columns, operation, .. } in self.0.iter().filter(|edit| edit.site == site) {
            let mut output = values.slice_axis_mut(Axis(1), Slice::from(columns.clone()));
            match operation {
                EditOperation::Scale(factor) => output *= *factor,
                EditOperation::Constant(vector) => {
                    for mut row in output.outer_iter_mut() {
                        row.iter_mut().zip(vector).for_each(|(x, constant)| *x = *constant);
                    }
                }
            }
        }
    }
}

/// The sums of the activations over all tokens, in f64, at the given sites.
#[derive(Default)]
struct Means {
    sums: HashMap<Site, Vec<f64>>,
    tokens: usize,
}

impl Means {
    fn compute(model: &Model, prompt: &[u32], sites: impl Iterator<Item = Site>) -> Result<Self> {
        let width = model.config().n_embd;
        let means = Self { sums: sites.map(|site| (site, vec![0.0; width])).collect(), tokens: prompt.len() };
        if means.sums.is_empty() {
            return Ok(means);
        }
        let mut session = Session::observed(model, prompt.len(), None, means);
        session.feed(prompt)?;
        Ok(std::mem::take(session.observer()))
    }

    fn mean(&self, site: Site, columns: Range<usize>) -> Vec<f32> {
        self.sums[&site][columns].iter().map(|sum| (sum / self.tokens as f64) as f32).collect()
    }
}

impl Observer for Means {
    fn is_interested(&self, site: Site) -> bool {
        self.sums.contains_key(&site)
    }

    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        let Some(sums) = self.sums.get_mut(&site) else { return };
        for row in values.outer_iter() {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
}

/// The effect of interventions on the prediction of the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The most likely tokens of both predictions, in descending order of their probability before.
    pub next: Vec<ProbabilityShift>,
    /// Σ p_before · ln(p_before / p_after), in nats.
    pub kl_divergence: f64,
}

/// A token's probability before and after interventions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbabilityShift {
    /// The token id.
    pub id: u32,
    /// Its probability without interventions.
    pub before: f32,
    /// Its probability with interventions.
    pub after: f32,
}

impl Effect {
    /// Compares two predictions, logits `[vocab_size]` each, and returns the `n` most likely tokens of both.
    pub fn measure(before: &[f32], after: &[f32], n: usize) -> Self {
        let (p, q) = (LogSoftmax::new(before), LogSoftmax::new(after));
        let shift = |id: u32| ProbabilityShift {
            id,
            before: libm::expf(p.logprob(before[id as usize])),
            after: libm::expf(q.logprob(after[id as usize])),
        };
        let [mut ids, others] = [before, after].map(|logits| top_logprobs(logits, n));
        ids.extend(
            others
                .into_iter()
                .filter(|(id, _)| !ids.iter().any(|(other, _)| other == id))
                .collect::<Vec<_>>(),
        );
        let mut next: Vec<ProbabilityShift> = ids.into_iter().map(|(id, _)| shift(id)).collect();
        next.sort_by(|a, b| b.before.total_cmp(&a.before));
        Self { next, kl_divergence: kl_divergence(before, after).0 }
    }
}

/// Interventions and their joint effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The interventions, in the order they are applied.
    pub interventions: Vec<Intervention>,
    /// Their joint effect.
    pub effect: Effect,
}

impl Outcome {
    /// The effect of interventions on the prediction after the last token of a text, whose `activations` are
    /// those with them.
    ///
    /// # Errors
    /// As [`Session::feed`].
    pub fn measure(
        model: &Model,
        interventions: Vec<Intervention>,
        activations: &ActivationCache,
        kv_precision: Option<KvPrecision>,
    ) -> Result<Self> {
        let mut session = Session::new(model, activations.len(), kv_precision);
        let after = activations.logits.row(activations.len() - 1);
        let before = session.feed(&activations.tokens)?;
        let effect = Effect::measure(before, after.to_slice().unwrap_or_default(), COMPARED_TOKENS);
        Ok(Self { interventions, effect })
    }
}

/// Formats as `interventions: L5H2 zero, mlp3 × 2`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interventions: Vec<String> = self.interventions.iter().map(Intervention::to_string).collect();
        write!(f, "interventions: {}", interventions.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervention_target_round_trips() {
        for (text, target) in [
            ("L5H1", InterventionTarget::Head { layer: 5, head: 1 }),
            ("l0h11", InterventionTarget::Head { layer: 0, head: 11 }),
            ("MLP3", InterventionTarget::Mlp { layer: 3 }),
        ] {
            assert_eq!(text.parse(), Ok(target));
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        for invalid in ["", "L5", "H1", "5.1", "mlp", "mlp-1", "L1H", "L1H2H3", "attn3", "L1H99999999"] {
            let error = invalid.parse::<InterventionTarget>().unwrap_err();
            assert!(error.starts_with(&format!("unknown component '{invalid}', expected")), "{error}");
        }
    }

    #[test]
    fn effect_lists_top_tokens_before_and_after() {
        let (before, after) = ([0.0, 3.0, 2.0, -1.0], [0.0, -1.0, 2.0, 3.0]);
        let effect = Effect::measure(&before, &after, 2);
        let ids: Vec<u32> = effect.next.iter().map(|shift| shift.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let softmax = |logits: &[f64; 4]| {
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            logits.map(|x| x.exp() / sum)
        };
        let (p, q) = (softmax(&before.map(f64::from)), softmax(&after.map(f64::from)));
        let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((effect.kl_divergence - kl).abs() < 1e-9);
        for ProbabilityShift { id, before, after } in effect.next {
            assert!((f64::from(before) - p[id as usize]).abs() < 1e-6);
            assert!((f64::from(after) - q[id as usize]).abs() < 1e-6);
        }
        assert_eq!(Effect::measure(&before, &before, 1).kl_divergence, 0.0);
    }
}
