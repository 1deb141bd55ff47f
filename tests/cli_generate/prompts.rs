//! What a text is continued from.

use super::{PROMPT, generate, ids, json, list, tiny, with_file, written};
use serde_json::Value;

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
