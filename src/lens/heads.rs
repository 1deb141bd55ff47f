//! Head detection: classifies attention heads by their attention on a sequence of random tokens that is
//! repeated once.
//!
//! ```text
//! previous-token    token i attends to i − 1
//! duplicate-token   token i attends to earlier occurrences of the same token
//! induction         token i attends to the tokens after those occurrences: [A] [B] … [A] → [B]
//! first-token       token i attends to the first token (an attention sink)
//!
//! score = mean over tokens i with at least one target position of Σ p[i, target positions]
//! ```
//!
//! A head that attends only to the target positions scores 1; uniform attention scores close to 0. The target
//! positions are those of TransformerLens' head detector. Its `mul` measure divides by all tokens, including
//! those without target positions, so its scores for duplicate-token and induction heads stay below one half
//! on the same sequence. On repeated random tokens, the induction score is the prefix-matching score of
//! Olsson et al. 2022, "In-context Learning and Induction Heads", which also describes previous-token heads.
//! Duplicate-token heads are from Wang et al. 2022, "Interpretability in the Wild", attention sinks from Xiao
//! et al. 2023, "Efficient Streaming Language Models with Attention Sinks".

use crate::model::{Model, Observer, Session, Site};
use crate::{Error, Result};
use minijinja::{AutoEscape, Environment, context};
use ndarray::ArrayViewMutD;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::path::Path;

/// The default length of the random sequence, if the context is long enough.
const DEFAULT_LENGTH: usize = 64;
/// The smallest score at which a head is assigned a kind.
const MIN_KIND_SCORE: f64 = 0.2;

/// A kind of attention head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Attends to the previous token.
    PreviousToken,
    /// Attends to earlier occurrences of the same token.
    DuplicateToken,
    /// Attends to the tokens after earlier occurrences of the same token.
    Induction,
    /// Attends to the first token (an attention sink).
    FirstToken,
}

impl HeadKind {
    /// All kinds.
    pub const ALL: [HeadKind; 4] =
        [HeadKind::PreviousToken, HeadKind::DuplicateToken, HeadKind::Induction, HeadKind::FirstToken];

    /// The name of the kind, e.g. `previous-token`.
    pub fn name(self) -> &'static str {
        match self {
            HeadKind::PreviousToken => "previous-token",
            HeadKind::DuplicateToken => "duplicate-token",
            HeadKind::Induction => "induction",
            HeadKind::FirstToken => "first-token",
        }
    }

    /// The name without `-token`, as column header and as value of `--sort`.
    pub fn short_name(self) -> &'static str {
        self.name().trim_end_matches("-token")
    }

    /// The positions that token `i` attends to in a head of this kind.
    fn target_positions(self, tokens: &[u32], i: usize) -> Vec<usize> {
        let earlier = (0..i).filter(|&j| tokens[j] == tokens[i]);
        match self {
            HeadKind::PreviousToken => (1..=i).last().map(|i| i - 1).into_iter().collect(),
            HeadKind::DuplicateToken => earlier.collect(),
            HeadKind::Induction => earlier.map(|j| j + 1).collect(),
            HeadKind::FirstToken => (1..=i).last().map(|_| 0).into_iter().collect(),
        }
    }
}

/// The scores of one head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadScores {
    /// The layer, from 0.
    pub layer: usize,
    /// The head within the layer, from 0.
    pub head: usize,
    /// The score of [`HeadKind::PreviousToken`].
    pub previous_token: f64,
    /// The score of [`HeadKind::DuplicateToken`].
    pub duplicate_token: f64,
    /// The score of [`HeadKind::Induction`].
    pub induction: f64,
    /// The score of [`HeadKind::FirstToken`].
    pub first_token: f64,
}

impl HeadScores {
    /// The score of a kind, from 0 to 1.
    pub fn score(&self, kind: HeadKind) -> f64 {
        match kind {
            HeadKind::PreviousToken => self.previous_token,
            HeadKind::DuplicateToken => self.duplicate_token,
            HeadKind::Induction => self.induction,
            HeadKind::FirstToken => self.first_token,
        }
    }

    /// The kind with the highest score, if that is at least 0.2.
    pub fn kind(&self) -> Option<HeadKind> {
        let best = HeadKind::ALL.into_iter().max_by(|a, b| self.score(*a).total_cmp(&self.score(*b)))?;
        (self.score(best) >= MIN_KIND_SCORE).then_some(best)
    }
}

