//! A walkthrough of the forward pass: every step with its description, formula, shapes, activations and cost.
//!
//! Descriptions and formulas come from the operation's source file ([`source_doc`](super::source_doc)). The
//! activations are those of the last token in one pass. The times are medians over several passes that are
//! timed at every step.

use super::source_doc::{
    ACTIVATION, ATTENTION, EMBEDDING, LAYER_NORM, LINEAR, LOGITS, MERGES, MLP, POSITIONS, SOFTMAX, Source,
    SourceDoc, TOKENS,
};
use crate::kernels::softmax::softmax;
use crate::model::{LogitsWanted, Model, Observer, Segment, Site, Workspace};
use crate::{Error, Result};
use ndarray::{ArrayViewMutD, Axis, Ix2};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Instant;

/// The number of timed passes.
const TIMED_PASSES: usize = 5;
/// The number of values per sample.
const SAMPLE_LEN: usize = 6;
/// The number of most likely tokens to keep.
const TOP_TOKENS: usize = 5;

/// A step of the forward pass.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The title.
    pub title: String,
    /// The layer, if the step is in a block.
    pub layer: Option<usize>,
    /// The documentation of the operation.
    pub doc: SourceDoc,
    /// The shapes of inputs and output.
    pub shapes: String,
    /// Samples of the last token's activations, by site.
    pub activations: Vec<ActivationSample>,
    /// For attention: the attention weights of the last token, in the head that attends most to the tokens
    /// between the first and itself.
    pub attention: Option<AttentionRow>,
    /// For logits and probabilities: the most likely token ids and their values.
    pub top_tokens: Vec<(u32, f32)>,
    /// The time in seconds.
    pub seconds: f64,
    /// FLOPs, 0 if negligible.
    pub flops: f64,
}

/// A sample of the activations at a site.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActivationSample {
    /// The name of the site.
    pub site: String,
    /// The first values.
    pub values: Vec<f32>,
    /// The number of all values.
    pub width: usize,
    /// The norm of all values.
    pub norm: f32,
}

/// The attention weights of one token in one head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttentionRow {
    /// The head within the layer, from 0.
    pub head: usize,
    /// The weight of each token up to itself; they sum to 1.
    pub weights: Vec<f32>,
}

/// Runs a prompt of at least one token through the model and returns every step of all blocks.
///
/// # Errors
/// As [`Model::forward`]; [`Error::Prompt`] for an empty prompt.
pub fn walkthrough(model: &Model, tokens: &[u32]) -> Result<Vec<Step>> {
    if tokens.is_empty() {
        return Err(Error::Prompt("the prompt is empty".into()));
    }
    let mut times: Vec<HashMap<Site, f64>> = vec![];
    for _ in 0..=TIMED_PASSES {
        let mut timer = SiteTimer { last: Instant::now(), seconds: HashMap::new() };
        pass(model, tokens, &mut timer)?;
        times.push(timer.seconds);
    }
    times.remove(0); // warm-up
    let mut recorder = LastTokenRecorder::default();
    let logits = pass(model, tokens, &mut recorder)?;
    Ok(StepBuilder { model, n: tokens.len(), times, recorder, logits }.steps())
}

/// Runs one pass over all tokens and returns the last one's logits.
fn pass(model: &Model, tokens: &[u32], observer: &mut impl Observer) -> Result<Vec<f32>> {
    let mut cache = model.kv_cache(tokens.len(), None);
    let mut workspace = Workspace::new();
    let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::Last };
    model.forward(&mut [segment], &mut workspace, observer)?;
    model.check_finite(workspace.logits(), &cache)?;
    Ok(workspace.logits().row(0).to_vec())
}

/// The seconds from the previous site to each site.
struct SiteTimer {
    last: Instant,
    seconds: HashMap<Site, f64>,
}

impl Observer for SiteTimer {
    fn is_interested(&self, site: Site) -> bool {
        !matches!(site, Site::Pattern(_)) // computed only for observers
    }

    fn observe(&mut self, site: Site, _: ArrayViewMutD<'_, f32>) {
        let now = Instant::now();
        self.seconds.insert(site, (now - self.last).as_secs_f64());
        self.last = now;
    }
}

/// Records the last token's activations at every site.
#[derive(Default)]
struct LastTokenRecorder {
    activations: HashMap<Site, Vec<f32>>,
    attention: HashMap<usize, AttentionRow>,
}

