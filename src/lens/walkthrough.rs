//! The forward pass as a walk: every step with its idea, its formula, its shapes, some of its numbers, and what it cost.
//!
//! What a step says about itself is what the operation's own file says ([`doc`](super::doc)). The numbers are the last
//! token's, taken from one pass; the times are medians of several, each of which stops at every step to look at the
//! clock.

use super::source_doc::{
    ACTIVATION, ATTENTION, EMBEDDING, LAYER_NORM, LINEAR, LOGITS, MERGES, MLP, POSITIONS, SOFTMAX, Source,
    SourceDoc, TOKENS,
};
use crate::kernels::softmax::softmax;
use crate::model::{KvCache, LogitsWanted, Model, Observer, Segment, Site, Workspace};
use crate::{Error, Result};
use ndarray::{ArrayViewMutD, Axis, Ix2};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Instant;

/// Passes that times are medians of.
const PASSES: usize = 5;
/// Numbers of a row that are shown.
const SHOWN: usize = 6;
/// Tokens that are named where there is one for every token of the vocabulary.
const BEST: usize = 5;

/// A step of the walk.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What happens.
    pub title: String,
    /// The block it happens in.
    pub layer: Option<usize>,
    /// What the operation says about itself.
    pub doc: SourceDoc,
    /// The shapes that go in and come out.
    pub shapes: String,
    /// Where the numbers were seen.
    pub rows: Vec<Row>,
    /// For attention: what the last token attends to, in the head that looks furthest from it and the first token.
    pub attends: Option<Attends>,
    /// For logits and probabilities: the most likely tokens and their numbers.
    pub best: Vec<(u32, f32)>,
    /// Seconds it took.
    pub seconds: f64,
    /// Additions and multiplications, where there are any to speak of.
    pub operations: f64,
}

/// A row of numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What they are: the site's name.
    pub name: String,
    /// The first of them.
    pub values: Vec<f32>,
    /// How many there are.
    pub width: usize,
    /// The root of the sum of their squares.
    pub length: f32,
}

/// What a token attends to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attends {
    /// In this head.
    pub head: usize,
    /// How much of each token, itself the last; they add up to 1.
    pub shares: Vec<f32>,
}

/// Walks through a prompt, at least one token, and returns every step, of all blocks.
///
/// # Errors
/// What the pass refuses, and [`Error::Message`] for no token at all.
pub fn walkthrough(model: &Model, tokens: &[u32]) -> Result<Vec<Step>> {
    if tokens.is_empty() {
        return Err(Error::Message("the prompt is empty".into()));
    }
    let mut clocks: Vec<HashMap<Site, f64>> = vec![];
    for _ in 0..=PASSES {
        let mut clock = Clock { last: Instant::now(), seconds: HashMap::new() };
        pass(model, tokens, &mut clock)?;
        clocks.push(clock.seconds);
    }
    clocks.remove(0); // the first one warms up
    let mut seen = Seen::default();
    let logits = pass(model, tokens, &mut seen)?;
    Ok(Walker { model, n: tokens.len(), clocks, seen, logits }.steps())
}

/// One pass over all tokens; returns the last one's logits.
fn pass(model: &Model, tokens: &[u32], see: &mut impl Observer) -> Result<Vec<f32>> {
    let mut cache = KvCache::new(model.config(), tokens.len(), model.kv_precision());
    let mut workspace = Workspace::new();
    let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::Last };
    model.forward(&mut [segment], &mut workspace, see)?;
    Ok(workspace.logits().row(0).to_vec())
}

/// Seconds from the site before to each.
struct Clock {
    last: Instant,
    seconds: HashMap<Site, f64>,
}

impl Observer for Clock {
    fn is_interested(&self, site: Site) -> bool {
        !matches!(site, Site::Pattern(_)) // which the pass does not compute for itself
    }

    fn observe(&mut self, site: Site, _: ArrayViewMutD<'_, f32>) {
        let now = Instant::now();
        self.seconds.insert(site, (now - self.last).as_secs_f64());
        self.last = now;
    }
}

/// The last token's numbers at every site.
#[derive(Default)]
struct Seen {
    rows: HashMap<Site, Vec<f32>>,
    attends: HashMap<usize, Attends>,
}

