//! HTTP requests to the hub, with the token and the timeout of the configuration.

use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::errors::DownloadError;
use super::is_file_name;

/// The maximum number of relative redirects between a file's address and its metadata.
const MAX_RELATIVE_REDIRECTS: usize = 10;

/// An HTTP client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: Agent,
    token: Option<String>,
}

/// The headers that describe a file.
#[derive(Debug, PartialEq)]
pub(super) struct FileMetadata {
    pub(super) commit: String,
    /// The name of the file's content in the cache.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
    /// The SHA-256 of a file in LFS storage.
    pub(super) sha256: Option<String>,
}

impl Client {
    /// Creates a client that gives up when no data arrives for `timeout`.
    pub(super) fn new(token: Option<String>, timeout: Duration) -> Client {
        let config = Agent::config_builder()
            .user_agent(concat!("hornbook/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout));
        Client { agent: config.build().into(), token }
    }

    /// Returns the same client without the token.
    pub(super) fn anonymous(&self) -> Client {
        Client { agent: self.agent.clone(), token: None }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn get(&self, url: &str) -> RequestBuilder<WithoutBody> {
        self.authorized(self.agent.get(url))
    }

    /// Requests a file's metadata with HEAD, as `huggingface_hub` does. Relative redirects are followed; a
    /// redirect to another host has the headers itself.
    ///
    /// # Errors
    /// [`DownloadError::Request`], and [`DownloadError::MetadataMismatch`] for missing or malformed headers.
    pub(super) fn file_metadata(&self, url: &str) -> Result<FileMetadata, DownloadError> {
        let mut url = url.to_string();
        for _ in 0..MAX_RELATIVE_REDIRECTS {
            let request = self.authorized(self.agent.head(&url));
            let response =
                request.config().max_redirects(0).build().call().map_err(DownloadError::Request)?;
            match relative_redirect(&url, &response) {
                Some(target) => url = target,
                None => {
                    return FileMetadata::from_headers(&response).map_err(DownloadError::MetadataMismatch);
                }
            }
        }
        Err(DownloadError::MetadataMismatch("too many redirects".into()))
    }

    fn authorized(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }
}

impl FileMetadata {
    fn from_headers(response: &Response<Body>) -> Result<FileMetadata, String> {
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.trim());
        // A weak ETag names the same content: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3
        let etag = |name| text(name).map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
        let commit = text("x-repo-commit").ok_or("found no X-Repo-Commit header")?.to_string();
        let linked = etag("x-linked-etag");
        let sha256 = linked.clone().filter(|etag| is_hex(etag, 64)).map(|hash| hash.to_lowercase());
        let etag = linked.or_else(|| etag("etag")).ok_or("found no ETag header")?;
        if !is_file_name(&etag) {
            return Err(format!("found ETag {etag:?}, expected a name"));
        }
        // The length of a redirect is not that of the file.
        let length = text("content-length").filter(|_| !response.status().is_redirection());
        let size = text("x-linked-size").or(length).and_then(|size| size.parse().ok());
        Ok(FileMetadata { commit, etag, size, sha256 })
    }
}

/// Whether `text` consists of this many hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The target of a redirect to a path on the same host.
fn relative_redirect(url: &str, response: &Response<Body>) -> Option<String> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let is_path = location.starts_with('/') && !location.starts_with("//");
    let mut parts = url.parse::<Uri>().ok()?.into_parts();
    parts.path_and_query =
        Some(location.parse().ok().filter(|_| is_path && response.status().is_redirection())?);
    Some(Uri::from_parts(parts).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(status: u16, headers: &[(&str, &str)]) -> Result<FileMetadata, String> {
        let mut response = Response::builder().status(status).header("x-repo-commit", "c");
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        FileMetadata::from_headers(&response.body(Body::builder().data("")).unwrap())
    }

    #[test]
    fn metadata_of_linked_file_is_preferred() {
        let hash = "AB".repeat(32);
        let linked = [("etag", "\"x\""), ("x-linked-etag", &*hash), ("x-linked-size", "7")];
        let expected = FileMetadata {
            commit: "c".into(),
            etag: hash.clone(),
            size: Some(7),
            sha256: Some("ab".repeat(32)),
        };
        assert_eq!(metadata(302, &[&linked[..], &[("content-length", "9")]].concat()), Ok(expected));
        // Another server's ETag of 64 digits need not be a SHA-256.
        let plain = metadata(200, &[("etag", &format!("W/\"{hash}\"")), ("content-length", "0")]).unwrap();
        assert_eq!((plain.etag, plain.size, plain.sha256), (hash, Some(0), None));
        assert_eq!(metadata(302, &[("etag", "x"), ("content-length", "9")]).unwrap().size, None);
        assert!(metadata(200, &[]).unwrap_err().contains("no ETag"));
        assert!(metadata(200, &[("etag", "\"../x\"")]).unwrap_err().contains("../x"));
    }
}
