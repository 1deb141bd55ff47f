//! `hornbook generate`, as a user types it.

use assert_cmd::Command;
use hornbook::kernels::isa::Isa;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_hornbook");
const PROMPT: &str = "Once upon a time";

/// `hornbook` and what follows it, without what the environment may say about it.
fn hornbook(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .env_remove("HORNBOOK_ISA")
        .env("HORNBOOK_CONFIG", "")
        .timeout(Duration::from_secs(120));
    command
}

pub fn generate(args: &[&str]) -> Command {
    let mut command = hornbook(&["generate"]);
    command.args(args);
    command
}

/// What a run that must succeed writes to standard output; it says nothing besides.
pub fn written(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stderr.is_empty(), "{command:?}: {status}, {stderr}");
    String::from_utf8(stdout).unwrap()
}

pub fn json(args: &[&str]) -> Value {
    let mut command = generate(args);
    serde_json::from_str(&written(command.arg("--json"))).unwrap()
}

fn data(folder: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    path.to_str().unwrap().to_string()
}

pub fn list(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A folder with what a test needs to read.
fn with_file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

#[test]
fn a_prompt_comes_from_the_argument_a_file_or_standard_input() {
    let settings = ["--temperature", "0", "--max-tokens", "12"];
    let by_argument = written(generate(&[PROMPT]).args(settings));
    assert!(by_argument.len() > 12 && by_argument.ends_with('\n'), "{by_argument:?}");
    for ending in ["", "\n", "\r\n"] {
        let content = format!("{PROMPT}{ending}");
        let (_folder, file) = with_file("prompt.txt", content.as_bytes());
        assert_eq!(written(generate(&["--prompt-file"]).arg(file).args(settings)), by_argument);
        assert_eq!(written(generate(&settings).write_stdin(content)), by_argument);
    }
    let echoed = written(generate(&[PROMPT, "--echo"]).args(settings));
    assert_eq!(echoed, format!("{PROMPT}{by_argument}"));
    // Nothing at all is the beginning of a text.
    assert!(written(generate(&settings).write_stdin("")).len() > 12);
}

#[test]
fn a_special_token_is_text_unless_it_is_meant() {
    let prompt = ["<|endoftext|>Once", "--max-tokens", "1"];
    let count = |args: &[&str]| json(args)["usage"]["prompt_tokens"].as_u64().unwrap();
    let special = count(&[&prompt[..], &["--special"]].concat());
    assert_eq!(special, 1 + count(&["Once", "--max-tokens", "1"]));
    assert!(count(&prompt) > special);
}

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
fn json_is_openais_completion() {
    let mut answer = json(&[PROMPT, "-n", "2", "--seed", "7", "--max-tokens", "9"]);
    let text = written(&mut generate(&[PROMPT, "-n", "1", "--seed", "7", "--max-tokens", "9"]));
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&answer), ["choices", "created", "id", "model", "object", "seed", "usage"]);
    assert_eq!(answer["object"], "text_completion");
    assert_eq!((&answer["model"], &answer["seed"]), (&"fable".into(), &7.into()));
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);

    let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    let completion_tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(prompt_tokens > 0);
    assert_eq!(answer["usage"]["total_tokens"], prompt_tokens + completion_tokens);
    let choices = answer["choices"].as_array_mut().unwrap();
    assert_eq!(choices.len(), 2);
    let mut tokens = 0;
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(keys(choice), ["finish_reason", "index", "logprobs", "text", "token_ids"]);
        assert_eq!((&choice["index"], &choice["logprobs"]), (&index.into(), &Value::Null));
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!(ids(&choice["token_ids"]).len(), 9);
        tokens += 9;
    }
    assert_eq!(completion_tokens, tokens);
    assert_eq!(choices[0]["text"].as_str().unwrap().trim_end(), text.trim_end());
    assert_ne!(choices[0]["text"], choices[1]["text"]);
}

