//! `hornbook chat` through a pipe, as a script uses it.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_hornbook");

fn chat(args: &[&str], input: impl Into<Vec<u8>>) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("chat").args(args).env("HORNBOOK_CONFIG", "").env_remove("HORNBOOK_ISA");
    command.write_stdin(input).timeout(Duration::from_secs(120)).output().unwrap()
}

/// What a conversation that must go well writes to standard output and standard error.
fn said(args: &[&str], input: &str) -> (String, String) {
    let Output { status, stdout, stderr } = chat(args, input);
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{args:?}: {status}, {stderr}");
    (stdout, stderr)
}

/// The one line of one that must fail, and what was answered before.
fn refused(args: &[&str], input: impl Into<Vec<u8>>) -> (String, String) {
    let Output { status, stdout, stderr } = chat(args, input);
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && status.code().is_some(), "{args:?}: {status}");
    assert!(stderr.starts_with("hornbook: ") && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
    (stderr, String::from_utf8(stdout).unwrap())
}

#[test]
fn every_line_is_a_turn_and_only_answers_are_written() {
    let args = ["--seed", "5", "--max-tokens", "12"];
    let (one, stderr) = said(&args, "Who lives in the castle?\n");
    assert!(one.trim().len() > 3 && one.ends_with('\n') && stderr.is_empty(), "{one:?} {stderr}");
    assert!(!one.contains(">>>") && !one.contains('\x1b'));
    // The second line is answered in the light of the first; an empty one says nothing, and the last needs no end.
    let (two, stderr) = said(&args, "Who lives in the castle?\r\n\nAnd then?");
    assert!(two.starts_with(&one) && two.len() > one.len() && stderr.is_empty(), "{one:?} {two:?}");
    assert_ne!(two[one.len()..], said(&args, "And then?\n").0);
    // By hand through generate, as the model's template has it.
    let prompt = "There was once a wise old woman who lived in the wood, and a child came to her and asked her many \
                  things.\n\n\"Good morning, grandmother,\" said the child.\n\n\"Good morning, my child,\" said the old \
                  woman. \"What is it that you wish to know?\"\n\n\"Who lives in the castle?\" asked the child.\n\n\"";
    let mut by_hand = Command::new(BINARY);
    by_hand.args(["generate", prompt, "--stop", "\""]).args(args);
    let by_hand = by_hand.env("HORNBOOK_CONFIG", "").output().unwrap().stdout;
    assert_eq!(one.trim(), String::from_utf8(by_hand).unwrap().trim());
    assert_eq!(said(&args, "").0, "");
}

#[test]
fn several_lines_can_be_one_turn() {
    let args = ["--seed", "2", "--max-tokens", "12"];
    let (quoted, _) = said(&args, "\"\"\"What is it,\nand who?\"\"\"\n");
    assert_eq!(said(&args, "What is it,\\\nand who?\n").0, quoted);
    assert_ne!(said(&args, "What is it, and who?\n").0, quoted);
}

#[test]
fn commands_work_in_a_pipe_and_speak_on_standard_error() {
    let (answers, remarks) = said(
        &["--max-tokens", "6", "--seed", "1"],
        "/system The king is wise.\n/temperature 0\n/set top_k 5\nWho is wise?\n/retry\n/stats\n/system\n/quit\nmore\n",
    );
    assert!(answers.lines().filter(|line| !line.is_empty()).count() >= 2, "{answers:?}");
    for remark in [
        "temperature 0\n",
        "top_k 5\n",
        "1 read",
        "seed     2\n",
        "The king is wise.\n",
        "of 512 tokens, 3 turns",
    ] {
        assert!(remarks.contains(remark), "{remark:?}: {remarks}");
    }
    let (nothing, help) = said(&[], "/help\n/set\n");
    assert!(
        nothing.is_empty() && help.contains("/retry") && help.contains("max_tokens            200"),
        "{help}"
    );
}

