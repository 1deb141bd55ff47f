//! Files: uploads, lists, contents, deletion, and what is left of uploads that fail.

use super::client::{TestServer, fable, serve, wait};
use hornbook::server::key_file::add;
use hornbook::server::keys::Key;
use hornbook::server::{BoundServer, ServerOptions};
use serde_json::{Value, json};
use std::fs::{read_dir, read_to_string};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const EXAMPLE: &str = "{\"prompt\": \"A fox\", \"completion\": \" ran.\"}\n";

fn serve_store(store: &Path, configure: impl FnOnce(&mut ServerOptions)) -> TestServer {
    serve(&["tiny-gelu-new"], |options| {
        options.store = Some(store.into());
        configure(options);
    })
}

/// The names in the folder of all files.
fn names(store: &Path) -> Vec<String> {
    let entries = read_dir(store.join("files")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect()
}

#[test]
fn files_are_uploaded_listed_read_and_deleted_also_after_a_restart() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    // The fields as openai 0.28 sends them, and as today's client does.
    let old = server.upload(&[("purpose", "fine-tune"), ("model", "x")], "file", EXAMPLE.as_bytes()).ok();
    let fields =
        [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")];
    let binary: Vec<u8> = (0..300_000_u64).map(|i| ((i * i) >> 7) as u8).collect();
    let new = server.upload(&fields, "r\u{e9}sum\u{e9}.jsonl", &binary).ok();
    let by_default = server.upload(&[("purpose", "batch")], "b.jsonl", b"x").ok();
    let (old_id, new_id) = (old["id"].as_str().unwrap(), new["id"].as_str().unwrap());
    assert!(old_id.starts_with("file-"));
    let created_at = old["created_at"].as_u64().unwrap();
    assert_eq!(
        old,
        json!({"id": old_id, "object": "file", "bytes": EXAMPLE.len(), "created_at": created_at,
            "filename": "file", "purpose": "fine-tune", "status": "processed"})
    );
    let lifetime = |file: &Value| file["expires_at"].as_u64().unwrap() - file["created_at"].as_u64().unwrap();
    assert_eq!((lifetime(&new), lifetime(&by_default)), (3600, 30 * 24 * 3600));
    assert_eq!((&new["filename"], &new["bytes"]), (&json!("r\u{e9}sum\u{e9}.jsonl"), &json!(300_000)));
    let object = read_to_string(store.path().join("files").join(new_id).join("object.json")).unwrap();
    assert!(object.contains("\"sha256\"") && object.ends_with("}\n"), "{object}");
    assert_eq!(server.metric("hornbook_store_objects{kind=\"files\"}"), 3.0);
    assert!(server.metric("hornbook_store_bytes") > 300_000.0);

    drop(server);
    let server = serve_store(store.path(), |_| {});
    let by_default = by_default["id"].as_str().unwrap();
    let list = server.get("/v1/files").ok();
    assert_eq!(ids(&list), [by_default, new_id, old_id]);
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!((&list["first_id"], &list["last_id"]), (&json!(by_default), &json!(old_id)));
    assert_eq!(ids(&server.get("/v1/files?purpose=fine-tune").ok()), [old_id]);
    let page = server.get("/v1/files?limit=2&order=asc").ok();
    assert_eq!((ids(&page), &page["has_more"]), (vec![old_id, new_id], &json!(true)));
    let rest = server.get(&format!("/v1/files?limit=2&order=asc&after={new_id}")).ok();
    assert_eq!((ids(&rest), &rest["has_more"]), (vec![by_default], &json!(false)));
    assert_eq!(server.get(&format!("/v1/files/{old_id}")).ok(), old);
    let content = server.get(&format!("/v1/files/{old_id}/content"));
    assert_eq!((content.status, content.text.as_str()), (200, EXAMPLE));
    assert_eq!(content.header("content-disposition"), "attachment; filename=\"file\"");
    let mut stream = server.send(&format!(
        "GET /v1/files/{new_id}/content HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         accept: application/binary\r\n\r\n"
    ));
    let mut response = vec![];
    stream.read_to_end(&mut response).unwrap();
    assert!(response.ends_with(&binary));

    let deleted = server.delete(&format!("/v1/files/{old_id}")).ok();
    assert_eq!(deleted, json!({"id": old_id, "object": "file", "deleted": true}));
    assert_eq!(server.delete(&format!("/v1/files/{old_id}")).error().0, 404);
    assert_eq!(server.get(&format!("/v1/files/{old_id}/content")).error().0, 404);
    assert!(!names(store.path()).contains(&old_id.to_string()));
}

#[test]
fn unknown_files_are_404_and_without_store_the_flag_is_named() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    // openai 0.28 asks for the file whose id is the path of the user's file.
    for id in ["file-none", "data.jsonl", "%2Fhome%2Fme%2Fdata.jsonl", "..%2F..%2Flock", "%00", "a+b"] {
        for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
            let (status, kind, _, _) = server.get(&path).error();
            assert_eq!((status, kind.as_str()), (404, "invalid_request_error"), "{path}");
        }
    }
    assert_eq!(server.get("/v1/files/%ff").error().0, 400);
    for query in ["limit=0", "limit=10001", "limit=x", "after=batch_1", "order=newest"] {
        assert_eq!(server.get(&format!("/v1/files?{query}")).error().0, 400, "{query}");
    }
    let server = fable();
    for response in [
        server.get("/v1/files"),
        server.get("/v1/files/file-1"),
        server.delete("/v1/files/file-1"),
        server.upload(&[("purpose", "batch")], "a", b"a"),
    ] {
        assert_eq!(response.error().0, 404);
        assert!(response.text.contains("hornbook serve --store DIR"), "{}", response.text);
    }
}

