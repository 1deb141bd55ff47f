//! Looking inside: what each part of a model does, and what a text looks like on its way through.

pub mod ablate;
pub mod heads;
pub mod label;
pub mod positions;
pub mod walk;
