use super::*;
use crate::server::query::Query;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    expires_at: Option<u64>,
}

impl Object for Note {
    const KIND: &'static str = "notes";
    const ID_PREFIX: &'static str = "note-";

    fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }
}

fn note(text: &str) -> Note {
    Note { text: text.into(), expires_at: None }
}

fn open(root: &Path, max_bytes: Option<u64>) -> (Arc<Store>, Collection<Note>) {
    let store = Store::open(root, max_bytes).unwrap();
    let notes = Collection::open(&store).unwrap();
    (store, notes)
}

fn texts(entries: &[Arc<Entry<Note>>]) -> Vec<&str> {
    entries.iter().map(|entry| entry.value.text.as_str()).collect()
}

#[test]
fn objects_are_found_again_by_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new/store");
    let (store, notes) = open(&root, None);
    let first = notes
        .create("alice", |folder| {
            fs::write(folder.join("content"), "hello").unwrap();
            Ok(note("one"))
        })
        .unwrap();
    let second = notes.create("alice", |_| Ok(note("two"))).unwrap();
    notes.create("bob", |_| Ok(note("three"))).unwrap();
    assert_eq!(first.id.len(), "note-".len() + 24);
    assert_eq!(
        notes.update(&second.id, |note| std::mem::replace(&mut note.text, "2".into())).unwrap().unwrap(),
        "two"
    );
    assert_eq!(notes.update("note-none", |_| ()).unwrap(), None);
    drop((store, notes));

    let (_store, notes) = open(&root, None);
    assert_eq!(texts(&notes.list("alice")), ["2", "one"]);
    assert_eq!(texts(&notes.list("bob")), ["three"]);
    assert_eq!(texts(&notes.all()), ["one", "2", "three"]);
    assert_eq!(notes.get("alice", &first.id).unwrap(), first);
    assert_eq!(fs::read(notes.folder(&first.id).join("content")).unwrap(), b"hello");
    assert!(notes.get("bob", &first.id).is_none() && !notes.remove("bob", &first.id).unwrap());
    assert!(notes.get("alice", "../alice").is_none());
    assert!(notes.remove("alice", &first.id).unwrap() && !notes.remove("alice", &first.id).unwrap());
    assert!(!notes.folder(&first.id).exists());
    let later = notes.create("alice", |_| Ok(note("four"))).unwrap();
    assert!(later.id > second.id);
    assert_eq!(texts(&notes.list("alice")), ["four", "2"]);
}

#[test]
fn second_server_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path(), None).unwrap();
    let error = Store::open(folder.path(), None).unwrap_err().to_string();
    let expected = ": another server has this store open; stop it, or choose another --store";
    assert_eq!(error, folder.path().display().to_string() + expected);
    drop(first);
    Store::open(folder.path(), None).unwrap();
    let file = folder.path().join("lock");
    assert!(Store::open(&file, None).unwrap_err().to_string().starts_with(&file.display().to_string()));
}

#[test]
fn leftovers_of_a_kill_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = open(folder.path(), None);
    let kept = notes.create("", |_| Ok(note("kept"))).unwrap();
    let used = store.used_bytes();
    // What a kill leaves: a draft, an object half removed, and a file half written.
    let mut draft = notes.draft("").unwrap();
    draft.reserve(1000).unwrap();
    fs::write(draft.folder().join("content"), "half").unwrap();
    std::mem::forget(draft);
    let removed = folder.path().join("notes/.partial-note-1");
    fs::create_dir(&removed).unwrap();
    fs::write(removed.join("content"), "half").unwrap();
    fs::write(notes.folder(&kept.id).join(".hornbook-1.partial"), "half").unwrap();
    // The forgotten draft keeps the store open: only a kill ends both.
    let store_after = Arc::new(Store {
        root: folder.path().into(),
        max_bytes: None,
        used_bytes: AtomicU64::new(0),
        _lock: tempfile::tempfile().unwrap(),
    });
    let notes_after = Collection::<Note>::open(&store_after).unwrap();
    assert_eq!(texts(&notes_after.all()), ["kept"]);
    assert_eq!(store_after.used_bytes(), used);
    let names = fs::read_dir(folder.path().join("notes")).unwrap();
    assert_eq!(names.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [kept.id.as_str()]);
    assert_eq!(fs::read_dir(notes.folder(&kept.id)).unwrap().count(), 1);
}

