//! The path of a request: as the client wrote it, and as the routes have it.

use super::error::ApiError;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Request, Uri};

/// The path as the client wrote it, before normalization.
#[derive(Clone)]
pub struct WrittenPath(String);

/// Normalizes the path of a request; what the client wrote is kept as [`WrittenPath`].
pub fn normalize_request<B>(request: &mut Request<B>) {
    let written = WrittenPath(request.uri().path().to_string());
    request.extensions_mut().insert(written);
    if let Some(uri) = normalize_path(request.uri()) {
        *request.uri_mut() = uri;
    }
}

/// Returns the path of a request as the client wrote it.
pub fn written_path<B>(request: &Request<B>) -> &str {
    request.extensions().get::<WrittenPath>().map_or(request.uri().path(), |WrittenPath(path)| path)
}

/// Returns the URI with its path normalized: without the `/v1` prefix and empty segments, so `/v1//engines/`
/// becomes `/engines`. `None` if the result is not a valid URI.
pub fn normalize_path(uri: &Uri) -> Option<Uri> {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let segments = match segments.as_slice() {
        ["v1", rest @ ..] => rest,
        all => all,
    };
    let mut path = format!("/{}", segments.join("/"));
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    path.parse().ok()
}

/// Extractor of an object's id in the path, whatever a client writes there: openai 0.28 asks for the file
/// whose id is the path of the user's file.
pub struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id))
            .map_err(|_| ApiError::invalid("found a path that is not UTF-8, expected an id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_and_repeated_slashes_are_normalized_away() {
        for (path, normalized) in [
            ("/v1/completions", "/completions"),
            ("/completions", "/completions"),
            ("/v1//engines/gpt2/completions", "/engines/gpt2/completions"),
            ("//engines/a%2Fb/", "/engines/a%2Fb"),
            ("/v1/v1/models", "/v1/models"),
            ("/v1", "/"),
            ("/v1/models?x=1", "/models?x=1"),
            ("http://host/v1/models", "/models"),
        ] {
            assert_eq!(normalize_path(&path.parse().unwrap()).unwrap().to_string(), normalized, "{path}");
        }
    }
}
