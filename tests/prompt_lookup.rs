//! Prompt-lookup decoding: output is bit-identical with and without drafts.

use crate::reference::data;
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::DraftStats;
use hornbook::kernels::attention::{KERNELS, KvPrecision};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Precision;
use hornbook::sampling::SamplingParams;
use hornbook::{FinishReason, Hornbook, Options, Token};

/// A completion: tokens with the bits of their logprobs, and the finish reason.
type CompletionBits = (Vec<(u32, String, u32, Vec<(u32, u32)>)>, Option<FinishReason>);

fn fable(precision: Option<Precision>) -> Hornbook {
    let pool = ThreadPool::new(2, Isa::available()[0]);
    Hornbook::with_precision(Checkpoint::embedded().unwrap(), pool, precision).unwrap()
}

/// Generates `n` completions with drafts of up to `max_draft_len` tokens, and returns the draft statistics.
fn generate(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    n: usize,
    max_draft_len: usize,
) -> (Vec<CompletionBits>, DraftStats) {
    let generation = hornbook.generate(prompt, options).unwrap();
    let mut generation = generation.with_top_logprobs(2).with_prompt_lookup(max_draft_len);
    let mut all = vec![];
    for choice in 0..n {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let bits = |token: Token| {
            let top = token.top_logprobs.iter().map(|&(id, logprob)| (id, logprob.to_bits())).collect();
            (token.id, token.text, token.logprob.to_bits(), top)
        };
        let mut tokens = vec![];
        while let Some(token) = generation.next() {
            tokens.push(bits(token.unwrap()));
            // `generated` contains no token that was not returned.
            assert_eq!(generation.generated().len(), tokens.len());
        }
        all.push((tokens, generation.finish_reason()));
    }
    (all, generation.draft_stats())
}

/// Compares completions with and without drafts, and returns the numbers of accepted and drafted tokens.
fn check_against_undrafted(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    max_draft_len: usize,
    context: &str,
) -> (u64, u64) {
    let (expected, none) = generate(hornbook, prompt, options, 2, 0);
    assert_eq!(none, DraftStats::default());
    let (actual, DraftStats { drafts, drafted_tokens: tokens, accepted_tokens: accepted }) =
        generate(hornbook, prompt, options, 2, max_draft_len);
    assert!(actual == expected, "{context}, drafts of {max_draft_len}:\n{actual:?}\n{expected:?}");
    assert!(accepted <= tokens && drafts <= tokens && tokens <= drafts * max_draft_len as u64, "{context}");
    (accepted, tokens)
}

fn options(sampling: SamplingParams) -> Options {
    Options { sampling, max_tokens: Some(60), ..Options::default() }
}

/// A sentence, three times.
fn repetitive_prompt(hornbook: &Hornbook) -> Vec<u32> {
    hornbook.encode(&"The king said to the queen: give me the golden apple. ".repeat(3)).unwrap()
}

#[test]
fn drafted_output_is_identical_for_all_sampling_params() {
    let hornbook = fable(None);
    let prompt = repetitive_prompt(&hornbook);
    let default = SamplingParams { seed: 5, ..SamplingParams::default() };
    let all_params = [
        SamplingParams { temperature: 0.0, ..default.clone() },
        SamplingParams { temperature: 0.7, top_p: 0.9, ..default.clone() },
        SamplingParams {
            temperature: 0.6,
            top_k: 20,
            min_p: 0.02,
            repetition_penalty: 1.05,
            ..default.clone()
        },
        SamplingParams {
            temperature: 0.4,
            presence_penalty: -0.5,
            frequency_penalty: -0.3,
            ..default.clone()
        },
        SamplingParams { temperature: 0.0, no_repeat_ngram_size: 12, typical_p: 0.9, ..default.clone() },
        SamplingParams {
            temperature: 0.5,
            logit_bias: vec![(11, 2.0), (4095, 3.0)],
            min_tokens: 30,
            ..default
        },
    ];
    let (mut accepted, mut drafted) = (0, 0);
    for sampling in all_params {
        for max_draft_len in [1, 2, 5, 16, 128] {
            let context = format!("{sampling:?}");
            let (n_accepted, n_drafted) = check_against_undrafted(
                &hornbook,
                &prompt,
                &options(sampling.clone()),
                max_draft_len,
                &context,
            );
            (accepted, drafted) = (accepted + n_accepted, drafted + n_drafted);
        }
    }
    // Both accepted and rejected drafts are covered.
    assert!(accepted > 300 && drafted - accepted > 300, "{accepted} of {drafted}");
}

