//! `hornbook chat` in a pipe, as used by scripts.

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

/// Runs a conversation that must succeed, and returns its standard output and standard error.
fn chat_ok(args: &[&str], input: &str) -> (String, String) {
    let Output { status, stdout, stderr } = chat(args, input);
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{args:?}: {status}, {stderr}");
    (stdout, stderr)
}

/// Runs a conversation that must fail, and returns its one-line error and the answers before it.
fn chat_error(args: &[&str], input: impl Into<Vec<u8>>) -> (String, String) {
    let Output { status, stdout, stderr } = chat(args, input);
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && status.code().is_some(), "{args:?}: {status}");
    assert!(stderr.starts_with("hornbook: ") && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
    (stderr, String::from_utf8(stdout).unwrap())
}

#[test]
fn each_line_is_a_message_and_stdout_has_only_answers() {
    let args = ["--seed", "3", "--max-tokens", "12"];
    let (one, stderr) = chat_ok(&args, "Who lives in the castle?\n");
    assert!(one.trim().len() > 3 && one.ends_with('\n') && stderr.is_empty(), "{one:?} {stderr}");
    assert!(!one.contains(">>>") && !one.contains('\x1b'));
    // The second message is answered in the context of the first; empty lines are ignored, and the last line
    // needs no newline.
    let (two, stderr) = chat_ok(&args, "Who lives in the castle?\r\n\nAnd then?");
    assert!(two.starts_with(&one) && two.len() > one.len() && stderr.is_empty(), "{one:?} {two:?}");
    assert_ne!(two[one.len()..], chat_ok(&args, "And then?\n").0);
    // Equals `generate` with the rendered template.
    let prompt = "There was once a wise old woman who lived in the wood, and a child came to her and asked \
                  her many things.\n\n\"Good morning, grandmother,\" said the child.\n\n\
                  \"Good morning, my child,\" said the old woman. \"What is it that you wish to know?\"\n\n\
                  \"Who lives in the castle?\" asked the child.\n\n\"";
    let mut generate = Command::new(BINARY);
    generate.args(["generate", prompt, "--stop", "\""]).args(args);
    let expected = generate.env("HORNBOOK_CONFIG", "").output().unwrap().stdout;
    assert_eq!(one.trim(), String::from_utf8(expected).unwrap().trim());
    assert_eq!(chat_ok(&args, "").0, "");
}

#[test]
fn quoted_or_continued_lines_are_one_message() {
    let args = ["--seed", "2", "--max-tokens", "12"];
    let (quoted, _) = chat_ok(&args, "\"\"\"What is it,\nand who?\"\"\"\n");
    assert_eq!(chat_ok(&args, "What is it,\\\nand who?\n").0, quoted);
    assert_ne!(chat_ok(&args, "What is it, and who?\n").0, quoted);
}

#[test]
fn commands_work_in_a_pipe_and_print_to_stderr() {
    let (answers, notes) = chat_ok(
        &["--max-tokens", "6", "--seed", "1"],
        "/system The king is wise.\n/temperature 0\n/set top_k 5\nWho is wise?\n/retry\n\
         /stats\n/system\n/quit\nmore\n",
    );
    assert!(answers.lines().filter(|line| !line.is_empty()).count() >= 2, "{answers:?}");
    for note in [
        "temperature 0\n",
        "top_k 5\n",
        "1 computed",
        "seed     2\n",
        "The king is wise.\n",
        "of 512 tokens, 3 messages",
    ] {
        assert!(notes.contains(note), "{note:?}: {notes}");
    }
    let (answers, help) = chat_ok(&[], "/help\n/set\n");
    assert!(
        answers.is_empty() && help.contains("/retry") && help.contains("max_tokens            200"),
        "{help}"
    );
}

