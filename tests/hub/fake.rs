//! A hub in this process: listings, redirects to another host, ETags, ranges, and everything that can go wrong.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const NAME: &str = "someone/tiny";

/// How the hub behaves.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Added to the listing, or put in place of what is there.
    pub listing: BTreeMap<&'static str, Value>,
    /// The SHA-256 that large files are said to have.
    pub announced: Option<String>,
    /// Statuses to answer with instead, one a request, by the end of the path; the last one stays where `forever`.
    pub statuses: Vec<(&'static str, u16)>,
    pub forever: bool,
    /// Bytes after which the connection of a large file breaks, one a request.
    pub cuts: Vec<usize>,
    /// Answers a request behind the start with the whole file.
    pub ignores_ranges: bool,
    /// Sends the first half of a large file and then nothing.
    pub falls_silent: bool,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    port: u16,
}

/// The hub, and a cache of its own for the program that asks it.
pub struct Fake {
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl Fake {
    /// Of the files of one of the tests' models, and a card.
    pub fn of(model: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model);
        let served = |name: &str| name.starts_with("model") || name == "config.json";
        let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), path))
            .filter(|(name, _)| served(name))
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect();
        files.insert("README.md".into(), b"# A tiny model".to_vec());
        files.insert("pytorch_model.bin".into(), b"never to be fetched".to_vec());
        Self::with(files)
    }

    pub fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { files, behaviour: Mutex::default(), seen: Mutex::default(), port });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, _runtime: runtime, folder: tempfile::tempdir().unwrap() }
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = Behaviour::default();
        change(&mut behaviour);
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// The requests since this was last asked.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    pub fn port(&self) -> u16 {
        self.shared.port
    }

    pub fn file(&self, name: &str) -> &[u8] {
        &self.shared.files[name]
    }

    pub fn cache(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    /// The cache's folder of the repository.
    pub fn repository(&self) -> PathBuf {
        self.cache().join("models--someone--tiny")
    }

    /// What was left of a large file.
    pub fn parts(&self) -> Vec<u64> {
        let blobs = fs::read_dir(self.repository().join("blobs")).into_iter().flatten().flatten();
        let parts =
            blobs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part"));
        parts.map(|part| part.metadata().unwrap().len()).collect()
    }

    /// `hornbook`, whose hub and cache are these.
    pub fn hornbook(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        self.prepare(command.args(args));
        command
    }

    pub fn prepare(&self, command: &mut Command) {
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port()));
        command.env("HF_HUB_CACHE", self.cache()).env("HF_HOME", self.folder.path());
        command.env("HORNBOOK_CONFIG", "").stdin(Stdio::null());
    }

    /// What a run that must succeed writes to standard output and to standard error.
    pub fn pulled(&self) -> (String, String) {
        let output = self.hornbook(&["pull", NAME]).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success(), "{stderr}");
        (stdout, stderr)
    }

    /// The one line of a run that must fail.
    pub fn refused(&self, args: &[&str]) -> String {
        refused(&mut self.hornbook(args))
    }
}

pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

pub fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = texts(&output);
    let one_line = stderr.starts_with("hornbook: ") && stderr.trim_end().lines().count() == 1;
    assert!(
        !output.status.success() && output.status.code().is_some() && stdout.is_empty(),
        "{command:?}: {stderr}"
    );
    assert!(one_line, "{command:?}: {stderr}");
    stderr
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

async fn answer(State(hub): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_string());
    let path = request.uri().path().to_string();
    let range = header("range");
    hub.seen.lock().unwrap().push(Seen {
        path: path.clone(),
        host: header("host").unwrap_or_default(),
        range: range.clone(),
        token: header("authorization"),
    });
    let status = {
        let mut behaviour = hub.behaviour.lock().unwrap();
        let forever = behaviour.forever;
        let at = behaviour.statuses.iter().position(|(end, _)| path.ends_with(end));
        at.map(|at| if forever { behaviour.statuses[at].1 } else { behaviour.statuses.remove(at).1 })
    };
    if let Some(status) = status {
        return plain(status, "no");
    }
    let behaviour = hub.behaviour.lock().unwrap().clone();
    let last = path.rsplit('/').next().unwrap().to_string();
    if path.starts_with("/api/models/") {
        return match path.starts_with("/api/models/someone/tiny/revision/") {
            true => listing(&hub, &behaviour),
            false => plain(404, "no such model"),
        };
    }
    let Some(content) = hub.files.get(&last) else { return plain(404, "no such file") };
    let commit = Response::builder().header("x-repo-commit", COMMIT);
    if path.contains("/resolve/") && is_large(&last) {
        // 127.0.0.1 and localhost are two hosts to a client.
        let elsewhere = format!("http://localhost:{}/cdn/{last}", hub.port);
        let etag = format!("\"{}\"", sha256(content));
        let redirect = commit.status(302).header("location", elsewhere).header("x-linked-etag", etag);
        return redirect.body(Body::empty()).unwrap();
    }
    if path.contains("/resolve/") {
        return commit.status(307).header("location", format!("/moved/{last}")).body(Body::empty()).unwrap();
    }
    let from =
        range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let probe = range.as_deref() == Some("bytes=0-0");
    let from = if behaviour.ignores_ranges && !probe { 0 } else { from.unwrap_or(0) };
    if from >= content.len() {
        return plain(416, "nothing is behind the end");
    }
    let to = if probe { 1 } else { content.len() };
    let piece = content[from..to].to_vec();
    let response = commit
        .status(if from == 0 && !probe { 200 } else { 206 })
        .header("etag", format!("\"{}\"", &sha256(content)[..40]))
        .header("content-range", format!("bytes {from}-{}/{}", to - 1, content.len()))
        .header(header::CONTENT_LENGTH, piece.len());
    if is_large(&last) && !probe {
        if behaviour.falls_silent {
            let half = Bytes::copy_from_slice(&piece[..piece.len() / 2]);
            let silence = stream::once(async move { Ok::<_, std::io::Error>(half) }).chain(stream::pending());
            return response.body(Body::from_stream(silence)).unwrap();
        }
        let cut = {
            let mut behaviour = hub.behaviour.lock().unwrap();
            (!behaviour.cuts.is_empty()).then(|| behaviour.cuts.remove(0))
        };
        if let Some(cut) = cut {
            let some = Bytes::copy_from_slice(&piece[..cut.min(piece.len())]);
            let broken = stream::iter([Ok(some), Err(std::io::Error::other("the cable was cut"))]);
            // What was sent must arrive before the connection ends.
            let slowly = broken.then(|item| async move {
                if item.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                item
            });
            return response.body(Body::from_stream(slowly)).unwrap();
        }
    }
    response.body(Body::from(piece)).unwrap()
}

fn plain(status: u16, text: &'static str) -> Response<Body> {
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(Body::from(text)).unwrap()
}

fn listing(hub: &Shared, behaviour: &Behaviour) -> Response<Body> {
    let siblings: Vec<Value> = hub
        .files
        .iter()
        .map(|(name, content)| {
            let mut file =
                json!({"rfilename": name, "size": content.len(), "blobId": &sha256(content)[..40]});
            if is_large(name) {
                let hash = behaviour.announced.clone().unwrap_or_else(|| sha256(content));
                file["lfs"] = json!({"sha256": hash, "size": content.len(), "pointerSize": 134});
            }
            file
        })
        .collect();
    let mut listing = json!({
        "id": NAME, "sha": COMMIT, "private": false, "gated": false, "siblings": siblings,
        "config": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    });
    for (key, value) in &behaviour.listing {
        listing[*key] = value.clone();
    }
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(listing.to_string()))
        .unwrap()
}