#[test]
fn files_of_other_keys_do_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let (store, keys) = (folder.path().join("store"), folder.path().join("keys.toml"));
    let [alice, bob] = ["alice", "bob"].map(|name| add(&keys, &Key::named(name)).unwrap());
    let server = serve_store(&store, |options| options.key_file = Some(keys)).with_key(&alice);
    let file = server.upload(&[("purpose", "batch")], "a", b"a").ok();
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let server = server.with_key(&bob);
    assert_eq!(server.get(&path).error().0, 404);
    assert_eq!(server.get(&format!("{path}/content")).error().0, 404);
    assert_eq!(server.delete(&path).error().0, 404);
    assert_eq!(ids(&server.get("/v1/files").ok()).len(), 0);
    let server = server.with_key(&alice);
    assert_eq!(server.get(&path).ok(), file);
}

#[test]
fn invalid_upload_is_refused_by_name_and_leaves_nothing() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |_| {});
    let fine_tune = [("purpose", "fine-tune")];
    let anchor = |seconds| [("purpose", "batch"), ("expires_after[anchor]", "created_at"), seconds];
    let second_line = |line: &str| format!("{EXAMPLE}{line}\n").into_bytes();
    let long = "x".repeat(300);
    for (fields, filename, content, param, message) in [
        (&[][..], "a", b"a".to_vec(), "purpose", "missing, expected one of fine-tune, batch"),
        (&[("purpose", "answers")], "a", b"a".to_vec(), "purpose", "found \"answers\", expected one of"),
        (&[("purpose", "batch")], "a", vec![], "file", "found an empty file"),
        (&[("purpose", "batch")], &long, b"a".to_vec(), "file", "a file name of 300 characters"),
        (&fine_tune, "a", second_line("{\"prompt\": \"x\"}"), "file", "line 2: completion: found nothing"),
        (&fine_tune, "a", second_line("nonsense"), "file", "line 2: found no JSON object"),
        (&fine_tune, "a", b"\n\n".to_vec(), "file", "found no text"),
        (&anchor(("expires_after[seconds]", "60")), "a", b"a".to_vec(), "expires_after[seconds]", "\"60\""),
        (&anchor(("other", "1")), "a", b"a".to_vec(), "expires_after[seconds]", "found nothing"),
        (
            &[("purpose", "batch"), ("expires_after[seconds]", "3600")],
            "a",
            b"a".to_vec(),
            "expires_after[anchor]",
            "expected created_at",
        ),
    ] {
        let response = server.upload(fields, filename, &content);
        let (status, _, found, _) = response.error();
        assert_eq!((status, found.as_deref()), (400, Some(param)), "{}", response.text);
        let text = response.json()["error"]["message"].as_str().unwrap().to_string();
        assert!(text.contains(message) && !text.contains(".partial"), "{text}");
    }
    let json = server.post("/v1/files", json!({"purpose": "batch"}));
    assert_eq!(json.error().2.as_deref(), Some("Content-Type"));
    let header = "content-type: multipart/form-data; boundary=XX\r\n";
    let only_purpose = "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--XX--";
    for (body, param) in [(only_purpose, Some("file")), ("--XX\r\n", None), ("nonsense", None)] {
        assert_eq!(server.raw("POST /v1/files", header, body).error().2.as_deref(), param, "{body}");
    }
    assert!(names(store.path()).is_empty() && ids(&server.get("/v1/files").ok()).is_empty());
}

