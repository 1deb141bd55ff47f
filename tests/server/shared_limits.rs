//! Limits that several servers share through Redis.

use super::client::{TestServer, serve};
use super::commands::{hornbook, start_server};
use super::keys::create_keys;
use hornbook::server::keys::Key;
use hornbook::server::{BoundServer, ServerOptions};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// A `redis-server` that keeps nothing on disk.
struct Redis(Child);

impl Redis {
    fn start(port: u16) -> Self {
        Self::start_with(port, &["--port", &port.to_string()])
    }

    /// At `port`, as `args` say.
    fn start_with(port: u16, args: &[&str]) -> Self {
        let mut redis = Command::new("redis-server");
        redis.args(["--bind", "127.0.0.1", "--save", "", "--requirepass", "secret"]).args(args);
        let redis = redis.stdout(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_until(|| TcpStream::connect(address).is_ok());
        Self(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < super::client::TIMEOUT);
        sleep(Duration::from_millis(20));
    }
}

fn start(keys: &Path, port: u16) -> TestServer {
    serve(&["tiny-gelu-new"], |options| {
        options.key_file = Some(keys.to_path_buf());
        options.limits = Some(format!("redis://:secret@127.0.0.1:{port}"));
        options.limits_timeout = super::client::TIMEOUT; // of a machine that runs other tests, too
    })
}

/// A store at a port, two servers with its limits, and the folder of their key file.
fn two_servers(key: &Key, port: u16) -> (Redis, [TestServer; 2], tempfile::TempDir) {
    let (folder, path, keys) = create_keys(std::slice::from_ref(key));
    let redis = Redis::start(port);
    (redis, [(); 2].map(|()| start(&path, port).with_key(&keys[0])), folder)
}

fn request(max_tokens: u32) -> Value {
    let bias = json!({"50": -100}); // the end-of-text token
    json!({"model": "tiny-gelu-new", "prompt": [1, 2], "max_tokens": max_tokens, "logit_bias": bias})
}

/// How many of fifty requests at once, to one server after the other, are let through.
fn accepted(servers: &[TestServer; 2]) -> usize {
    thread::scope(|scope| {
        let post = |i: usize| servers[i % 2].post("/v1/completions", request(1)).status;
        let posts: Vec<_> = (0..50).map(|i| scope.spawn(move || post(i))).collect();
        let statuses: Vec<u16> = posts.into_iter().map(|post| post.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    })
}

fn is_connected(server: &TestServer) -> bool {
    let metrics = server.get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with("hornbook_limit_store_connected "));
    line.unwrap().ends_with(" 1")
}

#[test_with::executable(redis-server)]
#[test]
fn servers_share_limits_and_limit_alone_while_the_store_is_gone() {
    let alice = Key { requests_per_minute: Some(10), ..Key::named("alice") };
    let port = free_port();
    let (redis, servers, _folder) = two_servers(&alice, port);
    assert!(servers.iter().all(is_connected));
    assert_eq!(accepted(&servers), 10);
    let refused = servers[0].post("/v1/completions", request(1));
    assert_eq!((refused.error().0, refused.header("x-ratelimit-remaining-requests")), (429, "0"));
    assert!((1..=6).contains(&refused.header("retry-after").parse::<u64>().unwrap()));

    drop(redis);
    assert_eq!(accepted(&servers), 20, "ten each");
    assert!(!servers.iter().any(is_connected));

    let _redis = Redis::start(port);
    wait_until(|| servers.iter().all(is_connected));
    assert_eq!(accepted(&servers), 10, "a new store");
}

#[test_with::executable(redis-server)]
#[test]
fn tokens_that_one_server_reserves_and_refunds_are_those_of_the_other() {
    let bob = Key { tokens_per_minute: Some(60), ..Key::named("bob") };
    let (_redis, [first, second], _folder) = two_servers(&bob, free_port());
    let response = first.post("/v1/completions", request(28));
    response.ok();
    assert_eq!(response.header("x-ratelimit-limit-tokens"), "60");
    assert!((30..=31).contains(&response.header("x-ratelimit-remaining-tokens").parse::<u64>().unwrap()));
    assert_eq!(second.post("/v1/completions", request(40)).error().1, "tokens");
    // A request that ends at once uses 3 of the 27 tokens that it reserves.
    let mut ends_at_once = request(25);
    ends_at_once["logit_bias"] = json!({"50": 100});
    second.post("/v1/completions", ends_at_once.clone()).ok();
    // The refund may come after the response.
    wait_until(|| first.post("/v1/completions", ends_at_once.clone()).status == 200);
}

#[test_with::executable(redis-server)]
#[test]
fn wrong_password_is_an_error_and_a_missing_store_is_not() {
    let (_folder, path, keys) = create_keys(&[Key { requests_per_minute: Some(1), ..Key::named("alice") }]);
    let port = free_port();
    let server = start(&path, port).with_key(&keys[0]);
    assert!(!is_connected(&server));
    let statuses = [(); 2].map(|()| server.post("/v1/completions", request(1)).status);
    assert_eq!(statuses, [200, 429]);

    let _redis = Redis::start(port);
    wait_until(|| is_connected(&server));
    for url in [format!("redis://127.0.0.1:{port}"), format!("redis://:wrong@127.0.0.1:{port}")] {
        let options = ServerOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            key_file: Some(path.clone()),
            limits: Some(url),
            ..Default::default()
        };
        let error = BoundServer::bind(options).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("--limits: found 127.0.0.1:") && !error.contains("wrong"), "{error}");
    }
}

