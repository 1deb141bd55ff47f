//! `hornbook inspect`: attention, logit lens and logit attribution on a text.

mod bars;
mod effect;
mod heat_map;
mod lens_table;
mod token_strip;

use crate::atomic_file::AtomicFile;
use crate::cli::args::interventions::InterventionArgs;
use crate::cli::args::model::ModelArgs;
use crate::cli::args::prompt::{self, PromptArgs};
use crate::cli::output::progress;
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::lens::inspection::InspectionOptions;
use crate::lens::intervention::{Intervention, Outcome};
use crate::lens::{Inspection, report, values};
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// The number of most likely tokens to keep per prediction.
const TOP_TOKENS: usize = 10;
/// The maximum length of a report in tokens: it holds an attention weight for each pair of tokens and each
/// head.
const MAX_REPORT_TOKENS: usize = 512;

/// Inspect the model on a text: attention, logit lens, logit attribution
///
/// Shows the surprisal of each token, the attention weights of one head (by default the one with the highest
/// saliency), the predictions decoded after each block (logit lens), the most likely next tokens, and the
/// direct logit attribution of one of them to heads and MLPs. With --html, all heads and all tokens are
/// written to one HTML file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook inspect \"The cat sat on the mat because it\"
  hornbook inspect \"The cat sat on the mat because it\" --html report.html
  hornbook inspect \"Once upon a time\" --layer 2 --head 1     attention of one head
  hornbook inspect \"Once upon a\" --target \" time\"            attribution of another token
  hornbook inspect \"Once upon a\" --ablate L0H3,mlp2          with these components ablated
  hornbook inspect \"Once upon a\" --json                    all values as JSON
  hornbook inspect --model gpt2 \"The sea\" --width 120
  hornbook inspect --adapter my-adapter \"Dear Anna,\"          with a LoRA adapter

Environment:
  NO_COLOR=1        disable colors
  CLICOLOR_FORCE=1  use colors even if the output is not a terminal")]
pub struct Inspect {
    #[command(flatten)]
    prompt: PromptArgs,

    #[command(flatten)]
    model: ModelArgs,

    /// Show a head of this block, counted from 0 [default: that of the head with the highest saliency]
    #[arg(long, value_name = "N")]
    layer: Option<usize>,

    /// Show this head of the block, counted from 0
    #[arg(long, value_name = "N", requires = "layer")]
    head: Option<usize>,

    /// Attribute the logit of this next token, e.g. " dog" [default: the most likely]
    #[arg(long, value_name = "TEXT", conflicts_with = "target_id")]
    target: Option<String>,

    /// The same, by token id
    #[arg(long, value_name = "ID")]
    target_id: Option<u32>,

    #[command(flatten)]
    interventions: InterventionArgs,

    /// Print one JSON object with all values
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write a self-contained HTML report to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,

    /// Width in columns, at least 40 [default: that of the terminal, or 100]
    #[arg(long, value_name = "N", help_heading = "Output")]
    width: Option<usize>,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Some(prompt) = self.prompt.read()? else {
            stderr_text!("{}", prompt::missing_input_hint("inspect", "a text"));
            return Ok(ExitCode::from(2));
        };
        let screen = Screen::new(self.width)?;
        let hornbook = self.model.open()?;
        let ids = hornbook.validate_prompt(&prompt.ids(&hornbook)?)?;
        if self.html.is_some() && ids.len() > MAX_REPORT_TOKENS {
            return Err(Error::Parameter {
                name: "--html".into(),
                found: format!("a text of {} tokens", ids.len()),
                expected: format!("at most {MAX_REPORT_TOKENS}"),
            });
        }
        let options = InspectionOptions {
            layer: self.layer,
            head: self.head,
            target: self.target(&hornbook)?,
            top: TOP_TOKENS,
            kv_precision: self.model.execution.kv_precision.map(Into::into),
        };
        let interventions = self.interventions.build(&hornbook, &ids)?;
        let bar = progress::bar(ids.len() * (hornbook.config().n_layer + 1));
        let progress = |n| bar.inc(n as u64);
        let inspection = match interventions {
            None => Inspection::run(&hornbook, &ids, options, &mut (), progress),
            Some(mut interventions) => {
                Inspection::run(&hornbook, &ids, options, &mut interventions, progress)
            }
        };
        bar.finish_and_clear();
        let inspection = inspection?;
        let outcome = measure_outcome(self.interventions.list(), &hornbook, &inspection, options)?;

