//! Beam search: follow the few likeliest completions side by side, and return the best that ended.
//!
//! A running beam's score is the sum of its tokens' logprobs (after the [`LogitsProcessors`]); a finished one's is that
//! sum over `length ^ length_penalty`, its stop token counted. The rules of transformers' `generate(num_beams = ...,
//! do_sample = False)`:
//!
//! - Each step ranks every continuation of every beam and looks at the best `(1 + stop ids) * num_beams`.
//! - Of the first `num_beams` of these, the ones that end join the finished; the best `num_beams` finished are kept.
//!   Ends further down are dropped.
//! - The best `num_beams` that do not end run on.
//! - At the last position everything ends.
//! - It is over when there are `num_beams` finished and [`EarlyStopping`] sees no use in going on.
//!
//! One beam would be greedy search, which needs none of this: a [`Sampler`](super::Sampler) at temperature 0.

use super::logprobs::LogSoftmax;
use super::processors::LogitsProcessors;
use super::select::Best;
use super::{SamplingParams, softmax};
use crate::{Error, Result};

/// When a search with `num_beams` finished hypotheses gives up on its running beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// At once (transformers' `True`).
    WhenFull,
    /// When the best running beam, were it to end here, is no better than the worst finished (`False`).
    #[default]
    WhenUnlikely,
    /// When no running beam can become better than the worst finished, given that logprobs are never above 0
    /// (`"never"`).
    WhenImpossible,
}

/// How wide to search and what to prefer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamParams {
    /// Hypotheses followed at a time, at least 2.
    pub num_beams: usize,
    /// The power of the length that a finished score is divided by: above 0 favours long ones, below 0 short ones.
    pub length_penalty: f32,
    /// When to stop looking.
    pub early_stopping: EarlyStopping,
}

impl Default for BeamParams {
    fn default() -> Self {
        Self { num_beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }
}

impl BeamParams {
    /// Holds every option to its range.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the option.
    pub fn validate(&self) -> Result<()> {
        let outside = |name: &str, found: String, expected: &str| {
            Err(Error::Parameter { name: name.into(), found, expected: expected.into() })
        };
        if self.num_beams < 2 {
            let expected = "at least 2 (1 is greedy search: temperature 0)";
            return outside("beams", self.num_beams.to_string(), expected);
        }
        if !self.length_penalty.is_finite() {
            return outside("length_penalty", self.length_penalty.to_string(), "a finite number");
        }
        Ok(())
    }
}

/// What to compute next: one position for each running beam, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeamStep {
    /// For each beam, which of the previous step's it continues (0 in the first step, where there is only the prompt).
    pub parents: Vec<usize>,
    /// The token it continues it with.
    pub tokens: Vec<u32>,
}

/// A completion that ended, by a stop token (which it holds) or at the length limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The completion's tokens.
    pub tokens: Vec<u32>,
    /// The sum of logprobs over `length ^ length_penalty`.
    pub score: f64,
}

/// The search's state between two forward passes.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    params: BeamParams,
    processors: LogitsProcessors,
    prompt: Vec<u32>,
    max_new_tokens: usize,
    running: Vec<Beam>,
    /// Best first, at most `num_beams`.
    finished: Vec<Hypothesis>,
    /// One beam's scores, `[vocab_size]`.
    scores: Vec<f32>,
    best: Best,
}

#[derive(Clone, Debug, Default)]
struct Beam {
    tokens: Vec<u32>,
    /// The sum of logprobs.
    score: f64,
}

/// A running beam and a token after it.
struct Continuation {
    parent: usize,
    token: u32,
    score: f64,
}

impl BeamSearch {
    /// A search at its beginning. Of `sampling` it uses what [`LogitsProcessors`] do, and the stop ids.
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
            // Beams that hold the same tokens would only find the same continuations: there is one until they part.
            running: if max_new_tokens > 0 { vec![Beam::default()] } else { Vec::new() },
            finished: Vec::new(),
            scores: Vec::new(),
            best: Best::default(),
        })
    }

    /// Takes the logits that follow each running beam, `[running beams, vocab_size]`: at first the prompt's alone, then
    /// one row for each token of the last [`BeamStep`]. Returns the next, or `None` when the search is over.
    ///
    /// # Panics
    /// Where there is not one row for each running beam.
    pub fn step(&mut self, logits: &[&[f32]]) -> Option<BeamStep> {
        assert_eq!(logits.len(), self.running.len(), "one row of logits for each running beam");
        let num_beams = self.params.num_beams;
        let length = self.running.first()?.tokens.len() + 1;
        let mut continuations = self.rank(logits);
        let ends = |c: &Continuation| {
            length >= self.max_new_tokens || self.processors.params().stop_ids.contains(&c.token)
        };

        let norm = libm::pow(length as f64, f64::from(self.params.length_penalty));
        for c in continuations.iter().take(num_beams).filter(|c| ends(c)) {
            self.finished.push(Hypothesis {
                tokens: [&self.running[c.parent].tokens[..], &[c.token]].concat(),
                score: c.score / norm,
            });
        }
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(num_beams);

        continuations.retain(|c| !ends(c));
        continuations.truncate(num_beams);
        if continuations.is_empty() || !self.worth_going_on(continuations[0].score, length) {
            self.running.clear();
            return None;
        }
        let continued = |c: &Continuation| Beam {
            tokens: [&self.running[c.parent].tokens[..], &[c.token]].concat(),
            score: c.score,
        };
        self.running = continuations.iter().map(continued).collect();
        Some(BeamStep {
            parents: continuations.iter().map(|c| c.parent).collect(),
            tokens: continuations.iter().map(|c| c.token).collect(),
        })
    }

    /// What was found, best first, at most `num_beams`.
    pub fn finish(self) -> Vec<Hypothesis> {
        self.finished
    }

    /// The best continuations of all beams: enough that `num_beams` run on even if every stop id is among the best.
    /// Equals come in order of beam, then id.
    fn rank(&mut self, logits: &[&[f32]]) -> Vec<Continuation> {
        let enough = (1 + self.processors.params().stop_ids.len()).max(2) * self.params.num_beams;
        let mut continuations = Vec::with_capacity(enough * logits.len());
        for (parent, (beam, logits)) in self.running.iter().zip(logits).enumerate() {
            let log_softmax = LogSoftmax::of(logits);
            self.scores.clear();
            self.scores.extend(logits.iter().map(|&l| log_softmax.at(l)));
            self.processors.apply(&mut self.scores, &self.prompt, &beam.tokens);
            self.best.reset(enough);
            self.best.look(0, &self.scores);
            continuations.extend(self.best.sorted().iter().map(|&(score, token)| Continuation {
                parent,
                token,
                score: beam.score + f64::from(softmax::tame(score)),
            }));
        }
        continuations.sort_by(|a, b| b.score.total_cmp(&a.score));
        continuations.truncate(enough);
        continuations
    }

    /// Whether the best running sum may still give a better score than the worst that finished.
    fn worth_going_on(&self, best_running: f64, length: usize) -> bool {
        let BeamParams { num_beams, length_penalty, early_stopping } = self.params;
        let Some(worst) = self.finished.get(num_beams - 1) else {
            return true;
        };
        let at_length = match early_stopping {
            EarlyStopping::WhenFull => return false,
            // Over a positive power of the length, a sum of negative numbers looks best at the greatest length.
            EarlyStopping::WhenImpossible if length_penalty > 0.0 => self.max_new_tokens,
            _ => length,
        };
        let norm = libm::pow(at_length as f64, f64::from(length_penalty));
        best_running / norm > worst.score
    }
}
