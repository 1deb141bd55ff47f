//! Settings: precedence (option, environment, project file, user file, default) and effect on the results;
//! shell completions and manual pages.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A project folder and a user configuration folder in which the program runs.
struct TestEnv {
    project: TempDir,
    user: TempDir,
}

impl TestEnv {
    fn new(project: &str, user: &str) -> Self {
        let env = Self { project: tempfile::tempdir().unwrap(), user: tempfile::tempdir().unwrap() };
        let folder = env.user.path().join("hornbook");
        fs::create_dir(&folder).unwrap();
        for (folder, text) in [(env.project.path(), project), (&folder, user)] {
            if !text.is_empty() {
                fs::write(folder.join("hornbook.toml"), text).unwrap();
            }
        }
        env
    }

    fn hornbook(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HORNBOOK_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.project.path()).stdin(Stdio::null());
        for name in ["XDG_CONFIG_HOME", "APPDATA", "HOME"] {
            command.env(name, self.user.path());
        }
        command
    }
}

fn text(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn stderr_line(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stdout.is_empty() && stderr.trim_end().lines().count() == 1, "{stderr}");
    stderr
}

/// The value and the source of a setting, from `hornbook config --json`.
fn config_entry(command: &mut Command, setting: &str) -> (Value, Value) {
    let all: Value = serde_json::from_str(&text(command)).unwrap();
    let found = all.as_array().unwrap().iter().find(|row| row["setting"] == setting).unwrap().clone();
    (found["value"].clone(), found["from"].clone())
}

const CONFIG: [&str; 2] = ["config", "--json"];

#[cfg(target_os = "linux")]
#[test]
fn settings_sources_have_documented_precedence() {
    let user = "threads = 1\n\n[sampling]\ntop_k = 11\ntemperature = 0.3\n";
    let env = TestEnv::new("[sampling]\ntemperature = 0\n", user);
    let entry = |setting: &str| config_entry(&mut env.hornbook(&CONFIG), setting);
    let file = |folder: &Path| folder.join("hornbook.toml").canonicalize().unwrap();
    let (value, from) = entry("sampling.temperature");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("0"), Some(2)));
    assert_eq!(from["path"], file(env.project.path()).to_str().unwrap());
    let (value, from) = entry("sampling.top_k");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("11"), Some(4)));
    assert_eq!(from["path"], file(&env.user.path().join("hornbook")).to_str().unwrap());
    let (value, from) = entry("sampling.top_p");
    assert_eq!((value.as_str(), from["kind"].as_str()), (Some("0.95"), Some("built-in")));
    let mut command = env.hornbook(&CONFIG);
    let (value, from) = config_entry(command.env("HORNBOOK_TEMPERATURE", "0.9"), "sampling.temperature");
    assert_eq!((value.as_str(), from["name"].as_str()), (Some("0.9"), Some("HORNBOOK_TEMPERATURE")));

    // The project's file applies in subfolders too; HORNBOOK_CONFIG replaces both files.
    let below = env.project.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    let (value, _) = config_entry(env.hornbook(&CONFIG).current_dir(&below), "sampling.temperature");
    assert_eq!(value, "0");
    let (value, _) = config_entry(env.hornbook(&CONFIG).env("HORNBOOK_CONFIG", ""), "sampling.top_k");
    assert_eq!(value, "0");

    // The settings take effect: greedy decoding for any seed, unless an option or a variable overrides it.
    let args = ["generate", "Once upon a time", "--max-tokens", "20", "--seed"];
    let generated = |more: &[&str], temperature: &str| {
        let mut command = env.hornbook(&[&args, more].concat());
        text(command.env("HORNBOOK_TEMPERATURE", temperature))
    };
    assert_eq!(generated(&["1"], ""), generated(&["2"], ""));
    assert_ne!(generated(&["1"], "0.9"), generated(&["2"], "0.9"));
    assert_eq!(generated(&["1", "--temperature", "0"], "0.9"), generated(&["2"], ""));
    let table = text(&mut env.hornbook(&["config"]));
    assert!(table.contains("sampling.temperature  ") && table.contains("hornbook.toml:2"), "{table}");
    let help = text(&mut env.hornbook(&["generate", "--help"]));
    assert!(help.contains("[default: 11]") && help.contains("[default: 1]"), "{help}");
}

