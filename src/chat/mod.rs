//! A conversation with a model, which costs only what is new of it.
//!
//! ```text
//! turns ─▶ template ─▶ text ─▶ ids ─▶ what the model has read already │ the rest ─▶ answer ─▶ one more turn
//! ```
//!
//! A model without memory is given everything said so far with every turn ([`ChatTemplate`]). Of that the keys and values
//! of the longest beginning it shares with what was read before are still there ([`Conversation`]), so that only the
//! rest goes through the model, to the same bits.
//!
//! ```
//! use hornbook::chat::{ChatTemplate, Conversation};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let hornbook = Hornbook::open("fable")?;
//! let options = Options { max_tokens: Some(20), ..Options::default() };
//! let mut conversation = Conversation::new(&hornbook, ChatTemplate::for_model(&hornbook)?, options)?;
//! for piece in conversation.send("Who lives in the castle?")? {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod conversation;
mod template;

pub use answer::{Answer, AnswerStats};
pub use conversation::Conversation;
pub use template::{ChatMessage, ChatTemplate};
