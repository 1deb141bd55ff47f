//! `hornbook inspect`: what goes on inside while a text is read.

mod bars;
mod effect;
mod heat_map;
mod json;
mod lens_table;
mod strip;

use super::interventions::{COMPARED, InterventionArgs};
use super::model_args::ModelArgs;
use super::prompt::{self, PromptArgs};
use super::screen::{Screen, display_width, fit_to_width};
use super::{progress, write_json, write_line};
use crate::atomic_file::AtomicFile;
use crate::lens::inspection::InspectionOptions;
use crate::lens::intervention::{Effect, Intervention, Outcome};
use crate::lens::{Inspection, report};
use crate::model::Session;
use crate::{Error, Hornbook, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// The likeliest tokens that are kept for each answer, and shown for the last.
const BEST: usize = 10;
/// The most tokens of a report: every head holds a number for each pair.
const MOST_REPORTED: usize = 512;

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
  hornbook inspect \"Once upon a\" --ablate L0H3,mlp2          with these parts ablated
  hornbook inspect --prompt-file story.txt --json            all values as JSON
  hornbook inspect --model gpt2 \"The sea\" --width 120

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
            eprint!("{}", prompt::missing_input_hint("inspect", "a text"));
            return Ok(ExitCode::from(2));
        };
        let screen = Screen::new(self.width)?;
        let hornbook = self.model.open()?;
        let ids = hornbook.validate_prompt(&prompt.ids(&hornbook)?)?;
        if self.html.is_some() && ids.len() > MOST_REPORTED {
            return Err(Error::Parameter {
                name: "--html".into(),
                found: format!("a text of {} tokens", ids.len()),
                expected: format!("at most {MOST_REPORTED}"),
            });
        }
        let settings = InspectionOptions {
            layer: self.layer,
            head: self.head,
            target: self.target(&hornbook)?,
            best: BEST,
            kv_precision: self.model.kv_precision.map(Into::into),
        };
        let changes = self.interventions.build(&hornbook, &ids)?;
        let bar = progress::bar(ids.len() * (hornbook.config().n_layer + 1));
        let each = |n| bar.inc(n as u64);
        let seen = match changes {
            None => Inspection::run(&hornbook, &ids, settings, &mut (), each),
            Some(mut changes) => Inspection::run(&hornbook, &ids, settings, &mut changes, each),
        };
        bar.finish_and_clear();
        let seen = seen?;
        let outcome = outcome(self.interventions.list(), &hornbook, &seen, settings)?;

        if let Some(file) = &self.html {
            let html = report::html(&hornbook, &seen, outcome.as_ref());
            AtomicFile::create(file)?.write_and_commit(html.as_bytes())?;
            eprintln!(
                "hornbook: {} ({:.0} KB) opens in any browser",
                file.display(),
                html.len() as f64 / 1e3
            );
        }
        match (self.json, &self.html) {
            (true, _) => write_json(&json::of(&hornbook, &seen, outcome.as_ref()))?,
            (false, Some(_)) => {}
            (false, None) => write_line(drawn(&hornbook, &seen, outcome.as_ref(), screen).trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The token whose logit is to be explained.
    fn target(&self, hornbook: &Hornbook) -> Result<Option<u32>> {
        let Some(text) = &self.target else { return Ok(self.target_id) };
        let ids = hornbook.tokenizer()?.encode(text, true)?;
        match ids[..] {
            [id] => Ok(Some(id)),
            _ => {
                let pieces: Vec<String> = ids.iter().map(|&id| crate::lens::label(hornbook, id)).collect();
                Err(Error::Parameter {
                    name: "--target".into(),
                    found: format!("{text:?}, which is {} tokens ({})", ids.len(), pieces.join(" ")),
                    expected: "one token; most words begin with their space".into(),
                })
            }
        }
    }
}

/// What the changes did to the answer at the text's end; none where nothing was changed.
fn outcome(
    changes: Vec<Intervention>,
    hornbook: &Hornbook,
    seen: &Inspection,
    settings: InspectionOptions,
) -> Result<Option<Outcome>> {
    if changes.is_empty() {
        return Ok(None);
    }
    let tokens = &seen.capture.tokens;
    let mut plain = Session::new(hornbook.model(), tokens.len(), settings.kv_precision);
    let after = seen.capture.logits.row(tokens.len() - 1);
    let effect = Effect::measure(plain.feed(tokens)?, after.to_slice().unwrap_or_default(), COMPARED);
    Ok(Some(Outcome { changes, effect }))
}

/// All sections, one below the other.
fn drawn(hornbook: &Hornbook, seen: &Inspection, outcome: Option<&Outcome>, screen: Screen) -> String {
    let config = hornbook.config();
    let n = seen.capture.len();
    let label = |id: u32| crate::lens::label(hornbook, id);
    let title = format!("{}: {} layers of {} heads", hornbook.name(), config.n_layer, config.n_head);
    let title = fit_to_width(&title, display_width(&title).min(screen.width)); // a folder can have a long name
    let mut sections = vec![
        screen.title(&title, &format!("{n} {}", if n == 1 { "token" } else { "tokens" })),
        strip::tokens(seen, screen, label),
        heat_map::attention(seen, screen, label),
        lens_table::logit_lens(seen, screen, label),
        bars::candidates(seen, screen, label),
        bars::contributions(seen, screen, label),
    ];
    sections.extend(outcome.map(|outcome| effect::before_and_after(outcome, screen, label)));
    sections.join("\n")
}
