//! The input: a text, or the messages of a conversation.

use crate::chat::ChatMessage;
use crate::server::conversation::Content;
use crate::server::error::ApiError;
use crate::server::ranges::out_of_range;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use utoipa::ToSchema;

/// The roles of messages.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];
/// The types of the parts of a message.
const PART_KINDS: [&str; 2] = ["input_text", "output_text"];

/// A text of the user, or a list of items.
#[derive(Debug)]
pub enum Input {
    /// A text.
    Text(String),
    /// A list of items.
    Items(Vec<InputItem>),
}

/// An item of the conversation; only messages are supported.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InputItem {
    /// `message`, which is the default.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    /// `system`, `developer`, `user` or `assistant`.
    #[serde(default)]
    role: Option<String>,
    /// A text, or parts of type `input_text` or `output_text`.
    #[serde(default)]
    content: Option<Content>,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

/// Tells a text from items by itself, so that an error is that of the item and names its field.
struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string or a list of items")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Input, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Input::Items)
    }
}

/// Returns the message that an item is; `name` is the item's path.
///
/// # Errors
/// 400 for an item of another type, an unknown role, and content that is not text.
pub(super) fn item_message(item: &InputItem, name: &str) -> Result<ChatMessage, ApiError> {
    let kind = item.kind.as_deref().unwrap_or("message");
    if kind != "message" {
        return Err(out_of_range(&format!("{name}.type"), format!("{kind:?}"), "\"message\""));
    }
    let field = format!("{name}.role");
    let Some(role) = item.role.as_deref() else {
        return Err(ApiError::invalid_param(&field, "missing, expected the role of a message"));
    };
    if !ROLES.contains(&role) {
        return Err(out_of_range(&field, format!("{role:?}"), "system, developer, user or assistant"));
    }
    let field = format!("{name}.content");
    match &item.content {
        Some(content) => Ok(ChatMessage::new(role, content.text(&field, &PART_KINDS)?)),
        None => Err(ApiError::invalid_param(&field, "missing, expected the text of a message")),
    }
}
