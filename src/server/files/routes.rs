//! Files: list, retrieve, read and delete.

use super::{FileObject, Files, StoredFile};
use crate::server::AppState;
use crate::server::deleted::Deleted;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::json::{json_response, to_json};
use crate::server::path::PathId;
use crate::server::query::Query;
use crate::server::request_context::RequestContext;
use crate::server::store::{Entry, Object, Page, PageQuery};
use crate::{Error, Result as LibraryResult};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

/// Maximum number of files in a page, and their number without `limit`.
const MAX_LIMIT: usize = 10_000;
/// Size of the pieces in which a file is read.
const PIECE_BYTES: usize = 256 << 10;

fn find(files: &Files, context: &RequestContext, id: &str) -> Result<Arc<Entry<StoredFile>>, ApiError> {
    files.get(&context.owner(), id).ok_or_else(|| ApiError::no_such_object("File object", id))
}

/// List the files, the newest first.
#[utoipa::path(get, path = "/v1/files", operation_id = "listFiles", tag = "files",
    params(
        ("purpose" = Option<String>, Query, description = "Only files with this purpose"),
        ("limit" = Option<usize>, Query, description = "Maximum number of files; default 10000",
            minimum = 1, maximum = 10000),
        ("after" = Option<String>, Query, description = "Id of the last file of the page before",
            pattern = "^file-"),
        ("order" = Option<String>, Query, description = "`desc`, the default: the newest first; or `asc`",
            pattern = "^(asc|desc)$")),
    responses(
        (status = 200, body = Page<FileObject>, description = "A page of the files"),
        (status = 400, body = ErrorBody, description = "A parameter is not valid"),
        (status = 404, body = ErrorBody, description = "The server has no store")))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Query,
) -> Result<Response, ApiError> {
    let files = &app.collections("files")?.files;
    let page = PageQuery::new(&query, StoredFile::ID_PREFIX, MAX_LIMIT, MAX_LIMIT)?;
    let mut all = files.collection().list(&context.owner());
    if let Some(purpose) = query.text("purpose").filter(|purpose| !purpose.is_empty()) {
        all.retain(|file| file.value.purpose == purpose);
    }
    let page = page.page(all, |file| &file.id).map(|file| FileObject::from(&*file));
    Ok(json_response(to_json(&page)).into_response())
}

/// Retrieve what is known of a file.
#[utoipa::path(get, path = "/v1/files/{file_id}", operation_id = "retrieveFile", tag = "files",
    params(("file_id" = String, Path, description = "The file's id", min_length = 1)),
    responses(
        (status = 200, body = FileObject, description = "The file"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The file does not exist")))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let file = find(&app.collections("files")?.files, &context, &id)?;
    Ok(json_response(to_json(&FileObject::from(&*file))).into_response())
}

/// Read the content of a file.
#[utoipa::path(get, path = "/v1/files/{file_id}/content", operation_id = "downloadFile", tag = "files",
    params(("file_id" = String, Path, description = "The file's id", min_length = 1)),
    responses(
        (status = 200, body = String, content_type = "application/octet-stream", description = "The content"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The file does not exist")))]
pub async fn content(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let files = &app.collections("files")?.files;
    let file = find(files, &context, &id)?;
    let path = files.path(&file);
    let opened = File::open(&path);
    let opened = opened.map_err(|source| ApiError::failed(&Error::Io { path, action: "open", source }))?;
    let pieces = unfold(Some(opened), |file| async move {
        let read = tokio::task::spawn_blocking(move || read_piece(file?).transpose()).await;
        match read.unwrap_or_else(|error| Some(Err(io::Error::other(error))))? {
            Ok((piece, file)) => Some((Ok(piece), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    let name: String = file.value.filename.chars().filter(|c| c.is_ascii_graphic() && *c != '"').collect();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, file.value.bytes.into()),
        // A web page that was uploaded is none of this server's.
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
                .unwrap_or(HeaderValue::from_static("attachment")),
        ),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Reads the next piece; `None` at the end.
fn read_piece(mut file: File) -> io::Result<Option<(Bytes, File)>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((!piece.is_empty()).then(|| (piece.into(), file)))
}

/// Delete a file.
#[utoipa::path(delete, path = "/v1/files/{file_id}", operation_id = "deleteFile", tag = "files",
    params(("file_id" = String, Path, description = "The file's id", min_length = 1)),
    responses(
        (status = 200, body = Deleted, description = "The file is deleted"),
        (status = 400, body = ErrorBody, description = "The id is not UTF-8"),
        (status = 404, body = ErrorBody, description = "The file does not exist")))]
pub async fn delete(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let (files, owner) = (app.collections("files")?.files.clone(), context.owner());
    let file = id.clone();
    let removed =
        app.blocking(move || -> LibraryResult<bool> { files.collection().remove(&owner, &file) }).await?;
    match removed {
        true => Ok(json_response(to_json(&Deleted::new("file", id))).into_response()),
        false => Err(ApiError::no_such_object("File object", &id)),
    }
}
