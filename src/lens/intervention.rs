//! What does a part do? Take it away, or turn it up, and see what changes.
//!
//! A part is a head (`L5H1`, layer and head counted from 0) or an MLP (`mlp3`). Its output is replaced while the pass
//! runs, at every token, the prompt's and those that are written:
//!
//! ```text
//! zero     z ← 0                                nothing at all
//! mean     z ← mean of z over the prompt        nothing that depends on the token
//! scale    z ← s · z
//! ```
//!
//! For a head z is its own columns of `attn.hook_z`, before `c_proj`; for an MLP all of `hook_mlp_out`. Zero asks what
//! the model does without the part; but a part may also bring something constant that all later ones count on, and the
//! mean leaves that in its place (Wang et al. 2022, "Interpretability in the Wild", section 2). The mean is taken once,
//! over the prompt's tokens in the model as it is. How far apart the predictions then are is the Kullback-Leibler
//! divergence, Σ p_before · ln(p_before / p_after).
//!
//! ```
//! use hornbook::lens::intervention::{Intervention, Interventions, Edit, Effect};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let prompt = fable.encode("Once upon a time there was a")?;
//! let ablation = Intervention { target: "mlp0".parse().unwrap(), edit: Edit::Zero };
//! let ablated = Interventions::new(fable.model(), &prompt, &[ablation])?;
//! let before = fable.generate(&prompt, &Options::default())?;
//! let after = fable.generate_observed(&prompt, &Options::default(), ablated)?;
//! let effect = Effect::measure(before.prompt_logits(), after.prompt_logits(), 5);
//! assert!(effect.kl_divergence > 1.0); // without its first MLP, fable can no longer read
//! # Ok(())
//! # }
//! ```

use crate::generate::perplexity::kl_divergence;
use crate::model::{Model, Observer, Session, Site};
use crate::sampling::{LogSoftmax, top_logprobs};
use crate::{Error, Result};
use ndarray::{ArrayViewMutD, Axis, Slice};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InterventionTarget {
    /// `L5H1`: a layer's head.
    Head {
        /// From 0.
        layer: usize,
        /// From 0.
        head: usize,
    },
    /// `mlp3`: a layer's MLP.
    Mlp {
        /// From 0.
        layer: usize,
    },
}

/// What becomes of its output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Edit {
    /// Nothing.
    Zero,
    /// Its mean over the prompt's tokens.
    Mean,
    /// So many times as much.
    Scale(f32),
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervention {
    /// Of what.
    pub target: InterventionTarget,
    /// Into what.
    pub edit: Edit,
}

impl InterventionTarget {
    fn site(self) -> Site {
        match self {
            InterventionTarget::Head { layer, .. } => Site::Z(layer),
            InterventionTarget::Mlp { layer } => Site::MlpOut(layer),
        }
    }

    /// Its columns at the site.
    fn columns(self, model: &Model) -> Range<usize> {
        let config = model.config();
        let head_dim = config.n_embd / config.n_head;
        match self {
            InterventionTarget::Head { head, .. } => head * head_dim..(head + 1) * head_dim,
            InterventionTarget::Mlp { .. } => 0..config.n_embd,
        }
    }

    /// Whether a model has it.
    ///
    /// # Errors
    /// [`Error::Parameter`], which names what it has.
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
        Err(Error::Parameter { name: "part to change".into(), found: self.to_string(), expected })
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

    /// Upper and lower case alike.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let number = |digits: &str| digits.parse::<u16>().map(usize::from).ok();
        let part = || match lower.strip_prefix("mlp") {
            Some(layer) => Some(InterventionTarget::Mlp { layer: number(layer)? }),
            None => {
                let (layer, head) = lower.strip_prefix('l')?.split_once('h')?;
                Some(InterventionTarget::Head { layer: number(layer)?, head: number(head)? })
            }
        };
        part().ok_or_else(|| {
            format!("'{text}' is no part, expected a head such as L5H1 or an MLP such as mlp3")
        })
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, edit } = self;
        match edit {
            Edit::Zero => write!(f, "{target} zero"),
            Edit::Mean => write!(f, "{target} mean"),
            Edit::Scale(by) => write!(f, "{target} × {by}"),
        }
    }
}

/// An observer that makes changes wherever it is let in.
#[derive(Clone, Debug)]
pub struct Interventions(Vec<Write>);

/// A change, ready to be made.
#[derive(Clone, Debug)]
struct Write {
    site: Site,
    columns: Range<usize>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The same vector for every token.
    Constant(Vec<f32>),
    Scale(f32),
}

