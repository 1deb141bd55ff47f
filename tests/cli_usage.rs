//! Mistakes in the command line: each is one line that says what to type instead, with exit code 2.

use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");

/// The one line on standard error of a command line that must be rejected, and the exit code.
fn rejection(args: &[&str]) -> (String, i32) {
    let mut command = Command::new(PROGRAM);
    command.args(args).env("HORNBOOK_CONFIG", "").env_remove("HORNBOOK_ISA").stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stdout.is_empty(), "{args:?}: {stderr}");
    assert!(stderr.starts_with("hornbook: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
    (stderr, status.code().expect("no signal"))
}

#[track_caller]
fn assert_usage_error(args: &[&str], part: &str) {
    let (line, code) = rejection(args);
    assert!(line.contains(part), "{args:?}: {part:?} is not in {line}");
    assert_eq!(code, 2, "{args:?}: {line}");
}

#[test]
fn text_with_leading_dash_gets_hint() {
    for (args, hint) in [
        (&["generate", "- item one"][..], "follows --: hornbook generate -- \"- item one\"."),
        (&["generate", "-5 degrees"], "follows --: hornbook generate -- \"-5 degrees\"."),
        (&["tokens", "---"], "follows --: hornbook tokens -- \"---\"."),
        (&["explain", "--$HOME is"], "follows --: hornbook explain -- '--$HOME is'."),
        (&["generate", "x", "--stop", "---"], "joined to its option: --stop=\"---\"."),
        (&["generate", "x", "--stop", "- a"], "joined to its option: --stop=\"- a\"."),
        (&["generate", "x", "--stop", "--END"], "joined to its option: --stop=\"--END\"."),
        (&["chat", "--system", "-be brief-"], "joined to its option: --system=\"-be brief-\"."),
    ] {
        assert_usage_error(args, hint);
    }
}

#[test]
fn unquoted_prompt_gets_quotes() {
    for (args, hint) in [
        (&["generate", "Once", "upon", "a", "time"][..], "quotes: hornbook generate \"Once upon a time\"."),
        (&["generate", "Once", "--seed", "3", "upon"], "quotes: hornbook generate \"Once upon\"."),
        (&["generate", "the", "the", "the", "-n", "2"], "quotes: hornbook generate \"the the the\"."),
        (&["tokens", "The", "king's", "\"$5\""], "quotes: hornbook tokens 'The king'\\''s \"$5\"'."),
        (
            &["inspect", "The", "cat"],
            "a prompt of several words stands in quotes: hornbook inspect \"The cat\".",
        ),
        (&["Once upon a time"], "to continue a text: hornbook generate \"Once upon a time\"."),
        (&["Once", "upon", "-n", "2"], "to continue a text: hornbook generate \"Once upon\"."),
        (&["Hello"], "to continue a text: hornbook generate \"Hello\"."),
        (&["generate", "-p", "The king"], "the prompt needs no option: hornbook generate \"The king\"."),
        (&["generate", "--", "-x", "--seed", "1"], "what follows -- is text: --seed comes before it."),
    ] {
        assert_usage_error(args, hint);
    }
}

#[test]
fn negative_number_error_names_range() {
    for (args, range) in [
        ("generate x --seed -1", "'--seed <N>': expected an integer of at least 0;"),
        ("generate x --top-k -1", "'--top-k <K>': expected an integer of at least 0;"),
        ("generate x --max-tokens -5", "'--max-tokens <N>': expected an integer of at least 0;"),
        ("generate x -n -2", "'-n <N>': expected an integer of at least 1;"),
        ("generate x --threads -1", "'--threads <N>': expected an integer of at least 1;"),
        ("generate x --repeat-until y --attempts -1", "expected an integer of at least 1;"),
        ("generate x --prompt-lookup -1", "expected an integer from 1 to 128;"),
        ("bench --repeat -1", "'--repeat <N>': expected an integer of at least 1;"),
        ("health --timeout -1", "'--timeout <SECONDS>': expected an integer from 1 to 86400;"),
        ("keys add a --rpm -1", "'--rpm <N>': expected an integer of at least 1;"),
        ("serve --port -1", "'--port <PORT>': expected an integer from 0 to 65535;"),
        ("generate x --temperature -1", "temperature: found -1, expected"),
        ("generate x --top-p -0.5", "top_p: found -0.5, expected a number from 0 to 1"),
    ] {
        assert_usage_error(&args.split(' ').collect::<Vec<_>>(), range);
    }
}

#[test]
fn names_of_other_programs_lead_to_options() {
    for (args, name) in [
        ("generate x --temp 1", "--temperature"),
        ("generate x -temp 1", "--temperature"),
        ("generate x --top_k 1", "--top-k"),
        ("generate x --greedy", "--temperature 0"),
        ("generate x --repeat-penalty 1.1", "--repetition-penalty"),
        ("generate x --repeat_penalty=1.1", "--repetition-penalty"),
        ("generate x --num-beams 4", "--beams"),
        ("generate x --max-new-tokens 4", "--max-tokens"),
        ("generate x -t 4", "--threads"),
        ("generate x -c 4", "--context"),
        ("generate x -s 4", "--seed"),
        ("generate -f story.txt", "--prompt-file"),
        ("perplexity x --dtype f16", "--precision"),
        ("serve --chat_template x", "--chat-template"),
        ("serve --api-key x", "--keys"),
        ("generate x --precision q8_0", "int8"),
        ("generate x --kv-precision fp16", "f16"),
        ("run fable", "generate' or 'chat"),
        ("list", "models"),
        ("ls", "models"),
        ("ps", "health"),
        ("keys ls", "list"),
        ("keys rm alice", "remove"),
        ("download gpt2", "pull"),
    ] {
        assert_usage_error(&args.split(' ').collect::<Vec<_>>(), &format!("did you mean '{name}'?"));
    }
    for command in ["rm", "delete"] {
        assert_usage_error(&[command, "gpt2"], "a model is deleted with its folder");
    }
}

#[test]
fn unrelated_name_is_not_suggested() {
    for args in ["generate x --mirostat 2", "generate x --grammar y", "serve --lora-path x", "keys rotate"] {
        let (line, code) = rejection(&args.split(' ').collect::<Vec<_>>());
        assert!(!line.contains("did you mean") && code == 2, "{args}: {line}");
    }
}

#[test]
fn value_error_says_what_is_expected() {
    for (args, part) in [
        ("quantize fable -p q4 -o out", "[possible values: int8, int4]; did you mean 'int4'?"),
        ("health foo", "URL: found 'foo', expected the URL of a server, e.g. http://127.0.0.1:8080"),
        ("health localhost:8080", "URL: found 'localhost:8080', expected the URL of a server"),
        ("health http://", "URL: found 'http://', expected the URL of a server"),
    ] {
        assert_usage_error(&args.split(' ').collect::<Vec<_>>(), part);
    }
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    for command in ["chat --template", "serve --port 0 --chat-template"] {
        let args = [&command.split(' ').collect::<Vec<_>>()[..], &[readme]].concat();
        let (line, code) = rejection(&args);
        assert!(
            line.contains("README.md: found text that never reads `messages`, expected a Jinja chat"),
            "{line}"
        );
        assert_eq!(code, 1);
    }
}

#[test]
fn exit_code_tells_usage_errors_from_failures() {
    for (args, expected) in [
        ("generate x --beams 1", 2),
        ("generate x --logit-bias 4096=1", 2),
        ("generate x --threads 5000", 2),
        ("explain x --layer 99", 2),
        ("man nothing", 2),
        ("generate x --model ./no/such/folder", 1),
        ("generate --prompt-file no-such-file", 1),
        ("health http://127.0.0.1:1", 1),
    ] {
        let (line, code) = rejection(&args.split(' ').collect::<Vec<_>>());
        assert_eq!(code, expected, "{args}: {line}");
    }
}

#[test]
fn large_number_of_texts_without_length_is_noted() {
    let run = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["generate", "x", "-m", "no-such-model", "-n"]).args(args).env("HORNBOOK_CONFIG", "");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let note = "hornbook: -n 128 asks for 128 texts; for a text of 128 tokens use --max-tokens 128\n";
    assert!(run(&["128"]).starts_with(note));
    assert!(!run(&["16"]).contains("-n") && !run(&["128", "--max-tokens", "5"]).contains("-n 128"));
}
