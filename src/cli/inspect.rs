//! `hornbook inspect`: what goes on inside while a text is read.

mod bars;
mod effect;
mod heat_map;
mod json;
mod lens_table;
mod strip;

use super::changes::{COMPARED, ChangesArgs};
use super::model_args::ModelArgs;
use super::prompt::{self, PromptArgs};
use super::screen::{Screen, display_width, fit_to_width};
use super::{progress, write_json, write_line};
use crate::lens::ablate::{Change, Effect, Outcome};
use crate::lens::inspection::Settings;
use crate::lens::{Inspection, report};
use crate::model::Session;
use crate::replacement::Replacement;
use crate::{Error, Hornbook, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// The likeliest tokens that are kept for each answer, and shown for the last.
const BEST: usize = 10;
/// The most tokens of a report: every head holds a number for each pair.
const MOST_REPORTED: usize = 512;

/// Look inside while a text is read
///
/// Shows the tokens and how much each surprised the model, the attention of one head (the one that looks hardest at single
/// tokens in the text, unless another is named), what the model would answer if it stopped after each block (the logit
/// lens), the likeliest next tokens, and which heads and MLPs speak for one of them. With --html all heads and all of
/// this for every token go into one file for a browser.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook inspect \"The cat sat on the mat because it\"
  hornbook inspect \"The cat sat on the mat because it\" --html report.html
  hornbook inspect \"Once upon a time\" --layer 2 --head 1     one head's attention
  hornbook inspect \"Once upon a\" --target \" time\"            what speaks for a token
  hornbook inspect \"Once upon a\" --ablate L0H3,mlp2       without these parts
  hornbook inspect --prompt-file story.txt --json            numbers for a program
  hornbook inspect --model gpt2 \"The sea\" --width 120

Environment:
  NO_COLOR, CLICOLOR_FORCE=1  never colours, or into a pipe too")]
pub struct Inspect {
    #[command(flatten)]
    prompt: PromptArgs,

    #[command(flatten)]
    model: ModelArgs,

    /// Show a head of this block, from 0 [default: the most telling head]
    #[arg(long, value_name = "N")]
    layer: Option<usize>,

    /// Show this head of the block, from 0
    #[arg(long, value_name = "N", requires = "layer")]
    head: Option<usize>,

    /// Explain the logit of this token at the text's end, e.g. " dog" [default: the likeliest]
    #[arg(long, value_name = "TEXT", conflicts_with = "target_id")]
    target: Option<String>,

    /// The same, by its id
    #[arg(long, value_name = "ID")]
    target_id: Option<u32>,

    #[command(flatten)]
    changes: ChangesArgs,

    /// One JSON object with all numbers
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write a report for a browser to this file, which needs no network
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,

    /// Columns to draw in, at least 40 [default: the terminal's, or 100]
    #[arg(long, value_name = "N", help_heading = "Output")]
    width: Option<usize>,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Some(prompt) = self.prompt.read()? else {
            eprint!("{}", prompt::missing_input_hint("inspect", "a text to look into"));
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
        let settings = Settings {
            layer: self.layer,
            head: self.head,
            target: self.target(&hornbook)?,
            best: BEST,
            kv_precision: self.model.kv_precision.map(Into::into),
        };
        let changes = self.changes.ready(&hornbook, &ids)?;
        let bar = progress::bar(ids.len() * (hornbook.config().n_layer + 1));
        let each = |n| bar.inc(n as u64);
        let seen = match changes {
            None => Inspection::of(&hornbook, &ids, settings, &mut (), each),
            Some(mut changes) => Inspection::of(&hornbook, &ids, settings, &mut changes, each),
        };
        bar.finish_and_clear();
        let seen = seen?;
        let outcome = outcome(self.changes.list(), &hornbook, &seen, settings)?;

        if let Some(file) = &self.html {
            let html = report::html(&hornbook, &seen, outcome.as_ref());
            Replacement::of(file)?.write(html.as_bytes())?;
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
    changes: Vec<Change>,
    hornbook: &Hornbook,
    seen: &Inspection,
    settings: Settings,
) -> Result<Option<Outcome>> {
    if changes.is_empty() {
        return Ok(None);
    }
    let tokens = &seen.capture.tokens;
    let mut plain = Session::new(hornbook.model(), tokens.len(), settings.kv_precision);
    let after = seen.capture.logits.row(tokens.len() - 1);
    let effect = Effect::of(plain.feed(tokens)?, after.to_slice().unwrap_or_default(), COMPARED);
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