#[test]
fn size_is_limited_by_file_and_store_and_not_by_the_limit_of_other_bodies() {
    let store = tempfile::tempdir().unwrap();
    let server = serve_store(store.path(), |options| {
        options.http.max_body_bytes = 1000;
        options.http.max_file_bytes = 3 << 20;
        options.store_max_bytes = Some(4 << 20);
    });
    let upload = |bytes: usize| server.upload(&[("purpose", "user_data")], "a", &vec![7; bytes]);
    assert_eq!(upload((3 << 20) + 1).error().0, 413);
    assert_eq!(upload(10 << 20).error().0, 413);
    upload(3 << 20).ok();
    let full = upload(2 << 20);
    let (status, kind, _, code) = full.error();
    assert_eq!((status, kind.as_str(), code.as_deref()), (507, "server_error", Some("insufficient_storage")));
    assert_eq!(full.header("x-should-retry"), "false");
    assert_eq!(names(store.path()).len(), 1);
    let id = server.get("/v1/files").ok()["last_id"].as_str().unwrap().to_string();
    server.delete(&format!("/v1/files/{id}")).ok();
    upload(2 << 20).ok();
}

/// Begins an upload that says that it has many bytes.
fn begin_upload(server: &TestServer) -> std::net::TcpStream {
    server.send(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\
         content-type: multipart/form-data; boundary=XX\r\n\r\n\
         --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\
         some of the content",
    )
}

#[test]
fn upload_may_take_longer_than_a_body_and_one_that_stops_leaves_nothing() {
    let store = tempfile::tempdir().unwrap();
    let pause = Duration::from_millis(600);
    let server = serve_store(store.path(), |options| options.http.body_timeout = pause);
    let mut slow = server.send(
        "POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         content-type: multipart/form-data; boundary=XX\r\n\r\n",
    );
    let mut send = |text: &str| {
        write!(slow, "{:x}\r\n{text}\r\n", text.len()).unwrap();
        std::thread::sleep(pause / 6);
    };
    send("--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n");
    (0..9).for_each(|_| send("12345"));
    send("\r\n--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nvision\r\n--XX--");
    slow.write_all(b"0\r\n\r\n").unwrap();
    let mut response = String::new();
    slow.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("\"bytes\":45"), "{response}");
    assert_eq!(names(store.path()).len(), 1);

    let mut stalled = begin_upload(&server);
    wait("the upload's begin", || names(store.path()).len() == 2);
    let mut response = [0; 12];
    stalled.read_exact(&mut response).unwrap();
    assert_eq!(std::str::from_utf8(&response), Ok("HTTP/1.1 408"));
    wait("the end of the stalled upload", || names(store.path()).len() == 1);
    let cut = begin_upload(&server);
    wait("the upload's begin", || names(store.path()).len() == 2);
    drop(cut);
    wait("the end of the cut upload", || names(store.path()).len() == 1);
}

#[test]
fn second_server_refuses_the_store() {
    let store = tempfile::tempdir().unwrap();
    let _server = serve_store(store.path(), |_| {});
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions { address, store: Some(store.path().into()), ..Default::default() };
    let error = BoundServer::bind(options).err().unwrap().to_string();
    assert!(
        error.ends_with(": another server has this store open; stop it, or choose another --store"),
        "{error}"
    );
}
