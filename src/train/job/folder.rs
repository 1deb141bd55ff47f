//! The output folder of a run: the model, and in `training.json`, `training.safetensors` and `log.jsonl` what
//! the run needs to go on.

use crate::kernels::elements::Dtype;
use crate::train::Settings;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

const PLAN: &str = "training.json";
const STATE: &str = "training.safetensors";
const LOG: &str = "log.jsonl";

/// The precision in which trained weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredPrecision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, of which 5 are the exponent.
    F16,
    /// 16 bits, of which 8 are the exponent.
    Bf16,
}

impl StoredPrecision {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
        }
    }
}

/// What a run does: its model, data and settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The model that it begins with.
    pub model: String,
    /// The texts that it is trained on.
    pub data: Vec<PathBuf>,
    /// The texts that it is measured on; none for a part of the data.
    pub valid: Vec<PathBuf>,
    /// How much predicting a token of a prompt counts, beside one of a completion.
    pub prompt_loss_weight: f32,
    /// The settings.
    pub settings: Settings,
    /// How the result is stored.
    #[serde(default)]
    pub precision: StoredPrecision,
    /// A hash of the tokens and their weights, once they are known: a resumed run reads the same data.
    pub data_sha256: Option<String>,
}

impl Plan {
    /// The plan with absolute paths, for a run may go on from another working directory.
    fn absolute(&self) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let folder = Path::new(&self.model);
        let model = if folder.is_dir() { absolute(folder).display().to_string() } else { self.model.clone() };
        let all = |paths: &[PathBuf]| paths.iter().map(|path| absolute(path)).collect();
        Self { model, data: all(&self.data), valid: all(&self.valid), ..self.clone() }
    }
}

/// The folder, locked for as long as it lives.
pub struct Folder {
    path: PathBuf,
    /// The open `training.json`.
    lock: File,
}

/// Nothing is left of a run that could not begin.
impl Drop for Folder {
    fn drop(&mut self) {
        if self.lock.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(self.path.join(PLAN));
            let _ = fs::remove_dir(&self.path); // unless something else is in it
        }
    }
}

impl Folder {
    /// Checks that a new run can have a folder.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if a run or a model is there that is not to be replaced.
    pub fn check(path: &Path, force: bool) -> Result<()> {
        let has = |name: &str| path.join(name).exists();
        if !force && has(PLAN) {
            let shown = path.display();
            return Err(Error::invalid_file(
                path,
                format!("found a run; go on with --resume {shown}, or use --force to replace it"),
            ));
        }
        if !force && ["config.json", "model.safetensors", "adapter_config.json"].into_iter().any(has) {
            let expected = "expected an empty or new folder; use --force to replace it";
            return Err(Error::invalid_file(path, format!("found a model, {expected}")));
        }
        Ok(())
    }

    /// Creates the folder of a new run.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if another process has it, [`Error::Io`] if it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| Error::Io {
            path: path.into(),
            action: "create",
            source,
        })?;
        let folder = Self::lock(path, true)?;
        for name in [STATE, LOG] {
            let _ = fs::remove_file(path.join(name)); // of the run that is replaced
        }
        Ok(folder)
    }

    /// Opens the folder of an existing run.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if there is none, or another process has it.
    pub fn open(path: &Path) -> Result<(Self, Plan)> {
        if !path.join(PLAN).exists() {
            return Err(Error::invalid_file(
                path,
                format!("found no {PLAN}, expected the output folder of a run"),
            ));
        }
        let folder = Self::lock(path, false)?;
        let text = crate::text_file::read_file(&path.join(PLAN))?;
        let plan = serde_json::from_str(&text)
            .map_err(|error| Error::invalid_file(&path.join(PLAN), error.to_string()))?;
        Ok((folder, plan))
    }

    fn lock(path: &Path, create: bool) -> Result<Self> {
        let file = path.join(PLAN);
        let lock = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&file);
        let lock = lock.map_err(|source| Error::Io { path: file, action: "open", source })?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(Error::invalid_file(path, "another run is writing to this folder"))
            }
            // A file system without locks does not keep a run from starting.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { path: path.into(), lock }),
        }
    }

    /// Writes what the run does.
    pub fn write_plan(&mut self, plan: &Plan) -> Result<()> {
        let text = serde_json::to_string_pretty(&plan.absolute()).unwrap_or_default() + "\n";
        let written = self.lock.set_len(0).and_then(|()| self.lock.rewind());
        let written = written.and_then(|()| self.lock.write_all(text.as_bytes()));
        let synced = written.and_then(|()| self.lock.sync_all());
        synced.map_err(|source| Error::Io { path: self.path.join(PLAN), action: "write", source })
    }

    /// The file of the training state.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// The file of the log.
    pub fn log_file(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log, without the lines of steps after `step`, which a run that was killed took in vain.
    pub fn log(&self, step: u32) -> Result<File> {
        let path = self.log_file();
        let error = |source| Error::Io { path: path.clone(), action: "write", source };
        let lines = fs::read_to_string(&path).unwrap_or_default();
        let is_kept = |line: &&str| {
            let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
            value.is_some_and(|value| value["step"].as_u64().is_some_and(|n| n <= u64::from(step)))
        };
        let kept: String = lines.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        let mut file = File::create(&path).map_err(error)?;
        file.write_all(kept.as_bytes()).map_err(error)?;
        Ok(file)
    }
}
