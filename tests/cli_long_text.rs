//! `hornbook generate`: context shift, prompt lookup, batched completions and --repeat-until.

use crate::cli_generate::{comma_separated, generate, ids, json, stderr_of_failure, stdout_of, tiny};
use hornbook::generate::ContextPolicy;
use hornbook::sampling::SamplingParams;
use hornbook::{Hornbook, Options};
use serde_json::Value;
use std::process::Output;

/// The JSON output and standard error.
fn json_and_stderr(args: &[&str]) -> (Value, String) {
    let Output { status, stdout, stderr } = generate(args).arg("--json").output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{args:?}: {stderr}");
    (serde_json::from_slice(&stdout).unwrap(), stderr)
}

/// Tokens, texts and logprobs of `n` completions, generated with the library.
fn library_completions(
    hornbook: &Hornbook,
    prompt: &str,
    options: &Options,
    n: usize,
) -> Vec<(Vec<u32>, String, Vec<f32>)> {
    let mut generation = hornbook.generate(&hornbook.encode(prompt).unwrap(), options).unwrap();
    let mut all = vec![];
    for choice in 0..n {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let (mut ids, mut text, mut logprobs) = (vec![], String::new(), vec![]);
        for token in generation.by_ref() {
            let token = token.unwrap();
            ids.push(token.id);
            text += &token.text;
            logprobs.push(token.logprob);
        }
        all.push((ids, text, logprobs));
    }
    all
}

/// The command's options for fable.
fn seeded(seed: u64, max_tokens: usize) -> Options {
    let defaults = Hornbook::open("fable").unwrap().default_options();
    let sampling = SamplingParams { seed, ..defaults.sampling.clone() };
    Options { sampling, max_tokens: Some(max_tokens), ..defaults }
}

fn choices(answer: &Value) -> Vec<(Vec<u32>, String, Vec<f32>)> {
    let logprobs = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap() as f32).collect()
    };
    let choice = |choice: &Value| {
        (ids(&choice["token_ids"]), choice["text"].as_str().unwrap().into(), logprobs(choice))
    };
    answer["choices"].as_array().unwrap().iter().map(choice).collect()
}

