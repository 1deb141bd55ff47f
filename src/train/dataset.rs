//! The sequences that a model is trained on, and their order.
//!
//! A document begins a sequence, so that a model learns beginnings, and no sequence holds two, so that no
//! token attends to another document. A document longer than the context is cut into several.

use super::documents::Document;
use super::pass::Batch;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::ops::Range;

/// Sequences of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    ids: Vec<u32>,
    weights: Vec<f32>,
    sequences: Vec<Range<usize>>,
}

impl Dataset {
    /// Cuts documents into sequences of at most `context` tokens and the token that follows. An `end_of_text`
    /// token stands before and after every document.
    pub fn new(documents: &[Document], context: usize, end_of_text: Option<u32>) -> Self {
        let mut dataset = Self::default();
        for document in documents {
            let start = dataset.ids.len();
            let ends = end_of_text.as_slice();
            dataset.ids.extend(ends.iter().chain(&document.ids).chain(ends));
            let ends = ends.iter().map(|_| &1.0);
            dataset.weights.extend(ends.clone().chain(&document.weights).chain(ends));
            // Each sequence begins with the last token that the one before predicted.
            let len = dataset.ids.len();
            let starts = (start..len.saturating_sub(1)).step_by(context);
            dataset.sequences.extend(starts.map(|from| from..len.min(from + context + 1)));
        }
        dataset
    }

    /// All tokens, those held out included.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How much predicting each token counts.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The number of predictions in all sequences.
    pub fn n_tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.len() - 1).sum()
    }

    /// The tokens and weights of a sequence: `weights[i]` is that of predicting `ids[i + 1]`.
    fn sequence(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.sequences[i].clone();
        (&self.ids[range.clone()], &self.weights[range.start + 1..range.end])
    }

    /// Takes every n-th sequence away, about `share` of all, to measure what was not trained on.
    pub fn split_off(&mut self, share: f64) -> Dataset {
        let n = ((1.0 / share).round() as usize).clamp(2, self.len().max(2));
        let held_out = |i: &usize| i % n == n - 1;
        let all = std::mem::take(&mut self.sequences);
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(i, _)| held_out(i));
        self.sequences = kept.into_iter().map(|(_, sequence)| sequence).collect();
        let sequences = taken.into_iter().map(|(_, sequence)| sequence).collect();
        Self { ids: self.ids.clone(), weights: self.weights.clone(), sequences }
    }

    /// The sequences of an epoch in their order: a Fisher-Yates shuffle of seed and epoch.
    pub fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        let mut order: Vec<usize> = (0..self.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, ((u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64) as usize);
        }
        order
    }

    /// The batches of an epoch: the sequences of `order`, as many as fit into `max_tokens` for each, at least
    /// one.
    pub fn batches(&self, order: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
        let (mut batches, mut n): (Vec<Vec<usize>>, usize) = (vec![], 0);
        for &i in order {
            let len = self.sequences[i].len() - 1;
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

    #[test]
    fn documents_become_sequences_that_predict_every_token_once() {
        let dataset = Dataset::new(&[document(10..17), document(20..21)], 3, Some(0));
        let sequences: Vec<_> = (0..dataset.len()).map(|i| dataset.sequence(i).0.to_vec()).collect();
        // The end-of-text token is around each document; a sequence begins with the last token predicted.
        let expected: [&[u32]; 4] = [&[0, 10, 11, 12], &[12, 13, 14, 15], &[15, 16, 0], &[0, 20, 0]];
        assert_eq!(sequences, expected);
        assert_eq!(dataset.n_tokens(), 3 + 3 + 2 + 2);
        let batch = dataset.gather(&[3, 2], 4.0);
        assert_eq!((&batch.ids[..], &batch.targets[..]), (&[0, 20, 15, 16][..], &[20, 0, 16, 0][..]));
        assert_eq!((&batch.positions[..], &batch.weights[..]), (&[0, 1, 0, 1][..], &[0.25; 4][..]));
    }

    #[test]
    fn prompts_count_less() {
        let document = Document { ids: vec![5, 6, 7], weights: vec![0.25, 0.25, 1.0] };
        let dataset = Dataset::new(&[document], 8, None);
        assert_eq!(dataset.sequence(0), (&[5, 6, 7][..], &[0.25, 1.0][..]));
        assert_eq!(dataset.weight(&[0]), 1.25);
    }

    #[test]
    fn order_is_a_permutation_of_seed_and_epoch() {
        let documents: Vec<_> = (0..50).map(|i| document([i, i])).collect();
        let dataset = Dataset::new(&documents, 8, None);
        let order = dataset.order(1, 0);
        assert!(order == dataset.order(1, 0) && order != dataset.order(1, 1) && order != dataset.order(2, 0));
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn batches_have_all_sequences_in_order_and_room() {
        let documents: Vec<_> = [3, 5, 2, 9, 2].map(|n| document(0..n)).into();
        let dataset = Dataset::new(&documents, 16, None); // 2, 4, 1, 8 and 1 predictions
        assert_eq!(dataset.batches(&[0, 1, 2, 3, 4], 6), [vec![0, 1], vec![2], vec![3], vec![4]]);
    }

    #[test]
    fn held_out_sequences_are_not_trained_on() {
        let documents: Vec<_> = (0..40).map(|i| document([i, i])).collect();
        let mut training = Dataset::new(&documents, 8, None);
        let held_out = training.split_off(0.05);
        assert_eq!((training.len(), held_out.len()), (38, 2));
        assert_eq!((held_out.sequence(0).0, held_out.sequence(1).0), (&[19, 19][..], &[39, 39][..]));
        let mut single = Dataset::new(&documents[..1], 8, None);
        assert_eq!((single.split_off(0.05).len(), single.len()), (0, 1));
    }
}
