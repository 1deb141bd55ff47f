//! Looking inside: what goes on while a text is read, taken from the engine's own forward pass.
//!
//! A [`ActivationCache`] keeps what one pass computed, and there are many ways of reading it: which tokens attend to which
//! ([`telling`] picks the head most worth a look), what the model would answer at every depth ([`logit_lens`]), how
//! surprised it was by each token ([`surprise`]), which heads and MLPs speak for a token ([`attribution`]). The
//! [`report`] puts all of it on one page for a browser. Others change the pass or walk through it: [`ablate`] switches parts
//! off, [`heads`] says what each head does, [`positions`] compares position embeddings, [`walk`] goes step by step.

pub mod activation_cache;
pub mod attribution;
pub mod heads;
pub mod inspection;
pub mod intervention;
pub mod label;
pub mod logit_lens;
pub mod positions;
pub mod report;
pub mod saliency;
pub mod source_doc;
pub mod surprisal;
pub mod walkthrough;

pub use activation_cache::ActivationCache;
pub use attribution::{Component, DirectLogitAttribution, LogitAttribution};
pub use inspection::Inspection;
pub use label::label;
pub use surprisal::Prediction;