#[test]
fn setting_applies_to_every_subcommand_with_option() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new");
    let project = format!(
        "model = '{}'\nprecision = \"int8\"\nthreads = 1\n[sampling]\nmax_tokens = 3\n",
        tiny.display()
    );
    let env = TestEnv::new(&project, "");
    let ids = text(&mut env.hornbook(&["generate", "--prompt-ids", "1,2", "--output", "ids", "--seed", "1"]));
    assert_eq!(ids.trim_end().split(',').count(), 3);
    let bench = ["bench", "--prompt", "8", "--depth", "8", "--batch", "1", "--repeat", "1", "--json"];
    let report: Value = serde_json::from_str(&text(&mut env.hornbook(&bench))).unwrap();
    assert_eq!(report["model"]["name"], "tiny-gelu-new");
    let results = report["results"].as_array().unwrap();
    assert!(results.iter().all(|row| row["precision"] == "int8" && row["threads"] == 1), "{report}");
    let line = stderr_line(&mut env.hornbook(&["perplexity", tiny.join("config.json").to_str().unwrap()]));
    assert!(line.contains("'tiny-gelu-new' has no tokenizer"), "{line}");
    // A required option stays required; `bench --shape` does not open the model.
    let line = stderr_line(&mut env.hornbook(&["quantize", "fable", "-o", "x"]));
    assert!(line.contains("--precision"), "{line}");
    let mut serve = env.hornbook(&["serve", "--port", "0", "--alias", "x=fable"]);
    let line = stderr_line(serve.env("HORNBOOK_MODEL", "fabel"));
    assert!(line.contains("model 'fabel' not found") && line.contains("did you mean 'fable'?"), "{line}");
}

#[test]
fn context_setting_applies_to_generate() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new"); // 96 positions
    let project = format!("model = '{}'\ncontext = \"shift\"\n", tiny.display());
    let env = TestEnv::new(&project, "");
    let args =
        ["generate", "--prompt-ids", "1,2", "--output", "ids", "--max-tokens", "120", "--min-tokens", "120"];
    let tokens = |command: &mut Command| text(command).trim_end().split(',').count();
    assert_eq!(tokens(&mut env.hornbook(&args)), 120);
    assert_eq!(tokens(&mut env.hornbook(&[&args[..], &["--context", "stop"]].concat())), 95);
    assert_eq!(tokens(env.hornbook(&args).env("HORNBOOK_CONTEXT", "stop")), 95);
    let (value, from) = config_entry(&mut env.hornbook(&CONFIG), "context");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("shift"), Some(2)));
    // Beam search still stops at the end of the context; the setting does not affect `perplexity --context
    // N`.
    assert!(tokens(&mut env.hornbook(&[&args[..], &["--beams", "2"]].concat())) <= 95);
    let story = env.project.path().join("story.txt");
    fs::write(&story, "Once upon a time there was a king.").unwrap();
    text(env.hornbook(&["perplexity", "--model", "fable"]).arg(&story));
    let line = stderr_line(env.hornbook(&args).env("HORNBOOK_CONTEXT", "2048"));
    assert!(line.contains("HORNBOOK_CONTEXT: found 2048, expected stop or shift"), "{line}");
}

