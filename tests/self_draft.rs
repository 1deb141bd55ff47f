//! Drafts from a quantized copy of the model: output is bit-identical with and without them.

use crate::reference::data;
use crate::server::client::serve_models;
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::{ContextPolicy, DraftStats};
use hornbook::kernels::attention::{KERNELS, KvPrecision};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Precision;
use hornbook::sampling::SamplingParams;
use hornbook::{Hornbook, Options};
use proptest::prelude::*;
use serde_json::json;
use std::process::{Command, Output};
use std::sync::LazyLock;

type CompletionBits = Vec<(u32, String, u32)>;

fn open(checkpoint: Checkpoint, precision: Precision) -> Hornbook {
    Hornbook::with_precision(checkpoint, ThreadPool::new(2, Isa::available()[0]), Some(precision)).unwrap()
}

pub fn fable(precision: Precision) -> Hornbook {
    open(Checkpoint::embedded().unwrap(), precision)
}

/// Two completions with drafts of `draft_len` tokens from the copy, if there is one, and `lookup` from the
/// text.
fn generate(
    hornbook: &Hornbook,
    prompt: &[u32],
    options: &Options,
    [draft_len, lookup]: [usize; 2],
) -> ([CompletionBits; 2], DraftStats) {
    let generation = hornbook.generate(prompt, options).unwrap();
    let mut generation = generation.with_prompt_lookup(lookup).with_draft_len(draft_len);
    let completions = [0, 1].map(|choice| {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let tokens = generation.by_ref().map(|token| token.unwrap());
        tokens.map(|token| (token.id, token.text, token.logprob.to_bits())).collect()
    });
    (completions, generation.draft_stats())
}

/// Compares completions with and without drafts, and returns the accepted share of the draft tokens.
pub fn check(plain: &Hornbook, drafted: &Hornbook, prompt: &[u32], options: &Options, context: &str) -> f64 {
    let (expected, none) = generate(plain, prompt, options, [0, 0]);
    assert_eq!(none, DraftStats::default());
    let (mut accepted, mut n_drafted) = (0, 0);
    for (draft_len, lookup) in [(1, 0), (4, 0), (8, 0), (3, 8)] {
        let (found, stats) = generate(drafted, prompt, options, [draft_len, lookup]);
        assert!(found == expected, "{context}, drafts of {draft_len} and {lookup}");
        (accepted, n_drafted) = (accepted + stats.accepted_tokens, n_drafted + stats.drafted_tokens);
    }
    accepted as f64 / n_drafted as f64
}

pub fn options(temperature: f32) -> Options {
    let sampling = SamplingParams { temperature, top_p: 0.95, seed: 3, ..SamplingParams::default() };
    Options { sampling, max_tokens: Some(40), ..Options::default() }
}

#[test]
fn drafted_output_is_identical_in_every_precision() {
    for precision in Precision::ALL.into_iter().filter(|precision| !precision.is_quantized()) {
        let plain = fable(precision);
        let prompt = plain.encode("The king said to the queen").unwrap();
        for (draft, bound) in [(Precision::Int8, 0.85), (Precision::Int4, 0.5)] {
            let drafted = fable(precision).with_draft(draft).unwrap();
            for kv_precision in KvPrecision::ALL {
                for temperature in [0.0, 0.8] {
                    let options = Options { kv_precision: Some(kv_precision), ..options(temperature) };
                    let context = format!("{precision}, {draft}, {kv_precision:?}, {temperature}");
                    let accepted = check(&plain, &drafted, &prompt, &options, &context);
                    assert!(accepted > bound, "{context}: {accepted} of the draft tokens were accepted");
                }
            }
        }
    }
}

#[test]
fn drafted_output_is_identical_for_all_sampling_params() {
    let (plain, drafted) =
        (fable(Precision::F32), fable(Precision::F32).with_draft(Precision::Int4).unwrap());
    let prompt = plain.encode("Once upon a time there was a cat, and the cat").unwrap();
    let default = SamplingParams { seed: 5, ..SamplingParams::default() };
    for sampling in [
        SamplingParams { top_k: 20, min_p: 0.02, repetition_penalty: 1.3, ..default.clone() },
        SamplingParams { presence_penalty: 0.9, frequency_penalty: 0.5, ..default.clone() },
        SamplingParams { temperature: 0.0, no_repeat_ngram_size: 2, ..default.clone() },
        SamplingParams {
            typical_p: 0.9,
            logit_bias: vec![(11, 2.0), (4095, 3.0)],
            min_tokens: 30,
            ..default
        },
    ] {
        let options = Options { sampling: sampling.clone(), ..options(1.0) };
        let accepted = check(&plain, &drafted, &prompt, &options, &format!("{sampling:?}"));
        assert!(accepted > 0.4 && accepted < 1.0, "{accepted}: {sampling:?}");
    }
    let stop = Options { stop: vec!["the".into()], ..options(0.8) };
    check(&plain, &drafted, &prompt, &stop, "a stop string");
}

