//! What is written, and what decides it.

use super::{PROMPT, generate, ids, json, list, tiny, written};
use hornbook::kernels::isa::Isa;
use serde_json::Value;
use std::path::Path;

#[test]
fn a_seed_gives_the_same_text_whatever_computes_it() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "40"];
    let expected = written(&mut generate(&args));
    for threads in ["1", "2", "3"] {
        assert_eq!(written(generate(&args).args(["--threads", threads])), expected, "{threads} threads");
    }
    for isa in Isa::available().iter().map(|isa| isa.name()).chain(["portable"]) {
        assert_eq!(written(generate(&args).env("HORNBOOK_ISA", isa)), expected, "{isa}");
    }
    assert_ne!(written(&mut generate(&[PROMPT, "--seed", "8", "--max-tokens", "40"])), expected);
    // Without one, each run is another text; the JSON says which seed brings it back.
    let (one, other) = (json(&[PROMPT, "--max-tokens", "40"]), json(&[PROMPT, "--max-tokens", "40"]));
    assert_ne!(one["choices"][0]["token_ids"], other["choices"][0]["token_ids"]);
    let again = json(&[PROMPT, "--max-tokens", "40", "--seed", &one["seed"].to_string()]);
    assert_eq!(again["choices"], one["choices"]);
}

#[test]
fn a_stop_string_cuts_exactly_where_it_begins() {
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
    let streamed = written(streamed.args(["--stop", &stop]));
    assert_eq!(streamed, if expected.ends_with('\n') { expected.into() } else { format!("{expected}\n") });
    // What began like a stop string and was not is written after all.
    let almost = format!("{}\u{1}", &text[middle..]);
    assert_eq!(json(&[&args[..], &["--stop", &almost]].concat())["choices"][0]["text"], text);
}

#[test]
fn the_end_of_text_token_stops() {
    // fable's end-of-text token, made by far the most likely.
    let answer = json(&[PROMPT, "--logit-bias", "4095=1000", "--temperature", "0"]);
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["text"]), (&"stop".into(), &"".into()));
    assert_eq!(ids(&choice["token_ids"]), [4095]);
    let args = [PROMPT, "--logit-bias", "4095=1000", "--temperature", "0", "--min-tokens", "4"];
    let later = json(&args);
    assert_eq!(ids(&later["choices"][0]["token_ids"]).len(), 5);
}

#[test]
fn several_completions_are_separated() {
    let args = [PROMPT, "-n", "3", "--seed", "7", "--max-tokens", "10"];
    let text = written(&mut generate(&args));
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
fn beams_are_found_from_the_command_line() {
    let (folder, prompt, _) = tiny();
    let expected = std::fs::read(Path::new(&folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    for search in expected["beam_search"]["searches"].as_array().unwrap() {
        let length_penalty = search["length_penalty"].to_string();
        let early_stopping = search["early_stopping"].to_string();
        let prompt = list(&prompt);
        let args = ["-m", &folder, "--prompt-ids", &prompt, "--output", "ids", "--beams", "4", "-n", "2"];
        let mut command = generate(&args);
        command.args(["--max-tokens", "24", "--length-penalty", &length_penalty]);
        command.args(["--early-stopping", early_stopping.trim_matches('"')]);
        let best: Vec<String> = (0..2).map(|i| list(&ids(&search["sequences"][i])) + "\n").collect();
        assert_eq!(written(&mut command), best.concat(), "{search}");
    }
}
