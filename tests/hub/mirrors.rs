//! Mirrors of the hub that announce less than the hub does, as `huggingface_hub` accepts them.

use super::fake_hub::{COMMIT, FakeHub, NAME, sha256};
use std::collections::BTreeMap;
use std::fs;

const WEIGHTS: &str = "model.safetensors";

fn pulled(hub: &FakeHub, name: &str) -> Vec<u8> {
    fs::read(hub.repository().join("snapshots").join(COMMIT).join(name)).unwrap()
}

#[test]
fn mirror_without_ranges_is_pulled() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.ignores_ranges = true);
    hub.pull();
    assert_eq!(pulled(&hub, WEIGHTS), hub.file(WEIGHTS));
}

#[test]
fn file_list_without_sizes_is_verified_by_linked_etag() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.set_behavior(|hub| hub.lists_names_only = true);
    hub.pull();
    assert_eq!(pulled(&hub, WEIGHTS), hub.file(WEIGHTS));

    // A second pull asks for sizes and hashes alone.
    hub.take_requests();
    let (_, stderr) = hub.pull();
    assert!(stderr.contains("already in the cache"), "{stderr}");
    // A redirect of the hub, and the file.
    let downloads = |hub: &FakeHub| {
        let requests = hub.take_requests().into_iter();
        requests.filter(|request| request.method == "GET" && !request.path.starts_with("/api/")).count() / 2
    };
    assert_eq!(downloads(&hub), 0);

    let weights = hub.repository().join("snapshots").join(COMMIT).join(WEIGHTS).canonicalize().unwrap();
    let mut corrupt = hub.file(WEIGHTS).to_vec();
    corrupt[1000] ^= 1;
    fs::write(&weights, &corrupt).unwrap();
    hub.pull();
    assert!(downloads(&hub) == 1 && fs::read(weights).unwrap() == hub.file(WEIGHTS));

    fs::remove_dir_all(hub.repository()).unwrap();
    let announced = sha256(b"something else");
    hub.set_behavior(|hub| (hub.lists_names_only, hub.announced_sha256) = (true, Some(announced.clone())));
    let line = hub.error_line(&["pull", NAME]);
    assert!(line.contains(&format!("expected SHA-256 {announced}")), "{line}");
}

#[test]
fn empty_file_is_pulled() {
    for lists_names_only in [false, true] {
        let model = FakeHub::with_model("tiny-gelu-new");
        let names = ["config.json", WEIGHTS];
        let mut files: BTreeMap<_, _> =
            names.iter().map(|name| (name.to_string(), model.file(name).to_vec())).collect();
        files.insert("README.md".into(), vec![]);
        let hub = FakeHub::with_files(files);
        hub.set_behavior(|hub| hub.lists_names_only = lists_names_only);
        hub.pull();
        assert_eq!(pulled(&hub, "README.md"), b"");
    }
}

#[test]
fn mirror_that_serves_weights_with_weak_etags_is_pulled() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    for lists_names_only in [false, true] {
        hub.set_behavior(|hub| {
            (hub.serves_large_files, hub.lists_names_only) = (true, lists_names_only);
            hub.cut_after = vec![1000];
        });
        hub.pull();
        assert_eq!(pulled(&hub, WEIGHTS), hub.file(WEIGHTS));
        fs::remove_dir_all(hub.repository()).unwrap();
    }
}

#[test]
fn content_of_another_revision_is_linked_without_download() {
    let hub = FakeHub::with_model("tiny-gelu-new");
    hub.pull();
    fs::remove_dir_all(hub.repository().join("snapshots")).unwrap();
    let (_, stderr) = hub.pull();
    assert!(stderr.contains("already in the cache"), "{stderr}");
    assert_eq!(pulled(&hub, WEIGHTS), hub.file(WEIGHTS));
}
