//! `/v1/responses`, stateless: a request has the whole conversation, and no response is stored. The
//! computation is that of [chat completions](super::chat).

mod events;
mod input;
mod object;
mod request;

pub use events::StreamEvent;
pub use object::ResponseObject;
pub use request::ResponsesRequest;

use super::AppState;
use super::conversation::{AnswerParams, Conversation};
use super::error::ApiError;
use super::json::Json;
use super::request_context::RequestContext;
use super::response::respond;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use events::ResponsesBuilder;
use std::sync::Arc;

/// Create a response to a conversation.
#[utoipa::path(post, path = "/v1/responses", operation_id = "createResponse", tag = "responses",
    request_body = ResponsesRequest, responses((status = 200,
        content((ResponseObject = "application/json"), (String = "text/event-stream")),
        description = "The response; with `stream`, events, each a `StreamEvent`")))]
pub async fn create(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let key = context.key();
    let (served, name) = app.models.resolve(None, request.model(), key.as_deref())?;
    context.set_model(&name);
    let mode = request.parameters.response_mode()?;
    let max_tokens = request.max_tokens()?;
    request.parameters.check_copies(1)?;
    let top_logprobs = request.top_logprobs()?;
    let (defaults, hornbook) = (served.default_sampling(), served.hornbook());
    let options = request.parameters.options(&request.sampling, defaults, hornbook, max_tokens)?;
    let response = ResponseObject::new(&request, &name, &options.sampling)?;
    let conversation =
        Conversation { messages: request.messages()?, param: "input", truncate: request.truncates()? };
    let answers = AnswerParams { options, max_tokens, n: 1, top_logprobs };
    let answers = conversation.answer(&app, &context, &served, answers).await?;
    let builder = ResponsesBuilder::new(
        response,
        served,
        answers.prompt_tokens,
        answers.trim_start,
        top_logprobs.is_some(),
    );
    respond(context, builder, answers.submission, mode).await
}
