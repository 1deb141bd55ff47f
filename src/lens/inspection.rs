//! Everything there is to see of one text, computed once for whoever shows it.

use super::logit_lens::logit_lens;
use super::saliency::{HeadSaliency, head_saliency, most_salient_head};
use super::surprisal::predictions;
use super::{ActivationCache, Component, DirectLogitAttribution, LogitAttribution, Prediction};
use crate::kernels::attention::KvPrecision;
use crate::model::Observer;
use crate::sampling::top_logprobs;
use crate::{Error, Hornbook, Result};
use ndarray::Array2;

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct InspectionOptions {
    /// The block whose head is shown; none leaves it to the most telling head.
    pub layer: Option<usize>,
    /// The head that is shown; none leaves it to the most telling head of the block.
    pub head: Option<usize>,
    /// The token whose logit is explained at the text's end; none is the likeliest one.
    pub target: Option<u32>,
    /// The number of likeliest tokens to keep for each answer.
    pub best: usize,
    /// How keys and values are stored; none for [`Model::kv_precision`](crate::model::Model::kv_precision).
    pub kv_precision: Option<KvPrecision>,
}

/// How the head that is shown was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSelection {
    /// It was named.
    Named,
    /// It is the most telling of its block.
    OfLayer,
    /// It is the most telling of all.
    OfAll,
}

/// Everything there is to see of one text.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The pass itself.
    pub capture: ActivationCache,
    /// The head to show.
    pub shown: HeadSaliency,
    /// How it came to be that one.
    pub choice: HeadSelection,
    /// What the model answers at each token, `[n]`.
    pub readings: Vec<Prediction>,
    /// What it would answer at each depth, `[n_layer + 1][n]`.
    pub lens: Vec<Vec<Prediction>>,
    /// Lengths of the residual stream's vectors, `[n_layer + 1, n]`.
    pub norms: Array2<f32>,
    /// The parts of the model.
    pub parts: Vec<Component>,
    /// At each token, what the parts give the logit of the token that comes next, `[n]`; the target's for the last.
    pub contributions: Vec<LogitAttribution>,
}

impl Inspection {
    /// Runs a text through the model and reads all of it. `first` may change the pass, as for [`ActivationCache::capture`]. `each` is
    /// told of every reading of the logit lens, of which there are `n_layer + 1` a token: they take the longest.
    ///
    /// # Errors
    /// As [`ActivationCache::capture`]; [`Error::Parameter`] for a layer or head that the model does not have, [`Error::TokenId`] for
    /// a target outside the vocabulary, [`Error::Message`] for a model whose numbers overflow.
    pub fn run(
        hornbook: &Hornbook,
        tokens: &[u32],
        settings: InspectionOptions,
        first: &mut impl Observer,
        each: impl FnMut(usize),
    ) -> Result<Self> {
        let (model, config) = (hornbook.model(), hornbook.config());
        within("--layer", settings.layer, config.n_layer)?;
        within("--head", settings.head, config.n_head)?;
        if let Some(id) = settings.target.filter(|&id| id as usize >= config.vocab_size) {
            return Err(Error::TokenId { id, vocab_size: config.vocab_size });
        }
        let capture = ActivationCache::capture(model, tokens, settings.kv_precision, first)?;
        if !capture.residuals.iter().chain(&capture.logits).all(|x| x.is_finite()) {
            return Err(Error::Message(format!(
                "model '{}' computes numbers beyond f32 here, expected finite ones: there is nothing to see",
                hornbook.name()
            )));
        }
        let (shown, choice) = match (settings.layer, settings.head) {
            (Some(layer), Some(head)) => (
                HeadSaliency { layer, head, score: head_saliency(&capture, layer, head) },
                HeadSelection::Named,
            ),
            (Some(layer), None) => (most_salient_head(&capture, Some(layer)), HeadSelection::OfLayer),
            (None, None) => (most_salient_head(&capture, None), HeadSelection::OfAll),
            (None, Some(head)) => {
                return Err(Error::Parameter {
                    name: "--head".into(),
                    found: head.to_string(),
                    expected: "a layer with it".into(),
                });
            }
        };
        let last = capture.logits.row(capture.len() - 1);
        let likeliest = top_logprobs(last.to_slice().unwrap_or_default(), 1).first().map(|&(id, _)| id);
        let target = settings.target.or(likeliest).unwrap_or(0);
        let attribution = DirectLogitAttribution::new(model);
        let next = capture.tokens.iter().skip(1).copied().chain([target]);
        let contributions =
            next.enumerate().map(|(t, next)| attribution.attribute(&capture, t, next)).collect();
        Ok(Self {
            shown,
            choice,
            readings: predictions(model, &capture, settings.best, Some(target)),
            lens: logit_lens(model, &capture, settings.best, Some(target), each),
            norms: capture.residual_norms(),
            parts: attribution.parts(),
            contributions,
            capture,
        })
    }

    /// The token whose logit is explained at the text's end.
    pub fn target(&self) -> u32 {
        self.contributions.last().map_or(0, |last| last.target)
    }

    /// The surprise at a token, in nats; the first had nothing to be expected from.
    pub fn surprisal(&self, token: usize) -> Option<f32> {
        let before = self.readings.get(token.checked_sub(1)?)?;
        before.target.map(|target| target.surprisal())
    }

    /// Why this head is shown, in a sentence.
    pub fn why(&self) -> String {
        let HeadSaliency { layer, head, score } = self.shown;
        let name = Component::Head { layer, head };
        let among = match self.choice {
            HeadSelection::Named => return format!("{name} as asked for"),
            _ if score == 0.0 => return format!("{name}, the first: too few tokens to tell heads apart"),
            HeadSelection::OfLayer => "any other head of its layer",
            HeadSelection::OfAll => "any other head",
        };
        format!(
            "{name}: a token gives {:.0} % of its attention to one that is neither the first, nor the one before, nor \
             itself, more than in {among}",
            100.0 * score
        )
    }
}

/// A number below `n`, where there is one.
fn within(name: &str, found: Option<usize>, n: usize) -> Result<()> {
    match found {
        Some(found) if found >= n => Err(Error::Parameter {
            name: name.into(),
            found: found.to_string(),
            expected: format!("a number from 0 to {}", n - 1),
        }),
        _ => Ok(()),
    }
}
