//! Output besides the text: JSON, logprobs, stats, help.

use super::{PROMPT, generate, hornbook, ids, json, stdout_of};
use serde_json::Value;
use std::process::Output;

#[test]
fn json_output_has_shape_of_openai_completion() {
    let mut answer = json(&[PROMPT, "-n", "2", "--seed", "7", "--max-tokens", "9"]);
    let text = stdout_of(&mut generate(&[PROMPT, "-n", "1", "--seed", "7", "--max-tokens", "9"]));
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
fn logprobs_lists_are_aligned() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "15", "--logprobs", "3"];
    let echoed = json(&[&args[..], &["--echo"]].concat());
    let prompt_tokens = echoed["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    let choice = &echoed["choices"][0];
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    assert!(choice["text"].as_str().unwrap().starts_with(PROMPT));
    let field = |choice: &Value, name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    for name in lists {
        assert_eq!(field(choice, name).len(), prompt_tokens + 15, "{name}");
    }
    // The first token has no logprob.
    assert_eq!(
        (&field(choice, "token_logprobs")[0], &field(choice, "top_logprobs")[0]),
        (&Value::Null, &Value::Null)
    );
    let mut whole = 0;
    for i in 0..prompt_tokens + 15 {
        let token = field(choice, "tokens")[i].as_str().unwrap().to_string();
        let offset = field(choice, "text_offset")[i].as_u64().unwrap() as usize;
        if !token.starts_with("bytes:") {
            let here: String = text[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(here, token, "token {i}");
            whole += 1;
        }
        if i > 0 {
            let logprob = field(choice, "token_logprobs")[i].as_f64().unwrap();
            let top = field(choice, "top_logprobs")[i].as_object().unwrap().clone();
            assert!(logprob < 0.0 && top[&token].as_f64() == Some(logprob), "token {i}: {logprob}, {top:?}");
            assert!(top.len() == 3 || top.len() == 4, "token {i}: {top:?}");
            assert!(top.values().filter(|other| other.as_f64().unwrap() > logprob).count() <= 3);
        }
    }
    assert!(whole > 10, "too few tokens are valid UTF-8");

    // Without the prompt, the values and offsets of the completion are the same.
    let without_prompt = json(&args);
    for name in lists {
        assert_eq!(
            field(&without_prompt["choices"][0], name),
            field(choice, name)[prompt_tokens..],
            "{name}"
        );
    }
    // In text output they go to standard error, one line per token.
    let output = generate(&args).output().unwrap();
    let expected = without_prompt["choices"][0]["text"].as_str().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected.trim_end());
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 15);
}

#[test]
fn stats_are_printed_to_stderr_only() {
    let args = [PROMPT, "--seed", "7", "--max-tokens", "10"];
    let Output { status, stdout, stderr } = generate(&args).arg("--stats").output().unwrap();
    assert!(status.success());
    assert_eq!(String::from_utf8(stdout).unwrap(), stdout_of(&mut generate(&args)));
    let stderr = String::from_utf8(stderr).unwrap();
    for part in ["load ", "first token ", "prompt ", "per token ", " tokens/s"] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn stats_memory_includes_model() {
    for more in [&[][..], &["-n", "2"], &["--beams", "2"]] {
        let args = [PROMPT, "--precision", "int8", "--max-tokens", "2", "--stats"];
        let output = generate(&[&args[..], more].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let memory = stderr.lines().find_map(|line| line.strip_prefix("memory")).expect("a memory line");
        let mib: f64 = memory.split_whitespace().next().unwrap().parse().unwrap();
        // One byte for each of the 5.9 million parameters.
        assert!(mib > 5.6, "{memory} with {more:?}");
    }
}

#[test]
fn help_shows_examples_and_defaults() {
    let help = stdout_of(&mut hornbook(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("hornbook generate \"Once upon a time\""), "{help}");
    let help = stdout_of(&mut generate(&["--help"]));
    assert!(help.contains("Examples:") && help.contains("hornbook generate --model"), "{help}");
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("[default: 0.8]") && help.contains("[default: 0.95]"), "{help}");
    assert!(help.contains("[default: fable]") && help.contains("[default: 200"), "{help}");

    let no_arguments = hornbook(&[]).output().unwrap();
    assert!(!no_arguments.status.success());
    let help = String::from_utf8([no_arguments.stdout, no_arguments.stderr].concat()).unwrap();
    assert!(help.contains("Examples:") && help.contains("generate"), "{help}");
    assert!(stdout_of(&mut hornbook(&["--version"])).starts_with("hornbook "));
}
