//! `hornbook explain`: a walkthrough of the forward pass.

use crate::cli::args::model::ModelArgs;
use crate::cli::args::prompt::{self, PromptArgs};
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::cli::output::stdout::is_closed_pipe;
use crate::cli::output::stdout::write_error;
use crate::cli::output::stdout::write_json;
use crate::lens::label::label;
use crate::lens::source_doc::WHOLE_MODEL;
use crate::lens::walkthrough::{Step, walkthrough};
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::json;
use std::collections::HashSet;
use std::io::{BufRead, Write, stdin, stdout};
use std::process::ExitCode;

/// The maximum number of tokens to list.
const MAX_LISTED_TOKENS: usize = 12;
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
  hornbook explain --model gpt2 \"The sea\" --json

In the source code, src/model/reference.rs is the whole model as sixty lines of formulas.")]
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
            stderr_text!("{}", prompt::missing_input_hint("explain", "a prompt"));
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
        let view = WalkthroughView { hornbook: &hornbook, screen, tokens: &tokens };
        match self.print(&view, &steps) {
            Err(error) if is_closed_pipe(&error) => {} // e.g. piped into `head`
            outcome => outcome?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, view: &WalkthroughView, steps: &[Step]) -> Result<()> {
        let full_layer = self.layer.unwrap_or(0);
        let (mut number, mut described) = (0, HashSet::new());
        write_text(&view.header())?;
        for step in steps {
            match step.layer {
                Some(layer) if layer != full_layer => {
                    if step.activations.iter().any(|sample| sample.site.ends_with("hook_resid_post")) {
                        write_text(&view.summary(layer, steps))?;
                    }
                    continue;
                }
                _ => {}
            }
            number += 1;
            write_text(&view.step(number, step, described.insert(step.doc.file)))?;
            if self.step && !wait_for_enter(view.screen)? {
                return Ok(());
            }
        }
        write_text(&view.total(steps))
    }
}

fn write_text(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).map_err(write_error)
}

/// Prompts for a line of standard input and returns whether to continue. Does not wait at the end of input.
fn wait_for_enter(screen: Screen) -> Result<bool> {
    stderr_text!("{}", screen.dim("Enter: next, q: quit "));
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|source| Error::Io {
        path: "standard input".into(),
        action: "read",
        source,
    })?;
    Ok(!line.trim().eq_ignore_ascii_case("q"))
}

/// The output for the terminal.
struct WalkthroughView<'a> {
    hornbook: &'a Hornbook,
    screen: Screen,
    tokens: &'a [u32],
}

