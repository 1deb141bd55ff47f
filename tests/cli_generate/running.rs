//! What happens to a running program, which not every system does the same way.

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
