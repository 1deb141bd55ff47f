//! Conversations with a model, in which each turn costs only its new tokens.
//!
//! ```text
//! messages ─▶ chat template ─▶ prompt ─▶ ids ─▶ cached prefix │ new tokens ─▶ answer ─▶ assistant message
//! ```
//!
//! A stateless model is given all previous messages with every turn ([`ChatTemplate`]). A [`Conversation`]
//! keeps the keys and values of the previous turn's tokens and reuses the longest common prefix, so that only
//! the rest is computed, with bit-identical results.
//!
//! ```
//! use hornbook::chat::{ChatTemplate, Conversation};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let hornbook = Hornbook::open("fable")?;
//! let options = Options { max_tokens: Some(20), ..Options::default() };
//! let mut conversation = Conversation::new(&hornbook, ChatTemplate::for_model(&hornbook)?, options)?;
//! for text in conversation.send("Who lives in the castle?")? {
//!     print!("{}", text?);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod conversation;
mod jinja;
mod template;
mod training;

pub use answer::{Answer, AnswerStats};
pub use conversation::Conversation;
pub use template::{ChatMessage, ChatTemplate};
pub use training::Span;
