//! Looking inside: what goes on while a text is read, taken from the engine's own forward pass.
//!
//! A [`Capture`] keeps what one pass computed, and there are many ways of reading it: which tokens attend to which
//! ([`telling`] picks the head most worth a look), what the model would answer at every depth ([`logit_lens`]), how
//! surprised it was by each token ([`surprise`]), which heads and MLPs speak for a token ([`attribution`]). The
//! [`report`] puts all of it on one page for a browser. Others change the pass or walk through it: [`ablate`] switches parts
//! off, [`heads`] says what each head does, [`positions`] compares position embeddings, [`walk`] goes step by step.

pub mod ablate;
pub mod attribution;
pub mod capture;
pub mod doc;
pub mod heads;
pub mod inspection;
pub mod label;
pub mod logit_lens;
pub mod positions;
pub mod report;
pub mod surprise;
pub mod telling;
pub mod walk;

pub use attribution::{Attribution, Contributions, Part};
pub use capture::Capture;
pub use inspection::Inspection;
pub use label::label;
pub use surprise::Reading;
