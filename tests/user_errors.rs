//! User errors: each is reported in one line that says what to do, never as a panic.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::tempdir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");

fn isolated(mut command: Command) -> Command {
    command
        .env("HORNBOOK_CONFIG", "")
        .env_remove("HORNBOOK_ISA")
        .env("HF_HUB_CACHE", "/no/cache")
        .stdin(Stdio::null());
    command
}

fn hornbook(args: &[&str]) -> Command {
    let mut command = isolated(Command::new(PROGRAM));
    command.args(args);
    command
}

/// The one line on standard error of a run that must fail.
fn stderr_line(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && status.code().is_some() && stdout.is_empty(), "{command:?}: {stderr}");
    assert!(
        stderr.starts_with("hornbook: ") && stderr.trim_end().lines().count() == 1,
        "{command:?}: {stderr}"
    );
    stderr
}

fn data(folder: &str, file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder).join(file)).unwrap()
}

#[test]
fn misspelled_name_is_corrected_in_suggestion() {
    for (args, suggestion) in [
        (&["generate", "Hi", "--temprature", "1"][..], "--temperature"),
        (&["generat", "Hi"], "generate"),
        (&["generate", "Hi", "--output", "tex"], "text"),
        (&["generate", "Hi", "--model", "gtp2-medium"], "gpt2-medium"),
        (&["generate", "Hi", "--model", "Fable"], "fable"),
        (&["serve", "--modle", "gpt2"], "--model"),
        (&["show", "distillgpt2"], "distilgpt2"),
        (&["keys", "ad", "alice"], "add"),
        (&["completions", "bsh"], "bash"),
    ] {
        let line = stderr_line(&mut hornbook(args));
        assert!(line.contains(&format!("did you mean '{suggestion}'?")), "{args:?}: {line}");
    }
    let line = stderr_line(&mut hornbook(&["generate", "Hi", "--frobnicate"]));
    assert!(!line.contains("did you mean") && line.ends_with("; see 'hornbook generate --help'\n"), "{line}");
}

#[test]
fn invalid_number_error_names_expected_range() {
    for (args, expected) in [
        ("--temperature warm", "invalid value 'warm' for '--temperature <T>': expected a number;"),
        ("--top-k many", "'--top-k <K>': expected an integer;"),
        ("--top-k=-1", "expected an integer of at least 0;"),
        ("--prompt-ids 1,two", "invalid value 'two' for '--prompt-ids <IDS>': expected an integer;"),
        ("--threads 0", "invalid value '0' for '--threads <N>': expected an integer of at least 1;"),
        ("--max-tokens 99999999999999999999", "expected a smaller integer;"),
        ("--prompt-lookup 900", "expected an integer from 1 to 128;"),
        ("--repeat-until x --attempts 0", "expected an integer of at least 1;"),
    ] {
        let args: Vec<&str> = ["generate"].into_iter().chain(args.split(' ')).collect();
        let line = stderr_line(&mut hornbook(&args));
        assert!(line.contains(expected), "{args:?}: {line}");
    }
}

#[test]
fn unsupported_model_folder_is_described() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let run = || stderr_line(&mut hornbook(&["generate", "Hi", "--model", path]));
    for (model_type, architecture) in
        [("llama", "LlamaForCausalLM"), ("bert", "BertModel"), ("gpt_neox", "GPTNeoX")]
    {
        let config = format!(
            r#"{{"model_type": "{model_type}", "architectures": ["{architecture}"], "hidden_size": 64}}"#
        );
        fs::write(folder.path().join("config.json"), config).unwrap();
        let line = run();
        let expected = format!("config.json: model_type: found \"{model_type}\", expected \"gpt2\"");
        assert!(line.contains(&expected), "{line}");
    }
    fs::write(folder.path().join("config.json"), data("tiny-gelu-new", "config.json")).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), "pickled").unwrap();
    let line = run();
    assert!(line.contains("found pytorch_model.bin, expected model.safetensors"), "{line}");
    assert!(line.contains("save_pretrained"), "{line}");

    let weights = data("tiny-gelu-new", "model.safetensors");
    for cut in [0, 4, 100, weights.len() / 2, weights.len() - 1] {
        fs::write(folder.path().join("model.safetensors"), &weights[..cut]).unwrap();
        let line = run();
        assert!(line.contains("model.safetensors: "), "{cut}: {line}");
    }
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let line = run();
    assert!(line.contains("has no tokenizer (tokenizer.json, or vocab.json and merges.txt)"), "{line}");
}

