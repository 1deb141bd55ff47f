//! Errors of `hornbook generate`, each in one line.

use super::{comma_separated, generate, stderr_of_failure, tiny, with_file};
use assert_cmd::Command;

#[test]
fn generate_failure_is_one_line_error() {
    let (tiny, ..) = tiny();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let (_folder, not_text) = with_file("prompt.txt", b"Once \xff upon");
    let not_text = not_text.to_str().unwrap();
    let too_long = comma_separated(&[5; 97]);
    let long_text = "word ".repeat(600);
    let cases: &[(&[&str], &[&str])] = &[
        (&["Hi", "-m", "no-such-model"], &["'no-such-model' not found", "hornbook pull no-such-model"]),
        (&["Hi", "-m", "gpt2-xl"], &["'gpt2-xl' not found", "run `hornbook pull gpt2-xl` to download it"]),
        (&["Hi", "-m", "./no/such/folder"], &["./no/such/folder", "no such folder"]),
        (&["Hi", "-m", empty], &[empty, "config.json"]),
        (&["Hi", "-m", not_text], &["prompt.txt"]),
        (&["Hi", "-m", ""], &["model '' not found"]),
        (&["Hi", "-m", &tiny], &["tiny-gelu-new", "has no tokenizer", "--prompt-ids"]),
        (&["-m", &tiny, "--prompt-ids", "1,2"], &["has no tokenizer", "--output ids"]),
        (&["-m", &tiny, "--prompt-ids", "1,97", "--output", "ids"], &["token id 97", "0 to 96"]),
        (
            &["-m", &tiny, "--prompt-ids", &too_long, "--output", "ids"],
            &["97 tokens long", "context is 96 tokens", "--context shift"],
        ),
        (&[&long_text], &["tokens long", "context is 512 tokens"]),
        (&[&long_text, "--beams", "2"], &["tokens long", "context is 512 tokens"]),
        (&["Hi", "--temperature=-1"], &["temperature: found -1"]),
        (&["Hi", "--temperature", "nan"], &["temperature: found NaN"]),
        (&["Hi", "--top-p", "1.5"], &["top_p: found 1.5, expected a number from 0 to 1"]),
        (&["Hi", "--min-p", "2"], &["min_p: found 2"]),
        (&["Hi", "--typical-p", "0"], &["typical_p: found 0"]),
        (&["Hi", "--repetition-penalty", "0"], &["repetition_penalty: found 0"]),
        (&["Hi", "--presence-penalty", "-3"], &["presence_penalty: found -3"]),
        (&["Hi", "--logit-bias", "4096=1"], &["token id 4096", "0 to 4095"]),
        (&["Hi", "--logit-bias", "1=nan"], &["logit_bias: found NaN"]),
        (&["Hi", "--stop", ""], &["stop"]),
        (&["Hi", "--beams", "1"], &["beams: found 1, expected at least 2"]),
        (&["Hi", "--beams", "2", "-n", "3"], &["-n: found 3, expected at most --beams, 2"]),
        (&["Hi", "--beams", "2", "--length-penalty", "nan"], &["length_penalty: found NaN"]),
        (&["--prompt-file", "no-such-file.txt"], &["no-such-file.txt: cannot read"]),
        (&["--prompt-file", empty], &[empty, "cannot read"]),
        (&["--prompt-file", not_text], &["prompt.txt", "invalid UTF-8 at byte 5"]),
    ];
    let no_cache = tempfile::tempdir().unwrap();
    let check = |command: &mut Command, parts: &[&str]| {
        command.env("HF_HUB_CACHE", no_cache.path());
        let stderr = stderr_of_failure(command);
        let one_line =
            stderr.starts_with("hornbook: ") && stderr.ends_with('\n') && stderr.lines().count() == 1;
        assert!(one_line, "{command:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{command:?}: {part:?} is not in {stderr}");
        }
    };
    for (args, parts) in cases {
        check(&mut generate(args), parts);
    }
    check(generate(&["Hi"]).env("HORNBOOK_ISA", "foo"), &["HORNBOOK_ISA: found foo", "portable"]);
    check(generate(&[]).write_stdin(&b"abc\xff"[..]), &["standard input", "invalid UTF-8 at byte 3"]);
}

#[test]
fn generate_usage_error_names_option() {
    let cases: [(&[&str], &str); 11] = [
        (&["Hi", "--temperature", "warm"], "--temperature"),
        (&["Hi", "--top-p", ""], "--top-p"),
        (&["Hi", "--logit-bias", "junk"], "expected ID=BIAS"),
        (&["Hi", "--logit-bias", "x=1"], "'x' is not a token id"),
        (&["Hi", "--logit-bias", "1=x"], "'x' is not a number"),
        (&["Hi", "--prompt-ids", "1,-2"], "--prompt-ids"),
        (&["--prompt-ids", "1,two"], "two"),
        (&["Hi", "-n", "0"], "-n"),
        (&["Hi", "--threads", "0"], "--threads"),
        (&["Hi", "--beams", "4", "--logprobs", "2"], "--logprobs"),
        (&["Hi", "--length-penalty", "1"], "--beams"),
    ];
    for (args, part) in cases {
        let stderr = stderr_of_failure(&mut generate(args));
        assert!(
            stderr.starts_with("hornbook: ") && stderr.contains(part),
            "{args:?}: {part:?} is not in {stderr}"
        );
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    }
}
