//! Closed pipes, interrupts and terminals (Unix).

use super::{BINARY, PROMPT};
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// A run that does not end by itself.
fn spawn_endless() -> Child {
    Command::new(BINARY)
        .args(["generate", PROMPT, "-n", "100000", "--max-tokens", "200"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn stderr_of(child: &mut Child) -> String {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    stderr
}

#[test]
fn closed_pipe_ends_generate_without_error() {
    let mut child = spawn_endless();
    let mut five = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut five).unwrap(); // the pipe is closed here
    assert_eq!(stderr_of(&mut child), "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A standard error that nobody reads, and one on a full disk.
#[cfg(target_os = "linux")]
fn unwritable_stderr() -> [Stdio; 2] {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    [closed.into(), std::fs::File::options().write(true).open("/dev/full").unwrap().into()]
}

#[cfg(target_os = "linux")]
#[test]
fn unwritable_stderr_loses_notes_and_nothing_else() {
    let with_notes = ["generate", PROMPT, "--seed=1", "--max-tokens=3", "--logprobs=3"];
    let expected = Command::new(BINARY).args(with_notes).output().unwrap();
    assert!(expected.status.success() && !expected.stderr.is_empty());
    for stderr in unwritable_stderr() {
        let output = Command::new(BINARY).args(with_notes).stderr(stderr).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(0), expected.stdout.clone()));
    }
    for (arguments, code) in [(["models", "--no-such-flag"], 2), (["tokens", "--model=/no/such/folder"], 1)] {
        for stderr in unwritable_stderr() {
            let status = Command::new(BINARY).args(arguments).stdin(Stdio::null()).stderr(stderr).status();
            assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn interrupt_keeps_text_generated_so_far() {
    let mut child = spawn_endless();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0; 5];
    stdout.read_exact(&mut text).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    stdout.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.len() > 5 && text.ends_with('\n'), "{text:?}");
    assert_eq!(stderr_of(&mut child), "");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Uses `script` of util-linux for a terminal.
#[cfg(target_os = "linux")]
#[test_with::executable(script)]
#[test]
fn generate_without_prompt_on_terminal_shows_hint() {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("'{BINARY}' generate"), "/dev/null"]).stdin(Stdio::null());
    let output = script.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(
        shown.contains("requires a prompt") && shown.contains("hornbook generate \"Once upon"),
        "{shown}"
    );
    assert_eq!(output.status.code(), Some(2), "{shown}");
}
