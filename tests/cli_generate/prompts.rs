//! Sources and tokenization of the prompt, and the end of the context.

use super::{PROMPT, comma_separated, generate, ids, json, stdout_of, tiny, with_file};
use serde_json::Value;

#[test]
fn prompt_from_argument_file_or_stdin_is_equivalent() {
    let settings = ["--temperature", "0", "--max-tokens", "12"];
    let from_argument = stdout_of(generate(&[PROMPT]).args(settings));
    assert!(from_argument.len() > 12 && from_argument.ends_with('\n'), "{from_argument:?}");
    for ending in ["", "\n", "\r\n"] {
        let content = format!("{PROMPT}{ending}");
        let (_folder, file) = with_file("prompt.txt", content.as_bytes());
        assert_eq!(stdout_of(generate(&["--prompt-file"]).arg(file).args(settings)), from_argument);
        assert_eq!(stdout_of(generate(&settings).write_stdin(content)), from_argument);
    }
    let echoed = stdout_of(generate(&[PROMPT, "--echo"]).args(settings));
    assert_eq!(echoed, format!("{PROMPT}{from_argument}"));
    // An empty prompt starts a text from nothing.
    assert!(stdout_of(generate(&settings).write_stdin("")).len() > 12);
}

#[test]
fn special_token_is_plain_text_without_special_flag() {
    let prompt = ["<|endoftext|>Once", "--max-tokens", "1"];
    let count = |args: &[&str]| json(args)["usage"]["prompt_tokens"].as_u64().unwrap();
    let special = count(&[&prompt[..], &["--special"]].concat());
    assert_eq!(special, 1 + count(&["Once", "--max-tokens", "1"]));
    assert!(count(&prompt) > special);
}

#[test]
fn model_without_tokenizer_generates_from_ids() {
    let (folder, prompt, greedy) = tiny();
    let prompt = comma_separated(&prompt);
    let args = ["-m", &folder, "--prompt-ids", &prompt, "--output", "ids", "--temperature", "0"];
    let args = [&args[..], &["--max-tokens", "64"]].concat();
    assert_eq!(stdout_of(&mut generate(&args)), format!("{}\n", comma_separated(&greedy)));
    assert_eq!(stdout_of(generate(&args).arg("--echo")), format!("{prompt},{}\n", comma_separated(&greedy)));
    let answer = json(&args);
    assert_eq!(
        (ids(&answer["choices"][0]["token_ids"]), &answer["choices"][0]["text"]),
        (greedy.clone(), &"".into())
    );
    let logprobs = &json(&[&args[..], &["--logprobs", "2"]].concat())["choices"][0]["logprobs"];
    let names: Vec<String> = greedy.iter().map(|id| format!("token_id:{id}")).collect();
    assert_eq!(logprobs["tokens"], serde_json::json!(names));
    let output = generate(&args).args(["--logprobs", "2", "--echo"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains(&format!("{:?} ", names[0])));
}

#[test]
fn generation_stops_at_context_end_with_one_note() {
    let (folder, ..) = tiny(); // 96 positions
    let prompt = comma_separated(&[5; 90]);
    for (prompt, more, length) in
        [(&prompt, &["--temperature", "0"][..], 7), (&comma_separated(&[5; 96]), &["-n", "3"], 1)]
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
        // One note, which names the way out.
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success()
                && stderr.contains("context of 96 tokens")
                && stderr.contains("--context shift")
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // No note for a text that reached --max-tokens.
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
fn prompt_that_ends_inside_a_character_is_joined_with_the_completion() {
    let model = hornbook::Hornbook::open("fable").unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let id = |byte: u8| (0..4096).find(|&id| tokenizer.token_bytes(id) == [byte]).unwrap();
    let emoji: Vec<u32> = "😀".bytes().map(id).collect();
    let (prompt, bias) = (comma_separated(&emoji[..3]), format!("{}=1000", emoji[3]));
    let args = ["--prompt-ids", &prompt, "--logit-bias", &bias, "--max-tokens", "1", "--echo"];
    assert_eq!(stdout_of(&mut generate(&args)), "😀\n");
    assert_eq!(stdout_of(generate(&args).args(["--beams", "2"])), "😀\n");
    let choice = json(&[&args[..], &["--logprobs", "0"]].concat())["choices"][0].clone();
    assert_eq!(choice["text"], "😀");
    assert_eq!(choice["logprobs"]["text_offset"], serde_json::json!([0, 1, 1, 1]));
    // Without a token that completes it, it is replaced.
    let args = ["--prompt-ids", &prompt, "--max-tokens", "0", "--echo"];
    assert_eq!(stdout_of(&mut generate(&args)), "\u{fffd}\n");
    assert_eq!(stdout_of(generate(&args).args(["--beams", "2"])), "\u{fffd}\n");
}

#[test]
fn empty_prompt_has_offsets_from_zero() {
    for echo in [&[][..], &["--echo"]] {
        let args = ["", "--logprobs", "0", "--max-tokens", "2", "--seed", "1"];
        let logprobs = json(&[&args[..], echo].concat())["choices"][0]["logprobs"].clone();
        assert_eq!(
            (&logprobs["text_offset"][0], logprobs["tokens"].as_array().unwrap().len()),
            (&0.into(), 2)
        );
    }
}