#[test]
fn saved_conversation_continues_identically() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a talk.json");
    let path = file.to_str().unwrap();
    let args = ["--seed", "3", "--max-tokens", "15", "--system", "A tale."];
    let (whole, _) = chat_ok(&args, "Who are you?\nAnd then?\n");
    let (first, _) = chat_ok(&args, &format!("Who are you?\n/save \"{path}\"\n"));
    let json: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&json["model"], &json["messages"][0]["role"]), (&"fable".into(), &"system".into()));
    assert_eq!(json["messages"][1]["content"], "Who are you?");
    assert_eq!(json["messages"][2]["content"].as_str().unwrap(), first.trim());
    let args = &args[..4];
    assert_eq!(first.clone() + &chat_ok(&[args, &["--load", path]].concat(), "And then?\n").0, whole);
    let (second, note) = chat_ok(args, &format!("/load \"{path}\"\nAnd then?\n"));
    assert_eq!(first + &second, whole);
    assert!(note.starts_with("3 messages loaded"), "{note}");
}

#[test]
fn full_context_prints_note_on_dropped_messages() {
    let long = format!("{}\n", "and the king said ".repeat(25)).repeat(8);
    let (_, notes) = chat_ok(&["--max-tokens", "10"], &long);
    assert!(notes.starts_with("the context is full: dropped the oldest 4 messages\n"), "{notes}");
    assert!(
        notes.lines().count() > 1 && notes.lines().all(|line| line.contains(": dropped the oldest ")),
        "{notes}"
    );
}

#[test]
fn invalid_chat_input_is_one_line_error() {
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
        (&["--template", &talk], "Hi\n", "talk.json: found text that never reads `messages`"),
        (&["--template", &raising], "Hi\n", "standard input: line 1: chat template: not like this"),
        (&["--load", &talk], "Hi\n", "talk.json: messages[0]: missing field `content`"),
        (
            &["--load", &raising],
            "Hi\n",
            "expected {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]}",
        ),
        (&["--temperature", "-1"], "Hi\n", "temperature: found -1, expected a non-negative number"),
        (&["--temprature", "1"], "Hi\n", "did you mean '--temperature'?"),
        (&[], "\n/load /no/talk.json\n", "standard input: line 2: /no/talk.json: cannot read"),
        (&[], "/sav x\n", "line 1: unknown command '/sav'; did you mean '/save'?"),
        (&[], "/retry\n", "line 1: there is no message to answer yet"),
        (&[], "/save /no/folder/talk.json\n", "line 1: /no/folder/talk.json: cannot write"),
        (&[], &"word ".repeat(600), "line 1: the message is too long: with it alone the prompt is "),
        (&["--model", "fabel"], "Hi\n", "did you mean 'fable'?"),
    ] {
        let (line, _) = chat_error(args, input);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
    let (line, _) = chat_error(&[], &b"\n\xFF\xFE\n"[..]);
    assert!(line.contains("standard input: line 2: found invalid UTF-8"), "{line}");
    // The lines before the error are answered; none after it is.
    let (line, answers) = chat_error(&["--max-tokens", "5", "--temperature", "0"], "Hi\n/nonsense\nHi\n");
    assert!(line.contains("line 2"), "{line}");
    assert_eq!(answers, chat_ok(&["--max-tokens", "5", "--temperature", "0"], "Hi\n").0);
}

#[test]
fn closed_stdout_ends_chat_without_error() {
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
fn environment_settings_apply_to_chat() {
    let mut command = Command::new(BINARY);
    command
        .arg("chat")
        .env("HORNBOOK_CONFIG", "")
        .env("HORNBOOK_TEMPERATURE", "0.25")
        .env("HORNBOOK_MAX_TOKENS", "3");
    let notes = String::from_utf8(command.write_stdin("/set\n").output().unwrap().stderr).unwrap();
    assert!(
        notes.contains("temperature           0.25\n") && notes.contains("max_tokens            3\n"),
        "{notes}"
    );
    let help =
        String::from_utf8(Command::new(BINARY).args(["chat", "--help"]).output().unwrap().stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("--template") && help.contains("--kv-precision"),
        "{help}"
    );
}