#[test]
fn logprobs_are_four_lists_that_belong_together() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "15", "--logprobs", "3"];
    let echoed = json(&[&args[..], &["--echo"]].concat());
    let prompt_tokens = echoed["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    let choice = &echoed["choices"][0];
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    assert!(choice["text"].as_str().unwrap().starts_with(PROMPT));
    let of = |choice: &Value, name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    for name in lists {
        assert_eq!(of(choice, name).len(), prompt_tokens + 15, "{name}");
    }
    // Nothing predicts the first token.
    assert_eq!(
        (&of(choice, "token_logprobs")[0], &of(choice, "top_logprobs")[0]),
        (&Value::Null, &Value::Null)
    );
    let mut whole = 0;
    for i in 0..prompt_tokens + 15 {
        let token = of(choice, "tokens")[i].as_str().unwrap().to_string();
        let offset = of(choice, "text_offset")[i].as_u64().unwrap() as usize;
        if !token.starts_with("bytes:") {
            let here: String = text[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(here, token, "token {i}");
            whole += 1;
        }
        if i > 0 {
            let logprob = of(choice, "token_logprobs")[i].as_f64().unwrap();
            let top = of(choice, "top_logprobs")[i].as_object().unwrap().clone();
            assert!(logprob < 0.0 && top[&token].as_f64() == Some(logprob), "token {i}: {logprob}, {top:?}");
            assert!(top.len() == 3 || top.len() == 4, "token {i}: {top:?}");
            assert!(top.values().filter(|other| other.as_f64().unwrap() > logprob).count() <= 3);
        }
    }
    assert!(whole > 10, "hardly a token is text");

    // Without the prompt, the same numbers of the completion alone, at the same places.
    let alone = json(&args);
    for name in lists {
        assert_eq!(of(&alone["choices"][0], name), of(choice, name)[prompt_tokens..], "{name}");
    }
    // In text they go to standard error, a line each, and the text stays clean.
    let output = generate(&args).output().unwrap();
    let expected = alone["choices"][0]["text"].as_str().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected.trim_end());
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 15);
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

