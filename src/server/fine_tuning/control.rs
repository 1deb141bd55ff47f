//! What clients do with jobs: they cancel, pause and resume them, and delete them and their results.

use super::Result;
use super::event_log::{JobEvent, Level};
use super::folder::{remove_data, remove_last, remove_run};
use super::job::{FineTuningJob, Status};
use super::serve;
use super::service::Jobs;
use crate::server::error::ApiError;
use crate::server::store::Entry;
use std::sync::Arc;

impl Jobs {
    /// Gives a job a status on a client's request, if it has one of some. A job that runs stops.
    ///
    /// # Errors
    /// 400 if it has another one, and those of the store.
    pub fn set_status(&self, id: &str, from: &[Status], to: Status, message: &str) -> Result<(), ApiError> {
        let changed = self.change(id, |job| {
            let may = from.contains(&job.status);
            if may {
                job.status = to;
            }
            may
        });
        if !changed.map_err(|error| ApiError::from_store_error(&error))? {
            let status = self.find(id).map_or("deleted", |job| job.status.as_str());
            let expected: Vec<_> = from.iter().map(|status| status.as_str()).collect();
            let expected = expected.join(" or ");
            return Err(ApiError::invalid(format!("The job is {status}; expected one that is {expected}.")));
        }
        let is_running = self.stop_if_current(id);
        if to == Status::Cancelled && !is_running {
            remove_run(&self.folder(id));
            remove_data(&self.folder(id));
        }
        self.tell(id, JobEvent::message(Level::Info, message));
        self.wake();
        Ok(())
    }

    /// Deletes a job that has ended, with its result.
    ///
    /// # Errors
    /// 400 if it has not ended, and those of the store.
    pub fn delete(&self, entry: &Entry<FineTuningJob>) -> Result<(), ApiError> {
        let status = entry.value.status;
        if !status.is_final() || self.is_current(&entry.id) {
            let message =
                format!("The job is {}; expected one that has ended: cancel it first.", status.as_str());
            return Err(ApiError::invalid(message));
        }
        if let Some(name) = &entry.value.fine_tuned_model {
            serve::remove(self, name);
        }
        let removed = self.collection.remove(&entry.owner, &entry.id);
        removed.map(drop).map_err(|error| ApiError::from_store_error(&error))
    }

    /// Deletes the result of a job, or the model of its last step.
    ///
    /// # Errors
    /// Those of the store.
    pub fn delete_model(&self, name: &str) -> Result<()> {
        let jobs = self.collection.all();
        let result = |entry: &Arc<Entry<FineTuningJob>>| {
            entry.value.fine_tuned_model.clone().filter(|result| serve::is_model_of(name, result))
        };
        let Some((entry, result)) = jobs.iter().find_map(|entry| Some((entry, result(entry)?))) else {
            return Ok(());
        };
        serve::remove(self, name);
        let is_result = name == result;
        let remove = if is_result { remove_run } else { remove_last };
        remove(&self.folder(&entry.id));
        self.change(&entry.id, |job| job.is_deleted |= is_result)
    }
}
