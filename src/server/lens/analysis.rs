//! One text's pass through a model, kept while a page looks at it.

use crate::lens::intervention::{Edit, Intervention, InterventionTarget, Interventions, Outcome};
use crate::lens::logit_lens::logit_lens_of;
use crate::lens::packed_patterns::PackedPatterns;
use crate::lens::saliency::head_saliency;
use crate::lens::surprisal::predictions;
use crate::lens::{ActivationCache, DirectLogitAttribution, Prediction, values};
use crate::model::{Observer, Site};
use crate::server::models::ServedModel;
use crate::{Error, Result, memory};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ndarray::{Array4, ArrayViewMutD, Axis};
use serde_json::{Value, json};
use std::sync::Arc;

/// The number of most likely tokens of each prediction, as of `hornbook inspect --json`.
const TOP_TOKENS: usize = 10;
/// The largest size of a pattern's thumbnail.
const THUMBNAIL_SIZE: usize = 64;

/// The replacement of the output of what is ablated.
#[derive(Clone, Copy, Debug, Default)]
pub enum Ablation {
    /// Zeros.
    #[default]
    Zero,
    /// The mean over the text.
    Mean,
}

/// A text's pass, and what has been found in it.
pub struct Analysis {
    served: Arc<ServedModel>,
    /// The activations without the attention patterns, which `patterns` has as bytes.
    activations: ActivationCache,
    patterns: PackedPatterns,
    saliency: Vec<f32>,
    predictions: Vec<Prediction>,
    outcome: Option<Outcome>,
}

impl Analysis {
    /// Runs a text through a model, between two steps of its engine. The outputs of `ablated` are replaced.
    ///
    /// # Errors
    /// As [`ActivationCache::capture`]; [`Error::Parameter`] for a component that the model does not have,
    /// and for more memory than there is.
    pub fn new(
        served: Arc<ServedModel>,
        tokens: &[u32],
        ablated: &[InterventionTarget],
        ablation: Ablation,
    ) -> Result<Self> {
        let edit = match ablation {
            Ablation::Zero => Edit::Zero,
            Ablation::Mean => Edit::Mean,
        };
        let interventions: Vec<_> = ablated.iter().map(|&target| Intervention { target, edit }).collect();
        let engine = Arc::clone(&served.engine);
        engine.between_steps(|_| Self::run(served, tokens, interventions))
    }

    fn run(served: Arc<ServedModel>, tokens: &[u32], interventions: Vec<Intervention>) -> Result<Self> {
        let (model, config) = (&served.model(), served.config());
        let numbers = Self::numbers(&served, tokens.len());
        memory::check("prompt", &format!("{} tokens", tokens.len()), &[numbers, size_of::<f32>()])?;
        let mut activations = match interventions.is_empty() {
            true => ActivationCache::capture(model, tokens, None, &mut ())?,
            false => {
                let mut observer = Interventions::new(model, tokens, &interventions)?;
                ActivationCache::capture(model, tokens, None, &mut observer)?
            }
        };
        if !activations.residuals.iter().all(|x| x.is_finite()) {
            return Err(Error::NotFinite(
                "the model computes activations that are not finite on this text".into(),
            ));
        }
        let heads = (0..config.n_layer).flat_map(|layer| (0..config.n_head).map(move |head| (layer, head)));
        let saliency = heads.map(|(layer, head)| head_saliency(&activations, layer, head)).collect();
        let predictions = predictions(model, &activations, TOP_TOKENS, None);
        let outcome = match interventions.is_empty() {
            true => None,
            false => Some(Outcome::measure(model, interventions, &activations, None)?),
        };
        let patterns = PackedPatterns::new(&activations);
        activations.patterns = Array4::zeros((0, 0, 0, 0));
        Ok(Self { served, activations, patterns, saliency, predictions, outcome })
    }