/// A tiny checkpoint, its reference prompt and its greedy continuation.
pub fn tiny() -> (String, Vec<u32>, Vec<u32>) {
    let folder = data("tiny-gelu-new");
    let expected = std::fs::read(Path::new(&folder).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    (folder, ids(&expected["input_ids"]), ids(&expected["greedy"]))
}

#[test]
fn a_model_without_a_tokenizer_runs_on_ids() {
    let (folder, prompt, greedy) = tiny();
    let prompt = list(&prompt);
    let args = ["-m", &folder, "--prompt-ids", &prompt, "--output", "ids", "--temperature", "0"];
    let args = [&args[..], &["--max-tokens", "64"]].concat();
    assert_eq!(written(&mut generate(&args)), format!("{}\n", list(&greedy)));
    assert_eq!(written(generate(&args).arg("--echo")), format!("{prompt},{}\n", list(&greedy)));
    let answer = json(&args);
    assert_eq!(
        (ids(&answer["choices"][0]["token_ids"]), &answer["choices"][0]["text"]),
        (greedy, &"".into())
    );
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

#[test]
fn a_text_ends_where_the_context_does() {
    let (folder, ..) = tiny(); // 96 positions
    let prompt = list(&[5; 90]);
    for (prompt, more, length) in
        [(&prompt, &["--temperature", "0"][..], 6), (&list(&[5; 96]), &["-n", "3"], 0)]
    {
        let args = ["-m", &folder, "--prompt-ids", prompt, "--output", "ids", "--json"];
        let output = generate(&[&args[..], more].concat()).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        for choice in answer["choices"].as_array().unwrap() {
            assert_eq!(
                (&choice["finish_reason"], ids(&choice["token_ids"]).len()),
                (&"length".into(), length)
            );
        }
        // It is said once, and what can be done about it.
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success()
                && said.contains("context of 96 tokens")
                && said.contains("--context shift")
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Nothing is said of a text that is as long as was wished.
    let args = [
        "-m",
        &folder,
        "--prompt-ids",
        &prompt,
        "--output",
        "ids",
        "--max-tokens",
        "6",
        "--temperature",
        "0",
    ];
    assert_eq!(json(&args)["usage"]["total_tokens"], 96);
}

#[test]
fn stats_go_to_standard_error_only() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "10"];
    let Output { status, stdout, stderr } = generate(&args).arg("--stats").output().unwrap();
    assert!(status.success());
    assert_eq!(String::from_utf8(stdout).unwrap(), written(&mut generate(&args)));
    let stderr = String::from_utf8(stderr).unwrap();
    for part in ["load ", "first token ", "prompt ", "per token ", " tokens/s"] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

#[test]
fn help_shows_what_to_type() {
    let help = written(&mut hornbook(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("hornbook generate \"Once upon a time\""), "{help}");
    let help = written(&mut generate(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("hornbook generate --model"), "{help}");
    // The defaults are said where they are set.
    assert!(help.contains("[default: 0.8]") && help.contains("[default: 0.95]"), "{help}");
    assert!(help.contains("[default: fable]") && help.contains("[default: 200"), "{help}");

    let alone = hornbook(&[]).output().unwrap();
    assert!(!alone.status.success());
    let help = String::from_utf8([alone.stdout, alone.stderr].concat()).unwrap();
    assert!(help.contains("Examples:") && help.contains("generate"), "{help}");
    assert!(written(&mut hornbook(&["--version"])).starts_with("hornbook "));
}

/// What a run that must fail says: not a panic, and one line.
pub fn complaint(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{command:?} succeeds");
    assert!(status.code().is_some(), "{command:?}: {status}");
    assert!(stdout.is_empty(), "{command:?} writes {}", String::from_utf8_lossy(&stdout));
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    stderr
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let (tiny, ..) = tiny();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    let (_folder, not_text) = with_file("prompt.txt", b"Once \xff upon");
    let not_text = not_text.to_str().unwrap();
    let too_long = list(&[5; 97]);
    let long_text = "word ".repeat(600);
    let cases: &[(&[&str], &[&str])] = &[
        (&["Hi", "-m", "no-such-model"], &["'no-such-model' not found", "hornbook pull no-such-model"]),
        (&["Hi", "-m", "gpt2-xl"], &["'gpt2-xl' not found", "`hornbook pull gpt2-xl` puts it there"]),
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
        (&["--prompt-file", not_text], &["prompt.txt", "not UTF-8 at 5"]),
    ];
    let no_cache = tempfile::tempdir().unwrap();
    let check = |command: &mut Command, parts: &[&str]| {
        command.env("HF_HUB_CACHE", no_cache.path());
        let said = complaint(command);
        let one_line = said.starts_with("hornbook: ") && said.ends_with('\n') && said.lines().count() == 1;
        assert!(one_line, "{command:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{command:?}: {part:?} is not in {said}");
        }
    };
    for (args, parts) in cases {
        check(&mut generate(args), parts);
    }
    check(generate(&["Hi"]).env("HORNBOOK_ISA", "foo"), &["HORNBOOK_ISA: found foo", "portable"]);
    check(generate(&[]).write_stdin(&b"abc\xff"[..]), &["standard input", "not UTF-8 at 3"]);
}

#[test]
fn what_cannot_be_read_from_the_command_line_names_the_option() {
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
        let said = complaint(&mut generate(args));
        assert!(said.starts_with("hornbook: ") && said.contains(part), "{args:?}: {part:?} is not in {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

/// What happens to a running program, which not every system does the same way.
#[cfg(unix)]
mod running {
    use super::{BINARY, PROMPT};
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    /// More than anyone waits for.
    fn endless() -> Child {
        Command::new(BINARY)
            .args(["generate", PROMPT, "-n", "100000"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn said(child: &mut Child) -> String {
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn a_reader_that_has_enough_ends_it_quietly() {
        let mut child = endless();
        let mut five = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut five).unwrap(); // and closes the pipe
        assert_eq!(said(&mut child), "");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }

    #[test]
    fn an_interrupt_keeps_what_was_written() {
        let mut child = endless();
        let mut stdout = child.stdout.take().unwrap();
        let mut text = vec![0; 5];
        stdout.read_exact(&mut text).unwrap();
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        stdout.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.len() > 5 && text.ends_with('\n'), "{text:?}");
        assert_eq!(said(&mut child), "");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    /// `script` of util-linux gives it a terminal.
    #[test]
    fn without_a_prompt_a_terminal_is_told_what_to_type() {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("'{BINARY}' generate"), "/dev/null"]).stdin(Stdio::null());
        let output = match script.output() {
            Ok(output) if cfg!(target_os = "linux") => output,
            _ => return eprintln!("skipped: there is no `script` of util-linux on this machine"),
        };
        let said = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        assert!(said.contains("needs a prompt") && said.contains("hornbook generate \"Once upon"), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}