        if let Some(file) = &self.html {
            let html = report::html(&hornbook, &inspection, outcome.as_ref());
            AtomicFile::create(file)?.write_and_commit(html.as_bytes())?;
            stderr_line!(
                "hornbook: wrote {} ({:.0} kB); open it in a browser",
                file.display(),
                html.len() as f64 / 1e3
            );
        }
        match (self.json, &self.html) {
            (true, _) => write_json(&report_json(&hornbook, &inspection, outcome.as_ref()))?,
            (false, Some(_)) => {}
            (false, None) => write_line(render(&hornbook, &inspection, outcome.as_ref(), screen).trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The token whose logit is attributed.
    fn target(&self, hornbook: &Hornbook) -> Result<Option<u32>> {
        let Some(text) = &self.target else { return Ok(self.target_id) };
        let ids = hornbook.tokenizer()?.encode(text, true)?;
        match ids[..] {
            [id] => Ok(Some(id)),
            _ => {
                let labels: Vec<String> = ids.iter().map(|&id| crate::lens::label(hornbook, id)).collect();
                Err(Error::Parameter {
                    name: "--target".into(),
                    found: format!("{text:?}, which is {} tokens ({})", ids.len(), labels.join(" ")),
                    expected: "one token; most words start with a space".into(),
                })
            }
        }
    }
}

/// The effect of the interventions on the last prediction; `None` without interventions.
fn measure_outcome(
    interventions: Vec<Intervention>,
    hornbook: &Hornbook,
    inspection: &Inspection,
    options: InspectionOptions,
) -> Result<Option<Outcome>> {
    if interventions.is_empty() {
        return Ok(None);
    }
    Outcome::measure(hornbook.model(), interventions, &inspection.activations, options.kv_precision).map(Some)
}

/// All sections for the terminal.
fn render(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>, screen: Screen) -> String {
    let config = hornbook.config();
    let n = inspection.activations.len();
    let label = |id: u32| crate::lens::label(hornbook, id);
    let title = format!("{}: {} layers of {} heads", hornbook.name(), config.n_layer, config.n_head);
    let title = fit_to_width(&title, display_width(&title).min(screen.width)); // a folder name can be long
    let mut sections = vec![
        screen.title(&title, &format!("{n} {}", if n == 1 { "token" } else { "tokens" })),
        token_strip::tokens(inspection, screen, label),
        heat_map::attention(inspection, screen, label),
        lens_table::logit_lens(inspection, screen, label),
        bars::next_token(inspection, screen, label),
        bars::logit_attribution(inspection, screen, label),
    ];
    sections.extend(outcome.map(|outcome| effect::before_and_after(outcome, screen, label)));
    sections.join("\n")
}

/// All values as JSON. Logprobs, entropies and logit contributions are in nats, `surprisal_bits` in bits.
fn report_json(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>) -> Value {
    let config = hornbook.config();
    json!({
        "model": hornbook.name(),
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "tokens": token_strip::tokens_json(hornbook, inspection),
        "attention": heat_map::attention_json(inspection),
        "logit_lens": lens_table::logit_lens_json(hornbook, inspection),
        "predictions": values::predictions(hornbook, &inspection.predictions),
        "components": inspection.components.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "direct_logit_attribution": bars::logit_attribution_json(hornbook, inspection),
        "residual_norms": values::rows(inspection.residual_norms.view()),
        "intervention": outcome.map(|outcome| values::outcome(hornbook, outcome)),
    })
}
