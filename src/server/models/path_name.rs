//! The name of a model in a request's path.

use crate::server::error::ApiError;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, Path};
use axum::http::request::Parts;

/// Extractor of a model name in the path.
pub struct PathName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = <Self as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await?;
        name.ok_or_else(|| ApiError::invalid_param("model", "missing, expected a model name"))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, ApiError> {
        let name = <Path<String> as OptionalFromRequestParts<S>>::from_request_parts(parts, state).await;
        match name {
            Ok(name) => Ok(name.map(|Path(name)| Self(name))),
            Err(_) => {
                Err(ApiError::invalid_param("model", "found a path that is not UTF-8, expected a name"))
            }
        }
    }
}
