//! The generated text and the options that determine it.

use super::{PROMPT, comma_separated, generate, ids, json, stdout_of, tiny};
use hornbook::kernels::isa::Isa;
use serde_json::Value;
use std::path::Path;

#[test]
fn seed_gives_same_text_with_any_isa_and_thread_count() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "40"];
    let expected = stdout_of(&mut generate(&args));
    for threads in ["1", "2", "3"] {
        assert_eq!(stdout_of(generate(&args).args(["--threads", threads])), expected, "{threads} threads");
    }
    for isa in Isa::available().iter().map(|isa| isa.name()).chain(["portable"]) {
        assert_eq!(stdout_of(generate(&args).env("HORNBOOK_ISA", isa)), expected, "{isa}");
    }
    assert_ne!(stdout_of(&mut generate(&[PROMPT, "--seed", "8", "--max-tokens", "40"])), expected);
    // Without a seed each run differs; the JSON holds the seed that reproduces it.
    let (one, other) = (json(&[PROMPT, "--max-tokens", "40"]), json(&[PROMPT, "--max-tokens", "40"]));
    assert_ne!(one["choices"][0]["token_ids"], other["choices"][0]["token_ids"]);
    let again = json(&[PROMPT, "--max-tokens", "40", "--seed", &one["seed"].to_string()]);
    assert_eq!(again["choices"], one["choices"]);
}

#[test]
fn stop_string_cuts_text_exactly_before_match() {
    let args = [PROMPT, "--temperature", "0", "--max-tokens", "60"];
    let whole = json(&args);
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    // Cut the text in the middle of words, so that the stop string lies across tokens.
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop: String = text[middle..].chars().take(9).collect();
    let expected = &text[..text.find(&stop).unwrap()];
    assert!(!expected.is_empty());
    let cut = json(&[&args[..], &["--stop", "never in the text", "--stop", &stop]].concat());
    let choice = &cut["choices"][0];
    assert_eq!((choice["text"].as_str().unwrap(), &choice["finish_reason"]), (expected, &"stop".into()));
    let (some, all) = (ids(&choice["token_ids"]), ids(&whole["choices"][0]["token_ids"]));
    assert!(some.len() < all.len() && all.starts_with(&some));
    let mut streamed = generate(&args);
    let streamed = stdout_of(streamed.args(["--stop", &stop]));
    assert_eq!(streamed, if expected.ends_with('\n') { expected.into() } else { format!("{expected}\n") });
    // A text that only begins like the stop string is printed.
    let almost = format!("{}\u{1}", &text[middle..]);
    assert_eq!(json(&[&args[..], &["--stop", &almost]].concat())["choices"][0]["text"], text);
}

#[test]
fn end_of_text_token_stops_generation() {
    // A bias makes fable's end-of-text token by far the most likely.
    let answer = json(&[PROMPT, "--logit-bias", "4095=1000", "--temperature", "0"]);
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["text"]), (&"stop".into(), &"".into()));
    assert_eq!(ids(&choice["token_ids"]), [4095]);
    let args = [PROMPT, "--logit-bias", "4095=1000", "--temperature", "0", "--min-tokens", "4"];
    let later = json(&args);
    assert_eq!(ids(&later["choices"][0]["token_ids"]).len(), 5);
}

#[test]
fn multiple_completions_are_separated_by_dashes() {
    let args = [PROMPT, "-n", "3", "--seed", "7", "--max-tokens", "10"];
    let text = stdout_of(&mut generate(&args));
    let parts: Vec<&str> = text.trim_end_matches('\n').split("\n---\n").collect();
    assert_eq!(parts.len(), 3, "{text}");
    let answer = json(&args);
    for (part, choice) in parts.iter().zip(answer["choices"].as_array().unwrap()) {
        assert_eq!(choice["text"].as_str().unwrap().trim_end_matches('\n'), part.trim_end_matches('\n'));
    }
    assert_ne!(parts[0], parts[1]);
    assert_ne!(parts[1], parts[2]);
}

#[test]
fn beam_search_equals_reference_from_command_line() {
    let (folder, prompt, _) = tiny();
    let expected = std::fs::read(Path::new(&folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    for search in expected["beam_search"]["searches"].as_array().unwrap() {
        let length_penalty = search["length_penalty"].to_string();
        let early_stopping = search["early_stopping"].to_string();
        let prompt = comma_separated(&prompt);
        let args = ["-m", &folder, "--prompt-ids", &prompt, "--output", "ids", "--beams", "4", "-n", "2"];
        let mut command = generate(&args);
        command.args(["--max-tokens", "24", "--length-penalty", &length_penalty]);
        command.args(["--early-stopping", early_stopping.trim_matches('"')]);
        let best: Vec<String> =
            (0..2).map(|i| comma_separated(&ids(&search["sequences"][i])) + "\n").collect();
        assert_eq!(stdout_of(&mut command), best.concat(), "{search}");
    }
}
