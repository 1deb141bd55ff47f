//! A fake hub in this process: model info, redirects to another host, ETags, range requests, and injected
//! faults.

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

/// The hub's behavior.
#[derive(Clone, Default)]
pub struct Behavior {
    /// Fields added to the model info, or replaced in it.
    pub model_info: BTreeMap<&'static str, Value>,
    /// The SHA-256 announced for large files.
    pub announced_sha256: Option<String>,
    /// Error statuses by path suffix, one per request; repeated if `repeat_statuses`.
    pub statuses: Vec<(&'static str, u16)>,
    pub repeat_statuses: bool,
    /// The number of bytes after which the connection of a large file breaks, one per request.
    pub cut_after: Vec<usize>,
    /// Answers range requests with the complete file, without `Content-Range`.
    pub ignores_ranges: bool,
    /// Lists neither sizes nor hashes; `announced_sha256` is then the linked ETag of large files.
    pub lists_names_only: bool,
    /// Serves large files itself, with weak ETags, instead of redirecting to another host.
    pub serves_large_files: bool,
    /// Sends the first half of a large file, then stalls.
    pub stalls: bool,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    behavior: Mutex<Behavior>,
    requests: Mutex<Vec<ReceivedRequest>>,
    port: u16,
}

/// The hub, and an empty cache for the program under test.
pub struct FakeHub {
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl FakeHub {
    /// Serves the files of a test model, and a model card.
    pub fn with_model(model: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model);
        let is_served = |name: &str| name.starts_with("model") || name == "config.json";
        let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), path))
            .filter(|(name, _)| is_served(name))
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect();
        files.insert("README.md".into(), b"# A tiny model".to_vec());
        files.insert("pytorch_model.bin".into(), b"must not be downloaded".to_vec());
        Self::with_files(files)
    }

    pub fn with_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { files, behavior: Mutex::default(), requests: Mutex::default(), port });
        let router = Router::new().fallback(respond).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, _runtime: runtime, folder: tempfile::tempdir().unwrap() }
    }

    pub fn set_behavior(&self, change: impl FnOnce(&mut Behavior)) {
        let mut behavior = Behavior::default();
        change(&mut behavior);
        *self.shared.behavior.lock().unwrap() = behavior;
    }

    /// Returns the requests since the last call.
    pub fn take_requests(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
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

    /// The repository's folder in the cache.
    pub fn repository(&self) -> PathBuf {
        self.cache().join("models--someone--tiny")
    }

    /// The sizes of the partial files in the cache.
    pub fn partial_sizes(&self) -> Vec<u64> {
        let blobs = fs::read_dir(self.repository().join("blobs")).into_iter().flatten().flatten();
        let partial =
            blobs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part"));
        partial.map(|file| file.metadata().unwrap().len()).collect()
    }

    /// A `hornbook` command that uses this hub and this cache.
    pub fn hornbook(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        self.set_environment(command.args(args));
        command
    }

    pub fn set_environment(&self, command: &mut Command) {
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port()));
        command.env("HF_HUB_CACHE", self.cache()).env("HF_HOME", self.folder.path());
        command.env("HORNBOOK_CONFIG", "").stdin(Stdio::null());
    }

    /// Pulls the model; returns standard output and standard error.
    pub fn pull(&self) -> (String, String) {
        let output = self.hornbook(&["pull", NAME]).output().unwrap();
        let (stdout, stderr) = output_text(&output);
        assert!(output.status.success(), "{stderr}");
        (stdout, stderr)
    }

    /// Returns the one-line error of a command that must fail.
    pub fn error_line(&self, args: &[&str]) -> String {
        error_line(&mut self.hornbook(args))
    }
}

pub fn output_text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

pub fn error_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = output_text(&output);
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

