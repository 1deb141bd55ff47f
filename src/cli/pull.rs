//! `hornbook pull`: a model from the Hugging Face hub.

use super::{progress, write_line};
use crate::Result;
use crate::checkpoint::{self, Checkpoint, TokenizerFiles};
use crate::hub::{DEFAULT_REVISION, Hub};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Download a model from the Hugging Face hub
///
/// It goes into the cache that all programs for the hub share, so that what one downloads all have. What is there
/// already is checked, not fetched again; after a break the same command goes on where it stopped. Sizes and SHA-256 are
/// compared with what the hub announces before the model gets its name. Only safetensors and text are fetched, never a
/// pickle. The model's folder is written to standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook pull gpt2                                 0.5 GB; gpt2-medium 1.5, gpt2-large 3.2, gpt2-xl 6.4
  hornbook pull distilgpt2                           0.4 GB
  hornbook pull roneneldan/TinyStories-33M           any owner/name; what is no GPT-2 is refused at once
  hornbook pull gpt2 --revision 607a30d783dfa663caf39e06633721c8d4cfcd7e

Environment:
  HF_HUB_CACHE, HF_HOME    where the cache is [~/.cache/huggingface/hub]
  HF_TOKEN, HF_TOKEN_PATH  who asks, for models that not everyone may have
  HF_ENDPOINT              another hub than https://huggingface.co
  HF_HUB_OFFLINE           1: use what is here, ask nobody
  HTTPS_PROXY, NO_PROXY    the way out")]
pub struct Pull {
    /// gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or owner/name as on the hub
    model: String,

    /// A branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = DEFAULT_REVISION)]
    revision: String,
}

impl Pull {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.model == checkpoint::DEFAULT {
            eprintln!("hornbook: {} is built in: there is nothing to pull", self.model);
            return Ok(ExitCode::SUCCESS);
        }
        let hub = Hub::from_env()?;
        let name = hub.full_name(&self.model)?;
        if hub.is_offline()
            && self.revision == DEFAULT_REVISION
            && let Ok(Checkpoint { folder: Some(folder), .. }) = Checkpoint::open(&name)
        {
            eprintln!(
                "hornbook: '{name}' is here; HF_HUB_OFFLINE is set, so nobody was asked for a newer one"
            );
            return show_folder(&folder);
        }

        let bar = progress::bytes(0);
        let snapshot = hub.pull(&name, &self.revision, |progress| {
            if progress.total > bar.length().unwrap_or(0) {
                bar.set_length(progress.total);
            }
            bar.set_position(progress.done);
        });
        bar.finish_and_clear();
        let snapshot = snapshot?;
        let checkpoint = Checkpoint::from_folder(&snapshot.folder)?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let how = match snapshot.downloaded {
            0 => "was here, complete".to_string(),
            bytes => format!("{:.1} MB downloaded", megabytes(bytes)),
        };
        let parameters = checkpoint.parameters().total() as f64 / 1e6;
        let typed = if self.revision == DEFAULT_REVISION {
            self.model.clone()
        } else {
            snapshot.folder.display().to_string()
        };
        let prompt = match checkpoint.tokenizer_files()? {
            TokenizerFiles::None { .. } => "--prompt-ids 15,3,7 --output ids", // no text without a tokenizer
            _ => "\"Once upon a time\"",
        };
        eprintln!(
            "hornbook: {name}, {:.1} MB, {how}; {parameters:.1} million parameters, commit {}; try\n  \
             hornbook generate --model {typed} {prompt}",
            megabytes(snapshot.bytes),
            &snapshot.commit[..12],
        );
        show_folder(&snapshot.folder)
    }
}

fn show_folder(folder: &Path) -> Result<ExitCode> {
    write_line(&folder.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
