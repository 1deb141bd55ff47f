//! The model card of a trained model: where it comes from, and how well it predicts.

use super::folder::{Folder, Plan};
use crate::checkpoint::Checkpoint;
use crate::train::{Length, Run, Scope, Settings};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

const FILE: &str = "MODEL_CARD.md";

/// How long a run is, in a few words.
pub fn length(settings: &Settings, steps: u32) -> String {
    let length = match settings.length {
        Length::Epochs(1) => "1 epoch".into(),
        Length::Epochs(n) => format!("{n} epochs"),
        Length::Tokens(n) => format!("{:.1} million tokens", n as f64 / 1e6),
    };
    let Settings { batch_tokens, micro_batch_tokens, .. } = *settings;
    let micro_batches = match micro_batch_tokens < batch_tokens {
        true => format!(", {micro_batch_tokens} at once"),
        false => String::new(),
    };
    let steps = if steps == 1 { "1 step".into() } else { format!("{steps} steps") };
    format!("{length}, {steps} of about {batch_tokens} tokens{micro_batches}")
}

/// Writes the card of a finished run to its folder. `data` says how much was read.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn write(folder: &Folder, plan: &Plan, checkpoint: &Checkpoint, run: &Run, data: &str) -> Result<()> {
    let log = std::fs::read_to_string(folder.log_file()).unwrap_or_default();
    let best = run.best_loss();
    let path = folder.path().join(FILE);
    let absolute = |path: &Path| std::path::absolute(path).ok();
    let is_new = absolute(Path::new(&plan.model)) == absolute(folder.path());
    let base = (!is_new).then_some(checkpoint.name.as_str());
    let text = text(&name(folder.path()), base, plan, run.steps(), best, data, &log);
    std::fs::write(&path, text).map_err(|source| Error::Io { path, action: "write", source })
}

fn text(
    title: &str,
    base: Option<&str>,
    plan: &Plan,
    steps: u32,
    best: Option<f64>,
    data: &str,
    log: &str,
) -> String {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let values = |name: &str| lines.iter().filter_map(|line| line[name].as_f64()).collect::<Vec<_>>();
    let (training, held_out) = (values("loss"), values("held_out_loss"));
    let loss = |loss: Option<&f64>| loss.map_or_else(|| "not measured".into(), |loss| format!("{loss:.4}"));
    let (origin, front) = match base {
        Some(base) => {
            let base = name(Path::new(base));
            let what = match plan.settings.scope {
                Scope::All => format!("**{base}**, trained further"),
                Scope::LastLayers(n) => {
                    format!("**{base}**, of which the last {n} blocks were trained further")
                }
                Scope::Lora(_) => format!("A LoRA adapter for **{base}**, trained"),
            };
            (what, format!("base_model: {base}\n"))
        }
        None => ("A GPT-2 trained from nothing".into(), String::new()),
    };
    let files: Vec<String> = plan.data.iter().map(|path| name(path)).collect();
    let settings = &plan.settings;
    let optimizer = format!("{:?}", settings.optimizer);
    let of_base = base.map_or("", |_| ", and of the base model,");
    format!(
        "---
{front}library_name: transformers
pipeline_tag: text-generation
---

# {title}

{origin} with Hornbook.

| | |
|---|---|
| data | {}: {data} |
| length | {} |
| optimizer | {optimizer}, learning rate {}, weight decay {}, schedule {:?}, seed {} |
| training loss | {} (first step), {} (last) |
| held-out loss | {} (before), {} (this model) |

Losses are the mean cross-entropy of a token, in nats.

## License

Not stated yet. The licenses of the texts{of_base} say what it may be: name them here.
",
        files.join(", "),
        length(settings, steps),
        settings.learning_rate,
        settings.weight_decay,
        settings.decay,
        settings.seed,
        loss(training.first()),
        loss(training.last()),
        loss(held_out.first()),
        loss(best.as_ref()),
    )
}

/// A path's last part, for a card is read on other machines.
fn name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    absolute.file_name().map_or_else(|| path.display().to_string(), |name| name.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::job::StoredPrecision;

    #[test]
    fn card_names_base_data_and_losses() {
        let plan = Plan {
            model: "fable".into(),
            data: vec!["/home/anna/letters.txt".into()],
            valid: vec![],
            prompt_loss_weight: 0.01,
            settings: Settings::default(),
            precision: StoredPrecision::F32,
            data_sha256: None,
        };
        let log = "{\"step\": 0, \"held_out_loss\": 5.0}\n{\"step\": 1, \"loss\": 4.5}\n\
                   {\"step\": 2, \"loss\": 3.5}\n{\"step\": 2, \"held_out_loss\": 4.0}";
        let card = text("mine", Some("fable"), &plan, 2, Some(4.0), "9 sequences of 80 tokens", log);
        for expected in [
            "---\nbase_model: fable\n",
            "# mine\n\n**fable**, trained further with Hornbook.",
            "| data | letters.txt: 9 sequences of 80 tokens |",
            "| length | 3 epochs, 2 steps of about 4096 tokens |",
            "| optimizer | AdamW, learning rate 0.0003, weight decay 0.1, schedule Wsd, seed 0 |",
            "| training loss | 4.5000 (first step), 3.5000 (last) |",
            "| held-out loss | 5.0000 (before), 4.0000 (this model) |",
            "The licenses of the texts, and of the base model, say",
        ] {
            assert!(card.contains(expected), "{expected}: {card}");
        }
        let card = text("mine", None, &plan, 2, None, "", "");
        assert!(card.contains("A GPT-2 trained from nothing with Hornbook.") && !card.contains("base_model"));
        assert!(
            card.contains("| held-out loss | not measured (before), not measured (this model) |"),
            "{card}"
        );
    }
}