impl WalkthroughView<'_> {
    fn label(&self, id: u32) -> String {
        label(self.hornbook, id)
    }

    /// The model and the tokens of the prompt.
    fn header(&self) -> String {
        let config = self.hornbook.config();
        let note = format!(
            "{}: {} blocks, width {} (n_embd), {} heads per block, vocabulary of {} tokens",
            self.hornbook.name(),
            config.n_layer,
            config.n_embd,
            config.n_head,
            config.vocab_size
        );
        let n = self.tokens.len();
        let first = n.saturating_sub(MAX_LISTED_TOKENS);
        let listed: Vec<String> =
            self.tokens[first..].iter().map(|&id| format!("{} = {id}", self.label(id))).collect();
        let before = if first > 0 { format!("{first} tokens, then ") } else { String::new() };
        self.screen.title("From text to the next token", &note)
            + &self.wrapped(&format!("{before}{}", listed.join("  ")))
    }

    fn step(&self, number: usize, step: &Step, with_description: bool) -> String {
        let place = step.layer.map_or(String::new(), |layer| format!("Block {layer}: "));
        let title = format!("{number}  {place}{}", step.title);
        let mut text = "\n".to_string() + &self.screen.title(&title, &format!("src/{}", step.doc.file));
        if with_description {
            for paragraph in &step.doc.description {
                text += &self.wrapped(paragraph);
            }
        }
        for line in &step.doc.formula {
            text += &format!("{INDENT}{INDENT}{}\n", self.screen.bold(line));
        }
        text += &self.wrapped(&format!("shapes  {}", step.shapes));
        text += &self.cost(step);
        for sample in &step.activations {
            let values: Vec<String> = sample.values.iter().map(|x| format!("{x:.3}")).collect();
            let rest = sample.width.saturating_sub(sample.values.len());
            let values = format!("{}  …{rest} more", values.join("  "));
            text += &self.wrapped(&format!("{}  {values}  (norm {:.2})", sample.site, sample.norm));
        }
        if let Some(attention) = &step.attention {
            let mut weights: Vec<(usize, f32)> = attention.weights.iter().copied().enumerate().collect();
            weights.sort_by(|a, b| b.1.total_cmp(&a.1));
            weights.truncate(MAX_LISTED_TOKENS);
            weights.sort_by_key(|weight| weight.0);
            let listed: Vec<String> = weights
                .iter()
                .map(|&(t, weight)| format!("{} {weight:.2}", self.label(self.tokens[t])))
                .collect();
            let last = self.tokens.last().map_or(String::new(), |&id| self.label(id));
            text +=
                &self.wrapped(&format!("head {}: {last} attends to  {}", attention.head, listed.join("  ")));
        }
        let name_width =
            step.top_tokens.iter().map(|&(id, _)| display_width(&self.label(id))).max().unwrap_or(0);
        for &(id, x) in &step.top_tokens {
            let bar = self.screen.bar(if x <= 1.0 { x } else { 0.0 }, 30, false);
            text +=
                format!("{INDENT}{} {x:8.3}  {bar}", fit_to_width(&self.label(id), name_width)).trim_end();
            text.push('\n');
        }
        text
    }

    fn cost(&self, step: &Step) -> String {
        let ms = format!("{:.3} ms", step.seconds * 1e3);
        let cost = match (step.flops > 0.0, step.seconds > 0.0) {
            (true, true) => {
                let rate = step.flops / step.seconds / 1e9;
                format!("{} in {ms}: {rate:.1} GFLOPS", format_flops(step.flops))
            }
            (true, false) => format_flops(step.flops),
            (false, true) => ms,
            (false, false) => return String::new(),
        };
        self.wrapped(&format!("cost    {cost}"))
    }

    /// One line for a block that is not shown in full.
    fn summary(&self, layer: usize, steps: &[Step]) -> String {
        let block_steps = steps.iter().filter(|step| step.layer == Some(layer));
        let seconds: f64 = block_steps.clone().map(|step| step.seconds).sum();
        let flops: f64 = block_steps.clone().map(|step| step.flops).sum();
        let norm = block_steps.flat_map(|step| &step.activations).last().map_or(0.0, |sample| sample.norm);
        let (flops, ms) = (format_flops(flops), seconds * 1e3);
        let text = format!(
            "Block {layer}, same steps: {flops} in {ms:.3} ms; norm of the last residual stream {norm:.2}"
        );
        format!("\n{}\n", self.screen.bold(&text))
    }

    fn total(&self, steps: &[Step]) -> String {
        let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
        let flops: f64 = steps.iter().map(|step| step.flops).sum();
        let n = self.tokens.len();
        let text = format!("{} in {:.3} ms for {n} tokens", format_flops(flops), seconds * 1e3);
        let source = format!("The whole model as sixty lines of formulas: src/{}", WHOLE_MODEL.0);
        format!("\n{}\n", self.screen.bold(&text)) + &self.wrapped(&source)
    }

    /// Text, indented and wrapped to the width.
    fn wrapped(&self, text: &str) -> String {
        let (mut wrapped, mut line) = (String::new(), INDENT.to_string());
        for word in text.split_inclusive(' ') {
            if display_width(line.trim_end()) > INDENT.len()
                && display_width(&line) + display_width(word.trim_end()) > self.screen.width
            {
                wrapped += line.trim_end();
                wrapped.push('\n');
                line = INDENT.into();
            }
            line += word;
        }
        wrapped + line.trim_end() + "\n"
    }
}

/// FLOPs with a unit.
fn format_flops(n: f64) -> String {
    match n {
        1e9.. => format!("{:.2} GFLOP", n / 1e9),
        1e6.. => format!("{:.2} MFLOP", n / 1e6),
        _ => format!("{:.1} kFLOP", n / 1e3),
    }
}
