//! Lost connections, corrupt files, full disks: partial files are kept, corrupt files are removed.

use super::fake_hub::{COMMIT, FakeHub, NAME, error_line, sha256};
use std::fs;
use std::process::Command;

const WEIGHTS: &str = "model.safetensors";

/// The first bytes requested of the large file, one per request.
fn range_starts(hub: &FakeHub) -> Vec<usize> {
    let requests = hub.take_requests().into_iter().filter(|request| request.path.starts_with("/cdn/"));
    let start = |range: &str| range["bytes=".len()..].trim_end_matches('-').parse().unwrap();
    requests.map(|request| request.range.as_deref().map_or(0, start)).collect()
}

#[test]
fn lost_connection_is_resumed() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.cut_after = vec![1000, 2000, 3000]);
    hub.pull();
    assert_eq!(range_starts(&hub), [0, 1000, 3000, 6000]);
    assert_eq!(
        fs::read(hub.repository().join("snapshots").join(COMMIT).join(WEIGHTS)).unwrap(),
        hub.file(WEIGHTS)
    );
}

#[test]
fn partial_file_is_resumed_by_next_run() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.cut_after = [[5000].as_slice(), &[0; 20]].concat());
    let line = hub.error_line(&["pull", NAME]);
    assert!(line.contains("cannot reach") && line.contains("resume"), "{line}");
    assert_eq!(hub.partial_sizes(), [5000]);
    assert!(
        !hub.repository().join("refs/main").exists(),
        "the ref was written before the snapshot was complete"
    );
    let line = hub.error_line(&["generate", "-m", NAME, "--prompt-ids", "1"]);
    assert!(line.contains("`hornbook pull`"), "{line}");
    hub.take_requests();

    hub.set_behavior(|_| ());
    let (_, stderr) = hub.pull();
    assert_eq!(range_starts(&hub), [5000]);
    assert!(hub.partial_sizes().is_empty() && stderr.contains("downloaded"), "{stderr}");
}

#[test]
fn complete_or_oversized_partial_file_is_handled() {
    for (excess, expected) in [(0, -1), (7, 0)] {
        let hub = FakeHub::with_model("tiny-gelu-new");
        let weights = hub.file(WEIGHTS);
        let blobs = hub.repository().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let partial = blobs.join(sha256(weights)).with_extension("part");
        fs::write(partial, [weights, &vec![0; excess][..]].concat()).unwrap();
        hub.pull();
        let start = if expected == 0 { 0 } else { weights.len() - 1 };
        assert_eq!(range_starts(&hub), [start]);
    }
}

#[test]
fn wrong_hash_is_rejected_and_file_removed() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let announced = sha256(b"something else");
    hub.set_behavior(|hub| hub.announced_sha256 = Some(announced.clone()));
    let line = hub.error_line(&["pull", NAME]);
    let found = sha256(hub.file(WEIGHTS));
    assert!(line.contains(&format!("found SHA-256 {found}, expected SHA-256 {announced}")), "{line}");
    assert_eq!(range_starts(&hub), [0]);
    assert!(!hub.repository().join("blobs").join(&found).exists() && hub.partial_sizes().is_empty());
    assert!(!hub.repository().join("refs/main").exists());
}

#[test]
fn foreign_partial_file_is_discarded_and_file_downloaded_again() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let blobs = hub.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(hub.file(WEIGHTS))).with_extension("part"), [7; 4000]).unwrap();
    hub.pull();
    assert_eq!(range_starts(&hub), [4000, 0]);
}

#[test]
fn server_without_ranges_sends_complete_file() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| (hub.cut_after, hub.ignores_ranges) = (vec![1000], true));
    hub.pull();
    assert_eq!(range_starts(&hub), [0, 1000]);
}

#[test]
fn corrupt_cached_file_is_downloaded_again() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.pull();
    let file = hub.repository().join("snapshots").join(COMMIT).join(WEIGHTS).canonicalize().unwrap();
    let mut content = fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&file, &content).unwrap();
    let (_, stderr) = hub.pull();
    assert!(stderr.contains("downloaded"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), hub.file(WEIGHTS));
}

#[test]
fn stalled_download_times_out() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.stalls = true);
    let mut command = hub.hornbook(&["pull", NAME]);
    let line = error_line(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert!(line.contains("for 1 seconds"), "{line}");
    assert_eq!(hub.partial_sizes(), [hub.file(WEIGHTS).len() as u64 / 2]);
}

/// `ulimit -f` limits the file size to 8 KiB, as a full disk would.
#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_one_line_error_and_partial_file_is_kept() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    let mut command = Command::new("bash");
    let script = r#"trap "" XFSZ; ulimit -f 8; exec "$@""#;
    command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_hornbook"), "pull", NAME]);
    hub.set_environment(&mut command);
    let line = error_line(&mut command);
    assert!(line.contains("cannot write: File too large") && line.contains("HF_HUB_CACHE"), "{line}");
    assert_eq!(hub.partial_sizes(), [8 << 10]);
    hub.take_requests();
    hub.pull();
    assert_eq!(range_starts(&hub), [8 << 10]);
}

/// Root may write anywhere, so `setpriv` runs the program as another user.
#[cfg(target_os = "linux")]
#[test_with::executable(setpriv)]
#[test]
fn unwritable_cache_is_one_line_error() {
    use std::os::unix::fs::PermissionsExt;
    let hub = FakeHub::with_model("tiny-gelu-new");
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
            hub.set_environment(&mut command);
            command
        }
    };
    let line = error_line(&mut command);
    assert!(
        line.contains("cannot write: Permission denied") && line.contains("set HF_HUB_CACHE to a writable"),
        "{line}"
    );
    mode(0o755);
}
