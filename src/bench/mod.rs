//! Benchmarks: the speed of the model, as a fraction of the machine's limits.
//!
//! Decode reads every weight for every token and is bound by memory bandwidth ([`ReadBandwidth`]); prefill
//! uses each weight many times and is bound by FMA throughput ([`fma_peak`]). Both limits are measured on the
//! same threads just before and after each repetition, and the median of the ratios is reported: on a shared
//! machine, or one that changes its clock, the limit of a minute ago is out of date.
//!
//! - `statistics`: median, interquartile range, outliers
//! - `bandwidth`, `peak`, `limits`: the machine's limits
//! - `cost`: the minimum bytes and FLOPs of a forward pass
//! - `measure`: prefill, decode and batched decode
//! - `attention`: attention kernels alone, compared with the reference
//! - `roofline`: a per-operation profile of a step
//! - `draft`: decode with and without drafts
//! - `train`: a training step and its parts

mod attention;
mod bandwidth;
mod cost;
mod draft;
mod limits;
mod measure;
mod peak;
mod roofline;
mod statistics;
mod train;

pub use crate::checkpoint::{GPT2_SHAPES, ModelShape};
pub use crate::model::OperationTime;
pub use attention::{
    AttentionBenchmark, AttentionMeasurement, AttentionPhase, AttentionShape, scaling_exponent,
};
pub use bandwidth::ReadBandwidth;
pub use cost::Cost;
pub use draft::{DraftMeasurement, measure_drafts};
pub use limits::Limits;
pub use measure::{DECODE_STEPS, LimitSamples, Measurement, Phase, measure};
pub use peak::fma_peak;
pub use roofline::{Roofline, Step, roofline};
pub use statistics::Summary;
pub use train::{StepPart, TrainMeasurement, TrainShape, measure_training};