#[test]
fn crlf_text_is_accepted_and_invalid_utf8_rejected() {
    let run = |input: &[u8], args: &[&str]| {
        let mut child = hornbook(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let story = ["generate", "--temperature", "0", "--max-tokens", "8"];
    assert_eq!(run(b"Once upon\r\n", &story), run(b"Once upon\n", &story));
    let (ok, _, _) = run(b"Once upon\r\na time\r\n", &story);
    assert!(ok);
    for (args, from) in [(&story[..], "standard input"), (&["perplexity", "-"], "standard input")] {
        let (ok, stdout, stderr) = run(b"Once \xff\xfe upon", args);
        let expected = format!("hornbook: {from}: found invalid UTF-8 at byte 5, expected UTF-8 text\n");
        assert!(!ok && stdout.is_empty() && stderr == expected, "{stderr}");
    }
    let (ok, stdout, _) = run("Once upon a time.\r\nThere was a king.\r\n".as_bytes(), &["perplexity", "-"]);
    assert!(ok && stdout.contains("perplexity"), "{stdout}");
}

#[cfg(target_os = "linux")]
mod unix {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Runs with a file size limit of 64 KiB, which acts like a full disk.
    fn with_file_size_limit(args: &[&str]) -> Command {
        let mut command = isolated(Command::new("bash"));
        command.args(["-c", r#"trap "" XFSZ; ulimit -f 64; exec "$@""#, "bash", PROGRAM]).args(args);
        command
    }

    #[test]
    fn quantize_on_full_disk_leaves_no_file() {
        let folder = tempdir().unwrap();
        let target = folder.path().join("small");
        let args = ["quantize", "fable", "--precision", "int8", "-o", target.to_str().unwrap()];
        let line = stderr_line(&mut with_file_size_limit(&args));
        assert!(
            line.contains("small/model.safetensors") && line.contains("cannot write: File too large"),
            "{line}"
        );
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        let line = stderr_line(&mut hornbook(&["quantize", "fable", "-p", "int8", "-o", "/dev/full"]));
        assert!(line.contains("/dev/full: is not a folder, expected one to write the model to"), "{line}");
    }

    #[test]
    fn full_output_device_is_reported() {
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        for args in [
            &["generate", "Hi", "--max-tokens", "2"][..],
            &["generate", "Hi", "--max-tokens", "2", "--json"],
            &["models"],
            &["show", "fable"],
            &["config"],
            &["completions", "bash"],
            &["man"],
        ] {
            let output = hornbook(args).stdout(full()).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let last = stderr.lines().last().unwrap_or_default();
            assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
            assert!(
                last.starts_with("hornbook: standard output: cannot write: No space left"),
                "{args:?}: {stderr}"
            );
        }
    }

    #[test]
    fn closed_pipe_ends_every_command_without_error() {
        for args in [
            "show fable --card",
            "completions bash",
            "man",
            "models",
            "config --json",
            "--help",
            "keys --help",
            "generate Once --max-tokens 3",
            "tokens Once --json",
            "explain Once",
            "explain Once --json",
            "inspect Once",
            "inspect Once --ablate L0H0 --json",
            "heads",
            "heads --json",
            "positions",
            "positions --json",
            "bench roofline --prompt 2 --depth 2 --repeat 1 --json",
        ] {
            let mut shell = isolated(Command::new("bash"));
            // The pipe is closed before the command writes to it.
            let script = format!("set -o pipefail; (sleep 0.2; exec '{PROGRAM}' {args}) | true");
            let output = shell.args(["-c", &script]).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!stderr.contains("panicked") && !stderr.contains("cannot write"), "{args}: {stderr}");
            assert_eq!(output.status.code(), Some(0), "{args}: {stderr}");
        }
    }

    #[test_with::executable(setpriv)]
    #[test]
    fn unwritable_folder_is_named() {
        let folder = tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let target = folder.path().join("new");
        let mut command = hornbook(&["quantize", "fable", "-p", "int8", "-o", target.to_str().unwrap()]);
        if fs::write(folder.path().join("x"), "").is_ok() {
            // Root can write anywhere.
            command = isolated(Command::new("setpriv"));
            command.args([
                "--reuid",
                "65534",
                "--clear-groups",
                PROGRAM,
                "quantize",
                "fable",
                "-p",
                "int8",
                "-o",
            ]);
            command.arg(&target);
        }
        let line = stderr_line(&mut command);
        assert!(line.contains("new: cannot create: Permission denied"), "{line}");
    }

    /// On a terminal of 40 columns (`script` of util-linux) no line is wider and nothing panics.
    #[test_with::executable(script)]
    #[test]
    fn help_and_progress_fit_narrow_terminal() {
        let show = |args: &str| {
            let mut script = isolated(Command::new("script"));
            script.args(["-qec", &format!("stty cols 40 rows 20; '{PROGRAM}' {args}"), "/dev/null"]);
            let output = script.env("NO_COLOR", "1").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
            assert!(!text.contains("panicked"), "{text}");
            (output.status.success(), text)
        };
        let (ok, help) = show("generate --help");
        assert!(ok);
        let options = help
            .lines()
            .skip_while(|line| !line.starts_with("Options"))
            .take_while(|line| !line.starts_with("Examples"));
        let widest = options.map(|line| line.chars().count()).max().unwrap();
        assert!((20..=40).contains(&widest), "{widest}: {help}");

        let folder = tempdir().unwrap();
        let target = folder.path().join("small");
        let (ok, bars) = show(&format!("quantize fable -p int8 -o {}", target.display()));
        assert!(ok, "{bars}");
        // The bar is redrawn in place: each state ends with a carriage return, and fits.
        let states = bars.split(['\r', '\n']).map(console_width);
        let drawn: Vec<usize> = states.collect();
        assert!(bars.contains("matrices quantized"), "{bars:?}");
        assert!(
            drawn.iter().zip(bars.split(['\r', '\n'])).all(|(w, state)| *w <= 40 || !state.contains("left")),
            "{bars:?}"
        );
    }

    /// Width in columns, without escape sequences.
    fn console_width(text: &str) -> usize {
        let mut parts = text.split('\u{1b}');
        let first = parts.next().unwrap_or_default().chars().count();
        first
            + parts
                .map(|part| {
                    part.trim_start_matches(|c: char| c == '[' || c.is_ascii_digit() || c == ';')
                        .chars()
                        .count()
                        .saturating_sub(1)
                })
                .sum::<usize>()
    }
}

/// A tokenizer that cannot be used is an error for text alone.
#[test]
fn unusable_tokenizer_leaves_token_ids_working() {
    let folder = tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::write(folder.path().join(file), data("tiny-gelu-new", file)).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let ids = ["--model", path, "--prompt-ids", "1,2,3"];
    let by_ids: [&[&str]; 3] = [
        &["generate", "--output", "ids", "--max-tokens", "3", "--temperature", "0"],
        &["generate", "--output", "ids", "--max-tokens", "1", "--logprobs", "1", "--json"],
        &["inspect", "--json"],
    ];
    let run = || -> Vec<Vec<u8>> {
        let outputs = by_ids.iter().map(|args| hornbook(&[args, &ids[..]].concat()).output().unwrap());
        outputs.map(|output| if output.status.success() { output.stdout } else { vec![] }).collect()
    };
    let generated = &run()[0];
    assert!(!generated.is_empty());
    let word_piece = r#"{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}"#;
    let unigram = r#"{"model": {"type": "Unigram", "vocab": [["a", 0.5]]}}"#;
    for (name, content, problem) in [
        ("tokenizer.json", word_piece, r#"found "WordPiece", expected "BPE""#),
        ("tokenizer.json", unigram, r#"found "Unigram", expected "BPE""#),
        ("tokenizer.json", "{", "EOF"),
        ("vocab.json", "{", "EOF"),
    ] {
        if name == "vocab.json" {
            fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
            fs::write(folder.path().join("merges.txt"), "").unwrap();
        }
        fs::write(folder.path().join(name), content).unwrap();
        let outputs = run();
        assert!(outputs[0] == *generated && outputs.iter().all(|stdout| !stdout.is_empty()), "{content}");
        for args in [&["tokens", "a", "--model", path][..], &["generate", "a", "--model", path]] {
            let line = stderr_line(&mut hornbook(args));
            assert!(line.contains("has no usable tokenizer: ") && line.contains(problem), "{line}");
            assert!(line.contains(name) && line.contains("--prompt-ids"), "{line}");
        }
    }
}
