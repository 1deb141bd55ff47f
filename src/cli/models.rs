//! `hornbook models` and `hornbook show`: what is here, and what it is made of.

use super::{write_json, write_line};
use crate::Result;
use crate::checkpoint::{self, Checkpoint, Config, Dtype};
use crate::model::Precision;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// List the models that are here
///
/// The built-in one, and those of the Hugging Face cache that run here.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook models
  hornbook models --json
  hornbook show gpt2                  what one of them is made of")]
pub struct Models {
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// Show a model's shape, parameters, memory and card
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook show fable
  hornbook show gpt2 --json
  hornbook show fable --card | less   what its makers say of it")]
pub struct Show {
    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache
    model: String,

    /// The model's card alone
    #[arg(long, conflicts_with = "json")]
    card: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Models {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut models = vec![Checkpoint::embedded()?];
        let mut others = vec![];
        for (name, folder) in checkpoint::cached() {
            match Checkpoint::from_folder(&folder) {
                Ok(mut checkpoint) => {
                    checkpoint.name = name; // its folder is named after a commit
                    models.push(checkpoint);
                }
                Err(_) => others.push(name),
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
                    model.parameters().total() as f64 / 1e6,
                    model.stored().name(),
                    place(model)
                ))?;
            }
        }
        if !others.is_empty() {
            eprintln!(
                "hornbook: {} in the cache cannot run here; hornbook show says why: {}",
                others.len(),
                others.join(", ")
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) fn run(self) -> Result<ExitCode> {
        let model = Checkpoint::open(&self.model)?;
        let card = model.card()?;
        if self.card {
            write_line(card.as_deref().unwrap_or("there is no card").trim_end())?;
        } else if self.json {
            let mut all = summary(&model);
            all["shape"] = shape(&model.config);
            all["parameters_by_part"] =
                parts(&model).into_iter().map(|(name, n)| (name.to_string(), json!(n))).collect();
            let memory = precisions(&model).into_iter();
            all["memory"] =
                memory.map(|dtype| (dtype.name().to_string(), json!(model.weight_bytes(dtype)))).collect();
            all["key_value_bytes"] =
                json!({"f32": kv_bytes(&model.config, 4), "f16": kv_bytes(&model.config, 2)});
            all["card"] = json!(card);
            write_json(&all)?;
        } else {
            write_line(table(&model, card.is_some()).trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What there is to say of a model in a line.
fn summary(model: &Checkpoint) -> Value {
    json!({
        "name": model.name,
        "bytes": model.mapped_bytes(),
        "parameters": model.parameters().total(),
        "precision": model.stored().name(),
        "folder": model.folder,
    })
}

fn place(model: &Checkpoint) -> String {
    model.folder.as_ref().map_or_else(|| "built in".into(), |folder| folder.display().to_string())
}

fn size(bytes: usize) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.2} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// What a model can compute in: a quantized one in nothing else.
fn precisions(model: &Checkpoint) -> Vec<Dtype> {
    match model.quantized() {
        Some(dtype) => vec![dtype],
        None => Precision::ALL.into_iter().map(Precision::dtype).collect(),
    }
}

/// Bytes of the keys and values of a full context.
fn kv_bytes(config: &Config, number: usize) -> usize {
    2 * config.n_layer * config.n_positions * config.n_embd * number
}

fn parts(model: &Checkpoint) -> [(&'static str, usize); 6] {
    let all = model.parameters();
    [
        ("token embeddings", all.token_embeddings),
        ("position embeddings", all.position_embeddings),
        ("attention", all.attention),
        ("MLP", all.mlp),
        ("layer norms", all.layer_norms),
        ("head", all.head),
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

fn table(model: &Checkpoint, has_card: bool) -> String {
    let config = &model.config;
    let Config { n_layer, n_embd, n_head, n_inner, n_positions, vocab_size, .. } = *config;
    let total = model.parameters().total();
    let mut text = format!(
        "name        {}\nwhere       {}\nsize        {}, {}\n\
         layers      {n_layer}\nwidth       {n_embd}, {n_head} heads of {}, MLP of {n_inner}\n\
         context     {n_positions} tokens\nvocabulary  {vocab_size} tokens\n",
        model.name,
        place(model),
        size(model.mapped_bytes()),
        model.stored().name(),
        n_embd / n_head,
    );
    if has_card {
        text += &format!("card        hornbook show {} --card\n", model.name);
    }
    text += &format!("\nparameters           {total:>13}\n");
    for (name, number) in parts(model) {
        text += &match (name, number) {
            ("head", 0) => "head                             -  the token embeddings\n".into(),
            _ => format!("{name:19}  {number:>13}  {:4.1} %\n", 100.0 * number as f64 / total as f64),
        };
    }
    text += "\nprecision      weights\n";
    for dtype in precisions(model) {
        let stored = if dtype == model.stored() { "  as stored" } else { "" };
        text += &format!("{:9}  {:>11}{stored}\n", dtype.name(), size(model.weight_bytes(dtype)));
    }
    text += &format!(
        "\nkeys and values of a full context: {} in f32, {} in f16\n",
        size(kv_bytes(config, 4)),
        size(kv_bytes(config, 2))
    );
    text
}
