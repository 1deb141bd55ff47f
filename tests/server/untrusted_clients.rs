//! Untrusted clients: responses to requests whose body is unread, half-closed clients, malformed
//! heads, silent connections, foreign hosts and origins.

use super::client::{Client, TIMEOUT, TestServer, fable, serve, wait};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Sends all bytes before it reads, as many clients do, and returns the response.
fn send_then_read(server: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    read(stream)
}

fn read(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns the JSON body of a response with this status.
#[track_caller]
fn json_of(response: &str, status: &str) -> Value {
    assert!(response.starts_with(&format!("HTTP/1.1 {status}")), "{response}");
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn response_to_unread_body_reaches_client() {
    let body = vec![b' '; 20 << 20];
    let server = fable();
    for (path, status) in [("/v1/completions", "413"), ("/v1/nothing", "404"), ("/v1/models", "405")] {
        let response = send_then_read(&server, &post(path, "", &body));
        assert!(json_of(&response, status)["error"]["message"].is_string());
        assert!(response.contains("connection: close\r\n"), "{response}");
    }
    // A body that stops coming, without the client closing its side.
    let server = serve(&["fable"], |options| options.http.body_timeout = Duration::from_millis(200));
    let incomplete = [post("/v1/completions", "", &body[..1000]), vec![]].concat();
    let response = send_then_read(&server, &incomplete[..incomplete.len() - 500]);
    assert_eq!(json_of(&response, "408")["error"]["code"], "request_timeout");
}

#[test]
fn connection_without_unread_body_closes_at_once() {
    let server = fable();
    let start = Instant::now();
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    json_of(&send_then_read(&server, request), "200");
    // A small body is read even if no route wants it; the next request follows on the connection.
    let error = post("/v1/completions", "", b"{");
    let response = send_then_read(&server, &[&error[..], &error[..], request].concat());
    assert_eq!(response.matches("HTTP/1.1 400").count(), 2, "{response}");
    assert!(response.contains("HTTP/1.1 200"), "{response}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn half_closed_client_gets_its_answer() {
    let server = fable();
    let long = json!({"prompt": "The", "max_tokens": 12, "logit_bias": {"4095": -100}});
    let mut streamed = long.clone();
    streamed["stream"] = json!(true);
    for body in [long, streamed] {
        let request = post("/v1/completions", "connection: close\r\n", body.to_string().as_bytes());
        let stream = server.send(std::str::from_utf8(&request).unwrap());
        stream.shutdown(Shutdown::Write).unwrap();
        let response = read(stream);
        let response = response.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n"); // if it had to wait
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let is_whole = response.contains("\"finish_reason\":\"length\"");
        assert!(is_whole, "{response}");
    }
    let embedding = post("/v1/embeddings", "", br#"{"input": "A fox"}"#);
    let stream = server.send(std::str::from_utf8(&embedding).unwrap());
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(read(stream).contains("\"embedding\":["));
}

#[test]
fn malformed_head_gets_json_error() {
    let server = fable();
    let path = "a".repeat(70_000);
    let header = "x".repeat(500_000);
    for (request, status) in [
        ("NONSENSE\r\n\r\n".to_string(), "400"),
        ("GET /health HTTP/9.9\r\n\r\n".to_string(), "400"),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n".to_string(), "400"),
        (format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n"), "414"),
        (format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {header}\r\n\r\n"), "431"),
    ] {
        let error = &json_of(&send_then_read(&server, request.as_bytes()), status)["error"];
        assert_eq!(error["type"], "invalid_request_error", "{request:.50}");
    }
}

#[test]
fn compressed_body_is_refused_by_name() {
    let server = fable();
    for encoding in ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"] {
        let header = format!("content-encoding: {encoding}\r\n");
        let response = server.raw("POST /v1/completions", &header, "\u{1f}");
        assert_eq!(response.error().0, 415);
        assert!(response.text.contains(encoding), "{}", response.text);
        assert_eq!(response.header("accept-encoding"), "identity");
    }
    let coded = "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let request = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n{coded}");
    let error = &json_of(&send_then_read(&server, request.as_bytes()), "501")["error"];
    assert_eq!(error["code"], "unsupported_transfer_encoding");
    let body = r#"{"prompt": "A", "max_tokens": 1}"#;
    server.raw("POST /v1/completions", "content-encoding: identity\r\n", body).ok();
    server.raw("POST /v1/completions", "", &format!("\u{feff}{body}")).ok();
}

/// Connections that the server has room for in these tests.
const MAX_CONNECTIONS: usize = 8;

fn small_server() -> TestServer {
    serve(&["fable"], |options| options.http.max_connections = MAX_CONNECTIONS)
}

#[test]
fn silent_and_trickling_connections_give_way_oldest_first() {
    let server = small_server();
    for head in ["", "POST /v1/completions HTTP/1.1\r\nhost:"] {
        let mut waiting: Vec<TcpStream> = (0..3 * MAX_CONNECTIONS).map(|_| server.send(head)).collect();
        let fresh = Client::new(server.address());
        fresh.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).ok();
        // The oldest is closed, and the youngest is open still.
        let mut rest = vec![];
        let _ = waiting[0].read_to_end(&mut rest);
        let youngest = waiting.last_mut().unwrap();
        youngest.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(youngest.read_to_end(&mut rest).is_err(), "{head:?}");
    }
    // Idle ones after a response, and a body that trickles, give way too.
    let head = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let waiting: Vec<TcpStream> = (0..2 * MAX_CONNECTIONS).map(|_| server.send(head)).collect();
    wait("an answer", || Client::new(server.address()).get("/v1/models").status == 200);
    drop(waiting);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    let waiting: Vec<TcpStream> = (0..2 * MAX_CONNECTIONS).map(|_| server.send(head)).collect();
    wait("an answer", || Client::new(server.address()).get("/v1/models").status == 200);
    drop(waiting);
}

#[test]
fn health_is_answered_while_every_connection_works() {
    let server = small_server();
    let body = json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}});
    let working: Vec<_> = (0..MAX_CONNECTIONS).map(|_| server.start_post("/v1/completions", &body)).collect();
    for stream in &working {
        stream.peek(&mut [0]).unwrap(); // its response has begun
    }
    let fresh = Client::new(server.address());
    fresh.get("/health").ok();
    let refused = Client::new(server.address()).post("/v1/completions", json!({"prompt": "A"}));
    assert_eq!((refused.error().0, refused.header("connection")), (503, "close"));
    drop(working);
    wait("room", || Client::new(server.address()).get("/v1/models").status == 200);
    Client::new(server.address()).post("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).ok();
}

#[test]
fn address_has_a_limit_of_its_own() {
    let server = serve(&["fable"], |options| options.http.max_connections_per_address = 2);
    let body = json!({"prompt": "The", "max_tokens": 500, "stream": true, "logit_bias": {"4095": -100}});
    let working: Vec<_> = (0..2).map(|_| server.start_post("/v1/completions", &body)).collect();
    for stream in &working {
        stream.peek(&mut [0]).unwrap();
    }
    assert_eq!(Client::new(server.address()).get("/v1/models").error().0, 503);
    Client::new(server.address()).get("/health").ok();
}

#[test]
fn only_loopback_and_allowed_hosts_are_answered() {
    let server = serve(&["fable"], |options| options.allowed_hosts = vec!["pi.lan".into()]);
    let get = |host: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        send_then_read(&server, request.as_bytes())
    };
    for host in
        ["host: localhost:1\r\n", "host: 127.0.0.1\r\n", "host: [::1]:8080\r\n", "host: PI.lan:8080\r\n"]
    {
        json_of(&get(host), "200");
    }
    for host in ["host: evil.com\r\n", "host: localhost.evil.com\r\n", "host: 192.168.1.1:8080\r\n"] {
        let message = json_of(&get(host), "403")["error"]["message"].as_str().unwrap().to_string();
        assert!(message.contains("--allowed-host"), "{message}");
    }
    for host in ["", "host: localhost\r\nhost: localhost\r\n", "host: \r\n", "host: a b\r\n"] {
        json_of(&get(host), "400");
    }
    json_of(&send_then_read(&server, b"GET /health HTTP/1.0\r\n\r\n").replace("HTTP/1.0", "HTTP/1.1"), "200");
    let absolute = b"GET http://evil.com/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    json_of(&send_then_read(&server, absolute), "403");
}

#[test]
fn cross_origin_post_computes_nothing() {
    let server = serve(&["fable"], |options| options.cors_origins = vec!["https://app.example".into()]);
    let body = r#"{"prompt": "A", "max_tokens": 1}"#;
    let post = |origin: &str| {
        let headers = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        server.raw("POST /v1/completions", &headers, body)
    };
    for origin in ["https://evil.com", "null", "http://localhost.evil.com"] {
        assert_eq!(post(origin).error().0, 403, "{origin}");
    }
    assert_eq!(server.metric("hornbook_prompt_tokens_total"), 0.0);
    for origin in ["https://app.example", "http://localhost:3000"] {
        post(origin).ok();
    }
}

#[test]
fn private_network_preflight_is_answered_for_allowed_origins() {
    let server = serve(&["fable"], |options| options.cors_origins = vec!["https://app.example".into()]);
    let preflight = |origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-private-network: true\r\n"
        );
        server.raw("OPTIONS /v1/completions", &headers, "")
    };
    let allowed = preflight("https://app.example");
    assert_eq!(allowed.header("access-control-allow-private-network"), "true");
    assert!(!preflight("https://evil.com").headers.contains_key("access-control-allow-private-network"));
}
