//! Interpretability: the activations of the engine's own forward pass, and what they mean.
//!
//! An [`ActivationCache`] keeps what one pass computed. Several modules analyze it: [`saliency`] picks an
//! attention head worth a look, [`logit_lens`] shows the prediction at every depth, [`surprisal`] how well
//! each token was predicted, and [`attribution`] which heads and MLPs raise a token's logit. The [`report`]
//! shows all of it on one HTML page. Other modules change the pass or run their own: [`intervention`] ablates
//! and scales components, [`heads`] classifies attention heads, [`positions`] compares position embeddings,
//! and [`walkthrough`] explains the pass step by step.

pub mod activation_cache;
pub mod attribution;
pub mod heads;
pub mod inspection;
pub mod intervention;
pub mod label;
pub mod logit_lens;
pub mod packed_patterns;
pub mod positions;
pub mod report;
pub mod saliency;
pub mod source_doc;
pub mod surprisal;
pub mod values;
pub mod walkthrough;

pub use activation_cache::ActivationCache;
pub use attribution::{Component, DirectLogitAttribution, LogitAttribution};
pub use inspection::Inspection;
pub use label::label;
pub use surprisal::Prediction;
