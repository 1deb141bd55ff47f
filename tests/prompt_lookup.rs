//! Drafts change how fast a text is written, and not a bit of it.

use crate::reference::data;
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::DraftStats;
use hornbook::kernels::attention::{KERNELS, KvPrecision};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Precision;
use hornbook::sampling::SamplingParams;
use hornbook::{FinishReason, Hornbook, Options, Token};

/// Everything a completion consists of, to the bit.
type Written = (Vec<(u32, String, u32, Vec<(u32, u32)>)>, Option<FinishReason>);

fn fable(precision: Option<Precision>) -> Hornbook {
    let pool = ThreadPool::new(2, Isa::available()[0]);
    Hornbook::with_precision(Checkpoint::embedded().unwrap(), pool, precision).unwrap()
}

/// `n` completions with drafts of up to `most` tokens, and what came of these.
fn write(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    n: usize,
    most: usize,
) -> (Vec<Written>, DraftStats) {
    let generation = hornbook.generate(prompt, options).unwrap();
    let mut generation = generation.with_top_logprobs(2).with_prompt_lookup(most);
    let mut all = vec![];
    for choice in 0..n {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let exact = |token: Token| {
            let top = token.top_logprobs.iter().map(|&(id, logprob)| (id, logprob.to_bits())).collect();
            (token.id, token.text, token.logprob.to_bits(), top)
        };
        let mut tokens = vec![];
        while let Some(token) = generation.next() {
            tokens.push(exact(token.unwrap()));
            // It is never ahead of what it has handed over.
            assert_eq!(generation.generated().len(), tokens.len());
        }
        all.push((tokens, generation.finish_reason()));
    }
    (all, generation.draft_stats())
}

/// Holds a text written with drafts to the one without, and returns how many of how many drafted tokens it took.
fn check(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    most: usize,
    context: &str,
) -> (usize, usize) {
    let (expected, none) = write(hornbook, prompt, options, 2, 0);
    assert_eq!(none, DraftStats::default());
    let (found, DraftStats { drafts, drafted_tokens: tokens, accepted_tokens: accepted }) =
        write(hornbook, prompt, options, 2, most);
    assert!(found == expected, "{context}, drafts of {most}:\n{found:?}\n{expected:?}");
    assert!(accepted <= tokens && drafts <= tokens && tokens <= drafts * most, "{context}");
    (accepted, tokens)
}

fn options(sampling: SamplingParams) -> Options {
    Options { sampling, max_tokens: Some(60), ..Options::default() }
}

/// A text that says everything three times.
fn litany(hornbook: &Hornbook) -> Vec<u32> {
    hornbook.encode(&"The king said to the queen: give me the golden apple. ".repeat(3)).unwrap()
}

#[test]
fn every_way_to_choose_chooses_the_same() {
    let hornbook = fable(None);
    let prompt = litany(&hornbook);
    let default = SamplingParams { seed: 5, ..SamplingParams::default() };
    let ways = [
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
    for sampling in ways {
        for most in [1, 2, 5, 16, 128] {
            let context = format!("{sampling:?}");
            let (a, d) = check(&hornbook, &prompt, &options(sampling.clone()), most, &context);
            (accepted, drafted) = (accepted + a, drafted + d);
        }
    }
    // Both what is accepted and what is refused was tried a good many times.
    assert!(accepted > 300 && drafted - accepted > 300, "{accepted} of {drafted}");
}

#[test]
fn many_tokens_a_pass_are_the_bits_of_one_in_every_precision() {
    let (mut accepted, mut drafted) = (0, 0);
    for precision in Precision::ALL {
        let hornbook = fable(Some(precision));
        for kv_precision in KvPrecision::ALL {
            let sampling = SamplingParams { temperature: 0.3, seed: 1, ..SamplingParams::default() };
            let options = Options { kv_precision: Some(kv_precision), ..options(sampling) };
            let context = format!("{precision}, {kv_precision:?}");
            let (a, d) = check(&hornbook, &litany(&hornbook), &options, 16, &context);
            (accepted, drafted) = (accepted + a, drafted + d);
        }
    }
    assert!(accepted > 30 && drafted - accepted > 15, "{accepted} of {drafted}");
}

#[test]
fn many_tokens_a_pass_are_the_bits_of_one_in_every_attention() {
    for kernel in KERNELS {
        let hornbook = fable(None).with_attention(*kernel);
        let sampling = SamplingParams { temperature: 0.3, seed: 1, ..SamplingParams::default() };
        let name = kernel.name();
        let (accepted, drafted) = check(&hornbook, &litany(&hornbook), &options(sampling), 16, name);
        assert!(accepted > 0 && drafted > accepted, "{name}: {accepted} of {drafted}");
    }
}

#[test]
fn stop_strings_and_the_ends_of_text_and_context_are_where_they_were() {
    let hornbook = fable(None);
    let prompt = litany(&hornbook);
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    for max_tokens in [0, 1, 2, 3, 7, 20] {
        let options = Options { max_tokens: Some(max_tokens), ..options(greedy.clone()) };
        check(&hornbook, &prompt, &options, 16, &format!("{max_tokens} tokens"));
    }
    // A text that goes round and round, stopped the first time and after some rounds.
    let circle = hornbook.encode(&"and round ".repeat(12)).unwrap();
    let options = Options { max_tokens: Some(100), ..options(greedy) };
    let whole: String =
        write(&hornbook, &circle, &options, 1, 0).0[0].0.iter().map(|token| &*token.1).collect();
    for stop in [&whole[3..8], &whole[..whole.len() / 2]] {
        let options = Options { stop: vec![stop.into()], ..options.clone() };
        let (accepted, _) = check(&hornbook, &circle, &options, 16, stop);
        assert_eq!(accepted > 0, stop.len() > 20, "{stop}");
        let (stopped, _) = write(&hornbook, &circle, &options, 1, 16);
        assert_eq!(stopped[0].1, Some(FinishReason::Stop));
    }
    // As long as there is room: 96 positions.
    let checkpoint = Checkpoint::from_folder(&data("tiny-gelu-new")).unwrap();
    let tiny = Hornbook::new(checkpoint, ThreadPool::new(2, Isa::available()[0])).unwrap();
    let circle = [7, 8, 9].repeat(25);
    let options = Options { max_tokens: None, ..options };
    let (expected, _) = write(&tiny, &circle, &options, 1, 16);
    assert_eq!(expected[0].0.len(), 96 - circle.len());
    check(&tiny, &circle, &options, 16, "to the end of the context");
}

#[test]
fn open_text_is_left_alone() {
    let hornbook = fable(None);
    let prompt = hornbook.encode("Once upon a time").unwrap();
    let sampling = SamplingParams { seed: 3, ..Options::default().sampling };
    let options = Options { max_tokens: Some(400), ..options(sampling) };
    let (_, drafted) = check(&hornbook, &prompt, &options, 16, "open text");
    assert!(drafted < 80, "{drafted} tokens were drafted for 800");
    let circle = hornbook.encode(&"and round ".repeat(12)).unwrap();
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let options = Options { sampling: greedy, ..options };
    let (accepted, drafted) = check(&hornbook, &circle, &options, 16, "round and round");
    assert!(accepted > 700 && drafted < 900, "{accepted} of {drafted} for 800");
}
