//! Beam search: keeps the `num_beams` most probable partial completions and returns the best finished
//! hypotheses.
//!
//! A running beam's score is the sum of its tokens' logprobs after the [`LogitsProcessors`]; a finished
//! hypothesis divides that sum by `length ^ length_penalty`, the stop token included in the length. The
//! algorithm is that of transformers' `generate(num_beams = ..., do_sample = False)`:
//!
//! - Each step ranks all continuations of all beams and keeps the best `(1 + stop ids) * num_beams`.
//! - Among the first `num_beams` of these, those that end in a stop token become finished hypotheses, of
//!   which the best `num_beams` are kept. Lower-ranked continuations that end are dropped.
//! - The best `num_beams` continuations that do not end become the running beams.
//! - At the length limit every continuation ends.
//! - If the processors ban every continuation, the running beams are returned as they are, after the finished
//!   hypotheses. (transformers returns what `torch.topk` happens to choose among equal scores of -1e9, the
//!   empty text included.)
//! - The search stops when there are `num_beams` finished hypotheses and the [`EarlyStopping`] condition
//!   holds.
//!
//! A single beam is greedy search: use a [`Sampler`](super::Sampler) at temperature 0.

use super::logprobs::LogSoftmax;
use super::processors::LogitsProcessors;
use super::top_n::TopN;
use super::{SamplingParams, softmax};
use crate::{Error, Result};

/// The condition under which a search with `num_beams` finished hypotheses stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// Stop at once (transformers' `True`).
    Immediate,
    /// Stop when the best running beam, if it ended here, would not beat the worst finished hypothesis
    /// (`False`).
    #[default]
    Heuristic,
    /// Stop when no running beam can beat the worst finished hypothesis, given that logprobs are at most 0
    /// (`"never"`).
    Never,
}

/// The parameters of beam search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamParams {
    /// The number of beams, at least 2.
    pub num_beams: usize,
    /// The exponent of the length that a finished score is divided by: above 0 favors long hypotheses, below
    /// 0 short ones.
    pub length_penalty: f32,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

impl Default for BeamParams {
    fn default() -> Self {
        Self { num_beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }
}

impl BeamParams {
    /// Checks that every parameter is within its range.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the parameter.
    pub fn validate(&self) -> Result<()> {
        let out_of_range = |name: &str, found: String, expected: &str| {
            Err(Error::Parameter { name: name.into(), found, expected: expected.into() })
        };
        if self.num_beams < 2 {
            let expected = "at least 2 (1 is greedy search: temperature 0)";
            return out_of_range("beams", self.num_beams.to_string(), expected);
        }
        if !self.length_penalty.is_finite() {
            return out_of_range("length_penalty", self.length_penalty.to_string(), "a finite number");
        }
        Ok(())
    }
}

/// The next forward pass: one position for each running beam, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeamStep {
    /// For each beam, the index of the previous step's beam that it extends (0 in the first step, where there
    /// is only the prompt): transformers' `beam_idx`.
    pub parents: Vec<usize>,
    /// For each beam, the token it appends.
    pub tokens: Vec<u32>,
}

/// A finished completion, ended by a stop token (included), by the length limit, or because the processors
/// ban every continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamHypothesis {
    /// The completion's tokens.
    pub tokens: Vec<u32>,
    /// The sum of logprobs divided by `length ^ length_penalty`.
    pub score: f64,
}

/// The state of a beam search between two forward passes.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    params: BeamParams,
    processors: LogitsProcessors,
    prompt: Vec<u32>,
    max_new_tokens: usize,
    running: Vec<Beam>,
    /// Best first, at most `num_beams`.
    finished: Vec<BeamHypothesis>,
    /// The processed logprobs of one beam, `[vocab_size]`.
    scores: Vec<f32>,
    top_n: TopN,
}

#[derive(Clone, Debug, Default)]
struct Beam {
    tokens: Vec<u32>,
    /// The sum of logprobs.
    score: f64,
}

/// A running beam extended by one token.
struct Continuation {
    parent: usize,
    token: u32,
    score: f64,
}

impl BeamSearch {
    /// Starts a search. From `sampling` it uses the parameters of the [`LogitsProcessors`] and the stop ids.
    ///
    /// # Errors
    /// [`Error::Parameter`] as [`BeamParams::validate`].
    pub fn new(
        params: BeamParams,
        sampling: SamplingParams,
        prompt: &[u32],
        max_new_tokens: usize,
    ) -> Result<Self> {
        params.validate()?;
        Ok(Self {
            params,
            processors: LogitsProcessors::new(sampling),
            prompt: prompt.to_vec(),
            max_new_tokens,
            // Beams with the same tokens have the same continuations, so the search starts with one.
            running: if max_new_tokens > 0 { vec![Beam::default()] } else { Vec::new() },
            finished: Vec::new(),
            scores: Vec::new(),
            top_n: TopN::default(),
        })
    }

