//! `hornbook pull`: downloads a model from the Hugging Face hub.

use crate::Result;
use crate::checkpoint::{self, Checkpoint};
use crate::cli::output::progress;
use crate::cli::output::stdout::write_line;
use crate::hub::{DEFAULT_REVISION, Hub};
use crate::tokenizer::Tokenizer;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Download a model from the Hugging Face hub
///
/// The model goes into the standard cache, which all programs that use the hub share. Files already in the
/// cache are verified, not downloaded again; interrupted downloads resume when the command is run again.
/// Sizes and SHA-256 hashes are compared with those the hub announces before the model can be used by name.
/// Only safetensors and text files are downloaded, never pickles. The path of the model is printed to
/// standard output.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook pull gpt2                                 0.5 GB (medium 1.5, large 3.2, xl 6.4)
  hornbook pull distilgpt2                           0.4 GB
  hornbook pull roneneldan/TinyStories-33M           any GPT-2 model, as owner/name
  hornbook pull gpt2 --revision 607a30d783dfa663caf39e06633721c8d4cfcd7e

Environment:
  HF_HUB_CACHE, HF_HOME    location of the cache [default: ~/.cache/huggingface/hub]
  HF_TOKEN, HF_TOKEN_PATH  access token, for private and gated models
  HF_ENDPOINT              address of the hub [default: https://huggingface.co]
  HF_HUB_OFFLINE           1: use the cache only, without network access
  HTTPS_PROXY, NO_PROXY    proxy settings")]
pub struct Pull {
    /// Model: the owner/name of a repository on the hub, or a short name such as gpt2
    model: String,

    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = DEFAULT_REVISION)]
    revision: String,
}

impl Pull {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.model == checkpoint::DEFAULT_MODEL {
            stderr_line!("hornbook: {} is built in, nothing to download", self.model);
            return Ok(ExitCode::SUCCESS);
        }
        let hub = Hub::from_env()?;
        let repo_id = hub.repo_id(&self.model)?;
        if hub.is_offline()
            && self.revision == DEFAULT_REVISION
            && let Ok(Checkpoint { folder: Some(folder), .. }) = Checkpoint::open(&repo_id)
        {
            stderr_line!(
                "hornbook: '{repo_id}' is in the cache; HF_HUB_OFFLINE is set, so updates were not checked"
            );
            return print_folder(&folder);
        }

        let bar = progress::bytes(0);
        let snapshot = hub.pull(&repo_id, &self.revision, |progress| {
            if progress.total > bar.length().unwrap_or(0) {
                bar.set_length(progress.total);
            }
            bar.set_position(progress.present);
        });
        bar.finish_and_clear();
        let snapshot = snapshot?;
        let checkpoint = Checkpoint::from_folder(&snapshot.folder)?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let source = match snapshot.downloaded {
            0 => "already in the cache".to_string(),
            bytes => format!("{:.1} MB downloaded", megabytes(bytes)),
        };
        let parameters = checkpoint.parameter_counts().total() as f64 / 1e6;
        let model = if self.revision == DEFAULT_REVISION {
            self.model.clone()
        } else {
            snapshot.folder.display().to_string()
        };
        let tokenizer = checkpoint.tokenizer_files().and_then(|files| Tokenizer::from_files(&files));
        let prompt = match tokenizer {
            Ok(Some(_)) => "\"Once upon a time\"",
            Ok(None) | Err(_) => "--prompt-ids 15,3,7 --output ids", // works without a tokenizer
        };
        stderr_line!(
            "hornbook: {repo_id}, {:.1} MB, {source}; {parameters:.1} million parameters, commit {}; try\n  \
             hornbook generate --model {model} {prompt}",
            megabytes(snapshot.bytes),
            &snapshot.commit[..12],
        );
        print_folder(&snapshot.folder)
    }
}

fn print_folder(folder: &Path) -> Result<ExitCode> {
    write_line(&folder.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
