//! Training: the gradients of the loss, by hand, and the steps that the weights take.
//!
//! A step is: a forward pass that keeps what the backward pass needs (`forward.rs`, `activations.rs`), the
//! backward pass, which reads like the forward pass from its last line to its first (`backward.rs`), and
//! AdamW ([`Trainer::update`]). The operations themselves are in [`kernels`](crate::kernels) and
//! [`kernels::backward`](crate::kernels::backward), a formula each.
//!
//! A [`Run`] takes the steps: [`Dataset`] cuts documents into sequences, [`Order`] says which of them a step
//! reads, [`Schedule`] is the learning rate, and `state.rs` writes what a run needs to go on. `job` carries
//! out a run in a folder, from opening its files to the finished model.
//!
//! The result has the same bits for any number of threads: outputs are split between them, never sums.

mod activations;
mod backward;
mod dataset;
mod documents;
mod forward;
#[cfg(any(feature = "cli", feature = "server"))]
pub mod job;
mod layout;
mod order;
mod pass;
mod profile;
mod run;
mod schedule;
mod settings;
mod state;
mod trained;
mod trainer;

pub use activations::Activations;
pub use dataset::Dataset;
pub use documents::{Document, DocumentReader, check_json_lines, read_texts};
pub use layout::{Block, Layout, TensorPlace, WeightAndBias};
pub use order::{Order, Stage};
pub use pass::Batch;
pub use profile::{Operation, OperationTime, profile};
pub use run::{Evaluation, Run, StepReport};
pub use schedule::{Decay, Schedule};
pub use settings::{Length, Optimizer, Settings};
pub use trained::Scope;
pub use trainer::{Optimizers, Trainer};