#[test]
fn drafted_output_is_identical_in_every_precision() {
    let (mut accepted, mut drafted) = (0, 0);
    for precision in Precision::ALL {
        let hornbook = fable(Some(precision));
        for kv_precision in KvPrecision::ALL {
            let sampling = SamplingParams { temperature: 0.3, seed: 1, ..SamplingParams::default() };
            let options = Options { kv_precision: Some(kv_precision), ..options(sampling) };
            let context = format!("{precision}, {kv_precision:?}");
            let (n_accepted, n_drafted) =
                check_against_undrafted(&hornbook, &repetitive_prompt(&hornbook), &options, 16, &context);
            (accepted, drafted) = (accepted + n_accepted, drafted + n_drafted);
        }
    }
    assert!(accepted > 30 && drafted - accepted > 15, "{accepted} of {drafted}");
}

#[test]
fn drafted_output_is_identical_with_every_attention_kernel() {
    for kernel in KERNELS {
        let hornbook = fable(None).with_attention(*kernel);
        let sampling = SamplingParams { temperature: 0.3, seed: 1, ..SamplingParams::default() };
        let name = kernel.name();
        let (accepted, drafted) =
            check_against_undrafted(&hornbook, &repetitive_prompt(&hornbook), &options(sampling), 16, name);
        assert!(accepted > 0 && drafted > accepted, "{name}: {accepted} of {drafted}");
    }
}

#[test]
fn drafted_output_stops_at_the_same_token() {
    let hornbook = fable(None);
    let prompt = repetitive_prompt(&hornbook);
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    for max_tokens in [0, 1, 2, 3, 7, 20] {
        let options = Options { max_tokens: Some(max_tokens), ..options(greedy.clone()) };
        check_against_undrafted(&hornbook, &prompt, &options, 16, &format!("{max_tokens} tokens"));
    }
    // A cyclic text, stopped in the first cycle and after several.
    let cycle = hornbook.encode(&"and round ".repeat(12)).unwrap();
    let options = Options { max_tokens: Some(100), ..options(greedy) };
    let whole: String =
        generate(&hornbook, &cycle, &options, 1, 0).0[0].0.iter().map(|token| &*token.1).collect();
    for stop in [&whole[3..8], &whole[..whole.len() / 2]] {
        let options = Options { stop: vec![stop.into()], ..options.clone() };
        let (accepted, _) = check_against_undrafted(&hornbook, &cycle, &options, 16, stop);
        assert_eq!(accepted > 0, stop.len() > 20, "{stop}");
        let (stopped, _) = generate(&hornbook, &cycle, &options, 1, 16);
        assert_eq!(stopped[0].1, Some(FinishReason::Stop));
    }
    // Up to the end of the context of 96 positions.
    let checkpoint = Checkpoint::from_folder(&data("tiny-gelu-new")).unwrap();
    let tiny = Hornbook::new(checkpoint, ThreadPool::new(2, Isa::available()[0])).unwrap();
    let cycle = [7, 8, 9].repeat(25);
    let options = Options { max_tokens: None, ..options };
    let (expected, _) = generate(&tiny, &cycle, &options, 1, 16);
    assert_eq!(expected[0].0.len(), 96 - cycle.len() + 1); // the last token is predicted, not computed
    check_against_undrafted(&tiny, &cycle, &options, 16, "to the end of the context");
}

#[test]
fn drafting_turns_itself_off_without_repetition() {
    let hornbook = fable(None);
    let prompt = hornbook.encode("Once upon a time").unwrap();
    // A high temperature does not repeat itself.
    let sampling = SamplingParams { seed: 2, temperature: 1.5, ..SamplingParams::default() };
    let options = Options { max_tokens: Some(400), ..options(sampling) };
    let (_, drafted) = check_against_undrafted(&hornbook, &prompt, &options, 16, "text without repetition");
    assert!(drafted < 80, "{drafted} tokens were drafted for 800");
    let cycle = hornbook.encode(&"and round ".repeat(12)).unwrap();
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let options = Options { sampling: greedy, ..options };
    let (accepted, drafted) = check_against_undrafted(&hornbook, &cycle, &options, 16, "cyclic text");
    assert!(accepted > 600 && drafted < 900, "{accepted} of {drafted} for 800");
}
