//! A flag goes before the environment, that before the project's file, that before the user's, that before what is
//! built in; and all of it shows in what the program computes.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A project's folder and a user's, and the program in them.
struct Place {
    project: TempDir,
    user: TempDir,
}

impl Place {
    fn new(project: &str, user: &str) -> Self {
        let place = Self { project: tempfile::tempdir().unwrap(), user: tempfile::tempdir().unwrap() };
        let folder = place.user.path().join("hornbook");
        fs::create_dir(&folder).unwrap();
        for (folder, text) in [(place.project.path(), project), (&folder, user)] {
            if !text.is_empty() {
                fs::write(folder.join("hornbook.toml"), text).unwrap();
            }
        }
        place
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

fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stdout.is_empty() && stderr.trim_end().lines().count() == 1, "{stderr}");
    stderr
}

/// The value and the origin of a setting, as `hornbook config` shows them.
fn shown(command: &mut Command, setting: &str) -> (Value, Value) {
    let all: Value = serde_json::from_str(&text(command)).unwrap();
    let found = all.as_array().unwrap().iter().find(|row| row["setting"] == setting).unwrap().clone();
    (found["value"].clone(), found["from"].clone())
}

const CONFIG: [&str; 2] = ["config", "--json"];

#[cfg(target_os = "linux")]
#[test]
fn each_place_goes_before_the_next() {
    let user = "threads = 1\n\n[sampling]\ntop_k = 11\ntemperature = 0.3\n";
    let place = Place::new("[sampling]\ntemperature = 0\n", user);
    let origin = |setting: &str| shown(&mut place.hornbook(&CONFIG), setting);
    let file = |folder: &Path| folder.join("hornbook.toml").canonicalize().unwrap();
    let (value, from) = origin("sampling.temperature");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("0"), Some(2)));
    assert_eq!(from["path"], file(place.project.path()).to_str().unwrap());
    let (value, from) = origin("sampling.top_k");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("11"), Some(4)));
    assert_eq!(from["path"], file(&place.user.path().join("hornbook")).to_str().unwrap());
    let (value, from) = origin("sampling.top_p");
    assert_eq!((value.as_str(), from["kind"].as_str()), (Some("0.95"), Some("built-in")));
    let mut command = place.hornbook(&CONFIG);
    let (value, from) = shown(command.env("HORNBOOK_TEMPERATURE", "0.9"), "sampling.temperature");
    assert_eq!((value.as_str(), from["name"].as_str()), (Some("0.9"), Some("HORNBOOK_TEMPERATURE")));

    // Below the project's folder its file holds as well; HORNBOOK_CONFIG takes the place of both.
    let below = place.project.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    let (value, _) = shown(place.hornbook(&CONFIG).current_dir(&below), "sampling.temperature");
    assert_eq!(value, "0");
    let (value, _) = shown(place.hornbook(&CONFIG).env("HORNBOOK_CONFIG", ""), "sampling.top_k");
    assert_eq!(value, "0");

    // What it says is what is done: the most likely text, whatever the seed, until a flag or a variable says otherwise.
    let args = ["generate", "Once upon a time", "--max-tokens", "20", "--seed"];
    let told = |more: &[&str], temperature: &str| {
        let mut command = place.hornbook(&[&args, more].concat());
        text(command.env("HORNBOOK_TEMPERATURE", temperature))
    };
    assert_eq!(told(&["1"], ""), told(&["2"], ""));
    assert_ne!(told(&["1"], "0.9"), told(&["2"], "0.9"));
    assert_eq!(told(&["1", "--temperature", "0"], "0.9"), told(&["2"], ""));
    let table = text(&mut place.hornbook(&["config"]));
    assert!(table.contains("sampling.temperature  ") && table.contains("hornbook.toml:2"), "{table}");
    let help = text(&mut place.hornbook(&["generate", "--help"]));
    assert!(help.contains("[default: 11]") && help.contains("[default: 1]"), "{help}");
}

#[test]
fn it_holds_wherever_the_option_exists() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new");
    let project = format!(
        "model = '{}'\nprecision = \"int8\"\nthreads = 1\n[sampling]\nmax_tokens = 3\n",
        tiny.display()
    );
    let place = Place::new(&project, "");
    let ids =
        text(&mut place.hornbook(&["generate", "--prompt-ids", "1,2", "--output", "ids", "--seed", "1"]));
    assert_eq!(ids.trim_end().split(',').count(), 3);
    let bench = ["bench", "--prompt", "8", "--depth", "8", "--batch", "1", "--repeat", "1", "--json"];
    let report: Value = serde_json::from_str(&text(&mut place.hornbook(&bench))).unwrap();
    assert_eq!(report["model"]["name"], "tiny-gelu-new");
    let results = report["results"].as_array().unwrap();
    assert!(results.iter().all(|row| row["precision"] == "int8" && row["threads"] == 1), "{report}");
    let line = refused(&mut place.hornbook(&["perplexity", tiny.join("config.json").to_str().unwrap()]));
    assert!(line.contains("'tiny-gelu-new' has no tokenizer"), "{line}");
    // An option that must be given is given, whatever a file says, and a shape needs no model.
    let line = refused(&mut place.hornbook(&["quantize", "fable", "-o", "x"]));
    assert!(line.contains("--precision"), "{line}");
    let mut serve = place.hornbook(&["serve", "--port", "0", "--alias", "x=fable"]);
    let line = refused(serve.env("HORNBOOK_MODEL", "fabel"));
    assert!(line.contains("model 'fabel' not found") && line.contains("did you mean 'fable'?"), "{line}");
}

