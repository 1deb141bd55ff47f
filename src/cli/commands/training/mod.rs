//! Training a model: `finetune`.
//!
//! A command reads what it is told into a [`Plan`](folder::Plan); a [`Job`](job::Job) carries it out in a
//! [`Folder`](folder::Folder), and shows its [`Progress`](progress::Progress).

mod finetune;
mod folder;
mod job;
mod progress;

pub use finetune::Finetune;
