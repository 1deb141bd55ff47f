//! `hornbook models` and `hornbook show`: the available models, and the details of one.

use crate::Result;
use crate::checkpoint::{self, Checkpoint, Config, GENERATION_CONFIG};
use crate::cli::args::open::open_checkpoint;
use crate::cli::args::open::print_tokenizer_problems;
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::model::Precision;
use crate::tokenizer::{SpecialToken, SpecialTokens};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// List the available models
///
/// These are the built-in model and the supported models in the Hugging Face cache.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook models
  hornbook models --json
  hornbook show gpt2                  show one of them")]
pub struct Models {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Show the shape, parameters, memory and model card of a model
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook show fable
  hornbook show gpt2 --json
  hornbook show fable --card | less   the model card")]
pub struct Show {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    model: String,

    /// Print only the model card
    #[arg(long, conflicts_with = "json")]
    card: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut models = vec![Checkpoint::embedded()?];
        let mut unsupported = vec![];
        for (name, folder) in checkpoint::cached_models() {
            match Checkpoint::from_folder(&folder) {
                Ok(mut checkpoint) => {
                    checkpoint.name = name; // the folder is named after the commit
                    models.push(checkpoint);
                }
                Err(_) => unsupported.push(name),
            }
        }
        if self.json {
            write_json(&models.iter().map(summary).collect())?;
        } else {
            let width = models.iter().map(|model| model.name.chars().count()).max().unwrap_or(0);
            write_line(&format!("{:width$}       size  parameters  precision  where", "name"))?;
            for model in &models {
                write_line(&format!(
                    "{:width$}  {:>9}  {:>8.1} M  {:9}  {}",
                    model.name,
                    size(model.mapped_bytes()),
                    model.parameter_counts().total() as f64 / 1e6,
                    model.stored_precision().name(),
                    location(model)
                ))?;
            }
        }
        if !unsupported.is_empty() {
            stderr_line!(
                "hornbook: {} in the cache not supported; see 'hornbook show NAME' for the reason: {}",
                unsupported.len(),
                unsupported.join(", ")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) fn run(self) -> Result<ExitCode> {
        let model = open_checkpoint(&self.model)?;
        let card = model.card()?;
        if self.card {
            write_line(card.as_deref().unwrap_or("this model has no card").trim_end())?;
        } else if self.json {
            let mut details = summary(&model);
            details["shape"] = shape(&model.config);
            let origins = origins(&model)?.into_iter();
            details["generation"] = origins
                .map(|(name, value, file)| (name.to_string(), json!({"value": value, "from": file})))
                .collect();
            details["parameters_by_group"] =
                parameter_groups(&model).into_iter().map(|(name, n)| (name.to_string(), json!(n))).collect();
            let memory = precisions(&model).into_iter();
            details["memory"] = memory.map(|p| (p.to_string(), json!(model.weight_bytes(p)))).collect();
            let drafts = draft_precisions(&model).into_iter();
            details["draft_memory"] = drafts.map(|p| (p.to_string(), json!(model.pass_bytes(p)))).collect();
            details["kv_cache_bytes"] =
                json!({"f32": kv_bytes(&model.config, 4), "f16": kv_bytes(&model.config, 2)});
            details["card"] = json!(card);
            write_json(&details)?;
        } else {
            write_line(table(&model, card.is_some())?.trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The fields of a model's row in the list.
fn summary(model: &Checkpoint) -> Value {
    json!({
        "name": model.name,
        "bytes": model.mapped_bytes(),
        "parameters": model.parameter_counts().total(),
        "precision": model.stored_precision().name(),
        "folder": model.folder,
    })
}

fn location(model: &Checkpoint) -> String {
    model.folder.as_ref().map_or_else(|| "built in".into(), |folder| folder.display().to_string())
}

fn size(bytes: usize) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.2} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// The precisions a model can run in; a quantized model has one.
fn precisions(model: &Checkpoint) -> Vec<Precision> {
    model.quantized_precision().map_or_else(|| Precision::ALL.to_vec(), |precision| vec![precision])
}

/// The precisions that a draft model (`--draft`) can have; none beside a quantized model.
fn draft_precisions(model: &Checkpoint) -> Vec<Precision> {
    let is_quantized = model.quantized_precision().is_some();
    Precision::in_files().filter(|_| !is_quantized).collect()
}

/// Size of the KV cache of a full context, in bytes.
fn kv_bytes(config: &Config, element_bytes: usize) -> usize {
    2 * config.n_layer * config.n_positions * config.n_embd * element_bytes
}

fn parameter_groups(model: &Checkpoint) -> [(&'static str, usize); 6] {
    let parameters = model.parameter_counts();
    [
        ("token embeddings", parameters.token_embeddings),
        ("position embeddings", parameters.position_embeddings),
        ("attention", parameters.attention),
        ("MLP", parameters.mlp),
        ("layer norms", parameters.layer_norms),
        ("LM head", parameters.lm_head),
    ]
}

fn shape(config: &Config) -> Value {
    json!({
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "n_positions": config.n_positions,
        "vocab_size": config.vocab_size,
    })
}

/// The tokens that begin and end a text and the model's defaults of generation: the name, the value and the
/// file of each.
fn origins(model: &Checkpoint) -> Result<Vec<(&'static str, String, &'static str)>> {
    // A tokenizer that cannot be used is an error where text is needed.
    let special = model.tokenizer_files().and_then(|files| SpecialTokens::read(&files));
    let SpecialTokens { bos, eos, problems, .. } = special.unwrap_or_default();
    print_tokenizer_problems(&problems);
    let generation_config = model.generation_config()?;
    let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let token = |token: Option<SpecialToken>, in_config: &[u32]| match token {
        Some(SpecialToken { text, file }) => Some((text, file)),
        None if in_config.is_empty() => None,
        None => Some((format!("id {}", ids(in_config)), "config.json")),
    };
    let Config { bos_token_id, eos_token_ids, .. } = &model.config;
    let bos = token(bos, bos_token_id.as_slice()).map(|(value, file)| ("bos_token", value, file));
    let eos = token(eos, eos_token_ids).map(|(value, file)| ("eos_token", value, file));
    let stop =
        generation_config.eos_token_id.as_deref().map(|stop| ("eos_token_id", ids(stop), GENERATION_CONFIG));
    let defaults = generation_config.defaults();
    let defaults = defaults.into_iter().map(|(name, value)| (name, value, GENERATION_CONFIG));
    Ok(bos.into_iter().chain(eos).chain(stop).chain(defaults).collect())
}

fn table(model: &Checkpoint, has_card: bool) -> Result<String> {
    let config = &model.config;
    let Config { n_layer, n_embd, n_head, n_inner, n_positions, vocab_size, .. } = *config;
    let total = model.parameter_counts().total();
    let mut text = format!(
        "name        {}\nwhere       {}\nsize        {}, {}\n\
         layers      {n_layer}\nwidth       {n_embd}, {n_head} heads of {}, MLP of {n_inner}\n\
         context     {n_positions} tokens\nvocabulary  {vocab_size} tokens\n",
        model.name,
        location(model),
        size(model.mapped_bytes()),
        model.stored_precision().name(),
        n_embd / n_head,
    );
    if has_card {
        text += &format!("card        hornbook show {} --card\n", model.name);
    }
    text += "\n";
    for (name, value, file) in origins(model)? {
        text += &format!("{name:22}{value}, from {file}\n");
    }
    text += &format!("\nparameters           {total:>13}\n");
    for (name, count) in parameter_groups(model) {
        text += &match (name, count) {
            ("LM head", 0) => "LM head                          -  tied to the token embeddings\n".into(),
            _ => format!("{name:19}  {count:>13}  {:4.1} %\n", 100.0 * count as f64 / total as f64),
        };
    }
    text += "\nprecision      weights\n";
    for precision in precisions(model) {
        let stored = if precision == model.stored_precision() { "  as stored" } else { "" };
        text += &format!("{:9}  {:>11}{stored}\n", precision.name(), size(model.weight_bytes(precision)));
    }
    for precision in draft_precisions(model) {
        let bytes = size(model.pass_bytes(precision));
        text += &format!("{:9}  {bytes:>11}  more for --draft {precision}\n", "");
    }
    text += &format!(
        "\nKV cache of a full context: {} in f32, {} in f16\n",
        size(kv_bytes(config, 4)),
        size(kv_bytes(config, 2))
    );
    Ok(text)
}
