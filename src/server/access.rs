//! Access from web pages: the `Host` and `Origin` headers. A web page in the browser can reach a server
//! on this machine, under a name that resolves to it (DNS rebinding) or by a plain cross-origin request.

use super::error::ApiError;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, Version, header};
use std::net::IpAddr;

/// The hosts a server answers for, and the origins whose pages may use it.
pub struct AccessPolicy {
    /// Host names besides the loopback ones; `None` answers for any.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl AccessPolicy {
    /// Policy of a server on this address: on a loopback address it answers for loopback names and `hosts`.
    pub fn new(address: IpAddr, hosts: &[String], origins: &[String]) -> Self {
        let any = !address.is_loopback() || hosts.iter().any(|host| host == "*");
        Self { hosts: (!any).then(|| hosts.to_vec()), origins: origins.to_vec() }
    }

    /// Checks a request's `Host` and `Origin`.
    ///
    /// # Errors
    /// 400 unless there is exactly one valid host, 403 for a host or an origin that is not allowed.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let host = host(request)?;
        for name in host.iter().map(Authority::host).chain(request.uri().host()) {
            if !self.answers_for(name) {
                return Err(ApiError::forbidden(format!(
                    "Host: found {name:?}, expected localhost or a loopback address; to serve under another \
                     name, start the server with --allowed-host"
                )));
            }
        }
        let computes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        match request.headers().get(header::ORIGIN).filter(|_| computes) {
            Some(origin) if !self.allows_origin(origin.to_str().unwrap_or_default(), host.as_ref()) => {
                Err(ApiError::forbidden(format!(
                    "Origin: found {origin:?}, which is not allowed; start the server with --cors to allow it"
                )))
            }
            _ => Ok(()),
        }
    }

    fn answers_for(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.as_ref().is_none_or(|hosts| {
            is_loopback_host(&host) || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host))
        })
    }

    /// Returns whether pages of this origin may use the server, which has this host.
    fn allows_origin(&self, origin: &str, host: Option<&Authority>) -> bool {
        let same_origin = origin.split_once("://").map(|(_, authority)| authority);
        origin_is_allowed(origin, &self.origins)
            || host.is_some_and(|host| same_origin == Some(host.as_str()))
    }
}

/// Returns the `Host` header, which only HTTP/1.0 may lack.
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, ApiError> {
    let values: Vec<_> = HeaderMap::get_all(request.headers(), header::HOST).iter().collect();
    let invalid = |found: String| ApiError::invalid(format!("Host: found {found}, expected one host name"));
    match values.as_slice() {
        [] if request.version() == Version::HTTP_10 => Ok(None),
        [value] => match value.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) {
            Some(host) if !host.as_str().contains('@') => Ok(Some(host)),
            _ => Err(invalid(format!("{value:?}"))),
        },
        [] => Err(invalid("none".into())),
        _ => Err(invalid(format!("{} headers", values.len()))),
    }
}

/// Returns whether an origin is on a loopback address or configured; `*` allows any.
pub fn origin_is_allowed(origin: &str, configured: &[String]) -> bool {
    is_loopback_origin(origin) || configured.iter().any(|allowed| allowed == "*" || allowed == origin)
}

/// Returns whether an origin is on a loopback address, such as `http://localhost:3000`.
fn is_loopback_origin(origin: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    authority.parse::<Authority>().is_ok_and(|authority| is_loopback_host(authority.host()))
}

fn is_loopback_host(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_loopback_origins() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8080",
            "http://[::1]:1",
            "http://127.9.9.9",
        ] {
            assert!(is_loopback_origin(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://evil.com:80",
            "http://[::2]:1",
            "http://evil.com/localhost",
            "",
        ] {
            assert!(!is_loopback_origin(origin), "{origin}");
        }
    }

    fn status(policy: &AccessPolicy, method: Method, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri("/v1/completions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        policy.check(&request.body(()).unwrap()).map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn loopback_server_answers_for_loopback_and_allowed_hosts() {
        let policy = AccessPolicy::new([127, 0, 0, 1].into(), &["pi.lan".into()], &[]);
        let status_of = |host: &str| status(&policy, Method::GET, &[("host", host)]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "pi.lan:8080",
            "PI.lan",
        ] {
            assert_eq!(status_of(host), 200, "{host}");
        }
        for host in ["evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "192.168.0.1", "[::2]", "pi"] {
            assert_eq!(status_of(host), 403, "{host}");
        }
        for host in ["", "a b", "user@localhost", "localhost, localhost", "http://localhost"] {
            assert_eq!(status_of(host), 400, "{host}");
        }
        assert_eq!(status(&policy, Method::GET, &[]), 400);
        assert_eq!(status(&policy, Method::GET, &[("host", "localhost"), ("host", "localhost")]), 400);
        let public = AccessPolicy::new([0, 0, 0, 0].into(), &[], &[]);
        assert_eq!(status(&public, Method::GET, &[("host", "example.com")]), 200);
        assert_eq!(status(&public, Method::GET, &[]), 400);
    }

    #[test]
    fn page_of_another_origin_computes_nothing() {
        let policy = AccessPolicy::new([0, 0, 0, 0].into(), &[], &["https://app.example".into()]);
        let status_of = |method: Method, origin: &str| {
            status(&policy, method, &[("host", "server.lan:8080"), ("origin", origin)])
        };
        for origin in ["http://localhost:3000", "https://app.example", "http://server.lan:8080"] {
            assert_eq!(status_of(Method::POST, origin), 200, "{origin}");
        }
        for origin in ["https://evil.com", "null", "http://server.lan", "https://app.example.evil.com"] {
            assert_eq!(status_of(Method::POST, origin), 403, "{origin}");
            assert_eq!(status_of(Method::OPTIONS, origin), 200, "{origin}");
        }
    }
}
