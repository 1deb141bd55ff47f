//! Context shift: a text beyond the context continues as one that starts with the context's last half.

use crate::reference::data;
use hornbook::checkpoint::Checkpoint;
use hornbook::engine::{
    CompletionParams, Engine, EngineOptions, Event, Priority, Request, RequestKind, SubmitError,
};
use hornbook::generate::{ContextPolicy, beam_search};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Session;
use hornbook::sampling::{BeamParams, Sampler, SamplingParams};
use hornbook::{Error, FinishReason, Hornbook, Options, Token};

/// A model of 96 positions. Token 50 ends a text, and is banned below so that texts are long.
fn tiny() -> Hornbook {
    let checkpoint = Checkpoint::from_folder(&data("tiny-gelu-new")).unwrap();
    Hornbook::new(checkpoint, ThreadPool::new(2, Isa::available()[0])).unwrap()
}

fn prompt(n: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 7 + i * 3) % 90) as u32).collect()
}

fn shifting(sampling: SamplingParams, max_tokens: usize) -> Options {
    Options { sampling, max_tokens: Some(max_tokens), context: ContextPolicy::Shift, ..Options::default() }
}

fn greedy() -> SamplingParams {
    SamplingParams {
        temperature: 0.0,
        logit_bias: vec![(50, f32::NEG_INFINITY)],
        ..SamplingParams::default()
    }
}

fn sampled(seed: u64) -> SamplingParams {
    let logit_bias = vec![(50, f32::NEG_INFINITY)];
    SamplingParams {
        seed,
        temperature: 0.9,
        repetition_penalty: 1.1,
        logit_bias,
        ..SamplingParams::default()
    }
}

/// Ids and the bits of logprobs.
fn token_bits(tokens: impl Iterator<Item = hornbook::Result<Token>>) -> Vec<(u32, u32)> {
    tokens.map(|token| token.map(|token| (token.id, token.logprob.to_bits())).unwrap()).collect()
}

/// Context shift by definition: a new session starts with the last half of the text whenever one is full; the
/// sampler is unaffected.
fn reference_text(hornbook: &Hornbook, prompt: &[u32], options: &Options, stream: u64) -> Vec<(u32, u32)> {
    let n_positions = hornbook.config().n_positions;
    let new = || Session::new(hornbook.model(), n_positions, options.kv_precision);
    let mut sampler = Sampler::new(options.sampling.clone(), stream);
    let (mut session, mut text, mut generated) = (new(), prompt.to_vec(), vec![]);
    let mut fresh =
        prompt[if prompt.len() > n_positions { prompt.len() - n_positions / 2 } else { 0 }..].to_vec();
    for _ in 0..options.max_tokens.unwrap() {
        if session.len() + fresh.len() > n_positions {
            session = new();
            fresh = text[text.len() - n_positions / 2..].to_vec();
        }
        let logits = session.feed(&fresh).unwrap().to_vec();
        let token = sampler.sample(&logits, prompt, &text[prompt.len()..]);
        text.push(token.id);
        generated.push((token.id, token.logprob.to_bits()));
        fresh = vec![token.id];
    }
    generated
}

#[test]
fn shifted_text_equals_text_started_from_last_half() {
    let hornbook = tiny();
    for len in [1, 40, 95, 96, 97, 200] {
        for sampling in [greedy(), sampled(1), sampled(2)] {
            let (prompt, options) = (prompt(len), shifting(sampling, 250));
            let mut generation = hornbook.generate(&prompt, &options).unwrap();
            for choice in 0..2 {
                if choice > 0 {
                    generation.restart().unwrap();
                }
                let actual = token_bits(generation.by_ref());
                assert_eq!(
                    actual,
                    reference_text(&hornbook, &prompt, &options, choice),
                    "after {len} tokens"
                );
                assert_eq!((actual.len(), generation.finish_reason()), (250, Some(FinishReason::Length)));
                assert_eq!(generation.prompt(), prompt);
            }
        }
    }
    // With greedy decoding it equals a new text: the context is full after 57 tokens (and one more).
    let (prompt, options) = (prompt(40), shifting(greedy(), 90));
    let whole = token_bits(hornbook.generate(&prompt, &options).unwrap());
    let text: Vec<u32> = prompt.iter().copied().chain(whole.iter().map(|token| token.0)).collect();
    let fresh = Options { max_tokens: Some(33), context: ContextPolicy::Stop, ..options };
    assert_eq!(token_bits(hornbook.generate(&text[97 - 48..97], &fresh).unwrap()), whole[57..]);
    // Up to the shift it equals the text without one.
    let stopped = hornbook.generate(&prompt, &Options { max_tokens: None, ..fresh }).unwrap();
    assert_eq!(token_bits(stopped), whole[..57]);
}