async fn respond(State(hub): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_string());
    let path = request.uri().path().to_string();
    let range = header("range");
    hub.requests.lock().unwrap().push(ReceivedRequest {
        method: request.method().to_string(),
        path: path.clone(),
        host: header("host").unwrap_or_default(),
        range: range.clone(),
        token: header("authorization"),
    });
    let status = {
        let mut behavior = hub.behavior.lock().unwrap();
        let repeat = behavior.repeat_statuses;
        let at = behavior.statuses.iter().position(|(suffix, _)| path.ends_with(suffix));
        at.map(|at| if repeat { behavior.statuses[at].1 } else { behavior.statuses.remove(at).1 })
    };
    if let Some(status) = status {
        return text_response(status, "no");
    }
    let behavior = hub.behavior.lock().unwrap().clone();
    let last = path.rsplit('/').next().unwrap().to_string();
    if path.starts_with("/api/models/") {
        return match path.starts_with("/api/models/someone/tiny/revision/") {
            true => model_info(&hub, &behavior),
            false => text_response(404, "no such model"),
        };
    }
    let Some(content) = hub.files.get(&last) else { return text_response(404, "no such file") };
    let commit = Response::builder().header("x-repo-commit", COMMIT);
    if path.contains("/resolve/") && is_large(&last) && !behavior.serves_large_files {
        // To a client, 127.0.0.1 and localhost are two hosts.
        let cdn_url = format!("http://localhost:{}/cdn/{last}", hub.port);
        let announced = behavior.announced_sha256.filter(|_| behavior.lists_names_only);
        let etag = format!("\"{}\"", announced.unwrap_or_else(|| sha256(content)));
        let redirect = commit.status(302).header("location", cdn_url).header("x-linked-etag", etag);
        return redirect.header("x-linked-size", content.len()).body(Body::empty()).unwrap();
    }
    if path.contains("/resolve/") && !is_large(&last) {
        return commit.status(307).header("location", format!("/moved/{last}")).body(Body::empty()).unwrap();
    }
    let from =
        range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let from = from.filter(|_| !behavior.ignores_ranges);
    if from.is_some_and(|from: usize| from >= content.len()) {
        return text_response(416, "range not satisfiable");
    }
    let body = content[from.unwrap_or(0)..].to_vec();
    let weak = if behavior.serves_large_files { "W/" } else { "" };
    let mut response = commit
        .status(if from.is_some() { 206 } else { 200 })
        .header("etag", format!("{weak}\"{}\"", &sha256(content)[..40]))
        .header(header::CONTENT_LENGTH, body.len());
    if let Some(from) = from {
        let last = content.len() - 1;
        response = response.header("content-range", format!("bytes {from}-{last}/{}", content.len()));
    }
    if is_large(&last) && request.method() == "GET" {
        if behavior.stalls {
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            let stalled = stream::once(async move { Ok::<_, std::io::Error>(half) }).chain(stream::pending());
            return response.body(Body::from_stream(stalled)).unwrap();
        }
        let cut = {
            let mut behavior = hub.behavior.lock().unwrap();
            (!behavior.cut_after.is_empty()).then(|| behavior.cut_after.remove(0))
        };
        if let Some(cut) = cut {
            let first = Bytes::copy_from_slice(&body[..cut.min(body.len())]);
            let broken = stream::iter([Ok(first), Err(std::io::Error::other("connection lost"))]);
            // The data must arrive before the connection closes.
            let delayed = broken.then(|item| async move {
                if item.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                item
            });
            return response.body(Body::from_stream(delayed)).unwrap();
        }
    }
    response.body(Body::from(body)).unwrap()
}

fn text_response(status: u16, text: &'static str) -> Response<Body> {
    Response::builder().status(StatusCode::from_u16(status).unwrap()).body(Body::from(text)).unwrap()
}

fn model_info(hub: &Shared, behavior: &Behavior) -> Response<Body> {
    let siblings: Vec<Value> = hub
        .files
        .iter()
        .map(|(name, content)| {
            let mut file = json!({"rfilename": name});
            if behavior.lists_names_only {
                return file;
            }
            file["size"] = content.len().into();
            file["blobId"] = sha256(content)[..40].into();
            if is_large(name) {
                let hash = behavior.announced_sha256.clone().unwrap_or_else(|| sha256(content));
                file["lfs"] = json!({"sha256": hash, "size": content.len(), "pointerSize": 134});
            }
            file
        })
        .collect();
    let mut info = json!({
        "id": NAME, "sha": COMMIT, "private": false, "gated": false, "siblings": siblings,
        "config": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    });
    for (key, value) in &behavior.model_info {
        info[*key] = value.clone();
    }
    Response::builder().header("content-type", "application/json").body(Body::from(info.to_string())).unwrap()
}
