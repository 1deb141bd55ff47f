//! The output at a terminal, as `script` of util-linux records it, and the length of texts.

use hornbook::{FinishReason, Hornbook, Options};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");

/// The output of the program at a terminal of `columns`.
fn at_terminal(columns: usize, args: &[&str]) -> String {
    let words = [&[PROGRAM][..], args].concat();
    let command = shlex::try_join(words).unwrap();
    let output = Command::new("script")
        .args(["-qec", &format!("stty cols {columns} rows 20; exec {command}"), "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("HORNBOOK_CONFIG", "")
        .env_remove("NO_COLOR")
        .env_remove("HORNBOOK_ISA")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn terminal_shows_dimmed_prompt_and_wraps_words() {
    let args = ["generate", "The little princess", "--temperature", "0", "--max-tokens", "24"];
    let piped = Command::new(PROGRAM).args(args).env("HORNBOOK_CONFIG", "").output().unwrap();
    let continuation = String::from_utf8(piped.stdout).unwrap();
    assert!(!continuation.contains("princess\u{1b}") && continuation.len() > 60, "{continuation}");
    let shown = at_terminal(30, &args);
    let text = shown.strip_prefix("\u{1b}[2mThe little princess\u{1b}[0m").expect("a dimmed prompt");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(text), words(&continuation));
    let lines: Vec<String> = format!("The little princess{text}").lines().map(String::from).collect();
    assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= 30), "{lines:?}");
    // `--echo` changes nothing at a terminal.
    assert_eq!(at_terminal(30, &[&args[..], &["--echo"]].concat()), shown);
}

#[test]
fn text_ends_with_first_sentence_within_margin() {
    let hornbook = Hornbook::open("fable").unwrap();
    let prompt = hornbook.encode("Once upon a time").unwrap();
    let generate = |max_tokens, sentence_margin| {
        let mut options = Options { max_tokens: Some(max_tokens), sentence_margin, ..Options::default() };
        options.sampling.seed = 7;
        let mut generation = hornbook.generate(&prompt, &options).unwrap();
        let text: String = generation.by_ref().map(|token| token.unwrap().text).collect();
        (text, generation.generated().to_vec(), generation.finish_reason())
    };
    // A limit within a sentence, the next word of which does not end it.
    let is_within = |n: &usize| generate(*n + 2, 0).0.bytes().rev().take(9).all(|b| !b".!?\"\n".contains(&b));
    let limit = (20..60).find(is_within).unwrap();
    let (exact, exact_ids, _) = generate(limit, 0);
    assert_eq!(exact_ids.len(), limit);
    let (text, ids, reason) = generate(limit, 60);
    assert_eq!(reason, Some(FinishReason::Length));
    assert!((limit..=limit + 60).contains(&ids.len()) && ids.starts_with(&exact_ids), "{text}");
    // The sentence goes on to its end, and no further.
    let rest = text.strip_prefix(&*exact).unwrap();
    assert!(rest.ends_with(['.', '!', '?', '"']), "{text}");
    assert!(!rest[..rest.len() - 2].contains(['.', '!', '?']), "{text}");
    // A margin without a sentence end is used up.
    assert_eq!(generate(limit, 2).1.len(), limit + 2);
    assert_eq!(generate(0, 60).1.len(), 0);
}
