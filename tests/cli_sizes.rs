//! Sizes beyond the memory: each is refused in one line before anything is allocated.

use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");

#[test]
fn size_beyond_memory_is_one_line_error() {
    for (args, problem) in [
        ("heads --sequences 18446744073709551615", "--sequences: found 18446744073709551615, which takes"),
        ("heads --sequences 9999999999999", "--sequences: found 9999999999999, which takes"),
        ("bench --repeat 99999999999", "--repeat: found 99999999999, which takes"),
        (
            "bench attention --repeat 18446744073709551615",
            "--repeat: found 18446744073709551615, which takes",
        ),
        ("bench roofline --repeat 99999999999", "--repeat: found 99999999999, which takes"),
        ("bench train --repeat 99999999999", "--repeat: found 99999999999, which takes"),
        ("bench train --batch 99999999", "--batch: found 99999999, which takes"),
        ("bench --batch 99999999 --repeat 1 --prompt 1", "--batch: found 99999999, which takes"),
        ("generate x --beams 2000000", "--beams: found 2000000, which takes"),
        ("generate x --beams 18446744073709551615", "--beams: found 18446744073709551615, which takes"),
        (
            "bench attention --seq 400000 --heads 1 --kernels textbook",
            "--seq: found 400000 with --kernels textbook, which takes",
        ),
        (
            "batch - --max-concurrency 18446744073709551615",
            "invalid value '18446744073709551615' for '--max-concurrency",
        ),
        ("bench --threads 1024,1025 --repeat 1", "--threads: found 1025, expected at most 1024"),
        ("serve --port 0 --max-concurrency 65537", "invalid value '65537' for '--max-concurrency"),
        ("health --timeout 9223372036854775807", "invalid value '9223372036854775807' for '--timeout"),
        ("inspect x --width 18446744073709551615", "--width: found 18446744073709551615, expected 40 to"),
        ("tokens x --width 18446744073709551615", "--width: found 18446744073709551615, expected 40 to"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(args.split(' ')).env("HORNBOOK_CONFIG", "").stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{args}: {stderr}");
        assert!(stdout.is_empty() && stderr.starts_with(&format!("hornbook: {problem}")), "{args}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// With a limit on the address space, as in a batch system, sizes are checked against that limit.
#[cfg(target_os = "linux")]
#[test]
fn size_beyond_limit_of_process_is_one_line_error() {
    let script = r#"ulimit -v 4000000; exec "$0" generate x --beams 2000"#;
    let mut command = Command::new("bash");
    let output = command.args(["-c", script, PROGRAM]).env("HORNBOOK_CONFIG", "").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("hornbook: --beams: found 2000, which takes"), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
}