static PLAIN: LazyLock<Hornbook> = LazyLock::new(|| fable(Precision::F32));
static DRAFTED: LazyLock<Hornbook> =
    LazyLock::new(|| fable(Precision::F32).with_draft(Precision::Int4).unwrap());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn drafted_output_is_identical_for_any_prompt_and_seed(
        prompt in prop::collection::vec(0..4095u32, 1..60),
        seed in any::<u64>(),
        temperature in prop_oneof![Just(0.0f32), 0.1f32..2.0],
        draft_len in 1..=12usize,
    ) {
        let mut options = options(temperature);
        options.sampling.seed = seed;
        let (expected, _) = generate(&PLAIN, &prompt, &options, [0, 0]);
        let (found, stats) = generate(&DRAFTED, &prompt, &options, [draft_len, 8]);
        prop_assert!(found == expected && stats.drafted_tokens > 0);
        // As many as pay.
        let tokens = DRAFTED.generate(&prompt, &options).unwrap().map(|token| token.unwrap());
        let found: CompletionBits =
            tokens.map(|token| (token.id, token.text, token.logprob.to_bits())).collect();
        prop_assert!(found == expected[0]);
    }
}

#[test]
fn drafted_output_is_identical_with_every_attention_kernel_and_beyond_the_context() {
    let tiny = || Checkpoint::from_folder(&data("tiny-gelu-new")).unwrap();
    let prompt: Vec<u32> = (0..80).map(|i| i * 7 % 90).collect();
    for kernel in KERNELS {
        let open = || open(tiny(), Precision::F32).with_attention(*kernel);
        let (plain, drafted) = (open(), open().with_draft(Precision::Int8).unwrap());
        for context in [ContextPolicy::Stop, ContextPolicy::Shift] {
            let options = Options { context, max_tokens: Some(120), ..options(1.0) };
            check(&plain, &drafted, &prompt, &options, kernel.name());
        }
    }
}

#[test]
fn command_writes_the_same_completions_with_drafts_one_by_one_and_in_a_batch() {
    let generate = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        command.args(["generate", "Once upon a time", "--seed", "7", "--max-tokens", "90", "--stats"]);
        let Output { status, stdout, stderr } = command.args(options).output().unwrap();
        assert!(status.success());
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    for n in ["1", "3"] {
        let (plain, stats) = generate(&["-n", n]);
        assert!(!stats.contains("drafted"), "{stats}");
        let (drafted, stats) = generate(&["-n", n, "--draft", "int4"]);
        assert_eq!(drafted, plain);
        assert!(stats.contains("drafted") && stats.contains(" accepted"), "{stats}");
        assert!(stats.contains("draft model "), "{stats}");
    }
}

#[test]
fn server_writes_the_same_completions_with_drafts_and_counts_them() {
    let body = json!({"prompt": "Once upon a time", "max_tokens": 90, "seed": 7, "n": 2, "logprobs": 2});
    let answer = |hornbook: Hornbook| {
        let server = serve_models(vec![hornbook], |_| {});
        let choices = server.post("/v1/completions", body.clone()).ok()["choices"].clone();
        (choices, server.metric("hornbook_spec_decode_draft_tokens_total"))
    };
    let (plain, drafted) =
        (fable(Precision::F32), fable(Precision::F32).with_draft(Precision::Int4).unwrap());
    let ((plain, none), (drafted, some)) = (answer(plain), answer(drafted));
    assert_eq!(drafted, plain);
    assert!(none == 0.0 && some > 0.0, "{none}, {some}");
}

#[test]
fn models_that_are_quantized_draft_nothing() {
    let error = fable(Precision::Int8).with_draft(Precision::Int4).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("draft: found int4 for a model in int8, expected a quantized precision"),
        "{error}"
    );
    let error = fable(Precision::F32).with_draft(Precision::F16).map(drop).unwrap_err().to_string();
    assert!(error.contains("draft: found f16"), "{error}");
}
