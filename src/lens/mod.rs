//! The lens: what goes on inside, taken from the engine's own forward pass.
//!
//! A [`Capture`] keeps what one pass computed. Everything else here is a way of reading it: which tokens attend to which
//! ([`telling`] picks the head most worth a look), what the model would answer at every depth ([`logit_lens`]), how
//! surprised it was by each token ([`surprise`]), which heads and MLPs speak for a token ([`attribution`]). The
//! [`report`] puts all of it on one page for a browser.

pub mod attribution;
pub mod capture;
pub mod inspection;
pub mod label;
pub mod logit_lens;
pub mod report;
pub mod surprise;
pub mod telling;

pub use attribution::{Attribution, Contributions, Part};
pub use capture::Capture;
pub use inspection::Inspection;
pub use label::label;
pub use surprise::Reading;
