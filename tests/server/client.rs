//! A server in this process and a client for it.

use hornbook::Hornbook;
use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::server::{BoundServer, Server, ServerOptions};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::HeaderMap;

/// Longer than any operation in these tests takes.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A server that stops at the end of the test; dereferences to its client.
pub struct TestServer {
    server: Server,
    client: Client,
}

/// An HTTP client of a server.
pub struct Client {
    address: SocketAddr,
    agent: Agent,
    key: Option<String>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// Returns the JSON of a response that must be a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// Returns status, type, param and code of a response that must be an error object.
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

    /// Returns the data of all events but the last, which must be `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        assert_eq!(self.header("content-type"), "text/event-stream");
        let mut data = data(&self.text);
        assert_eq!(data.pop().as_deref(), Some("[DONE]"), "{}", self.text);
        data.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// Returns the data of all events, each on a line `data: …`, as openai 0.28 requires.
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

/// Starts a server with the embedded model.
pub fn fable() -> TestServer {
    serve(&["fable"], |_| {})
}

/// Starts a server on a free port.
pub fn serve(models: &[&str], configure: impl FnOnce(&mut ServerOptions)) -> TestServer {
    serve_models(models.iter().map(|model| open(model)).collect(), configure)
}

/// Starts a server of these models on a free port.
pub fn serve_models(models: Vec<Hornbook>, configure: impl FnOnce(&mut ServerOptions)) -> TestServer {
    let mut options = ServerOptions { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..Default::default() };
    configure(&mut options);
    let server = BoundServer::bind(options).unwrap().serve(models).unwrap();
    let client = Client::new(server.address());
    TestServer { server, client }
}

impl TestServer {
    /// Sets the client's API key.
    pub fn with_key(mut self, key: &str) -> Self {
        self.client.key = Some(key.to_string());
        self
    }

    pub fn server(self) -> Server {
        self.server
    }

    pub fn shutdown_handle(&self) -> impl Fn() + Send + use<> {
        self.server.shutdown_handle()
    }
}

impl std::ops::Deref for TestServer {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { address, agent: config.into(), key: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn read_response(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Response {
        let mut response = response.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Response { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    pub fn post(&self, path: &str, body: Value) -> Response {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Response {
        let mut request = self.agent.post(self.url(path)).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::read_response(request.send(body))
    }

    pub fn get(&self, path: &str) -> Response {
        let mut request = self.agent.get(self.url(path));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::read_response(request.call())
    }

    /// Uploads a file with these fields beside it.
    pub fn upload(&self, fields: &[(&str, &str)], filename: &str, content: &[u8]) -> Response {
        let mut body = vec![];
        for (name, value) in fields {
            let part = "--XX\r\nContent-Disposition: form-data; name=";
            body.extend(format!("{part}\"{name}\"\r\n\r\n{value}\r\n").as_bytes());
        }
        let head = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=";
        body.extend(format!("{head}\"{filename}\"\r\n\r\n").as_bytes());
        body.extend(content);
        body.extend(b"\r\n--XX--\r\n");
        let mut request =
            self.agent.post(self.url("/v1/files")).header("content-type", "multipart/form-data; boundary=XX");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::read_response(request.send(&body[..]))
    }

    pub fn delete(&self, path: &str) -> Response {
        let mut request = self.agent.delete(self.url(path));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Self::read_response(request.call())
    }

    /// Sends a request as raw bytes: method and path, extra headers, and a body.
    pub fn raw(&self, method_and_path: &str, headers: &str, body: &str) -> Response {
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let mut stream = self.send(&format!(
            "{method_and_path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             {headers}{length}\r\n{body}"
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
        Response { status, headers, text: body.to_string() }
    }

    /// Opens a connection and sends these bytes.
    pub fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    /// Opens a connection and posts this body, without reading the response.
    pub fn start_post(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Returns the value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text;
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric satisfies a condition.
    pub fn wait_for(&self, name: &str, condition: impl Fn(f64) -> bool) {
        wait(name, || condition(self.metric(name)));
    }
}

/// Waits until a condition is true.
pub fn wait(name: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out waiting for {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
