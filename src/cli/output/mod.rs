//! What the subcommands write to, and how.

#[macro_use]
pub mod stderr;
pub mod progress;
pub mod screen;
pub mod stats;
pub mod stdout;
pub mod word_wrap;