#[test]
fn draft_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = open(folder.path(), None);
    let failed = notes.create("", |folder| {
        fs::write(folder.join("content"), "half").unwrap();
        Err(Error::Prompt("no".into()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!((store.used_bytes(), notes.all().len()), (0, 0));
    assert_eq!(fs::read_dir(folder.path().join("notes")).unwrap().count(), 0);
}

#[test]
fn unreadable_object_is_named_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = open(folder.path(), None);
    let id = notes.create("", |_| Ok(note("a"))).unwrap().id.clone();
    let file = notes.folder(&id).join("object.json");
    let json = fs::read_to_string(&file).unwrap();
    let other_id = json.replace(&id, "note-other");
    for (text, problem) in [
        ("", "is no object of this store: EOF"),
        ("{\"id\": 3}", "is no object of this store: invalid type: integer `3`, expected a string"),
        (&other_id, "id: found \"note-other\", expected \"note-"),
    ] {
        fs::write(&file, text).unwrap();
        let error = Collection::<Note>::open(&store).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: {problem}", file.display())) && !error.contains('\n'),
            "{error}"
        );
    }
    fs::remove_file(&file).unwrap();
    let error = Collection::<Note>::open(&store).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot read: ", file.display())), "{error}");
}

#[test]
fn quota_limits_all_files_together() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = open(folder.path(), Some(3000));
    let write = |bytes: usize| {
        notes.create("", |folder| {
            fs::write(folder.join("content"), vec![0; bytes]).unwrap();
            Ok(note("a"))
        })
    };
    let first = write(1500).unwrap();
    assert!(store.used_bytes() > 1500 && store.free_bytes().unwrap() < 1500);
    let error = write(1500).unwrap_err();
    let Error::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::QuotaExceeded);
    assert!(error.to_string().contains("of at most 3000 bytes (--store-max-bytes)"), "{error}");
    let mut draft = notes.draft("").unwrap();
    draft.reserve(1000).unwrap();
    assert!(draft.reserve(1000).is_err());
    drop(draft);
    // What grows beside `object.json` is measured by the next update, which always succeeds.
    let used = store.used_bytes();
    fs::write(notes.folder(&first.id).join("content"), vec![0; 5000]).unwrap();
    notes.update(&first.id, |_| ()).unwrap();
    assert_eq!((store.used_bytes(), store.free_bytes()), (used + 3500, Some(0)));
    notes.remove("", &first.id).unwrap();
    assert_eq!(store.used_bytes(), 0);
    write(1500).unwrap();
}

#[test]
fn expired_object_does_not_exist_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, notes) = open(folder.path(), None);
    let with_expiry = |text: &str, expires_at| Note { text: text.into(), expires_at: Some(expires_at) };
    let old = notes.create("", |_| Ok(with_expiry("old", unix_time() - 1))).unwrap();
    notes.create("", |_| Ok(with_expiry("new", unix_time() + 1000))).unwrap();
    assert!(notes.get("", &old.id).is_none());
    assert_eq!((texts(&notes.list("")), texts(&notes.all())), (vec!["new"], vec!["new"]));
    let used = store.used_bytes();
    assert_eq!(notes.remove_expired().unwrap(), 1);
    assert!(!notes.folder(&old.id).exists() && store.used_bytes() < used);
    assert_eq!(notes.remove_expired().unwrap(), 0);
}

#[test]
fn pages_cover_the_list_in_both_orders_while_items_are_deleted() {
    let ids: Vec<String> = (0..10).rev().map(|i| format!("note-{i}")).collect();
    for order in ["asc", "desc"] {
        let (mut all, mut after) = (ids.clone(), "note-".to_string() + if order == "asc" { "" } else { "z" });
        let mut seen = vec![];
        loop {
            let query = format!("limit=3&order={order}&after={after}");
            let query = PageQuery::new(&Query::parse(&query), "note-", 20, 100).unwrap();
            let page = serde_json::to_value(query.page(all.clone(), |id| id)).unwrap();
            let data: Vec<String> = serde_json::from_value(page["data"].clone()).unwrap();
            assert_eq!((&page["first_id"], &page["object"]), (&data[0].as_str().into(), &"list".into()));
            all.retain(|id| !data.contains(id));
            after = page["last_id"].as_str().unwrap().into();
            seen.extend(data);
            if page["has_more"] == false {
                break;
            }
        }
        if order == "asc" {
            seen.reverse();
        }
        assert_eq!(seen, ids);
    }
    let query = PageQuery::new(&Query::default(), "note-", 20, 100).unwrap();
    let empty = query.page(vec![], |id: &String| id);
    assert_eq!(
        serde_json::to_value(empty).unwrap(),
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
    );
    for (query, param) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("order=up", "order"), ("after=x", "after")]
    {
        let error = PageQuery::new(&Query::parse(query), "note-", 20, 100).unwrap_err().json();
        assert!(error.contains(&format!("\"param\":\"{param}\"")), "{error}");
    }
}