/// Writes the certificate `NAME.crt` for localhost, its key and, without an issuer, an authority's.
fn write_certificate(folder: &Path, name: &str, options: &[&str]) {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]);
    openssl.arg(format!("/CN={name}")).args(["-keyout", &key, "-out", &certificate]).args(options);
    let output = openssl.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test_with::executable(redis-server, openssl)]
#[test]
fn store_behind_tls_is_used_if_its_certificate_is_trusted() {
    let alice = Key { requests_per_minute: Some(2), ..Key::named("alice") };
    let (folder, keys, key) = create_keys(&[alice]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_certificate(folder.path(), "authority", &[]);
    let options = ["-CA", "authority.crt", "-CAkey", "authority.key", "-addext", "basicConstraints=CA:FALSE"];
    let names = ["-addext", "subjectAltName=DNS:localhost"];
    write_certificate(folder.path(), "store", &[&options[..], &names].concat());
    let port = free_port();
    let tls = ["--port", "0", "--tls-auth-clients", "no", "--tls-port", &port.to_string(), "--tls-cert-file"];
    let files = [&path("store.crt"), "--tls-key-file", &path("store.key")];
    let authority = ["--tls-ca-cert-file", &path("authority.crt")];
    let _redis = Redis::start_with(port, &[&tls[..], &files, &authority].concat());

    // A server is a process here, as the authorities are those of its environment.
    for (authorities, is_trusted) in [(path("authority.crt"), true), (path("store.key"), false)] {
        let limits = format!("rediss://:secret@localhost:{port}");
        let model = format!("{}/tests/data/tiny-gelu-new", env!("CARGO_MANIFEST_DIR"));
        let mut server = hornbook(&["serve", "--port", "0", "--threads", "1"]);
        server.args(["--model", &model, "--keys", &keys.display().to_string(), "--limits", &limits]);
        let (mut server, address, _log) = start_server(server.env("SSL_CERT_FILE", authorities));
        let metrics = ureq::get(format!("http://{address}/metrics"))
            .header("Authorization", &format!("Bearer {}", key[0]))
            .call();
        let metrics = metrics.unwrap().body_mut().read_to_string().unwrap();
        let expected = format!("hornbook_limit_store_connected {}\n", u8::from(is_trusted));
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(metrics.contains(&expected), "{is_trusted}: {metrics}");
    }
}

#[test]
fn shared_limits_need_keys() {
    let options = ServerOptions {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        limits: Some("redis://127.0.0.1:1".into()),
        ..Default::default()
    };
    let error = BoundServer::bind(options).map(drop).unwrap_err().to_string();
    assert!(error.contains("HORNBOOK_LIMITS: found no --keys, expected --keys FILE"), "{error}");
}
