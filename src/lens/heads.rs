//! What kinds of heads are there? Attention on tokens that mean nothing shows it: a random sequence, twice in a row.
//!
//! ```text
//! previous    i attends to i − 1
//! duplicate   i attends to earlier places of the same token
//! induction   i attends to what came after those: [A] [B] … [A] → [B]
//! first       i attends to the first token, where heads look that have nothing to say
//!
//! score = mean over tokens i that have such places of Σ p[i, places]
//! ```
//!
//! A head that does nothing else scores 1, one that attends evenly scores next to nothing. The places are those of
//! TransformerLens' head detector, whose `mul` measure divides by all tokens, those without such places too, so that its
//! scores for duplicates and induction stay below a half on the same text. On repeated random tokens the induction
//! score is the prefix matching score of Olsson et al. 2022, "In-context Learning and Induction Heads", which also
//! names the previous-token heads that induction is built on. Duplicate-token heads are Wang et al.'s (2022,
//! "Interpretability in the Wild"), the sink on the first token Xiao et al.'s (2023, "Efficient Streaming Language
//! Models with Attention Sinks").

use crate::model::{Model, Observer, Session, Site};
use crate::{Error, Result};
use minijinja::{AutoEscape, Environment, context};
use ndarray::ArrayViewMutD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// The longest random sequence that is repeated unless another length is asked for.
const USUAL_LENGTH: usize = 64;
/// The share of attention from which on a head is called by what it does.
const TELLING: f64 = 0.2;

/// A kind of head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Attends to the token before.
    Previous,
    /// Attends to the same token earlier.
    Duplicate,
    /// Attends to what followed the same token earlier.
    Induction,
    /// Attends to the first token.
    First,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [HeadKind; 4] =
        [HeadKind::Previous, HeadKind::Duplicate, HeadKind::Induction, HeadKind::First];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            HeadKind::Previous => "previous",
            HeadKind::Duplicate => "duplicate",
            HeadKind::Induction => "induction",
            HeadKind::First => "first",
        }
    }

    /// Where token `i` attends to if a head is of this kind.
    fn places(self, tokens: &[u32], i: usize) -> Vec<usize> {
        let earlier = (0..i).filter(|&j| tokens[j] == tokens[i]);
        match self {
            HeadKind::Previous => (1..=i).last().map(|i| i - 1).into_iter().collect(),
            HeadKind::Duplicate => earlier.collect(),
            HeadKind::Induction => earlier.map(|j| j + 1).collect(),
            HeadKind::First => (1..=i).last().map(|_| 0).into_iter().collect(),
        }
    }
}

/// A head and its scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadScores {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its number, from 0.
    pub head: usize,
    /// Of [`HeadKind::Previous`].
    pub previous: f64,
    /// Of [`HeadKind::Duplicate`].
    pub duplicate: f64,
    /// Of [`HeadKind::Induction`].
    pub induction: f64,
    /// Of [`HeadKind::First`].
    pub first: f64,
}

impl HeadScores {
    /// The score of a kind, from 0 to 1.
    pub fn score(&self, kind: HeadKind) -> f64 {
        match kind {
            HeadKind::Previous => self.previous,
            HeadKind::Duplicate => self.duplicate,
            HeadKind::Induction => self.induction,
            HeadKind::First => self.first,
        }
    }

    /// The kind that most of its attention speaks for, where that is at least a fifth.
    pub fn kind(&self) -> Option<HeadKind> {
        let best = HeadKind::ALL.into_iter().max_by(|a, b| self.score(*a).total_cmp(&self.score(*b)))?;
        (self.score(best) >= TELLING).then_some(best)
    }
}

