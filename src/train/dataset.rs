//! The sequences that a model is trained on, and their order.
//!
//! A document begins a sequence, so that a model learns beginnings, and no sequence holds two, so that no
//! token attends to another document. A document longer than the context is cut into several.

use super::documents::Document;
use super::pass::Batch;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::ops::Range;
use std::sync::Arc;

/// Sequences of tokens, from one or more sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    tokens: Arc<Tokens>,
    sequences: Vec<Range<usize>>,
    /// The sequences of each source.
    sources: Vec<Range<usize>>,
}

/// The tokens of all sequences.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tokens {
    ids: Vec<u32>,
    /// How much predicting each token counts.
    weights: Vec<f32>,
}

impl Dataset {
    /// Adds a source: documents, cut into sequences of at most `context` tokens and the token that follows.
    /// An `end_of_text` token stands before and after every document.
    pub fn add(&mut self, documents: &[Document], context: usize, end_of_text: Option<u32>) {
        let Self { tokens, sequences, sources } = self;
        let Tokens { ids, weights } = Arc::make_mut(tokens);
        let first = sequences.len();
        for document in documents {
            let start = ids.len();
            let ends = end_of_text.as_slice();
            ids.extend(ends.iter().chain(&document.ids).chain(ends));
            let ends = ends.iter().map(|_| &1.0);
            weights.extend(ends.clone().chain(&document.weights).chain(ends));
            // Each sequence begins with the last token that the one before predicted.
            let len = ids.len();
            let starts = (start..len.saturating_sub(1)).step_by(context);
            sequences.extend(starts.map(|from| from..len.min(from + context + 1)));
        }
        sources.push(first..sequences.len());
    }

    /// All tokens, those held out included.
    pub fn ids(&self) -> &[u32] {
        &self.tokens.ids
    }

