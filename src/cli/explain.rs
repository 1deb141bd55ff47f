//! `hornbook explain`: the forward pass as a walk.

use super::model_args::ModelArgs;
use super::prompt::{self, PromptArgs};
use super::screen::{Screen, display_width, fit_to_width};
use super::{is_closed_pipe, write_error, write_json};
use crate::lens::label::label;
use crate::lens::walkthrough::{Step, walkthrough};
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::json;
use std::collections::HashSet;
use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

/// Tokens of a prompt that are named where each has a number.
const NAMED: usize = 12;
const INDENT: &str = "   ";

/// Walk through the forward pass, from the text to the next token
///
/// For each step: a description, the formula, the shapes, some values of the last token, and the median time
/// of a few passes. The first block, or that of --layer, is shown in full, the others in one line each.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook explain \"Once upon a time\"
  hornbook explain \"Once upon a time\" --step       wait for Enter after each step
  hornbook explain \"Once upon a time\" --layer 3    one block only
  hornbook explain --model gpt2 \"The sea\" --json")]
pub struct Explain {
    #[command(flatten)]
    prompt: PromptArgs,

    #[command(flatten)]
    model: ModelArgs,

    /// Wait for Enter after each step; q quits
    #[arg(long, conflicts_with = "json")]
    step: bool,

    /// Show only block N, counted from 0
    #[arg(long, value_name = "N")]
    layer: Option<usize>,

    /// Width in columns [default: that of the terminal, or 100]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,

    /// Print one JSON object with every step of every block
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode> {
        let screen = Screen::new(self.width)?;
        let Some(prompt) = self.prompt.read()? else {
            eprint!("{}", prompt::missing_input_hint("explain", "a prompt"));
            return Ok(ExitCode::from(2));
        };
        let hornbook = self.model.open()?;
        let tokens = hornbook.validate_prompt(&prompt.ids(&hornbook)?)?;
        let n_layer = hornbook.config().n_layer;
        if let Some(layer) = self.layer.filter(|&layer| layer >= n_layer) {
            let (name, found) = ("--layer".into(), layer.to_string());
            return Err(Error::Parameter { name, found, expected: format!("0 to {}", n_layer - 1) });
        }
        let mut steps = walkthrough(hornbook.model(), &tokens)?;
        if let Some(layer) = self.layer {
            steps.retain(|step| step.layer == Some(layer));
        }
        if self.json {
            let report = json!({"model": hornbook.name(), "tokens": tokens, "steps": steps});
            write_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        let shown = Shown { hornbook: &hornbook, screen, tokens: &tokens };
        match self.show(&shown, &steps) {
            Err(error) if is_closed_pipe(&error) => {} // as for `| head`
            outcome => outcome?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, shown: &Shown, steps: &[Step]) -> Result<()> {
        let whole = self.layer.unwrap_or(0);
        let (mut number, mut said) = (0, HashSet::new());
        say(&shown.head())?;
        for step in steps {
            match step.layer {
                Some(layer) if layer != whole => {
                    if step.rows.iter().any(|row| row.name.ends_with("hook_resid_post")) {
                        say(&shown.summary(layer, steps))?;
                    }
                    continue;
                }
                _ => {}
            }
            number += 1;
            say(&shown.step(number, step, said.insert(step.doc.file)))?;
            if self.step && !go_on()? {
                return Ok(());
            }
        }
        say(&shown.total(steps))
    }
}

fn say(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).map_err(write_error)
}

/// Waits for a line; whether there is more to be shown. Where standard input has ended nothing is waited for.
fn go_on() -> Result<bool> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|source| Error::Io {
        path: "standard input".into(),
        action: "read",
        source,
    })?;
    Ok(line.trim() != "q")
}

/// A walk on a screen.
struct Shown<'a> {
    hornbook: &'a Hornbook,
    screen: Screen,
    tokens: &'a [u32],
}

