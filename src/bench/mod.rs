//! How fast is the model, and how fast could it be here?
//!
//! Decode reads every weight for every token, so it is a race against memory ([`ReadBandwidth`]); prefill uses each
//! weight many times, so it is a race against the multipliers ([`fma_peak`]). Both limits are measured on the same
//! threads just before and just after each repetition, and what is reported is the median of the ratios: on a machine
//! that is shared with others, or that changes its clock, the limit of a minute ago says little.
//!
//! - `statistics`: what many measurements say together
//! - `bandwidth`, `peak`: the machine's limits
//! - `random`: models of any shape without a download
//! - `cost`: what a pass must read and compute
//! - `measure`: prefill, decode, and decode of several sequences at once
//! - `attention`: attention kernels alone, beside the formula
//! - `roofline`: a step of the model, operation by operation

mod attention;
mod bandwidth;
mod cost;
mod measure;
mod peak;
mod random;
mod roofline;
mod statistics;

pub use attention::{AttentionLab, AttentionMeasurement, AttentionPhase, AttentionShape, growth};
pub use bandwidth::ReadBandwidth;
pub use cost::Cost;
pub use measure::{DECODE_STEPS, Limits, Measurement, Phase, measure};
pub use peak::fma_peak;
pub use random::{SHAPES, Shape};
pub use roofline::{OperationTime, Roofline, Step, roofline};
pub use statistics::Summary;