    /// Takes the logits after each running beam, `[running beams, vocab_size]`: first the prompt's single
    /// row, then one row for each token of the last [`BeamStep`]. Returns the next step, or `None` when the
    /// search is over.
    ///
    /// # Panics
    /// If there is not one row for each running beam.
    pub fn step(&mut self, logits: &[&[f32]]) -> Option<BeamStep> {
        assert_eq!(logits.len(), self.running.len(), "one row of logits for each running beam");
        let num_beams = self.params.num_beams;
        let length = self.running.first()?.tokens.len() + 1;
        let mut continuations = self.top_continuations(logits);
        let all_banned = continuations.is_empty();
        let ends = |c: &Continuation| {
            length >= self.max_new_tokens || self.processors.params().stop_ids.contains(&c.token)
        };

        let norm = libm::pow(length as f64, f64::from(self.params.length_penalty));
        for c in continuations.iter().take(num_beams).filter(|c| ends(c)) {
            self.finished.push(BeamHypothesis {
                tokens: [&self.running[c.parent].tokens[..], &[c.token]].concat(),
                score: c.score / norm,
            });
        }
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(num_beams);

        continuations.retain(|c| !ends(c));
        continuations.truncate(num_beams);
        if all_banned || continuations.is_empty() && length < self.max_new_tokens {
            // Every continuation is banned, or ended below the best `num_beams`.
            let norm = libm::pow((length - 1) as f64, f64::from(self.params.length_penalty));
            let partial = self.running.drain(..).filter(|beam| !beam.tokens.is_empty());
            self.finished
                .extend(partial.map(|beam| BeamHypothesis { score: beam.score / norm, tokens: beam.tokens }));
            self.finished.truncate(num_beams);
        }
        if continuations.is_empty() || !self.can_improve(continuations[0].score, length) {
            self.running.clear();
            return None;
        }
        let to_beam = |c: &Continuation| Beam {
            tokens: [&self.running[c.parent].tokens[..], &[c.token]].concat(),
            score: c.score,
        };
        self.running = continuations.iter().map(to_beam).collect();
        Some(BeamStep {
            parents: continuations.iter().map(|c| c.parent).collect(),
            tokens: continuations.iter().map(|c| c.token).collect(),
        })
    }

    /// The finished hypotheses, best first, at most `num_beams`; none if no token may follow the prompt.
    pub fn into_hypotheses(self) -> Vec<BeamHypothesis> {
        self.finished
    }

    /// The best continuations of all beams: enough that `num_beams` remain even if every stop id is among
    /// them. Ties are in order of beam, then token id.
    fn top_continuations(&mut self, logits: &[&[f32]]) -> Vec<Continuation> {
        let limit = (1 + self.processors.params().stop_ids.len()).max(2) * self.params.num_beams;
        let mut continuations = Vec::with_capacity(limit * logits.len());
        for (parent, (beam, logits)) in self.running.iter().zip(logits).enumerate() {
            let log_softmax = LogSoftmax::new(logits);
            self.scores.clear();
            self.scores.extend(logits.iter().map(|&l| log_softmax.logprob(l)));
            self.processors.apply(&mut self.scores, &self.prompt, &beam.tokens);
            self.top_n.reset(limit);
            self.top_n.scan(0, &self.scores);
            continuations.extend(self.top_n.sorted().iter().map(|&(score, token)| Continuation {
                parent,
                token,
                score: beam.score + f64::from(softmax::sanitize(score)),
            }));
        }
        continuations.sort_by(|a, b| b.score.total_cmp(&a.score));
        continuations.truncate(limit);
        continuations
    }

    /// Whether the best running beam may still beat the worst finished hypothesis.
    fn can_improve(&self, best_running: f64, length: usize) -> bool {
        let BeamParams { num_beams, length_penalty, early_stopping } = self.params;
        let Some(worst) = self.finished.get(num_beams - 1) else {
            return true;
        };
        let at_length = match early_stopping {
            EarlyStopping::Immediate => return false,
            // A sum of negative logprobs divided by a positive power of the length is greatest at the length
            // limit.
            EarlyStopping::Never if length_penalty > 0.0 => self.max_new_tokens,
            _ => length,
        };
        let norm = libm::pow(at_length as f64, f64::from(length_penalty));
        best_running / norm > worst.score
    }
}
