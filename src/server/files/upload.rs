//! The upload of a file: received, written and hashed piece by piece. A thread of its own writes, so that a
//! slow disk holds up nobody else.

use super::body::BodyReader;
use super::multipart::{Multipart, boundary};
use super::object::purpose;
use super::{FileDraft, FileObject, Files, StoredFile};
use crate::Error;
use crate::server::AppState;
use crate::server::error::{ApiError, ErrorBody};
use crate::server::json::{json_response, to_json};
use crate::server::request_context::RequestContext;
use crate::server::store::Entry;
use crate::train::check_json_lines;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use utoipa::ToSchema;

/// Pieces that wait to be written.
const WAITING_PIECES: usize = 4;
/// What a body may have beside its file.
const OTHER_BYTES: u64 = 1 << 20;
/// Maximum size of a field that is no file.
const MAX_FIELD_BYTES: usize = 4096;
/// Maximum length of a file's name.
const MAX_NAME_CHARS: usize = 256;
/// Maximum size of a line of data, which is in memory when it is checked.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Range of `expires_after[seconds]`: an hour to 30 days.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u64> = 3600..=MAX_EXPIRY_SECONDS;
const MAX_EXPIRY_SECONDS: u64 = 30 * 24 * 3600;

/// An upload. Other fields are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // described here, read part by part
pub struct FileUpload {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// What the file is for. Data to fine-tune with is checked, and refused with the line that is not valid.
    purpose: String,
    /// `created_at`, with `expires_after[seconds]`.
    #[schema(rename = "expires_after[anchor]")]
    anchor: Option<String>,
    /// Seconds from now until the file is deleted: an hour to 30 days. Default: never; 30 days for a batch.
    #[schema(rename = "expires_after[seconds]")]
    seconds: Option<u64>,
}

/// The fields beside the file.
#[derive(Debug, Default)]
struct Fields {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
    filename: String,
}

/// The valid fields.
#[derive(Debug)]
struct Details {
    filename: String,
    purpose: String,
    expires_after: Option<u64>,
}

impl Fields {
    fn validated(self) -> Result<Details, ApiError> {
        let purposes = purpose::OF_UPLOADS.join(", ");
        let Some(purpose) = self.purpose else {
            return Err(ApiError::invalid_param("purpose", format!("missing, expected one of {purposes}")));
        };
        if !purpose::OF_UPLOADS.contains(&purpose.as_str()) {
            let message = format!("found {purpose:?}, expected one of {purposes}");
            return Err(ApiError::invalid_param("purpose", message));
        }
        let invalid = |field: &str, found: &Option<String>, expected: &str| {
            let found = found.as_ref().map_or("nothing".into(), |found| format!("{found:?}"));
            let param = format!("expires_after[{field}]");
            Err(ApiError::invalid_param(&param, format!("found {found}, expected {expected}")))
        };
        let expires_after = match (&self.anchor, &self.seconds) {
            (None, None) => (purpose == purpose::BATCH).then_some(MAX_EXPIRY_SECONDS),
            (Some(anchor), seconds) if anchor == "created_at" => {
                let seconds = seconds.as_deref().and_then(|text| text.parse().ok());
                match seconds.filter(|seconds| EXPIRY_SECONDS.contains(seconds)) {
                    Some(seconds) => Some(seconds),
                    None => return invalid("seconds", &self.seconds, "seconds from 3600 to 2592000"),
                }
            }
            (anchor, _) => return invalid("anchor", anchor, "created_at"),
        };
        let chars = self.filename.chars().count();
        if chars > MAX_NAME_CHARS {
            let message =
                format!("found a file name of {chars} characters, expected at most {MAX_NAME_CHARS}");
            return Err(ApiError::invalid_param("file", message));
        }
        Ok(Details { filename: self.filename, purpose, expires_after })
    }
}

/// What the writing thread is told.
enum Message {
    Data(Vec<u8>),
    Finish(Details),
}

/// A file that a thread writes. Dropping it unfinished leaves nothing.
struct Writer {
    messages: mpsc::Sender<Message>,
    result: oneshot::Receiver<Result<Arc<Entry<StoredFile>>, ApiError>>,
}

impl Writer {
    fn start(files: &Files, owner: String) -> Result<Self, ApiError> {
        let (files, (messages, receiver), (sender, result)) =
            (files.clone(), mpsc::channel(WAITING_PIECES), oneshot::channel());
        let work = move || {
            if let Some(result) = write(&files, &owner, receiver).transpose() {
                let _ = sender.send(result); // unless the client has gone
            }
        };
        let thread = std::thread::Builder::new().name("hornbook-upload".into()).spawn(work);
        thread.map_err(|error| ApiError::failed(&Error::system("start a thread", error)))?;
        Ok(Self { messages, result })
    }

