//! A server in this process, and what a client sees of it.

use hornbook::Hornbook;
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::server::{Listening, Server, ServerOptions};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::HeaderMap;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with the test.
pub struct Running {
    server: Server,
    asked: Asked,
}

/// What can be asked of a server.
pub struct Asked {
    address: SocketAddr,
    agent: Agent,
    key: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// The JSON of an answer that must be a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// Status, type, param and code of an answer that must be an error object.
    pub fn error(&self) -> (u16, String, Option<String>, Option<String>) {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text);
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("{}", self.text));
        let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
        keys.sort();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert!(!error["message"].as_str().unwrap().is_empty());
        let text = |key: &str| error[key].as_str().map(String::from);
        (self.status, text("type").unwrap(), text("param"), text("code"))
    }

    /// The data of all events. The last must be `[DONE]`, which is left out.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        assert_eq!(self.header("content-type"), "text/event-stream");
        let mut data = data(&self.text);
        assert_eq!(data.pop().as_deref(), Some("[DONE]"), "{}", self.text);
        data.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// The data of events, each on a line of its own with a space before it, as the old client demands.
pub fn data(text: &str) -> Vec<String> {
    let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
    events
        .map(|event| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event:?}")).to_string())
        .collect()
}

pub fn open(model: &str) -> Hornbook {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(model);
    let model = if data.join("config.json").is_file() {
        data.to_str().unwrap().to_string()
    } else {
        model.to_string()
    };
    Hornbook::new(Checkpoint::open(&model).unwrap(), ThreadPool::new(1, Isa::choose().unwrap())).unwrap()
}

/// Serves fable.
pub fn fable() -> Running {
    serve(&["fable"], |_| {})
}

/// Serves models on a free port.
pub fn serve(models: &[&str], change: impl FnOnce(&mut ServerOptions)) -> Running {
    let models = models.iter().map(|model| open(model)).collect();
    let mut options = ServerOptions { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..Default::default() };
    change(&mut options);
    let server = Listening::start(options).unwrap().serve(models).unwrap();
    let asked = Asked::at(server.address());
    Running { server, asked }
}

impl Running {
    /// The same server, asked with a key.
    pub fn with_key(mut self, key: &str) -> Self {
        self.asked.key = Some(key.to_string());
        self
    }

    pub fn server(self) -> Server {
        self.server
    }

    pub fn stopper(&self) -> impl Fn() + Send + use<> {
        self.server.stopper()
    }
}

impl std::ops::Deref for Running {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl Asked {
    pub fn at(address: SocketAddr) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        Self { address, agent: config.into(), key: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut response = response.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Answer {
        let mut request = self.agent.post(self.url(path)).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::answer(request.send(body))
    }

    pub fn get(&self, path: &str) -> Answer {
        let mut request = self.agent.get(self.url(path));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::answer(request.call())
    }

    /// What is asked and answered byte for byte: a method and path, more headers, and a body.
    pub fn raw(&self, start: &str, headers: &str, body: &str) -> Answer {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let mut stream = self.send(&format!(
            "{start} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{length}\r\n{body}"
        ));
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            headers.append(
                ureq::http::HeaderName::try_from(name).unwrap(),
                ureq::http::HeaderValue::from_str(value).unwrap(),
            );
        }
        Answer { status, headers, text: body.to_string() }
    }

    /// A connection on which this has been sent.
    pub fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    /// A connection on which this was posted.
    pub fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.send(&format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    /// A number on the metrics page.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text;
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a number on the metrics page is as it should be.
    pub fn wait_for(&self, name: &str, right: impl Fn(f64) -> bool) {
        wait(name, || right(self.metric(name)));
    }
}

/// Waits until something is so.
pub fn wait(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what} never became so");
        std::thread::sleep(Duration::from_millis(5));
    }
}
