//! Training a model: `finetune` from one that there is, `train` from nothing.
//!
//! A command reads what it is told into a [`Plan`](folder::Plan); a [`Job`](job::Job) carries it out in a
//! [`Folder`](folder::Folder), and shows its [`Progress`](progress::Progress).

mod card;
mod csv;
mod finetune;
mod folder;
mod inputs;
mod job;
mod options;
mod progress;
mod requirements;
mod sample;
mod train;

pub use finetune::Finetune;
pub use train::Train;