impl Observer for LastTokenRecorder {
    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        let last = values.shape()[values.ndim() - 2] - 1;
        let last = values.index_axis(Axis(values.ndim() - 2), last);
        match (site, last.view().into_dimensionality::<Ix2>()) {
            (Site::Pattern(layer), Ok(heads)) => {
                let n = heads.ncols();
                let weight_between = |head: usize| heads.row(head).iter().take(n - 1).skip(1).sum::<f32>();
                let head = (0..heads.nrows())
                    .max_by(|&a, &b| weight_between(a).total_cmp(&weight_between(b)))
                    .unwrap_or(0);
                self.attention.insert(layer, AttentionRow { head, weights: heads.row(head).to_vec() });
            }
            _ => drop(self.activations.insert(site, last.iter().copied().collect())),
        }
    }
}

/// Builds the steps from the recorded activations and times.
struct StepBuilder<'m> {
    model: &'m Model,
    n: usize,
    times: Vec<HashMap<Site, f64>>,
    recorder: LastTokenRecorder,
    logits: Vec<f32>,
}

impl StepBuilder<'_> {
    fn steps(&self) -> Vec<Step> {
        let config = self.model.config();
        let (n, d, vocab) = (self.n, config.n_embd, config.vocab_size);
        let mut steps = vec![
            self.step("Tokenization: text to token ids", None, TOKENS, format!("text → [{n}]"), &[], 0.0),
            self.step(
                "Byte-pair encoding: merging bytes into tokens",
                None,
                MERGES,
                format!("text → [{n}]"),
                &[],
                0.0,
            ),
            self.step(
                "Token embedding: one row of wte per token",
                None,
                EMBEDDING,
                format!("[{n}] of [{vocab}, {d}] → [{n}, {d}]"),
                &[Site::Embed],
                0.0,
            ),
            self.step(
                "Position embedding: added to the token embedding",
                None,
                POSITIONS,
                format!("[{n}, {d}] + [{n}, {d}] → [{n}, {d}]"),
                &[Site::PosEmbed, Site::ResidPre(0)],
                (n * d) as f64,
            ),
        ];
        for layer in 0..config.n_layer {
            steps.extend(self.block(layer));
        }
        steps.push(self.norm("Final layer norm (ln_f)", None, Site::FinalNorm));
        let mut lm_head = self.step(
            "LM head: a logit for every token of the vocabulary",
            None,
            LOGITS,
            format!("the last token's [1, {d}] · [{d}, {vocab}] → [1, {vocab}]"),
            &[Site::Logits],
            (2 * d * vocab) as f64,
        );
        lm_head.top_tokens = top_tokens(&self.logits);
        let mut probabilities = self.logits.clone();
        let start = Instant::now();
        softmax(self.model.pool().isa(), &mut probabilities);
        let seconds = start.elapsed().as_secs_f64();
        let title = "Softmax and sampling: probabilities, from which the next token is drawn";
        let last = Step {
            top_tokens: top_tokens(&probabilities),
            seconds,
            ..self.step(title, None, SOFTMAX, format!("[1, {vocab}] → [1, {vocab}]"), &[], 0.0)
        };
        steps.extend([lm_head, last]);
        steps
    }

    /// The steps of one block.
    fn block(&self, layer: usize) -> [Step; 8] {
        let config = self.model.config();
        let (n, d, heads, inner) = (self.n, config.n_embd, config.n_head, config.n_inner);
        let head_dim = d / heads;
        let linear_shapes =
            |from: usize, to: usize| format!("[{n}, {from}] · [{from}, {to}] + [{to}] → [{n}, {to}]");
        let linear_flops = |from: usize, to: usize| (2 * n * from * to) as f64;
        let mut attention = self.step(
            "Attention: every token attends to itself and the tokens before it",
            Some(layer),
            ATTENTION,
            format!(
                "{heads} heads: [{n}, {head_dim}] · [{head_dim}, {n}] → [{n}, {n}], \
                 · [{n}, {head_dim}] → [{n}, {head_dim}]"
            ),
            &[Site::Z(layer)],
            (4 * d * (n * (n + 1) / 2)) as f64,
        );
        attention.attention = self.recorder.attention.get(&layer).cloned();
        [
            self.norm("Layer norm (ln_1)", Some(layer), Site::Ln1(layer)),
            self.step(
                "Queries, keys and values (attn.c_attn)",
                Some(layer),
                LINEAR,
                linear_shapes(d, 3 * d),
                &[Site::Q(layer), Site::K(layer), Site::V(layer)],
                linear_flops(d, 3 * d),
            ),
            attention,
            self.step(
                "Attention output projection, added to the residual stream (attn.c_proj)",
                Some(layer),
                LINEAR,
                linear_shapes(d, d),
                &[Site::AttnOut(layer), Site::ResidMid(layer)],
                linear_flops(d, d),
            ),
            self.norm("Layer norm (ln_2)", Some(layer), Site::Ln2(layer)),
            self.step(
                "MLP: first linear layer (mlp.c_fc)",
                Some(layer),
                MLP,
                linear_shapes(d, inner),
                &[Site::Pre(layer)],
                linear_flops(d, inner),
            ),
            self.step(
                "MLP: activation function",
                Some(layer),
                ACTIVATION,
                format!("[{n}, {inner}] → [{n}, {inner}]"),
                &[Site::Post(layer)],
                0.0,
            ),
            self.step(
                "MLP: second linear layer, added to the residual stream (mlp.c_proj)",
                Some(layer),
                LINEAR,
                linear_shapes(inner, d),
                &[Site::MlpOut(layer), Site::ResidPost(layer)],
                linear_flops(inner, d),
            ),
        ]
    }

    fn norm(&self, title: &str, layer: Option<usize>, site: Site) -> Step {
        let (n, d) = (self.n, self.model.config().n_embd);
        let shapes = format!("[{n}, {d}] → [{n}, {d}]");
        self.step(title, layer, LAYER_NORM, shapes, &[site], (8 * n * d) as f64)
    }

    /// Builds a step that ends at the last of `sites`.
    fn step(
        &self,
        title: &str,
        layer: Option<usize>,
        source: Source,
        shapes: String,
        sites: &[Site],
        flops: f64,
    ) -> Step {
        Step {
            title: title.into(),
            layer,
            doc: SourceDoc::parse(source),
            shapes,
            activations: sites
                .iter()
                .map(|site| ActivationSample::new(*site, &self.recorder.activations[site]))
                .collect(),
            attention: None,
            top_tokens: vec![],
            seconds: sites.iter().map(|site| self.seconds(*site)).sum(),
            flops,
        }
    }

    /// The median time from the previous site.
    fn seconds(&self, site: Site) -> f64 {
        let mut all: Vec<f64> = self.times.iter().filter_map(|times| times.get(&site).copied()).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

impl ActivationSample {
    fn new(site: Site, activations: &[f32]) -> Self {
        let norm = activations.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
        let values = activations.iter().copied().take(SAMPLE_LEN).collect();
        Self { site: site.to_string(), values, width: activations.len(), norm }
    }
}

/// Returns the tokens with the largest values.
fn top_tokens(values: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(TOP_TOKENS);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    fn fable() -> Model {
        Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(2, Isa::available()[0]))
    }

    #[test]
    fn walkthrough_activations_equal_forward_pass() {
        let model = fable();
        let tokens = [11, 402, 7, 1999, 7];
        let steps = walkthrough(&model, &tokens).unwrap();
        assert_eq!(steps.len(), 4 + 6 * 8 + 3);
        let logits = pass(&model, &tokens, &mut ()).unwrap();
        let last = &steps[steps.len() - 1];
        assert_eq!(
            last.top_tokens[0].0 as usize,
            (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
        );
        let mut norms = vec![];
        let mut observer = |site: Site, values: ArrayViewMutD<'_, f32>| {
            if site == Site::ResidPost(3) {
                norms = values.index_axis(Axis(0), 4).iter().copied().collect();
            }
        };
        pass(&model, &tokens, &mut observer).unwrap();
        let sample = steps
            .iter()
            .flat_map(|step| &step.activations)
            .find(|sample| sample.site == "blocks.3.hook_resid_post")
            .unwrap();
        assert_eq!(*sample, ActivationSample::new(Site::ResidPost(3), &norms));
        for step in &steps {
            if let Some(attention) = &step.attention {
                assert!(
                    (attention.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5
                        && attention.weights.len() == 5
                );
            }
        }
    }

    #[test]
    fn flops_of_one_token_match_formula() {
        let steps = walkthrough(&fable(), &[7]).unwrap();
        let matrix_steps = steps
            .iter()
            .filter(|step| !["layer_norm.rs", "positions.rs"].iter().any(|f| step.doc.file.ends_with(f)));
        let found: f64 = matrix_steps.map(|step| step.flops).sum();
        let matrices = 6 * (256 * 768 + 256 * 256 + 2 * 256 * 1024) + 4096 * 256;
        // Every matrix once, and attention of the token over itself.
        assert_eq!(found, (2 * matrices + 6 * 4 * 256) as f64);
    }
}