impl Interventions {
    /// Makes `changes` ready for a model, to be made in their order. Means are measured over `prompt`, at least one
    /// token, in one pass of the model as it is.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a part that is not there or a scale that is no finite number; what the pass refuses.
    pub fn new(model: &Model, prompt: &[u32], changes: &[Intervention]) -> Result<Self> {
        for change in changes {
            change.target.check(model)?;
            if let Edit::Scale(by) = change.edit
                && !by.is_finite()
            {
                let (name, found) = (format!("scale of {}", change.target), by.to_string());
                return Err(Error::Parameter { name, found, expected: "a finite number".into() });
            }
        }
        let mean = |change: &&Intervention| change.edit == Edit::Mean;
        let means =
            Means::over(model, prompt, changes.iter().filter(mean).map(|change| change.target.site()))?;
        let write = |change: &Intervention| {
            let (site, columns) = (change.target.site(), change.target.columns(model));
            let what = match change.edit {
                Edit::Zero => What::Constant(vec![0.0; columns.len()]),
                Edit::Mean => What::Constant(means.at(site, columns.clone())),
                Edit::Scale(by) => What::Scale(by),
            };
            Write { site, columns, what }
        };
        Ok(Self(changes.iter().map(write).collect()))
    }
}

impl Observer for Interventions {
    fn is_interested(&self, site: Site) -> bool {
        self.0.iter().any(|write| write.site == site)
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        for Write { columns, what, .. } in self.0.iter().filter(|write| write.site == site) {
            let mut part = values.slice_axis_mut(Axis(1), Slice::from(columns.clone()));
            match what {
                What::Scale(by) => part *= *by,
                What::Constant(vector) => {
                    for mut row in part.outer_iter_mut() {
                        row.iter_mut().zip(vector).for_each(|(x, constant)| *x = *constant);
                    }
                }
            }
        }
    }
}

/// Sums over tokens, in f64, at the sites that are asked for.
#[derive(Default)]
struct Means {
    sums: HashMap<Site, Vec<f64>>,
    tokens: usize,
}

impl Means {
    fn over(model: &Model, prompt: &[u32], sites: impl Iterator<Item = Site>) -> Result<Self> {
        let width = model.config().n_embd;
        let means = Self { sums: sites.map(|site| (site, vec![0.0; width])).collect(), tokens: prompt.len() };
        if means.sums.is_empty() {
            return Ok(means);
        }
        let mut session = Session::observed(model, prompt.len(), None, means);
        session.feed(prompt)?;
        Ok(std::mem::take(session.observer()))
    }

    fn at(&self, site: Site, columns: Range<usize>) -> Vec<f32> {
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

/// What changes do to the prediction of the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The most likely tokens of either prediction, the likeliest before the change first.
    pub next: Vec<ProbabilityShift>,
    /// Σ p_before · ln(p_before / p_after), in nats.
    pub kl_divergence: f64,
}

/// A token's probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbabilityShift {
    /// The token.
    pub id: u32,
    /// In the model as it is.
    pub before: f32,
    /// In the changed model.
    pub after: f32,
}

impl Effect {
    /// Compares two predictions, logits `[vocab_size]` each, and names the `n` most likely tokens of both.
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
                .filter(|(id, _)| !ids.iter().any(|(known, _)| known == id))
                .collect::<Vec<_>>(),
        );
        let mut next: Vec<ProbabilityShift> = ids.into_iter().map(|(id, _)| shift(id)).collect();
        next.sort_by(|a, b| b.before.total_cmp(&a.before));
        Self { next, kl_divergence: kl_divergence(before, after).0 }
    }
}

/// Interventions, and what they did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In the order they were made.
    pub changes: Vec<Intervention>,
    /// Of all of them together.
    pub effect: Effect,
}

/// `changed: L5H2 zero, mlp3 × 2`
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<String> = self.changes.iter().map(Intervention::to_string).collect();
        write!(f, "changed: {}", changes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_are_written() {
        for (text, part) in [
            ("L5H1", InterventionTarget::Head { layer: 5, head: 1 }),
            ("l0h11", InterventionTarget::Head { layer: 0, head: 11 }),
            ("MLP3", InterventionTarget::Mlp { layer: 3 }),
        ] {
            assert_eq!(text.parse(), Ok(part));
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for wrong in ["", "L5", "H1", "5.1", "mlp", "mlp-1", "L1H", "L1H2H3", "attn3", "L1H99999999"] {
            let error = wrong.parse::<InterventionTarget>().unwrap_err();
            assert!(error.starts_with(&format!("'{wrong}' is no part, expected")), "{error}");
        }
    }

    #[test]
    fn an_effect_names_what_was_and_what_is_likely() {
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
