//! Connections that break, answers that are wrong, disks that are full: what is here stays, what is wrong goes.

use super::fake::{COMMIT, Fake, NAME, refused, sha256, texts};
use std::fs;
use std::process::Command;

const WEIGHTS: &str = "model.safetensors";

/// Where the large file was asked for, from which byte on; the question for its size aside.
fn starts(hub: &Fake) -> Vec<usize> {
    let of_weights = hub.seen().into_iter().filter(|seen| seen.path.starts_with("/cdn/"));
    let ranges = of_weights.filter_map(|seen| seen.range).filter(|range| range != "bytes=0-0");
    ranges.map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap()).collect()
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| hub.cuts = vec![1000, 2000, 3000]);
    hub.pulled();
    assert_eq!(starts(&hub), [0, 1000, 3000, 6000]);
    assert_eq!(
        fs::read(hub.repository().join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap(),
        hub.file(WEIGHTS)
    );
}

#[test]
fn what_is_here_stays_for_the_next_run() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| hub.cuts = [[5000].as_slice(), &[0; 20]].concat());
    let line = hub.refused(&["pull", NAME]);
    assert!(line.contains("cannot reach") && line.contains("resume"), "{line}");
    assert_eq!(hub.parts(), [5000]);
    assert!(!hub.repository().join("refs/main").exists(), "the model has a name before it is complete");
    let line = hub.refused(&["generate", "-m", NAME, "--prompt-ids", "1"]);
    assert!(line.contains("`hornbook pull`"), "{line}");
    hub.seen();

    hub.behave(|_| ());
    let (_, stderr) = hub.pulled();
    assert_eq!(starts(&hub), [5000]);
    assert!(hub.parts().is_empty() && stderr.contains("downloaded"), "{stderr}");
}

#[test]
fn a_part_that_is_whole_or_too_long_does_not_stand_in_the_way() {
    for (more, expected) in [(0, -1), (7, 0)] {
        let hub = Fake::of("tiny-gelu-new");
        let weights = hub.file(WEIGHTS);
        let blobs = hub.repository().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let part = blobs.join(sha256(weights)).with_extension("part");
        fs::write(part, [weights, &vec![0; more][..]].concat()).unwrap();
        hub.pulled();
        let start = if expected == 0 { 0 } else { weights.len() - 1 };
        assert_eq!(starts(&hub), [start]);
    }
}

#[test]
fn a_wrong_hash_is_refused_and_nothing_of_it_is_kept() {
    let hub = Fake::of("tiny-gelu-new");
    let announced = sha256(b"something else");
    hub.behave(|hub| hub.announced = Some(announced.clone()));
    let line = hub.refused(&["pull", NAME]);
    let found = sha256(hub.file(WEIGHTS));
    assert!(line.contains(&format!("found SHA-256 {found}, expected SHA-256 {announced}")), "{line}");
    assert_eq!(starts(&hub), [0]);
    assert!(!hub.repository().join("blobs").join(&found).exists() && hub.parts().is_empty());
    assert!(!hub.repository().join("refs/main").exists());
}

#[test]
fn a_part_of_another_file_is_thrown_away_and_the_file_fetched_again() {
    let hub = Fake::of("tiny-gelu-new");
    let blobs = hub.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(hub.file(WEIGHTS))).with_extension("part"), [7; 4000]).unwrap();
    hub.pulled();
    assert_eq!(starts(&hub), [4000, 0]);
}

#[test]
fn a_server_that_knows_no_ranges_is_asked_for_the_whole_file() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| (hub.cuts, hub.ignores_ranges) = (vec![1000], true));
    hub.pulled();
    assert_eq!(starts(&hub), [0, 1000, 0]);
}

#[test]
fn a_file_that_was_changed_in_the_cache_is_repaired() {
    let hub = Fake::of("tiny-gelu-new");
    hub.pulled();
    let file = hub.repository().join("snapshots").join(COMMIT).join(WEIGHTS).canonicalize().unwrap();
    let mut content = fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&file, &content).unwrap();
    let (_, stderr) = hub.pulled();
    assert!(stderr.contains("downloaded"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), hub.file(WEIGHTS));
}

#[test]
fn silence_is_not_waited_for() {
    let hub = Fake::of("tiny-gelu-new");
    hub.behave(|hub| hub.falls_silent = true);
    let mut command = hub.hornbook(&["pull", NAME]);
    let line = refused(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert!(line.contains("for 1 seconds"), "{line}");
    assert_eq!(hub.parts(), [hub.file(WEIGHTS).len() as u64 / 2]);
}

/// Every file larger than so many KiB is as on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_and_what_is_here_stays() {
    let hub = Fake::of("tiny-gelu-new");
    let mut command = Command::new("bash");
    let script = r#"trap "" XFSZ; ulimit -f 8; exec "$@""#;
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_hornbook"), "pull", NAME]);
    hub.prepare(&mut command);
    let line = refused(&mut command);
    assert!(line.contains("cannot write: File too large") && line.contains("HF_HUB_CACHE"), "{line}");
    assert_eq!(hub.parts(), [8 << 10]);
    hub.seen();
    hub.pulled();
    assert_eq!(starts(&hub), [8 << 10]);
}

/// Root may write anywhere: there, `setpriv` makes somebody else of the program.
#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let hub = Fake::of("tiny-gelu-new");
    fs::create_dir_all(hub.cache()).unwrap();
    let mode = |mode| fs::set_permissions(hub.cache(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let writable = fs::write(hub.cache().join("x"), "").is_ok();
    let mut command = match writable {
        false => hub.hornbook(&["pull", NAME]),
        true => {
            fs::remove_file(hub.cache().join("x")).unwrap();
            fs::set_permissions(hub.cache().parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                "65534",
                "--clear-groups",
                env!("CARGO_BIN_EXE_hornbook"),
                "pull",
                NAME,
            ]);
            hub.prepare(&mut command);
            match command.output() {
                Ok(output) if !texts(&output).1.contains("setpriv") => command,
                _ => return eprintln!("skipped: root may write anywhere, and there is no setpriv"),
            }
        }
    };
    let line = refused(&mut command);
    assert!(
        line.contains("cannot write: Permission denied") && line.contains("set HF_HUB_CACHE to a writable"),
        "{line}"
    );
    mode(0o755);
}