#[test]
fn a_saved_conversation_goes_on_as_it_would_have() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a talk.json");
    let path = file.to_str().unwrap();
    let args = ["--seed", "3", "--max-tokens", "15", "--system", "A tale."];
    let (whole, _) = said(&args, "Who are you?\nAnd then?\n");
    let (first, _) = said(&args, &format!("Who are you?\n/save \"{path}\"\n"));
    let json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&json["model"], &json["messages"][0]["role"]), (&"fable".into(), &"system".into()));
    assert_eq!(json["messages"][1]["content"], "Who are you?");
    assert_eq!(json["messages"][2]["content"].as_str().unwrap(), first.trim());
    let args = &args[..4];
    assert_eq!(first.clone() + &said(&[args, &["--load", path]].concat(), "And then?\n").0, whole);
    let (second, remark) = said(args, &format!("/load \"{path}\"\nAnd then?\n"));
    assert_eq!(first + &second, whole);
    assert!(remark.starts_with("3 turns so far"), "{remark}");
}

#[test]
fn a_full_context_says_what_is_left_out() {
    let long = format!("{}\n", "and the king said ".repeat(25)).repeat(8);
    let (_, remarks) = said(&["--max-tokens", "10"], &long);
    assert!(remarks.starts_with("the context is full: the oldest 4 turns are left out\n"), "{remarks}");
    assert!(
        remarks.lines().count() > 1 && remarks.lines().all(|line| line.ends_with("are left out")),
        "{remarks}"
    );
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str, content: &str| {
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_string()
    };
    let broken = in_folder("broken.jinja", "a\n{% for %}");
    let raising = in_folder("raising.jinja", "{{ raise_exception('not like this') }}");
    let talk = in_folder("talk.json", r#"{"messages": [{"role": "user"}]}"#);
    for (args, input, expected) in [
        (&["--template", "/no/such.jinja"][..], "Hi\n", "/no/such.jinja: cannot read"),
        (&["--template", &broken], "Hi\n", "broken.jinja: line 2: "),
        (&["--template", &raising], "Hi\n", "standard input: line 1: the template: not like this"),
        (&["--load", &talk], "Hi\n", "talk.json: messages[0]: missing field `content`"),
        (
            &["--load", &raising],
            "Hi\n",
            "expected {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]}",
        ),
        (&["--temperature", "-1"], "Hi\n", "temperature: found -1, expected a non-negative number"),
        (&["--temprature", "1"], "Hi\n", "did you mean '--temperature'?"),
        (&[], "\n/load /no/talk.json\n", "standard input: line 2: /no/talk.json: cannot read"),
        (&[], "/sav x\n", "line 1: there is no command '/sav'; did you mean '/save'?"),
        (&[], "/retry\n", "line 1: nothing was said yet"),
        (&[], "/save /no/folder/talk.json\n", "line 1: /no/folder/talk.json: cannot write"),
        (&[], &"word ".repeat(600), "line 1: the message is too long: the prompt is "),
        (&["--model", "fabel"], "Hi\n", "did you mean 'fable'?"),
    ] {
        let (line, _) = refused(args, input);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
    let (line, _) = refused(&[], &b"\n\xFF\xFE\n"[..]);
    assert!(line.contains("standard input: line 2: found a byte that is not UTF-8"), "{line}");
    // What was answered before stays answered; nothing after is.
    let (line, answers) = refused(&["--max-tokens", "5", "--temperature", "0"], "Hi\n/nonsense\nHi\n");
    assert!(line.contains("line 2"), "{line}");
    assert_eq!(answers, said(&["--max-tokens", "5", "--temperature", "0"], "Hi\n").0);
}

#[test]
fn a_reader_who_has_had_enough_ends_it_quietly() {
    let mut command = std::process::Command::new(BINARY);
    command.args(["chat", "--seed", "1"]).env("HORNBOOK_CONFIG", "");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let _ = child.stdin.take().unwrap().write_all(b"Who?\nWhy?\n"); // it may have ended already
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{status}: {}", String::from_utf8_lossy(&stderr));
}

#[test]
fn settings_hold_in_a_chat_too() {
    let mut command = Command::new(BINARY);
    command
        .arg("chat")
        .env("HORNBOOK_CONFIG", "")
        .env("HORNBOOK_TEMPERATURE", "0.25")
        .env("HORNBOOK_MAX_TOKENS", "3");
    let remarks = String::from_utf8(command.write_stdin("/set\n").output().unwrap().stderr).unwrap();
    assert!(
        remarks.contains("temperature           0.25\n") && remarks.contains("max_tokens            3\n"),
        "{remarks}"
    );
    let help =
        String::from_utf8(Command::new(BINARY).args(["chat", "--help"]).output().unwrap().stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("--template") && help.contains("--kv-precision"),
        "{help}"
    );
}
