//! Fine-tuning: jobs that train a model on uploaded examples while the server runs, and serve the result
//! under a name of its own.
//!
//! ```text
//! request ─▶ job (in the store) ─▶ queue ─▶ worker: run ─▶ result ─▶ serve
//!                ▲                            │  (train::job, at low priority)
//!                └── jobs, legacy ◀── event_log ◀┘
//! ```
//!
//! One job runs at a time. OpenAI's current API ([`jobs`]) and the one that its older clients have
//! ([`legacy`]) are two views of the same jobs: `ftjob-1` and `ft-1` are one. A job has a folder in the
//! [store](super::store) with its data, its events and its [run](crate::train::job), so that a server that
//! is killed goes on with it to the same bytes.

mod control;
mod event_log;
mod folder;
mod hyperparameters;
mod job;
pub mod jobs;
pub mod legacy;
mod pace;
mod progress;
mod request;
mod results;
mod run;
mod serve;
mod service;
mod worker;

pub use job::Status;
pub use service::Jobs;
pub use worker::FineTuning;

use super::AppState;
use super::error::ApiError;
use crate::chat::ChatTemplate;
use crate::engine::EngineOptions;
use std::sync::Arc;

type Result<T, E = crate::Error> = std::result::Result<T, E>;

/// What the server's options say of training.
#[derive(Clone)]
pub struct TrainingOptions {
    /// The share of the time that training takes at most while requests run, from 0 to 1.
    pub train_share: f64,
    /// The unfinished jobs that a key may have.
    pub max_jobs_per_key: u64,
    /// How the results are run.
    pub engine: EngineOptions,
    /// A chat template in place of the models' own.
    pub template: Option<Arc<ChatTemplate>>,
}

impl AppState {
    /// The fine-tuning jobs.
    ///
    /// # Errors
    /// 404 on a server without a store.
    pub fn fine_tuning(&self) -> Result<&Arc<Jobs>, ApiError> {
        let fine_tuning = self.fine_tuning.as_ref();
        fine_tuning.map(FineTuning::jobs).ok_or_else(|| ApiError::no_store("fine-tuning jobs"))
    }

    /// Stops the job that runs after the step that it takes.
    pub fn stop_fine_tuning(&self) {
        self.fine_tuning.iter().for_each(FineTuning::stop);
    }

    /// Deletes a fine-tuned model, which is served no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete_model(&self, name: &str) -> Result<(), ApiError> {
        let (jobs, name) = (Arc::clone(self.fine_tuning()?), name.to_string());
        self.blocking(move || jobs.delete_model(&name)).await
    }
}
