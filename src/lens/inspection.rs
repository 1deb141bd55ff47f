//! All analyses of one text, computed once for the terminal, JSON and HTML output.

use super::logit_lens::logit_lens;
use super::saliency::{HeadSaliency, head_saliency, most_salient_head};
use super::surprisal::predictions;
use super::{ActivationCache, Component, DirectLogitAttribution, LogitAttribution, Prediction};
use crate::kernels::attention::KvPrecision;
use crate::model::Observer;
use crate::sampling::top_logprobs;
use crate::{Error, Hornbook, Result};
use ndarray::Array2;

/// Options of an inspection.
#[derive(Clone, Copy, Debug, Default)]
pub struct InspectionOptions {
    /// The layer of the attention head to show; `None` for the layer of the most salient head.
    pub layer: Option<usize>,
    /// The attention head to show; `None` for the most salient head.
    pub head: Option<usize>,
    /// The token whose logit is attributed after the last token; `None` for the most likely one.
    pub target: Option<u32>,
    /// The number of most likely tokens to keep per prediction.
    pub top: usize,
    /// The precision of the KV cache; `None` for [`Model::kv_precision`](crate::model::Model::kv_precision).
    pub kv_precision: Option<KvPrecision>,
}

/// The way the attention head to show was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSelection {
    /// Named by the options.
    Explicit,
    /// The most salient head of its layer.
    MostSalientInLayer,
    /// The most salient head of all.
    MostSalient,
}

/// All analyses of one text.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The activations of the pass.
    pub activations: ActivationCache,
    /// The attention head to show.
    pub head: HeadSaliency,
    /// The way that head was selected.
    pub selection: HeadSelection,
    /// The predictions after each token, `[n]`.
    pub predictions: Vec<Prediction>,
    /// The logit lens: the predictions at each depth, `[n_layer + 1][n]`.
    pub logit_lens: Vec<Vec<Prediction>>,
    /// The norms of the residual stream's vectors, `[n_layer + 1, n]`.
    pub residual_norms: Array2<f32>,
    /// The components of the model.
    pub components: Vec<Component>,
    /// Direct logit attribution of the next token after each token, `[n]`; of the target after the last.
    pub logit_attributions: Vec<LogitAttribution>,
}

impl Inspection {
    /// Runs a text through the model and computes all analyses. `observer` may change the pass, as in
    /// [`ActivationCache::capture`]. `progress` is called with the number of predictions added to the logit
    /// lens, which has `n_layer + 1` per token and takes most of the time.
    ///
    /// # Errors
    /// As [`ActivationCache::capture`]; [`Error::Parameter`] for a layer or head that the model does not
    /// have, [`Error::TokenId`] for a target outside the vocabulary, [`Error::NotFinite`] if activations
    /// overflow.
    pub fn run(
        hornbook: &Hornbook,
        tokens: &[u32],
        options: InspectionOptions,
        observer: &mut impl Observer,
        progress: impl FnMut(usize),
    ) -> Result<Self> {
        let (model, config) = (hornbook.model(), hornbook.config());
        check_index("--layer", options.layer, config.n_layer)?;
        check_index("--head", options.head, config.n_head)?;
        if let Some(id) = options.target.filter(|&id| id as usize >= config.vocab_size) {
            return Err(Error::TokenId { id, vocab_size: config.vocab_size });
        }
        let activations = ActivationCache::capture(model, tokens, options.kv_precision, observer)?;
        if !activations.residuals.iter().chain(&activations.logits).all(|x| x.is_finite()) {
            return Err(Error::NotFinite(format!(
                "model '{}' computes activations that are not finite on this text, expected finite values",
                hornbook.name()
            )));
        }
        let (head, selection) = match (options.layer, options.head) {
            (Some(layer), Some(head)) => (
                HeadSaliency { layer, head, saliency: head_saliency(&activations, layer, head) },
                HeadSelection::Explicit,
            ),
            (Some(layer), None) => {
                (most_salient_head(&activations, Some(layer)), HeadSelection::MostSalientInLayer)
            }
            (None, None) => (most_salient_head(&activations, None), HeadSelection::MostSalient),
            (None, Some(head)) => {
                return Err(Error::Parameter {
                    name: "--head".into(),
                    found: head.to_string(),
                    expected: "--layer as well".into(),
                });
            }
        };
        let last = activations.logits.row(activations.len() - 1);
        let likeliest = top_logprobs(last.to_slice().unwrap_or_default(), 1).first().map(|&(id, _)| id);
        let target = options.target.or(likeliest).unwrap_or(0);
        let attribution = DirectLogitAttribution::new(model);
        let next = activations.tokens.iter().skip(1).copied().chain([target]);
        let logit_attributions =
            next.enumerate().map(|(t, next)| attribution.attribute(&activations, t, next)).collect();
        Ok(Self {
            head,
            selection,
            predictions: predictions(model, &activations, options.top, Some(target)),
            logit_lens: logit_lens(model, &activations, options.top, Some(target), progress),
            residual_norms: activations.residual_norms(),
            components: attribution.components(),
            logit_attributions,
            activations,
        })
    }

    /// The token whose logit is attributed after the last token.
    pub fn target(&self) -> u32 {
        self.logit_attributions.last().map_or(0, |last| last.target)
    }

    /// The surprisal of a token, in nats; `None` for the first token, which is not predicted.
    pub fn surprisal(&self, token: usize) -> Option<f32> {
        let before = self.predictions.get(token.checked_sub(1)?)?;
        before.target.map(|target| target.surprisal())
    }

    /// A sentence on how the head was selected.
    pub fn head_description(&self) -> String {
        let HeadSaliency { layer, head, saliency } = self.head;
        let name = Component::Head { layer, head };
        let among = match self.selection {
            HeadSelection::Explicit => return format!("{name}, as requested"),
            _ if saliency == 0.0 => return format!("{name} (the text is too short to compare heads)"),
            HeadSelection::MostSalientInLayer => "of its layer",
            HeadSelection::MostSalient => "of all",
        };
        format!(
            "{name}, the most salient head {among}: {:.0} % of a token's attention is on one token that is \
             not the first, the previous or itself",
            100.0 * saliency
        )
    }
}

/// Checks that an index, if given, is less than `n`.
fn check_index(name: &str, found: Option<usize>, n: usize) -> Result<()> {
    match found {
        Some(found) if found >= n => Err(Error::Parameter {
            name: name.into(),
            found: found.to_string(),
            expected: format!("0 to {}", n - 1),
        }),
        _ => Ok(()),
    }
}