    /// The numbers that a pass over a text records.
    fn numbers(served: &ServedModel, n: usize) -> usize {
        let config = served.config();
        let per_layer = config.n_head * n + 3 * config.n_embd;
        n * (config.n_layer * per_layer + 2 * config.n_embd + config.vocab_size)
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> usize {
        let ActivationCache { embed, residuals, z, mlp_out, logits, .. } = &self.activations;
        let numbers = embed.len() + residuals.len() + z.len() + mlp_out.len() + logits.len();
        numbers * size_of::<f32>() + self.patterns.bytes().len()
    }

    /// The tokens, predictions and what all tokens have, as JSON. Values are those of `hornbook inspect
    /// --json`.
    pub fn to_json(&self, id: &str) -> Value {
        let (hornbook, config) = (self.served.hornbook(), self.served.config());
        let (thumbnails, thumbnail_size) = self.patterns.thumbnails(THUMBNAIL_SIZE);
        let model = self.served.model();
        let attribution = DirectLogitAttribution::new(&model);
        json!({
            "id": id,
            "model": self.served.name,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_positions": config.n_positions,
            "tokens": self.tokens(),
            "predictions": values::predictions(hornbook, &self.predictions),
            "saliency": self.saliency,
            "residual_norms": values::rows(self.activations.residual_norms().view()),
            "components": attribution.components().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "thumbnail_size": thumbnail_size,
            "thumbnails": STANDARD.encode(thumbnails),
            "intervention": self.outcome.as_ref().map(|outcome| values::outcome(hornbook, outcome)),
        })
    }

    /// The tokens and their predictions alone, as JSON.
    pub fn predictions_json(&self) -> Value {
        let sampling = self.served.default_sampling();
        json!({
            "model": self.served.name,
            "n_positions": self.served.config().n_positions,
            "default_sampling": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repetition_penalty": sampling.repetition_penalty,
            },
            "tokens": self.tokens(),
            "predictions": values::predictions(self.served.hornbook(), &self.predictions),
        })
    }

    fn tokens(&self) -> Vec<Value> {
        let hornbook = self.served.hornbook();
        self.activations.tokens.iter().map(|&id| values::token(hornbook, id)).collect()
    }

    /// The pattern of a head, a byte per weight up to the diagonal of each row.
    pub fn pattern(&self, layer: usize, head: usize) -> Option<&[u8]> {
        let config = self.served.config();
        (layer < config.n_layer && head < config.n_head)
            .then(|| self.patterns.head(layer * config.n_head + head))?
    }

    /// The activations at a site, as the model computes them again, with their shape; with `token`, that
    /// token's alone.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a site that the model does not have or a token that the text does not have,
    /// and those of [`ActivationCache::capture`].
    pub fn site(&self, site: &str, token: Option<usize>) -> Result<(Vec<usize>, Vec<f32>)> {
        let invalid = |name: &str, found: &str, expected: String| {
            Err(Error::Parameter { name: name.into(), found: found.into(), expected })
        };
        let n_layer = self.served.config().n_layer;
        let Some(site) = Site::all(n_layer).find(|known| known.to_string() == site) else {
            return invalid("site", site, "a name such as blocks.0.attn.hook_q, in TransformerLens".into());
        };
        if let Some(token) = token.filter(|&token| token >= self.activations.len()) {
            return invalid("token", &token.to_string(), format!("0 to {}", self.activations.len() - 1));
        }
        let tokens = &self.activations.tokens;
        self.served.engine.between_steps(|_| {
            let model = &self.served.model();
            let interventions = self.outcome.as_ref().map(|outcome| &outcome.interventions[..]);
            let mut edits = Interventions::new(model, tokens, interventions.unwrap_or_default())?;
            let mut found = (vec![], vec![]);
            let observer = |at: Site, mut values: ArrayViewMutD<f32>| {
                if edits.is_interested(at) {
                    edits.observe(at, values.view_mut());
                }
                if at == site {
                    let rows = Axis(values.ndim() - 2);
                    let values = match token {
                        Some(token) => values.index_axis(rows, token),
                        None => values.view(),
                    };
                    found = (values.shape().to_vec(), values.iter().copied().collect());
                }
            };
            ActivationCache::capture(model, tokens, None, &mut { observer })?;
            Ok(found)
        })
    }

    /// The logit lens after a token, and the contributions to the logit of `target`, or of the token that
    /// follows, or of the most likely one after the last.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the text has no such token, [`Error::TokenId`] for a target outside the
    /// vocabulary.
    pub fn token_json(&self, token: usize, target: Option<u32>) -> Result<Value> {
        let (hornbook, n) = (self.served.hornbook(), self.activations.len());
        let Some(prediction) = self.predictions.get(token) else {
            let expected = format!("0 to {}", n - 1);
            return Err(Error::Parameter { name: "token".into(), found: token.to_string(), expected });
        };
        let vocab_size = hornbook.config().vocab_size;
        if let Some(id) = target.filter(|&id| id as usize >= vocab_size) {
            return Err(Error::TokenId { id, vocab_size });
        }
        let next = self.activations.tokens.get(token + 1).copied();
        let likeliest = prediction.top.first().map(|&(id, _)| id);
        let target = target.or(next).or(likeliest).unwrap_or(0);
        Ok(self.served.engine.between_steps(|hornbook| {
            let model = &self.served.model();
            let lens = logit_lens_of(model, &self.activations, token, TOP_TOKENS, target);
            let attribution = DirectLogitAttribution::new(model).attribute(&self.activations, token, target);
            json!({
                "logit_lens": values::predictions(hornbook, &lens),
                "direct_logit_attribution": values::attribution(hornbook, &attribution),
            })
        }))
    }
}