#[test]
fn full_context_predicts_one_more_token() {
    let hornbook = tiny(); // 96 positions
    for len in [1, 90, 94, 95, 96] {
        let (prompt, room) = (prompt(len), 97 - len);
        let shifted = token_bits(hornbook.generate(&prompt, &shifting(greedy(), room)).unwrap());
        let whole = Options { context: ContextPolicy::Stop, ..shifting(greedy(), 1000) };
        for options in [Options { max_tokens: None, ..whole.clone() }, whole.clone()] {
            let generation = hornbook.generate(&prompt, &options).unwrap();
            assert_eq!(token_bits(generation.with_prompt_lookup(8)), shifted, "{len} tokens, with drafts");
            let mut generation = hornbook.generate(&prompt, &options).unwrap();
            assert_eq!(token_bits(generation.by_ref()), shifted, "{len} tokens");
            assert_eq!(generation.finish_reason(), Some(FinishReason::Length));
        }
        let mut session = Session::new(hornbook.model(), 96, None);
        let text: Vec<u32> = prompt.iter().copied().chain(shifted.iter().map(|token| token.0)).collect();
        let last = session.feed(&text[..96]).unwrap();
        assert!(last.iter().all(|logit| *logit <= last[text[96] as usize] || *logit == last[50]));
        let params = BeamParams { num_beams: 2, ..BeamParams::default() };
        let beams = beam_search(&hornbook, &prompt, params, &whole).unwrap();
        assert!(beams.len() == 2 && beams.iter().all(|beam| beam.ids.len() == room), "{len} tokens");
    }
    let too_long = Options { context: ContextPolicy::Stop, ..shifting(greedy(), 1) };
    assert!(hornbook.generate(&prompt(97), &too_long).is_err());
}

#[test]
fn drafts_and_stop_strings_work_across_context_shifts() {
    let hornbook = tiny();
    let mut accepted = 0;
    for prompt in [[7, 8, 9].repeat(25), prompt(90), [5, 6].repeat(100)] {
        for sampling in [greedy(), SamplingParams { temperature: 0.3, ..sampled(3) }] {
            let options = shifting(sampling, 300);
            let expected = token_bits(hornbook.generate(&prompt, &options).unwrap());
            for max_draft_len in [1, 3, 16, 128] {
                let mut generation =
                    hornbook.generate(&prompt, &options).unwrap().with_prompt_lookup(max_draft_len);
                assert_eq!(token_bits(generation.by_ref()), expected, "drafts of {max_draft_len}");
                generation.restart().unwrap();
                let again = token_bits(generation.by_ref());
                assert_eq!(
                    again,
                    reference_text(&hornbook, &prompt, &options, 1),
                    "drafts of {max_draft_len}, again"
                );
                accepted += generation.draft_stats().accepted_tokens;
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
    // fable has 512 positions; the stop string ends beyond them.
    let pool = ThreadPool::new(2, Isa::available()[0]);
    let fable = Hornbook::new(Checkpoint::embedded().unwrap(), pool).unwrap();
    let prompt = fable.encode(&"and round ".repeat(240)).unwrap();
    let options = shifting(SamplingParams { temperature: 0.0, ..SamplingParams::default() }, 120);
    let text = |options: &Options| -> String {
        let generation = fable.generate(&prompt, options).unwrap();
        generation.map(|token| token.unwrap().text).collect()
    };
    assert!(prompt.len() < 512 && prompt.len() + 120 > 530, "{}", prompt.len());
    let whole = text(&options);
    let end = whole.char_indices().nth_back(20).unwrap().0;
    let stopped = text(&Options { stop: vec![whole[..end].into()], ..options.clone() });
    assert_eq!(stopped, "");
}

#[test]
fn batched_sequences_shift_independently() {
    let reference = tiny();
    for prefill_chunk in [5, 64] {
        let options = EngineOptions { max_concurrency: 3, prefill_chunk, ..EngineOptions::default() };
        let engine = Engine::start(tiny(), options).unwrap();
        let submit = |len, options: &Options, score_prompt| {
            let completion = CompletionParams {
                options: options.clone(),
                choices: 2,
                score_prompt,
                ..CompletionParams::default()
            };
            engine.submit(Request {
                adapter: None,
                priority: Priority::Live,
                prompt: prompt(len),
                kind: RequestKind::Complete(completion),
            })
        };
        let cases: Vec<(usize, Options)> = [(40, 1), (96, 2), (97, 3), (300, 4), (3, 5)]
            .map(|(len, seed)| (len, shifting(sampled(seed), 200)))
            .into();
        let streams: Vec<_> =
            cases.iter().map(|(len, options)| submit(*len, options, false).unwrap()).collect();
        for ((len, options), mut stream) in cases.iter().zip(streams) {
            let mut actual = [vec![], vec![]];
            while let Some(event) = stream.blocking_next() {
                match event {
                    Event::Token { choice, token } => {
                        actual[choice].push((token.id, token.logprob.to_bits()))
                    }
                    Event::Finished { reason, .. } => assert_eq!(reason, FinishReason::Length),
                    other => panic!("unexpected: {other:?}"),
                }
            }
            let mut generation = reference.generate(&prompt(*len), options).unwrap();
            for actual in actual {
                assert_eq!(
                    actual,
                    token_bits(generation.by_ref()),
                    "after {len} tokens, chunks of {prefill_chunk}"
                );
                generation.restart().unwrap();
            }
        }
        // Scoring needs the whole prompt in the context.
        let rejected = submit(97, &cases[0].1, true);
        assert!(matches!(rejected, Err(SubmitError::Invalid(Error::ContextOverflow { .. }))));
    }
}

#[test]
fn generation_without_max_tokens_is_endless() {
    let hornbook = tiny();
    for kv_precision in KvPrecision::ALL {
        let options =
            Options { max_tokens: None, kv_precision: Some(kv_precision), ..shifting(sampled(1), 0) };
        assert_eq!(token_bits(hornbook.generate(&prompt(30), &options).unwrap().take(500)).len(), 500);
    }
    let stop = Options { context: ContextPolicy::Stop, ..shifting(greedy(), 9) };
    assert!(matches!(hornbook.generate(&prompt(97), &stop), Err(Error::ContextOverflow { .. })));
}
