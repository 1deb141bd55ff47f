//! What each step reads. A run has a number of tokens to read, and stages, each with its mixture of the
//! sources: novels first, then tales. From these follows how many tokens of each source are read before any
//! step, and so the step's sequences: they depend on the seed and the step alone, and a resumed run needs to
//! remember nothing.

use super::dataset::Dataset;
use serde::{Deserialize, Serialize};

/// A part of a run with its own mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its part of all tokens, beside those of the other stages.
    pub share: f64,
    /// Each source's part of the stage's tokens, beside those of the other sources.
    pub mixture: Vec<f64>,
}

/// The order in which a run reads its sequences.
pub struct Order {
    seed: u64,
    /// Tokens to be read in all.
    tokens: u64,
    steps: u32,
    stages: Vec<Stage>,
    /// The epoch of each source that was read last.
    epochs: Vec<Option<Epoch>>,
}

/// The sequences of a source in the order of one epoch.
struct Epoch {
    number: u64,
    order: Vec<usize>,
    /// The tokens before each of them.
    starts: Vec<u64>,
}

impl Order {
    /// Reads `tokens` in steps of about `batch_tokens`. Without stages, each source is read in proportion to
    /// its size.
    pub fn new(dataset: &Dataset, tokens: u64, batch_tokens: usize, stages: &[Stage], seed: u64) -> Self {
        let sources = 0..dataset.n_sources();
        let longest = sources.clone().map(|source| dataset.longest(source)).max().unwrap_or(1);
        let proportional =
            || Stage { share: 1.0, mixture: sources.map(|source| dataset.n_tokens(source) as f64).collect() };
        Self {
            seed,
            tokens,
            // A step has room for any sequence.
            steps: tokens.div_ceil(batch_tokens.max(longest) as u64).try_into().unwrap_or(u32::MAX),
            stages: if stages.is_empty() { vec![proportional()] } else { stages.to_vec() },
            epochs: (0..dataset.n_sources()).map(|_| None).collect(),
        }
    }

    /// The number of steps.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The sequences of a step, counted from 1: those that begin within its share of each source.
    pub fn sequences(&mut self, dataset: &Dataset, step: u32) -> Vec<usize> {
        let mut sequences = vec![];
        for source in 0..dataset.n_sources() {
            let n = dataset.n_tokens(source) as u64;
            let [from, to] = [step - 1, step].map(|step| self.tokens_read(source, step));
            if n == 0 || from == to {
                continue;
            }
            for number in from / n..=(to - 1) / n {
                let epoch = self.epoch(dataset, source, number);
                let [first, last] = [from, to]
                    .map(|tokens| epoch.starts.partition_point(|start| number * n + start < tokens));
                sequences.extend_from_slice(&epoch.order[first..last]);
            }
        }
        sequences
    }

    /// The tokens of a source that are read up to the end of a step.
    fn tokens_read(&self, source: usize, step: u32) -> u64 {
        let total: f64 = self.stages.iter().map(|stage| stage.share).sum();
        let mut rest = f64::from(step) / f64::from(self.steps);
        let mut tokens = 0.0;
        for stage in &self.stages {
            let share = (stage.share / total).min(rest);
            tokens += share * stage.mixture[source] / stage.mixture.iter().sum::<f64>();
            rest -= share;
        }
        (tokens * self.tokens as f64).round() as u64
    }

    fn epoch(&mut self, dataset: &Dataset, source: usize, number: u64) -> &Epoch {
        let seed = self.seed;
        let shuffled = || {
            let order = dataset.shuffled(source, seed, number);
            let starts = order.iter().scan(0, |end, &i| {
                let start = *end;
                *end += dataset.sequence_tokens(i) as u64;
                Some(start)
            });
            Epoch { number, starts: starts.collect(), order }
        };
        let epoch = &mut self.epochs[source];
        if epoch.as_ref().is_none_or(|epoch| epoch.number != number) {
            *epoch = None;
        }
        epoch.get_or_insert_with(shuffled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Document;

    /// Two sources: 40 documents with 2 predictions each, and 10 with 3.
    fn dataset() -> Dataset {
        let document = |n: usize| Document { ids: vec![1; n], weights: vec![1.0; n] };
        let mut dataset = Dataset::default();
        dataset.add(&vec![document(3); 40], 8, None);
        dataset.add(&vec![document(4); 10], 8, None);
        dataset
    }

    fn all(order: &mut Order, dataset: &Dataset) -> Vec<Vec<usize>> {
        (1..=order.steps()).map(|step| order.sequences(dataset, step)).collect()
    }

    #[test]
    fn epochs_read_every_sequence_as_often_as_any_other() {
        let dataset = dataset();
        for (epochs, batch) in [(1, 7), (3, 20), (2, 1), (1, 1000)] {
            let mut order = Order::new(&dataset, epochs * 110, batch, &[], 5);
            let steps = all(&mut order, &dataset);
            let mut count = vec![0; dataset.len()];
            steps.iter().flatten().for_each(|&i| count[i] += 1);
            assert_eq!(count, vec![epochs; dataset.len()], "{epochs} epochs in batches of {batch}");
        }
    }

    #[test]
    fn step_depends_on_the_seed_and_its_number_alone() {
        let dataset = dataset();
        let order = |seed| Order::new(&dataset, 330, 20, &[], seed);
        let steps = all(&mut order(5), &dataset);
        for step in [9, 2, 14] {
            assert_eq!(order(5).sequences(&dataset, step), steps[step as usize - 1]);
        }
        assert_ne!(steps, all(&mut order(6), &dataset));
    }

    #[test]
    fn stages_have_their_mixture() {
        let dataset = dataset();
        let stages = [(0.25, [1.0, 0.0]), (0.75, [1.0, 3.0])]
            .map(|(share, mixture)| Stage { share, mixture: mixture.into() });
        let mut order = Order::new(&dataset, 1200, 30, &stages, 5);
        let steps = all(&mut order, &dataset);
        assert_eq!(steps.len(), 40);
        let tokens = |steps: &[Vec<usize>], from: usize, to: usize| -> usize {
            let sequences = steps.iter().flatten().filter(|&&i| (from..to).contains(&i));
            sequences.map(|&i| dataset.sequence_tokens(i)).sum()
        };
        assert_eq!((tokens(&steps[..10], 0, 40), tokens(&steps[..10], 40, 50)), (300, 0));
        let [first, second] = [(0, 40), (40, 50)].map(|(from, to)| tokens(&steps[10..], from, to) as f64);
        assert!((first - 225.0).abs() <= 2.0 && (second - 675.0).abs() <= 3.0, "{first} {second}");
    }
}