/// Returns `n` sequences of the BOS token (if the model has one) and `length` distinct random tokens,
/// repeated once. They depend only on the seed.
///
/// # Errors
/// [`Error::Parameter`] if the context or the vocabulary is too small for `length`.
pub fn repeated_random_tokens(
    model: &Model,
    n: usize,
    length: Option<usize>,
    seed: u64,
) -> Result<Vec<Vec<u32>>> {
    let config = model.config();
    let in_vocabulary = |id: &u32| (*id as usize) < config.vocab_size;
    let bos = config.bos_token_id.filter(in_vocabulary);
    let special = |id: &u32| bos == Some(*id) || config.eos_token_ids.contains(id);
    let mut ids: Vec<u32> = (0..config.vocab_size as u32).filter(|id| !special(id)).collect();
    let max_length =
        ids.len().min((config.n_positions - usize::from(bos.is_some()).min(config.n_positions)) / 2);
    let length = length.unwrap_or(DEFAULT_LENGTH.min(max_length));
    if !(2..=max_length).contains(&length) {
        let (name, found) = ("--length".into(), length.to_string());
        return Err(Error::Parameter { name, found, expected: format!("2 to {max_length} for this model") });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut random_below = |n: usize| ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
    let mut sequence = |_| {
        for i in 0..length {
            let other = i + random_below(ids.len() - i);
            ids.swap(i, other);
        }
        bos.into_iter().chain(ids[..length].iter().chain(&ids[..length]).copied()).collect()
    };
    Ok((0..n).map(&mut sequence).collect())
}

/// Scores every head of a model on token sequences, layer by layer. `progress` is called after each sequence.
///
/// # Errors
/// As [`Model::forward`].
pub fn score(model: &Model, sequences: &[Vec<u32>], mut progress: impl FnMut()) -> Result<Vec<HeadScores>> {
    let heads = model.config().n_layer * model.config().n_head;
    let mut totals = AttentionSums {
        n_head: model.config().n_head,
        attention: vec![[0.0; 4]; heads],
        ..AttentionSums::default()
    };
    for tokens in sequences {
        for i in 0..tokens.len() {
            let positions = HeadKind::ALL.map(|kind| kind.target_positions(tokens, i));
            totals
                .rows
                .iter_mut()
                .zip(&positions)
                .for_each(|(rows, positions)| *rows += usize::from(!positions.is_empty()));
            totals.positions.push(positions);
        }
        let mut session = Session::observed(model, tokens.len(), None, totals);
        session.feed(tokens)?;
        totals = std::mem::take(session.observer());
        totals.positions.clear();
        progress();
    }
    let mean = |sums: &[f64; 4], kind: HeadKind| match totals.rows[kind as usize] {
        0 => 0.0,
        rows => sums[kind as usize] / rows as f64,
    };
    let scores = totals.attention.iter().enumerate().map(|(i, sums)| HeadScores {
        layer: i / totals.n_head,
        head: i % totals.n_head,
        previous_token: mean(sums, HeadKind::PreviousToken),
        duplicate_token: mean(sums, HeadKind::DuplicateToken),
        induction: mean(sums, HeadKind::Induction),
        first_token: mean(sums, HeadKind::FirstToken),
    });
    Ok(scores.collect())
}

/// Sums the attention weights on the target positions.
#[derive(Default)]
struct AttentionSums {
    n_head: usize,
    /// The target positions of each kind, for each token of the sequence.
    positions: Vec<[Vec<usize>; 4]>,
    /// The number of tokens with target positions, over all sequences.
    rows: [usize; 4],
    /// The sum for each head and kind, over all sequences.
    attention: Vec<[f64; 4]>,
}

impl Observer for AttentionSums {
    fn is_interested(&self, site: Site) -> bool {
        matches!(site, Site::Pattern(_))
    }

    fn observe(&mut self, site: Site, patterns: ArrayViewMutD<'_, f32>) {
        let Site::Pattern(layer) = site else { return };
        let &[n_head, n, width] = patterns.shape() else { return };
        for head in 0..n_head {
            let attention = &mut self.attention[layer * n_head + head];
            for t in 0..n {
                for (sum, positions) in attention.iter_mut().zip(&self.positions[width - n + t]) {
                    *sum += positions.iter().map(|&j| f64::from(patterns[[head, t, j]])).sum::<f64>();
                }
            }
        }
    }
}

/// Returns an HTML page with the scores of each kind as a heat map of layers and heads, and a table in the
/// given order. The page is self-contained.
///
/// # Errors
/// None for scores that [`score`] returned.
pub fn html(model: &str, heads: &[HeadScores]) -> Result<String> {
    let mut page = Environment::new();
    page.set_auto_escape_callback(|_| AutoEscape::Html);
    let count = |index: fn(&HeadScores) -> usize| heads.iter().map(index).max().map_or(0, |max| max + 1);
    let (n_layer, n_head) = (count(|head| head.layer), count(|head| head.head));
    let grid = |kind: HeadKind| {
        let mut rows = vec![vec![0.0; n_head]; n_layer];
        heads.iter().for_each(|head| rows[head.layer][head.head] = head.score(kind));
        context! { name => kind.name(), rows }
    };
    let row = |head: &HeadScores| {
        let kind = head.kind().map_or("", HeadKind::name);
        let scores = HeadKind::ALL.map(|kind| head.score(kind));
        context! { name => format!("L{}H{}", head.layer, head.head), kind, scores }
    };
    let grids = HeadKind::ALL.map(grid);
    let rows: Vec<_> = heads.iter().map(row).collect();
    page.render_str(include_str!("heads.html"), context! { model, grids, rows, n_head })
        .map_err(|error| Error::invalid_file(Path::new("heads.html"), error.to_string()))
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
    fn target_positions_match_transformer_lens() {
        let tokens = [9, 1, 2, 1, 2, 1];
        let positions = |kind: HeadKind| -> Vec<Vec<usize>> {
            (0..6).map(|i| kind.target_positions(&tokens, i)).collect()
        };
        assert_eq!(positions(HeadKind::PreviousToken), [vec![], vec![0], vec![1], vec![2], vec![3], vec![4]]);
        assert_eq!(
            positions(HeadKind::DuplicateToken),
            [vec![], vec![], vec![], vec![1], vec![2], vec![1, 3]]
        );
        assert_eq!(positions(HeadKind::Induction), [vec![], vec![], vec![], vec![2], vec![3], vec![2, 4]]);
        assert_eq!(positions(HeadKind::FirstToken), [vec![], vec![0], vec![0], vec![0], vec![0], vec![0]]);
    }

    #[test]
    fn random_tokens_repeat_once_and_depend_on_seed() {
        let model = fable();
        let sequences = repeated_random_tokens(&model, 3, Some(40), 7).unwrap();
        for tokens in &sequences {
            assert_eq!((tokens.len(), tokens[0]), (81, 4095));
            assert_eq!(tokens[1..41], tokens[41..]);
            let mut distinct = tokens[..41].to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 41, "distinct tokens, none of them BOS");
        }
        assert_ne!(sequences[0], sequences[1]);
        assert_eq!(repeated_random_tokens(&model, 3, Some(40), 7).unwrap(), sequences);
        assert_ne!(repeated_random_tokens(&model, 3, Some(40), 8).unwrap(), sequences);
        let error = |length| repeated_random_tokens(&model, 1, Some(length), 0).unwrap_err().to_string();
        assert_eq!(error(256), "--length: found 256, expected 2 to 255 for this model");
        assert_eq!(error(1), "--length: found 1, expected 2 to 255 for this model");
    }

    #[test]
    fn html_page_is_escaped_and_self_contained() {
        let one = HeadScores {
            layer: 0,
            head: 0,
            previous_token: 0.75,
            duplicate_token: 0.0,
            induction: 0.0,
            first_token: 0.1,
        };
        let heads = [one, HeadScores { layer: 1, head: 1, previous_token: 0.0, induction: 0.9, ..one }];
        let page = html("<b>", &heads).unwrap();
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>") && !page.contains("http"));
        assert!(page.contains("L0H0") && page.contains("L1H1") && page.contains("0.90"));
        assert_eq!(heads.map(|head| head.kind()), [Some(HeadKind::PreviousToken), Some(HeadKind::Induction)]);
        assert_eq!(HeadScores { previous_token: 0.15, ..one }.kind(), None);
    }
}
