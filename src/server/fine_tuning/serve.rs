//! Results of jobs as served models.

use super::folder::{last_folder, run_folder};
use super::hyperparameters::Method;
use super::job::FineTuningJob;
use super::service::Jobs;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::adapter::Adapter;
use crate::engine::Engine;
use crate::kernels::thread_pool::ThreadPool;
use crate::server::models::{ModelRegistry, Origin, ServedModel};
use crate::server::store::Entry;
use crate::{Error, Hornbook, Result};
use std::path::Path;
use std::sync::Arc;

/// What the name of a checkpoint has after that of the result, before its step.
const CHECKPOINT: &str = ":ckpt-step-";

/// The model of a name that fine-tuning may begin with: one that was named when the server started, and is no
/// adapter.
pub fn base(models: &ModelRegistry, name: &str) -> Option<Arc<ServedModel>> {
    let is_base = |served: &&Arc<ServedModel>| served.origin == Origin::Startup && served.adapter.is_none();
    models.current().get(name).filter(is_base).cloned()
}

/// The name of a checkpoint that is not the result.
pub fn checkpoint_name(model: &str, step: u64) -> String {
    format!("{model}{CHECKPOINT}{step}")
}

/// Serves the result of a job, and the model of its last step, if that is another.
///
/// # Errors
/// Those of the model's files.
pub fn serve(jobs: &Jobs, entry: &Entry<FineTuningJob>, base: &ServedModel, name: &str) -> Result<()> {
    let (folder, created) = (jobs.folder(&entry.id), entry.created_at);
    let mut results = vec![open(jobs, entry.value.method, base, name, &run_folder(&folder))?];
    if let Some(last) = last_folder(&folder) {
        let steps = jobs.find(&entry.id).and_then(|job| job.steps).unwrap_or_default();
        let name = checkpoint_name(name, steps.into());
        results.push(open(jobs, entry.value.method, base, &name, &last)?);
    }
    remove(jobs, name);
    jobs.models.change(|models| {
        let mut results = results.into_iter();
        results.try_for_each(|model| models.add(model.fine_tuned(&base.name, &entry.owner, created)))
    })
}

fn open(jobs: &Jobs, method: Method, base: &ServedModel, name: &str, folder: &Path) -> Result<ServedModel> {
    match method {
        Method::Lora => base.with_adapter(name.into(), &Adapter::open(folder, base.config())?),
        Method::Full => {
            let pool = base.hornbook().model().pool();
            let checkpoint = Checkpoint::open(&folder.display().to_string())?;
            let hornbook = Hornbook::new(checkpoint, ThreadPool::new(pool.threads(), pool.isa()))?;
            let engine = Engine::start(hornbook, jobs.options.engine.clone())?;
            Ok(ServedModel::new(name.into(), engine, jobs.options.template.as_ref()))
        }
    }
}

/// Serves what a server before has trained. What cannot be served is named in the log.
pub fn serve_again(jobs: &Jobs, entry: &Entry<FineTuningJob>) {
    let Some(name) = entry.value.fine_tuned_model.as_ref().filter(|_| !entry.value.is_deleted) else {
        return;
    };
    let base = base(&jobs.models, &entry.value.model).ok_or_else(|| Error::Parameter {
        name: "model".into(),
        found: "no such model served".into(),
        expected: format!("{}, which {name} was made from", entry.value.model),
    });
    if let Err(error) = base.and_then(|base| serve(jobs, entry, &base, name)) {
        tracing::warn!("{name} is not served: {error}");
    }
}

/// Whether a name is that of a job's result, or of another checkpoint of the job.
pub fn is_model_of(name: &str, result: &str) -> bool {
    name.strip_prefix(result).is_some_and(|rest| rest.is_empty() || rest.starts_with(CHECKPOINT))
}

/// Serves the result of a job no more, or a checkpoint. Requests that have it go on.
pub fn remove(jobs: &Jobs, name: &str) {
    jobs.models.remove_where(|served| is_model_of(&served.name, name));
}