impl Shown<'_> {
    fn label(&self, id: u32) -> String {
        label(self.hornbook, id)
    }

    /// What goes in, and what it goes through.
    fn head(&self) -> String {
        let config = self.hornbook.config();
        let note = format!(
            "{}: {} blocks, {} numbers a token, {} heads a block, {} tokens in the vocabulary",
            self.hornbook.name(),
            config.n_layer,
            config.n_embd,
            config.n_head,
            config.vocab_size
        );
        let n = self.tokens.len();
        let first = n.saturating_sub(NAMED);
        let named: Vec<String> =
            self.tokens[first..].iter().map(|&id| format!("{} = {id}", self.label(id))).collect();
        let before = if first > 0 { format!("{first} tokens, then ") } else { String::new() };
        self.screen.title("From text to the next token", &note)
            + &self.folded(&format!("{before}{}", named.join("  ")))
    }

    fn step(&self, number: usize, step: &Step, new: bool) -> String {
        let place = step.layer.map_or(String::new(), |layer| format!("Block {layer}: "));
        let title = format!("{number}  {place}{}", step.title);
        let mut text = "\n".to_string() + &self.screen.title(&title, &format!("src/{}", step.doc.file));
        if new {
            for paragraph in &step.doc.idea {
                text += &self.folded(paragraph);
            }
        }
        for line in &step.doc.formula {
            text += &format!("{INDENT}{INDENT}{}\n", self.screen.bold(line));
        }
        text += &self.folded(&format!("shapes  {}", step.shapes));
        text += &self.cost(step);
        for row in &step.rows {
            let values: Vec<String> = row.values.iter().map(|x| format!("{x:.3}")).collect();
            let rest = row.width.saturating_sub(row.values.len());
            let numbers = format!("{}  …{rest} more", values.join("  "));
            text += &self.folded(&format!("{}  {numbers}  (length {:.2})", row.name, row.length));
        }
        if let Some(attends) = &step.attends {
            let mut shares: Vec<(usize, f32)> = attends.shares.iter().copied().enumerate().collect();
            shares.sort_by(|a, b| b.1.total_cmp(&a.1));
            shares.truncate(NAMED);
            shares.sort_by_key(|share| share.0);
            let named: Vec<String> = shares
                .iter()
                .map(|&(t, share)| format!("{} {share:.2}", self.label(self.tokens[t])))
                .collect();
            let last = self.tokens.last().map_or(String::new(), |&id| self.label(id));
            text += &self.folded(&format!("head {}: {last} attends to  {}", attends.head, named.join("  ")));
        }
        let name = step.best.iter().map(|&(id, _)| display_width(&self.label(id))).max().unwrap_or(0);
        for &(id, x) in &step.best {
            let bar = self.screen.bar(if x <= 1.0 { x } else { 0.0 }, 30, false);
            text += format!("{INDENT}{} {x:8.3}  {bar}", fit_to_width(&self.label(id), name)).trim_end();
            text.push('\n');
        }
        text
    }

    fn cost(&self, step: &Step) -> String {
        let ms = format!("{:.3} ms", step.seconds * 1e3);
        let cost = match (step.operations > 0.0, step.seconds > 0.0) {
            (true, true) => {
                let rate = step.operations / step.seconds / 1e9;
                format!("{} in {ms}: {rate:.1} GFLOPS", operations(step.operations))
            }
            (true, false) => operations(step.operations),
            (false, true) => ms,
            (false, false) => return String::new(),
        };
        self.folded(&format!("cost    {cost}"))
    }

    /// A block that is not shown step by step.
    fn summary(&self, layer: usize, steps: &[Step]) -> String {
        let of = steps.iter().filter(|step| step.layer == Some(layer));
        let seconds: f64 = of.clone().map(|step| step.seconds).sum();
        let work: f64 = of.clone().map(|step| step.operations).sum();
        let length = of.flat_map(|step| &step.rows).last().map_or(0.0, |row| row.length);
        let (work, ms) = (operations(work), seconds * 1e3);
        let text = format!(
            "Block {layer} does the same: {work} in {ms:.3} ms; the last token is now {length:.2} long"
        );
        format!("\n{}\n", self.screen.bold(&text))
    }

    fn total(&self, steps: &[Step]) -> String {
        let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
        let work: f64 = steps.iter().map(|step| step.operations).sum();
        let n = self.tokens.len();
        let text = format!("{} in {:.3} ms for {n} tokens", operations(work), seconds * 1e3);
        format!("\n{}\n", self.screen.bold(&text))
    }

    /// Text, indented and folded into the width.
    fn folded(&self, text: &str) -> String {
        let (mut folded, mut line) = (String::new(), INDENT.to_string());
        for word in text.split_inclusive(' ') {
            if display_width(line.trim_end()) > INDENT.len()
                && display_width(&line) + display_width(word.trim_end()) > self.screen.width
            {
                folded += line.trim_end();
                folded.push('\n');
                line = INDENT.into();
            }
            line += word;
        }
        folded + line.trim_end() + "\n"
    }
}

/// Additions and multiplications, as one speaks of them.
fn operations(n: f64) -> String {
    match n {
        1e9.. => format!("{:.2} GFLOP", n / 1e9),
        1e6.. => format!("{:.2} MFLOP", n / 1e6),
        _ => format!("{:.1} kFLOP", n / 1e3),
    }
}