#[test]
fn a_text_may_always_outgrow_the_context() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gelu-new"); // 96 positions
    let project = format!("model = '{}'\ncontext = \"shift\"\n", tiny.display());
    let place = Place::new(&project, "");
    let args =
        ["generate", "--prompt-ids", "1,2", "--output", "ids", "--max-tokens", "120", "--min-tokens", "120"];
    let tokens = |command: &mut Command| text(command).trim_end().split(',').count();
    assert_eq!(tokens(&mut place.hornbook(&args)), 120);
    assert_eq!(tokens(&mut place.hornbook(&[&args[..], &["--context", "stop"]].concat())), 94);
    assert_eq!(tokens(place.hornbook(&args).env("HORNBOOK_CONTEXT", "stop")), 94);
    let (value, from) = shown(&mut place.hornbook(&CONFIG), "context");
    assert_eq!((value.as_str(), from["line"].as_u64()), (Some("shift"), Some(2)));
    // Beams end with the context all the same, and the windows of `perplexity --context N` are another thing.
    assert!(tokens(&mut place.hornbook(&[&args[..], &["--beams", "2"]].concat())) <= 94);
    let story = place.project.path().join("story.txt");
    fs::write(&story, "Once upon a time there was a king.").unwrap();
    text(place.hornbook(&["perplexity", "--model", "fable"]).arg(&story));
    let line = refused(place.hornbook(&args).env("HORNBOOK_CONTEXT", "2048"));
    assert!(line.contains("HORNBOOK_CONTEXT: found 2048, expected stop or shift"), "{line}");
}

#[test]
fn what_is_wrong_is_said_once_with_its_line() {
    let story = ["generate", "Once", "--max-tokens", "1"];
    for (project, expected) in [
        ("modle = \"gpt2\"\n", "hornbook.toml:1: there is no setting 'modle'; did you mean 'model'?"),
        (
            "\n[sampling]\ntop_p = 7\n",
            "hornbook.toml:3: sampling.top_p: found 7, expected a number from 0 to 1",
        ),
        ("model = \"gpt2\n", "hornbook.toml:1: "),
    ] {
        let place = Place::new(project, "");
        for args in [&story[..], &["config"], &["models"]] {
            let line = refused(&mut place.hornbook(args));
            assert!(line.starts_with("hornbook: ") && line.contains(expected), "{line}");
        }
        // The way out stays open.
        for args in [&["--version"][..], &["generate", "--help"], &["completions", "bash"], &["man"]] {
            text(&mut place.hornbook(args));
        }
    }
    let place = Place::new("", "");
    let line = refused(place.hornbook(&story).env("HORNBOOK_THREADS", "many"));
    assert!(line.contains("HORNBOOK_THREADS: found many, expected a whole number from 1 to 1024"), "{line}");
    let line = refused(place.hornbook(&story).env("HORNBOOK_CONFIG", "/no/such.toml"));
    assert!(line.contains("/no/such.toml: cannot read"), "{line}");
    let output = place.hornbook(&["config"]).env("HORNBOOK_TEMPRATURE", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("HORNBOOK_TEMPRATURE, which is no setting; did you mean 'HORNBOOK_TEMPERATURE'?"),
        "{said}"
    );
}

#[test]
fn completions_and_manual_come_from_the_same_definitions() {
    let place = Place::new("", "");
    for (shell, parts) in [
        ("bash", &["complete -F _hornbook", "--top-p"][..]),
        ("zsh", &["#compdef hornbook", "--top-p"]),
        ("fish", &["complete -c hornbook", "top-p"]),
        ("powershell", &["Register-ArgumentCompleter", "--top-p"]),
    ] {
        let script = text(&mut place.hornbook(&["completions", shell]));
        for part in parts {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    let page = text(&mut place.hornbook(&["man", "generate"]));
    assert!(page.contains(".TH") && page.contains("top\\-p") && page.contains("Examples"), "{page}");
    let pages = place.project.path().join("pages");
    text(place.hornbook(&["man", "--dir"]).arg(&pages));
    for name in ["hornbook.1", "hornbook-generate.1", "hornbook-serve.1", "hornbook-keys-add.1"] {
        assert!(pages.join(name).exists(), "{name}");
    }
    let line = refused(&mut place.hornbook(&["man", "generat"]));
    assert!(line.contains("man: found 'generat', expected one of generate, "), "{line}");
    assert!(line.ends_with("; did you mean 'generate'?\n"), "{line}");
}

/// What a person gets who presses the tabulator.
#[cfg(target_os = "linux")]
#[test]
fn bash_completes_subcommands_options_and_values() {
    let place = Place::new("", "");
    let script = place.project.path().join("completions");
    fs::write(&script, text(&mut place.hornbook(&["completions", "bash"]))).unwrap();
    let complete = |words: &[&str]| {
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let asked = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _hornbook hornbook '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
        );
        text(Command::new("bash").args(["-c", &asked])).trim().to_string()
    };
    assert_eq!(complete(&["hornbook", "gen"]), "generate");
    assert_eq!(complete(&["hornbook", "generate", "--temp"]), "--temperature");
    assert_eq!(complete(&["hornbook", "generate", "--kv-precision", ""]), "f32 f16 int8");
}