impl Observer for Seen {
    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        let last = values.shape()[values.ndim() - 2] - 1;
        let last = values.index_axis(Axis(values.ndim() - 2), last);
        match (site, last.view().into_dimensionality::<Ix2>()) {
            (Site::Pattern(layer), Ok(heads)) => {
                let n = heads.ncols();
                let between = |head: usize| heads.row(head).iter().take(n - 1).skip(1).sum::<f32>();
                let head = (0..heads.nrows()).max_by(|&a, &b| between(a).total_cmp(&between(b))).unwrap_or(0);
                self.attends.insert(layer, Attends { head, shares: heads.row(head).to_vec() });
            }
            _ => drop(self.rows.insert(site, last.iter().copied().collect())),
        }
    }
}

/// Puts the steps together.
struct Walker<'m> {
    model: &'m Model,
    n: usize,
    clocks: Vec<HashMap<Site, f64>>,
    seen: Seen,
    logits: Vec<f32>,
}

impl Walker<'_> {
    fn steps(&self) -> Vec<Step> {
        let config = self.model.config();
        let (n, d, vocab) = (self.n, config.n_embd, config.vocab_size);
        let mut steps = vec![
            self.step("The text becomes tokens", None, TOKENS, format!("text → [{n}]"), &[], 0.0),
            self.step("How: bytes are joined", None, MERGES, format!("text → [{n}]"), &[], 0.0),
            self.step(
                "A token's id becomes its row of the table",
                None,
                EMBEDDING,
                format!("[{n}] of [{vocab}, {d}] → [{n}, {d}]"),
                &[Site::Embed],
                0.0,
            ),
            self.step(
                "Its position is added",
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
        steps.push(self.norm("The last layer norm", None, Site::FinalNorm));
        let mut head = self.step(
            "The head scores every token of the vocabulary",
            None,
            LOGITS,
            format!("the last token's [1, {d}] · [{d}, {vocab}] → [1, {vocab}]"),
            &[Site::Logits],
            (2 * d * vocab) as f64,
        );
        head.best = best(&self.logits);
        let mut probabilities = self.logits.clone();
        let start = Instant::now();
        softmax(self.model.pool().isa(), &mut probabilities);
        let seconds = start.elapsed().as_secs_f64();
        let title = "Scores become probabilities, and one token is drawn by them";
        let last = Step {
            best: best(&probabilities),
            seconds,
            ..self.step(title, None, SOFTMAX, format!("[1, {vocab}] → [1, {vocab}]"), &[], 0.0)
        };
        steps.extend([head, last]);
        steps
    }

    /// Look around, then think.
    fn block(&self, layer: usize) -> [Step; 8] {
        let config = self.model.config();
        let (n, d, heads, inner) = (self.n, config.n_embd, config.n_head, config.n_inner);
        let head_dim = d / heads;
        let product =
            |from: usize, to: usize| format!("[{n}, {from}] · [{from}, {to}] + [{to}] → [{n}, {to}]");
        let multiply = |from: usize, to: usize| (2 * n * from * to) as f64;
        let mut attention = self.step(
            "Every token looks at those before it",
            Some(layer),
            ATTENTION,
            format!(
                "{heads} heads: [{n}, {head_dim}] · [{head_dim}, {n}] → [{n}, {n}], · [{n}, {head_dim}] → [{n}, {head_dim}]"
            ),
            &[Site::Z(layer)],
            (4 * d * (n * (n + 1) / 2)) as f64,
        );
        attention.attends = self.seen.attends.get(&layer).cloned();
        [
            self.norm("Each token is normalised", Some(layer), Site::Ln1(layer)),
            self.step(
                "Queries, keys and values (c_attn)",
                Some(layer),
                LINEAR,
                product(d, 3 * d),
                &[Site::Q(layer), Site::K(layer), Site::V(layer)],
                multiply(d, 3 * d),
            ),
            attention,
            self.step(
                "What the heads found is mixed and added (attn.c_proj)",
                Some(layer),
                LINEAR,
                product(d, d),
                &[Site::AttnOut(layer), Site::ResidMid(layer)],
                multiply(d, d),
            ),
            self.norm("Each token is normalised again", Some(layer), Site::Ln2(layer)),
            self.step(
                "The MLP widens each token (mlp.c_fc)",
                Some(layer),
                MLP,
                product(d, inner),
                &[Site::Pre(layer)],
                multiply(d, inner),
            ),
            self.step(
                "It is bent",
                Some(layer),
                ACTIVATION,
                format!("[{n}, {inner}] → [{n}, {inner}]"),
                &[Site::Post(layer)],
                0.0,
            ),
            self.step(
                "It is narrowed and added (mlp.c_proj)",
                Some(layer),
                LINEAR,
                product(inner, d),
                &[Site::MlpOut(layer), Site::ResidPost(layer)],
                multiply(inner, d),
            ),
        ]
    }

    fn norm(&self, title: &str, layer: Option<usize>, site: Site) -> Step {
        let (n, d) = (self.n, self.model.config().n_embd);
        let shapes = format!("[{n}, {d}] → [{n}, {d}]");
        self.step(title, layer, LAYER_NORM, shapes, &[site], (8 * n * d) as f64)
    }

    /// A step that ends where the last of `sites` is seen.
    fn step(
        &self,
        title: &str,
        layer: Option<usize>,
        source: Source,
        shapes: String,
        sites: &[Site],
        operations: f64,
    ) -> Step {
        Step {
            title: title.into(),
            layer,
            doc: SourceDoc::parse(source),
            shapes,
            rows: sites.iter().map(|site| Row::new(*site, &self.seen.rows[site])).collect(),
            attends: None,
            best: vec![],
            seconds: sites.iter().map(|site| self.seconds(*site)).sum(),
            operations,
        }
    }

    /// The median time from the site before.
    fn seconds(&self, site: Site) -> f64 {
        let mut all: Vec<f64> = self.clocks.iter().filter_map(|clock| clock.get(&site).copied()).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

impl Row {
    fn new(site: Site, row: &[f32]) -> Self {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
        let values = row.iter().copied().take(SHOWN).collect();
        Self { name: site.to_string(), values, width: row.len(), length }
    }
}

/// The largest numbers and whose they are.
fn best(numbers: &[f32]) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(numbers.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(BEST);
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
    fn the_numbers_are_the_pass_own() {
        let model = fable();
        let tokens = [11, 402, 7, 1999, 7];
        let steps = walkthrough(&model, &tokens).unwrap();
        assert_eq!(steps.len(), 4 + 6 * 8 + 3);
        let logits = pass(&model, &tokens, &mut ()).unwrap();
        let last = &steps[steps.len() - 1];
        assert_eq!(
            last.best[0].0 as usize,
            (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
        );
        let mut norms = vec![];
        let mut look = |site: Site, values: ArrayViewMutD<'_, f32>| {
            if site == Site::ResidPost(3) {
                norms = values.index_axis(Axis(0), 4).iter().copied().collect();
            }
        };
        pass(&model, &tokens, &mut look).unwrap();
        let row = steps
            .iter()
            .flat_map(|step| &step.rows)
            .find(|row| row.name == "blocks.3.hook_resid_post")
            .unwrap();
        assert_eq!(*row, Row::new(Site::ResidPost(3), &norms));
        for step in &steps {
            assert!(step.seconds >= 0.0 && step.seconds < 1.0, "{}", step.title);
            if let Some(attends) = &step.attends {
                assert!((attends.shares.iter().sum::<f32>() - 1.0).abs() < 1e-5 && attends.shares.len() == 5);
            }
        }
    }

    #[test]
    fn the_work_of_one_token_by_hand() {
        let steps = walkthrough(&fable(), &[7]).unwrap();
        let products = steps
            .iter()
            .filter(|step| !["layer_norm.rs", "positions.rs"].iter().any(|f| step.doc.file.ends_with(f)));
        let found: f64 = products.map(|step| step.operations).sum();
        let matrices = 6 * (256 * 768 + 256 * 256 + 2 * 256 * 1024) + 4096 * 256;
        assert_eq!(found, (2 * matrices + 6 * 4 * 256) as f64); // every matrix once, and attention over itself
    }
}