#[test]
fn prompt_lookup_output_is_identical_and_stats_count_drafts() {
    let cycle = "one, two, three, four, ".repeat(10);
    let args = [&cycle[..], "--temperature", "0", "--max-tokens", "60", "--logprobs", "2"];
    let choices = |more: &[&str]| json(&[&args[..], more].concat())["choices"].clone();
    let expected = choices(&[]);
    for more in [&["--prompt-lookup"][..], &["--prompt-lookup", "3"], &["--prompt-lookup", "--seed", "3"]] {
        assert_eq!(choices(more), expected, "{more:?}");
    }
    let several = ["The cat", "-n", "3", "--seed", "4", "--max-tokens", "20"];
    let drafted = json(&[&several[..], &["--prompt-lookup"]].concat());
    assert_eq!(drafted["choices"], json(&several)["choices"]);

    let stats = |more: &[&str]| {
        let output = generate(&[&args[..5], more].concat()).arg("--stats").output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = stats(&["--prompt-lookup", "8"]);
    let line = stderr.lines().find(|line| line.starts_with("drafted ")).unwrap_or_else(|| panic!("{stderr}"));
    let numbers: Vec<usize> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let [tokens, drafts, accepted] = numbers[..] else { panic!("{line}") };
    assert!(accepted > 30 && accepted <= tokens && drafts < 59 - accepted, "{line}");
    assert!(!stats(&[]).contains("drafted"));
}

#[test]
fn batched_completions_equal_sequential_ones() {
    let hornbook = Hornbook::open("fable").unwrap();
    let prompt = "The king said to the queen";
    // More than the engine's batch slots, with different lengths.
    let options = Options { stop: vec!["the".into()], ..seeded(6, 30) };
    let expected = library_completions(&hornbook, prompt, &options, 70);
    let args = [prompt, "-n", "70", "--seed", "6", "--max-tokens", "30", "--stop", "the", "--logprobs", "1"];
    let (answer, stderr) = json_and_stderr(&args);
    assert_eq!(choices(&answer), expected);
    assert_eq!((answer["seed"].as_u64(), &*stderr), (Some(6), ""));
    let reasons: Vec<&Value> =
        answer["choices"].as_array().unwrap().iter().map(|choice| &choice["finish_reason"]).collect();
    assert!(reasons.contains(&&"stop".into()) && reasons.contains(&&"length".into()));

    // As text, in order, each after the prompt.
    let text = stdout_of(&mut generate(&[&args[..9], &["--echo"]].concat()));
    let parts: Vec<&str> = text.strip_suffix('\n').unwrap().split("\n---\n").collect();
    assert_eq!(parts.len(), 70);
    for (part, (_, text, _)) in parts.iter().zip(&expected) {
        assert_eq!(*part, format!("{prompt}{text}").strip_suffix('\n').unwrap_or(&format!("{prompt}{text}")));
    }
    // With nothing to generate.
    assert_eq!(stdout_of(&mut generate(&["Hi", "-n", "3", "--max-tokens", "0"])), "\n---\n\n---\n\n");
}

#[test]
fn context_shift_continues_past_the_context() {
    let (folder, ..) = tiny(); // 96 positions
    let prompt = comma_separated(&[5; 90]);
    let args =
        ["-m", &folder, "--prompt-ids", &prompt, "--output", "ids", "--logit-bias", "50=-inf", "--seed", "1"];
    let args = [&args[..], &["--max-tokens", "200", "--context", "shift"]].concat();
    for more in [&[][..], &["-n", "3"], &["-n", "2", "--prompt-lookup"]] {
        let (answer, stderr) = json_and_stderr(&[&args[..], more].concat());
        for choice in answer["choices"].as_array().unwrap() {
            assert_eq!((ids(&choice["token_ids"]).len(), &choice["finish_reason"]), (200, &"length".into()));
        }
        assert!(
            stderr.contains("exceeded the model's context of 96 tokens") && stderr.contains("last 48"),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // No note without a shift.
    assert_eq!(json_and_stderr(&[&args[..10], &["--max-tokens", "7", "--context", "shift"]].concat()).1, "");

    // fable has 512 positions: past them with logprobs, in a batch, and with a stop string.
    let hornbook = Hornbook::open("fable").unwrap();
    let prompt = "and round ".repeat(250);
    let options = Options { context: ContextPolicy::Shift, stop: vec!["never".into()], ..seeded(2, 60) };
    let expected = library_completions(&hornbook, &prompt, &options, 3);
    let args = [&prompt[..], "--context", "shift", "--stop", "never", "--seed", "2", "--max-tokens", "60"];
    for (n, more) in [(1, &[][..]), (3, &["-n", "3"]), (3, &["-n", "3", "--prompt-lookup"])] {
        let (answer, _) = json_and_stderr(&[&args[..], &["--logprobs", "0"], more].concat());
        assert_eq!(choices(&answer), expected[..n], "{more:?}");
    }
    // A prompt longer than the context.
    let long = "and round ".repeat(300);
    let (actual, stderr) = json_and_stderr(&[&[&long[..]], &args[1..], &["--logprobs", "0"]].concat());
    assert_eq!(choices(&actual), library_completions(&hornbook, &long, &options, 1));
    assert!(stderr.contains("exceeded"), "{stderr}");
}

#[test]
fn repeat_until_writes_the_first_match_in_seed_order() {
    let hornbook = Hornbook::open("fable").unwrap();
    let prompt = "The king";
    let text = |seed| library_completions(&hornbook, prompt, &seeded(seed, 24), 1).remove(0);
    let args = [prompt, "--seed", "12", "--max-tokens", "24", "--logprobs", "0"];
    for (pattern, word) in [("(?i)QUEEN", "queen"), ("( old )+", " old "), ("", "")] {
        let first = (12..112).find(|&seed| text(seed).1.contains(word)).expect(word);
        assert!(first > 14 || word.is_empty(), "{word}: {first}");
        let (answer, stderr) = json_and_stderr(&[&args[..], &["--repeat-until", pattern]].concat());
        assert_eq!(choices(&answer), [text(first)], "{pattern}");
        assert_eq!(answer["seed"].as_u64(), Some(first));
        let line = format!(
            "hornbook: attempt {} of 100 matches; use --seed {first} to reproduce it directly\n",
            first - 11
        );
        assert_eq!(stderr, line);
    }
    // As text, after the prompt; --stats reports the time of the search instead of the time per token.
    let more = ["--repeat-until", "queen", "--echo", "--stats"];
    let output = generate(&[&args[..5], &more].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(prompt) && text.contains("queen"), "{text}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("search ") && !stderr.contains("per token"), "{stderr}");
}

#[test]
fn invalid_long_text_flags_are_one_line_errors() {
    let (folder, ..) = tiny();
    let long = "and round ".repeat(300);
    let cases: &[(&[&str], &[&str])] = &[
        (&["Hi", "--prompt-lookup", "0"], &["--prompt-lookup", "expected an integer from 1 to 128"]),
        (&["Hi", "--prompt-lookup", "many"], &["--prompt-lookup", "many"]),
        (&["Hi", "--prompt-lookup", "--beams", "2"], &["--prompt-lookup", "--beams"]),
        (&["Hi", "--context", "loop"], &["--context", "stop, shift"]),
        (&["Hi", "--context", "shift", "--beams", "2"], &["--context", "--beams"]),
        (&[&long, "--context", "shift", "--echo", "--logprobs", "1"], &["601 tokens long", "context is 512"]),
        (&["Hi", "--repeat-until", "("], &["--repeat-until", "invalid regular expression: unclosed group"]),
        (&["Hi", "--repeat-until", "x", "-n", "2"], &["--repeat-until", "-n"]),
        (&["Hi", "--repeat-until", "x", "--ablate", "L0H0"], &["--repeat-until", "--ablate"]),
        (&["Hi", "--repeat-until", "x", "--temperature", "0"], &["--temperature: found 0", "--repeat-until"]),
        (&["Hi", "--repeat-until", "x", "--attempts", "0"], &["--attempts"]),
        (&["Hi", "--attempts", "9"], &["--repeat-until"]),
        (
            &["-m", &folder, "--prompt-ids", "1", "--output", "ids", "--repeat-until", "x"],
            &["has no tokenizer"],
        ),
        (
            &["Hi", "--repeat-until", "\u{1}", "--attempts", "20", "--seed", "5", "--max-tokens", "5"],
            &["no match of '\u{1}' in 20 attempts (seeds 5 to 24)", "--attempts"],
        ),
    ];
    for (args, parts) in cases {
        let stderr = stderr_of_failure(&mut generate(args));
        assert!(stderr.starts_with("hornbook: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        for part in *parts {
            assert!(stderr.contains(part), "{args:?}: {part:?} is not in {stderr}");
        }
    }
}