    /// Sends a message; a thread that has ended says why in its result.
    async fn send(&self, message: Message) -> bool {
        self.messages.send(message).await.is_ok()
    }

    async fn result(self) -> Result<Arc<Entry<StoredFile>>, ApiError> {
        drop(self.messages);
        self.result.await.unwrap_or_else(|_| Err(ApiError::internal("the file could not be written")))
    }
}

/// Writes a file; `None` if the upload ends before it is complete.
fn write(
    files: &Files,
    owner: &str,
    mut messages: mpsc::Receiver<Message>,
) -> Result<Option<Arc<Entry<StoredFile>>>, ApiError> {
    let mut draft = files.draft(owner).map_err(|error| ApiError::from_store_error(&error))?;
    loop {
        match messages.blocking_recv() {
            None => return Ok(None),
            Some(Message::Data(data)) => {
                draft.write(&data).map_err(|error| ApiError::from_store_error(&error))?;
            }
            Some(Message::Finish(details)) => return finish(draft, details).map(Some),
        }
    }
}

/// Checks a file, and makes it appear in the store.
fn finish(mut draft: FileDraft, details: Details) -> Result<Arc<Entry<StoredFile>>, ApiError> {
    if draft.bytes() == 0 {
        return Err(ApiError::invalid_param("file", "found an empty file, expected some content"));
    }
    if details.purpose == purpose::FINE_TUNE {
        let path = draft.content().map_err(|error| ApiError::from_store_error(&error))?;
        check_json_lines(path, MAX_LINE_BYTES)
            .map_err(|error| ApiError::invalid_param("file", error.without_path()))?;
    }
    let expires_at = details.expires_after.map(|seconds| draft.created_at() + seconds);
    let finished = draft.finish(&details.filename, &details.purpose, expires_at);
    finished.map_err(|error| ApiError::from_store_error(&error))
}

/// Upload a file.
#[utoipa::path(post, path = "/v1/files", operation_id = "createFile", tag = "files",
    request_body(content = FileUpload, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = FileObject, description = "The file"),
        (status = 404, body = ErrorBody, description = "The server has no store"),
        (status = 507, body = ErrorBody, description = "The disk or the store is full")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    request: Request,
) -> Result<Response, ApiError> {
    let files = &app.collections("files")?.files;
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let boundary = boundary(content_type.and_then(|value| value.to_str().ok()).unwrap_or_default())?;
    let max_file_bytes = app.http.max_file_bytes;
    let body = BodyReader::new(request, max_file_bytes.saturating_add(OTHER_BYTES), app.http.body_timeout)?;
    let permit = timeout(app.http.body_timeout, files.uploads.acquire()).await;
    let _permit = permit.ok().and_then(Result::ok).ok_or_else(ApiError::busy)?;

    let mut multipart = Multipart::new(body, &boundary);
    let (mut fields, mut writer) = (Fields::default(), None);
    while let Some(part) = multipart.next_part().await? {
        match part.name.as_str() {
            "purpose" => fields.purpose = Some(multipart.text(&part.name, MAX_FIELD_BYTES).await?),
            "expires_after[anchor]" => {
                fields.anchor = Some(multipart.text(&part.name, MAX_FIELD_BYTES).await?);
            }
            "expires_after[seconds]" => {
                fields.seconds = Some(multipart.text(&part.name, MAX_FIELD_BYTES).await?);
            }
            "file" if writer.is_some() => {
                return Err(ApiError::invalid_param("file", "found two files, expected one"));
            }
            "file" => {
                fields.filename = part.filename.filter(|name| !name.is_empty()).unwrap_or("file".into());
                let started = Writer::start(files, context.owner())?;
                let mut bytes = 0;
                while let Some(data) = multipart.data().await? {
                    bytes += data.len() as u64;
                    if bytes > max_file_bytes {
                        return Err(ApiError::body_too_large(max_file_bytes as usize));
                    }
                    if !started.send(Message::Data(data)).await {
                        return started.result().await.and(Err(ApiError::internal("the file was cut")));
                    }
                }
                writer = Some(started);
            }
            _ => {} // such as `model`, which openai 0.28 may send
        }
    }
    let details = fields.validated()?;
    let Some(writer) = writer else {
        return Err(ApiError::invalid_param("file", "missing, expected a file"));
    };
    writer.send(Message::Finish(details)).await;
    let file = writer.result().await?;
    Ok(json_response(to_json(&FileObject::from(&*file))).into_response())
}