/// Random tokens, all different, twice in a row behind the token a text begins with, if there is one: `n` sequences of
/// `length` tokens each, the same for the same seed.
///
/// # Errors
/// [`Error::Parameter`] for a length the model has no room or no tokens for.
pub fn repeated_random_tokens(
    model: &Model,
    n: usize,
    length: Option<usize>,
    seed: u64,
) -> Result<Vec<Vec<u32>>> {
    let config = model.config();
    let known = |id: &u32| (*id as usize) < config.vocab_size;
    let first = config.bos_token_id.filter(known);
    let special = |id: &u32| first == Some(*id) || config.eos_token_ids.contains(id);
    let mut ids: Vec<u32> = (0..config.vocab_size as u32).filter(|id| !special(id)).collect();
    let most = ids.len().min((config.n_positions - usize::from(first.is_some()).min(config.n_positions)) / 2);
    let length = length.unwrap_or(USUAL_LENGTH.min(most));
    if !(2..=most).contains(&length) {
        let (name, found) = ("--length".into(), length.to_string());
        return Err(Error::Parameter { name, found, expected: format!("2 to {most} for this model") });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |n: usize| ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
    let mut sequence = |_| {
        for i in 0..length {
            let other = i + below(ids.len() - i);
            ids.swap(i, other);
        }
        first.into_iter().chain(ids[..length].iter().chain(&ids[..length]).copied()).collect()
    };
    Ok((0..n).map(&mut sequence).collect())
}

/// Scores every head of a model on some sequences, layer by layer. `each` is called after each of them.
///
/// # Errors
/// What the pass refuses.
pub fn score(model: &Model, sequences: &[Vec<u32>], mut each: impl FnMut()) -> Result<Vec<HeadScores>> {
    let heads = model.config().n_layer * model.config().n_head;
    let mut tally =
        Tally { n_head: model.config().n_head, shares: vec![[0.0; 4]; heads], ..Tally::default() };
    for tokens in sequences {
        for i in 0..tokens.len() {
            let places = HeadKind::ALL.map(|kind| kind.places(tokens, i));
            tally
                .rows
                .iter_mut()
                .zip(&places)
                .for_each(|(rows, places)| *rows += usize::from(!places.is_empty()));
            tally.places.push(places);
        }
        let mut session = Session::observed(model, tokens.len(), None, tally);
        session.feed(tokens)?;
        tally = std::mem::take(session.observer());
        tally.places.clear();
        each();
    }
    let mean = |sums: &[f64; 4], kind: HeadKind| match tally.rows[kind as usize] {
        0 => 0.0,
        rows => sums[kind as usize] / rows as f64,
    };
    let scores = tally.shares.iter().enumerate().map(|(i, sums)| HeadScores {
        layer: i / tally.n_head,
        head: i % tally.n_head,
        previous: mean(sums, HeadKind::Previous),
        duplicate: mean(sums, HeadKind::Duplicate),
        induction: mean(sums, HeadKind::Induction),
        first: mean(sums, HeadKind::First),
    });
    Ok(scores.collect())
}

/// Adds up what heads attend to.
#[derive(Default)]
struct Tally {
    n_head: usize,
    /// For each token of the sequence and each kind.
    places: Vec<[Vec<usize>; 4]>,
    /// Tokens that have places, over all sequences.
    rows: [usize; 4],
    /// For each head and kind, over all sequences.
    shares: Vec<[f64; 4]>,
}

impl Observer for Tally {
    fn is_interested(&self, site: Site) -> bool {
        matches!(site, Site::Pattern(_))
    }

    fn observe(&mut self, site: Site, patterns: ArrayViewMutD<'_, f32>) {
        let Site::Pattern(layer) = site else { return };
        let &[n_head, n, width] = patterns.shape() else { return };
        for head in 0..n_head {
            let shares = &mut self.shares[layer * n_head + head];
            for t in 0..n {
                for (sum, places) in shares.iter_mut().zip(&self.places[width - n + t]) {
                    *sum += places.iter().map(|&j| f64::from(patterns[[head, t, j]])).sum::<f64>();
                }
            }
        }
    }
}

/// A page for a browser: each kind's scores as a grid of layers and heads, and the table in the given order. One file,
/// no network.
///
/// # Errors
/// None for scores that [`score`] made.
pub fn html(model: &str, heads: &[HeadScores]) -> Result<String> {
    let mut page = Environment::new();
    page.set_auto_escape_callback(|_| AutoEscape::Html);
    let sizes = |size: fn(&HeadScores) -> usize| heads.iter().map(size).max().map_or(0, |most| most + 1);
    let (n_layer, n_head) = (sizes(|head| head.layer), sizes(|head| head.head));
    let grid = |kind: HeadKind| {
        let mut rows = vec![vec![0.0; n_head]; n_layer];
        heads.iter().for_each(|head| rows[head.layer][head.head] = head.score(kind));
        context! { name => kind.name(), rows }
    };
    let row = |head: &HeadScores| {
        let kind = head.kind().map_or("", HeadKind::name);
        context! { name => format!("L{}H{}", head.layer, head.head), kind, scores => HeadKind::ALL.map(|kind| head.score(kind)) }
    };
    let grids = HeadKind::ALL.map(grid);
    let rows: Vec<_> = heads.iter().map(row).collect();
    page.render_str(include_str!("heads.html"), context! { model, grids, rows, n_head })
        .map_err(|error| Error::Message(format!("heads.html: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    fn fable() -> Model {
        Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(1, Isa::available()[0]))
    }

    #[test]
    fn places_are_those_of_the_head_detector() {
        let tokens = [9, 1, 2, 1, 2, 1];
        let places =
            |kind: HeadKind| -> Vec<Vec<usize>> { (0..6).map(|i| kind.places(&tokens, i)).collect() };
        assert_eq!(places(HeadKind::Previous), [vec![], vec![0], vec![1], vec![2], vec![3], vec![4]]);
        assert_eq!(places(HeadKind::Duplicate), [vec![], vec![], vec![], vec![1], vec![2], vec![1, 3]]);
        assert_eq!(places(HeadKind::Induction), [vec![], vec![], vec![], vec![2], vec![3], vec![2, 4]]);
        assert_eq!(places(HeadKind::First), [vec![], vec![0], vec![0], vec![0], vec![0], vec![0]]);
    }

    #[test]
    fn a_random_sequence_comes_twice_and_the_seed_decides_which() {
        let model = fable();
        let sequences = repeated_random_tokens(&model, 3, Some(40), 7).unwrap();
        for tokens in &sequences {
            assert_eq!((tokens.len(), tokens[0]), (81, 4095));
            assert_eq!(tokens[1..41], tokens[41..]);
            let mut distinct = tokens[..41].to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 41, "each token once, the first not among them");
        }
        assert_ne!(sequences[0], sequences[1]);
        assert_eq!(repeated_random_tokens(&model, 3, Some(40), 7).unwrap(), sequences);
        assert_ne!(repeated_random_tokens(&model, 3, Some(40), 8).unwrap(), sequences);
        let error = |length| repeated_random_tokens(&model, 1, Some(length), 0).unwrap_err().to_string();
        assert_eq!(error(256), "--length: found 256, expected 2 to 255 for this model");
        assert_eq!(error(1), "--length: found 1, expected 2 to 255 for this model");
    }

    #[test]
    fn a_page_is_whole_and_safe() {
        let one =
            HeadScores { layer: 0, head: 0, previous: 0.75, duplicate: 0.0, induction: 0.0, first: 0.1 };
        let heads = [one, HeadScores { layer: 1, head: 1, previous: 0.0, induction: 0.9, ..one }];
        let page = html("<b>", &heads).unwrap();
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>") && !page.contains("http"));
        assert!(page.contains("L0H0") && page.contains("L1H1") && page.contains("0.90"));
        assert_eq!(heads.map(|head| head.kind()), [Some(HeadKind::Previous), Some(HeadKind::Induction)]);
        assert_eq!(HeadScores { previous: 0.15, ..one }.kind(), None);
    }
}