#[test]
fn invalid_settings_are_one_line_error_with_position() {
    let story = ["generate", "Once", "--max-tokens", "1"];
    for (project, expected) in [
        ("modle = \"gpt2\"\n", "hornbook.toml:1: unknown setting 'modle'; did you mean 'model'?"),
        (
            "\n[sampling]\ntop_p = 7\n",
            "hornbook.toml:3: sampling.top_p: found 7, expected a number from 0 to 1",
        ),
        ("model = \"gpt2\n", "hornbook.toml:1: "),
    ] {
        let env = TestEnv::new(project, "");
        for args in [&story[..], &["config"], &["models"]] {
            let line = stderr_line(&mut env.hornbook(args));
            assert!(line.starts_with("hornbook: ") && line.contains(expected), "{line}");
        }
        // Version, help, completions and manual work with an invalid file.
        for args in [&["--version"][..], &["generate", "--help"], &["completions", "bash"], &["man"]] {
            text(&mut env.hornbook(args));
        }
    }
    let env = TestEnv::new("", "");
    let line = stderr_line(env.hornbook(&story).env("HORNBOOK_THREADS", "many"));
    assert!(line.contains("HORNBOOK_THREADS: found many, expected an integer from 1 to 1024"), "{line}");
    let line = stderr_line(env.hornbook(&story).env("HORNBOOK_CONFIG", "/no/such.toml"));
    assert!(line.contains("/no/such.toml: cannot read"), "{line}");
    let output = env.hornbook(&["config"]).env("HORNBOOK_TEMPRATURE", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("variable HORNBOOK_TEMPRATURE; did you mean 'HORNBOOK_TEMPERATURE'?"),
        "{stderr}"
    );
}

#[test]
fn shell_completions_and_manual_contain_all_options() {
    let env = TestEnv::new("", "");
    for (shell, parts) in [
        ("bash", &["complete -F _hornbook", "--top-p"][..]),
        ("zsh", &["#compdef hornbook", "--top-p"]),
        ("fish", &["complete -c hornbook", "top-p"]),
        ("powershell", &["Register-ArgumentCompleter", "--top-p"]),
    ] {
        let script = text(&mut env.hornbook(&["completions", shell]));
        for part in parts {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    let page = text(&mut env.hornbook(&["man", "generate"]));
    assert!(page.contains(".TH") && page.contains("top\\-p") && page.contains("Examples"), "{page}");
    let pages = env.project.path().join("pages");
    text(env.hornbook(&["man", "--dir"]).arg(&pages));
    for name in ["hornbook.1", "hornbook-generate.1", "hornbook-serve.1", "hornbook-keys-add.1"] {
        assert!(pages.join(name).exists(), "{name}");
    }
    // Pages of help subcommands would only repeat the others.
    let names: Vec<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("help")), "{names:?}");
    let line = stderr_line(&mut env.hornbook(&["man", "generat"]));
    assert!(line.contains("man: found 'generat', expected one of generate, "), "{line}");
    assert!(line.ends_with("; did you mean 'generate'?\n"), "{line}");
}

#[cfg(target_os = "linux")]
#[test]
fn bash_completes_subcommands_options_and_values() {
    let env = TestEnv::new("", "");
    let script = env.project.path().join("completions");
    fs::write(&script, text(&mut env.hornbook(&["completions", "bash"]))).unwrap();
    let complete = |words: &[&str]| {
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _hornbook hornbook '{last}' '{before}'; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
        );
        text(Command::new("bash").args(["-c", &script])).trim().to_string()
    };
    assert_eq!(complete(&["hornbook", "gen"]), "generate");
    assert_eq!(complete(&["hornbook", "generate", "--temp"]), "--temperature");
    assert_eq!(complete(&["hornbook", "generate", "--kv-precision", ""]), "f32 f16 int8");
    assert_eq!(complete(&["hornbook", "generate", "--precision", ""]), "f32 f16 bf16 bf16-dot int8 int4");
    assert_eq!(complete(&["hornbook", "quantize", "--precision", ""]), "int8 int4");
    assert_eq!(complete(&["hornbook", "generate", "--attention", "tw"]), "two-pass");
    assert_eq!(complete(&["hornbook", "generate", "--model", "fa"]), "fable");
    assert_eq!(complete(&["hornbook", "serve", "-m", "gpt2-m"]), "gpt2-medium");
}