    /// How much predicting each token counts.
    pub fn weights(&self) -> &[f32] {
        &self.tokens.weights
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The number of sources.
    pub fn n_sources(&self) -> usize {
        self.sources.len()
    }

    /// The number of predictions in all sequences of a source.
    pub fn n_tokens(&self, source: usize) -> usize {
        self.sources[source].clone().map(|i| self.sequence_tokens(i)).sum()
    }

    /// The number of predictions in the longest sequence of a source.
    pub fn longest(&self, source: usize) -> usize {
        self.sources[source].clone().map(|i| self.sequence_tokens(i)).max().unwrap_or(0)
    }

    /// The number of predictions in a sequence.
    pub fn sequence_tokens(&self, i: usize) -> usize {
        self.sequences[i].len() - 1
    }

    /// The tokens and weights of a sequence: `weights[i]` is that of predicting `ids[i + 1]`.
    fn sequence(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.sequences[i].clone();
        (&self.ids()[range.clone()], &self.weights()[range.start + 1..range.end])
    }

    /// Takes every n-th sequence of each source away, about `share` of all, to measure what was not trained
    /// on.
    pub fn split_off(&mut self, share: f64) -> Dataset {
        let mut kept = Dataset { tokens: Arc::clone(&self.tokens), ..Dataset::default() };
        let mut taken = kept.clone();
        for source in &self.sources {
            let n = ((1.0 / share).round() as usize).clamp(2, source.len().max(2));
            let firsts = [&kept, &taken].map(|dataset| dataset.len());
            for (i, sequence) in self.sequences[source.clone()].iter().enumerate() {
                let dataset = if i % n == n - 1 { &mut taken } else { &mut kept };
                dataset.sequences.push(sequence.clone());
            }
            for (dataset, first) in [&mut kept, &mut taken].into_iter().zip(firsts) {
                dataset.sources.push(first..dataset.len());
            }
        }
        *self = kept;
        taken
    }

    /// The sequences of a source in the order of an epoch: a Fisher-Yates shuffle of seed and epoch.
    pub fn shuffled(&self, source: usize, seed: u64, epoch: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch * self.sources.len() as u64 + source as u64);
        let mut order: Vec<usize> = self.sources[source].clone().collect();
        for i in (1..order.len()).rev() {
            order.swap(i, ((u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64) as usize);
        }
        order
    }

    /// Sequences of a source, spread over it, with about `max_tokens` predictions.
    pub fn sample(&self, source: usize, max_tokens: usize) -> Vec<usize> {
        let every = self.n_tokens(source).div_ceil(max_tokens).max(1);
        self.sources[source].clone().step_by(every).collect()
    }

    /// Sequences in batches: as many as fit into `max_tokens` for each, at least one.
    pub fn batches(&self, sequences: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
        let (mut batches, mut n): (Vec<Vec<usize>>, usize) = (vec![], 0);
        for &i in sequences {
            let len = self.sequence_tokens(i);
            match batches.last_mut().filter(|_| n + len <= max_tokens) {
                Some(batch) => batch.push(i),
                None => {
                    batches.push(vec![i]);
                    n = 0;
                }
            }
            n += len;
        }
        batches
    }

    /// The sum of the weights of some sequences' predictions.
    pub fn weight(&self, sequences: &[usize]) -> f64 {
        sequences.iter().flat_map(|&i| self.sequence(i).1).map(|&weight| f64::from(weight)).sum()
    }

    /// Gathers sequences for a pass; their weights are divided by `total`.
    pub fn gather(&self, sequences: &[usize], total: f64) -> Batch {
        let mut batch = Batch::default();
        for &i in sequences {
            let (ids, weights) = self.sequence(i);
            let weights: Vec<f32> =
                weights.iter().map(|&weight| (f64::from(weight) / total) as f32).collect();
            batch.push_weighted(ids, &weights);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(ids: impl IntoIterator<Item = u32>) -> Document {
        let ids: Vec<u32> = ids.into_iter().collect();
        Document { weights: vec![1.0; ids.len()], ids }
    }

    fn dataset(documents: &[Document], context: usize, end_of_text: Option<u32>) -> Dataset {
        let mut dataset = Dataset::default();
        dataset.add(documents, context, end_of_text);
        dataset
    }

    #[test]
    fn documents_become_sequences_that_predict_every_token_once() {
        let dataset = dataset(&[document(10..17), document(20..21)], 3, Some(0));
        let sequences: Vec<_> = (0..dataset.len()).map(|i| dataset.sequence(i).0.to_vec()).collect();
        // The end-of-text token is around each document; a sequence begins with the last token predicted.
        let expected: [&[u32]; 4] = [&[0, 10, 11, 12], &[12, 13, 14, 15], &[15, 16, 0], &[0, 20, 0]];
        assert_eq!(sequences, expected);
        assert_eq!(dataset.n_tokens(0), 3 + 3 + 2 + 2);
        let batch = dataset.gather(&[3, 2], 4.0);
        assert_eq!((&batch.ids[..], &batch.targets[..]), (&[0, 20, 15, 16][..], &[20, 0, 16, 0][..]));
        assert_eq!((&batch.positions[..], &batch.weights[..]), (&[0, 1, 0, 1][..], &[0.25; 4][..]));
    }

    #[test]
    fn prompts_count_less() {
        let document = Document { ids: vec![5, 6, 7], weights: vec![0.25, 0.25, 1.0] };
        let dataset = dataset(&[document], 8, None);
        assert_eq!(dataset.sequence(0), (&[5, 6, 7][..], &[0.25, 1.0][..]));
        assert_eq!(dataset.weight(&[0]), 1.25);
    }

    #[test]
    fn order_is_a_permutation_of_seed_and_epoch() {
        let documents: Vec<_> = (0..50).map(|i| document([i, i])).collect();
        let dataset = dataset(&documents, 8, None);
        let order = dataset.shuffled(0, 1, 0);
        let others = [dataset.shuffled(0, 1, 1), dataset.shuffled(0, 2, 0)];
        assert!(order == dataset.shuffled(0, 1, 0) && !others.contains(&order));
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn batches_have_all_sequences_in_order_and_room() {
        let documents: Vec<_> = [3, 5, 2, 9, 2].map(|n| document(0..n)).into();
        let dataset = dataset(&documents, 16, None); // 2, 4, 1, 8 and 1 predictions
        assert_eq!(dataset.batches(&[0, 1, 2, 3, 4], 6), [vec![0, 1], vec![2], vec![3], vec![4]]);
    }

    #[test]
    fn held_out_sequences_are_not_trained_on() {
        let documents: Vec<_> = (0..40).map(|i| document([i, i])).collect();
        let mut training = dataset(&documents, 8, None);
        let held_out = training.split_off(0.05);
        assert_eq!((training.len(), held_out.len()), (38, 2));
        assert_eq!((held_out.sequence(0).0, held_out.sequence(1).0), (&[19, 19][..], &[39, 39][..]));
        let mut single = dataset(&documents[..1], 8, None);
        assert_eq!((single.split_off(0.05).len(), single.len()), (0, 1));
    }
}
