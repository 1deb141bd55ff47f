//! Speculative decoding of the batch, if the engine's model has a draft model: the sequences draft together,
//! and one pass verifies all drafts. Only a step in which every sequence is in decode has drafts, as a pass
//! with a part of a prompt is bound by arithmetic, and whoever waits for it should not wait longer.

use super::Scheduler;
use crate::Result;
use crate::engine::sequence::{CompletionTask, RunningSequence, Task};
use crate::generate::DraftSequence;

impl Scheduler {
    /// Replaces the drafts of all sequences, and returns whether they are to be verified.
    pub(super) fn draft(&mut self) -> Result<bool> {
        let Some(model) = self.hornbook.draft_model() else { return Ok(false) };
        let is_decode = self.running().all(RunningSequence::is_in_decode);
        let running = self.requests.iter_mut().flat_map(|request| &mut request.running);
        let sequences = running.filter_map(|RunningSequence { task, cache }| match task {
            Task::Complete(completion) => {
                let CompletionTask { state, draft, .. } = &mut **completion;
                Some(DraftSequence { cache, state, draft })
            }
            Task::Embed(_) => None,
        });
        let mut sequences: Vec<DraftSequence> = sequences.collect();
        if !is_decode {
            sequences.iter_mut().for_each(|sequence| sequence.draft.clear());
            return Ok(false);
        }
        self.drafter.draft(Some(model), &mut sequences)?;
        for sequence in &sequences {
            let n_drafted = sequence.draft.to_compute().len() as u64;
            self.statistics.drafts.drafts += u64::from(n_drafted > 0);
            self.statistics.drafts.drafted_tokens += n_drafted;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ManualScheduler, options, params, pending_events, prompt, tokens};
    use crate::engine::stream::EventStream;
    use crate::engine::{CompletionParams, EngineOptions, Statistics};
    use crate::generate::{ContextPolicy, DraftStats};
    use crate::model::Precision;
    use crate::sampling::SamplingParams;
    use crate::{Hornbook, Options, Token};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn drafting(draft: Precision, len: usize, options: EngineOptions) -> ManualScheduler {
        let hornbook = Hornbook::open("fable").unwrap().with_draft(draft).unwrap();
        let mut manual = ManualScheduler::with_hornbook(hornbook, options);
        manual.scheduler.drafter.fix_len(len);
        manual
    }

    /// The bits of each choice.
    fn bits(choices: BTreeMap<usize, Vec<Token>>) -> String {
        let bits = |token: Token| {
            let top: Vec<_> =
                token.top_logprobs.iter().map(|(id, logprob)| (*id, logprob.to_bits())).collect();
            (token.id, token.text, token.logprob.to_bits(), top)
        };
        let choices = choices.into_iter().map(|(i, tokens)| (i, tokens.into_iter().map(bits).collect()));
        let choices: Vec<(usize, Vec<_>)> = choices.collect();
        format!("{choices:?}")
    }

    /// Requests of every kind of end, filter and length.
    fn requests() -> Vec<(Vec<u32>, CompletionParams)> {
        let request = |sampling, change: fn(&mut CompletionParams)| {
            let mut params = CompletionParams { choices: 2, top_logprobs: 3, ..params(40, 2) };
            params.options.sampling = sampling;
            change(&mut params);
            params
        };
        let default = SamplingParams { seed: 5, ..SamplingParams::default() };
        let greedy = SamplingParams { temperature: 0.0, ..default.clone() };
        let penalties = SamplingParams { repetition_penalty: 1.3, top_k: 20, ..default.clone() };
        let shift = |params: &mut CompletionParams| {
            params.options.context = ContextPolicy::Shift;
            params.options.max_tokens = Some(90);
        };
        vec![
            (prompt(9, 1), request(default.clone(), |_| {})),
            (prompt(40, 2), request(greedy.clone(), |_| {})),
            (prompt(30, 3), request(penalties, |params| params.options.stop = vec!["the".into()])),
            (prompt(470, 4), request(greedy, shift)),
            (prompt(490, 5), request(default.clone(), |params| params.options.max_tokens = None)),
            (prompt(9, 1), request(default, |params| params.score_prompt = true)),
        ]
    }

    #[test]
    fn batches_with_drafts_have_the_same_bits_and_take_fewer_steps() {
        let plain = ManualScheduler::new(options(4, 16));
        let expected: Vec<String> =
            requests().iter().map(|(prompt, params)| bits(plain.reference(prompt, params))).collect();
        for (draft, len, max_concurrency) in
            [(Precision::Int4, 3, 4), (Precision::Int8, 8, 16), (Precision::Int8, 1, 1)]
        {
            let mut manual = drafting(draft, len, options(max_concurrency, 16));
            let mut streams: Vec<EventStream> = vec![];
            for (i, (prompt, params)) in requests().iter().enumerate() {
                streams.push(manual.submit(prompt, params));
                drop(manual.submit(prompt, params)); // cancelled
                (0..5 * i).for_each(|_| manual.step());
            }
            manual.run_until_idle();
            for (i, (stream, expected)) in streams.iter_mut().zip(&expected).enumerate() {
                assert_eq!(&bits(tokens(pending_events(stream))), expected, "request {i} of {draft}, {len}");
            }
            let Statistics { drafts, .. } = manual.statistics();
            let DraftStats { drafts, drafted_tokens, accepted_tokens } = drafts;
            assert!(drafts > 0 && drafted_tokens > drafts && accepted_tokens > drafted_tokens / 3);
        }
    }

    #[test]
    fn sequences_draft_together_and_a_draft_that_is_right_saves_its_steps() {
        let mut manual = drafting(Precision::Int8, 3, options(16, 64));
        let _streams: Vec<EventStream> =
            (0..4).map(|i| manual.submit(&prompt(9, i), &params(41, 1))).collect();
        manual.run_until_idle();
        let Statistics { drafts, steps, generated_tokens, .. } = manual.statistics();
        assert_eq!(generated_tokens, 4 * 41);
        assert!(drafts.accepted_tokens > drafts.drafted_tokens * 8 / 10, "{drafts:?}");
        assert!((11..25).contains(&steps), "{steps} steps for 41 tokens, four at a time");
    }

    #[test]
    fn engine_without_draft_model_drafts_nothing() {
        let mut manual = ManualScheduler::new(options(2, 64));
        let _stream = manual.submit(&[5, 6, 7, 5, 6, 7, 5, 6], &params(20, 2));
        manual.run_until_idle();
        assert_eq!(manual.statistics().drafts, DraftStats::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn drafts_never_change_a_batch(
            seed in any::<u64>(),
            requests in prop::collection::vec((1..60usize, 0..9u32, 1..30usize, 0..4usize), 1..4),
            (len, slots) in (1..8usize, 1..5usize),
        ) {
            let plain = ManualScheduler::new(options(1, 64));
            let mut manual = drafting(Precision::Int4, len, options(slots, 8));
            let params = |max_tokens| {
                let sampling = SamplingParams { seed, ..SamplingParams::default() };
                let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
                CompletionParams { options, ..CompletionParams::default() }
            };
            let mut streams: Vec<EventStream> = vec![];
            for (n, salt, max_tokens, steps) in &requests {
                streams.push(manual.submit(&prompt(*n, *salt), &params(*max_tokens)));
                (0..*steps).for_each(|_| manual.step());
            }
            manual.run_until_idle();
            for ((n, salt, max_tokens, _), stream) in requests.iter().zip(&mut streams) {
                let expected = plain.reference(&prompt(*n, *salt), &params(*max_tokens));
                prop_assert_eq!(bits(tokens(pending_events(stream))), bits(expected));
            }
        }
    }
}
