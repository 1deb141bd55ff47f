//! `hornbook tokens`: tokenizes a text.

use crate::cli::args::open::open_hornbook;
use crate::cli::args::open::thread_pool;
use crate::cli::args::prompt::{self, Prompt, PromptArgs};
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::lens::label::label;
use crate::tokenizer::{MergeStep, PreToken};
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// The maximum width of the token column.
const MAX_LABEL_WIDTH: usize = 24;

/// Show how a text is tokenized
///
/// A space is shown as ·, a line feed as ↵, and bytes that are not valid UTF-8, such as part of a character,
/// as \xE2.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook tokens \"Once upon a time\"
  hornbook tokens \"unbelievable\" --merges       the BPE merges, step by step
  hornbook tokens \"naïve 😀\" --json
  echo \"The king\" | hornbook tokens
  hornbook tokens --prompt-ids 15,3,7           decode ids to text")]
pub struct Tokens {
    #[command(flatten)]
    prompt: PromptArgs,

    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable")]
    model: String,

    /// Show the BPE merges of every word
    #[arg(long, conflicts_with = "prompt_ids")]
    merges: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Width in columns [default: that of the terminal, or 100]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
}

impl Tokens {
    pub(super) fn run(self) -> Result<ExitCode> {
        let screen = Screen::new(self.width)?;
        let Some(prompt) = self.prompt.read()? else {
            stderr_text!("{}", prompt::missing_input_hint("tokens", "a text"));
            return Ok(ExitCode::from(2));
        };
        let hornbook = open_hornbook(&self.model, thread_pool(None)?, None)?;
        let tokenizer = hornbook.tokenizer()?;
        let words = match (&prompt, self.merges) {
            (Prompt::Text(text, special), true) => Some(tokenizer.merge_steps(text, *special)?),
            _ => None,
        };
        let ids = prompt.ids(&hornbook)?;
        let vocab_size = tokenizer.vocab_size();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::TokenId { id, vocab_size });
        }
        match self.json {
            true => write_json(&report(&hornbook, &ids, words.as_deref())?)?,
            false => {
                let view = TokenView { hornbook: &hornbook, screen };
                let words = words.iter().flatten().map(|word| view.word(word));
                let text = view.table(&ids)? + &words.collect::<String>();
                write_line(text.trim_end())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn report(hornbook: &Hornbook, ids: &[u32], words: Option<&[PreToken]>) -> Result<Value> {
    let tokenizer = hornbook.tokenizer()?;
    let tokens = ids.iter().map(|&id| {
        let bytes = tokenizer.token_bytes(id);
        json!({"id": id, "text": str::from_utf8(bytes).ok(), "label": label(hornbook, id), "bytes": bytes})
    });
    let mut report = json!({
        "model": hornbook.name(),
        "text": tokenizer.decode(ids),
        "tokens": tokens.collect::<Vec<_>>(),
    });
    if let Some(words) = words {
        let merge = |merge: &MergeStep| {
            json!({
                "rank": merge.rank, "pair": merge.pair, "token": merge.token, "tokens": merge.tokens,
            })
        };
        let word = |word: &PreToken| {
            let merges: Vec<_> = word.merges.iter().map(merge).collect();
            json!({"initial_tokens": word.initial_tokens, "merges": merges})
        };
        report["words"] = words.iter().map(word).collect();
    }
    Ok(report)
}

/// The output for the terminal.
struct TokenView<'a> {
    hornbook: &'a Hornbook,
    screen: Screen,
}

impl TokenView<'_> {
    /// All tokens in a row, then a table with one per line.
    fn table(&self, ids: &[u32]) -> Result<String> {
        let tokenizer = self.hornbook.tokenizer()?;
        let labels: Vec<String> = ids.iter().map(|&id| label(self.hornbook, id)).collect();
        let bytes: usize = ids.iter().map(|&id| tokenizer.token_bytes(id).len()).sum();
        let characters = tokenizer.decode(ids).chars().count();
        let mut text = self.row(&labels, "");
        text += &format!("{} tokens, {bytes} bytes, {characters} characters\n\n", ids.len());
        let width =
            labels.iter().map(|label| display_width(label)).max().unwrap_or(0).clamp(5, MAX_LABEL_WIDTH);
        text += &format!(
            "{}\n",
            self.screen.bold(&format!("    #      id  {}  bytes", fit_to_width("token", width)))
        );
        for (t, (&id, label)) in ids.iter().zip(&labels).enumerate() {
            let hex: Vec<String> =
                tokenizer.token_bytes(id).iter().map(|byte| format!("{byte:02X}")).collect();
            let hex_width = self.screen.width.saturating_sub(width + 17).max(2);
            let hex = fit_to_width(&hex.join(" "), hex_width);
            text += format!("{t:5} {id:7}  {}  {}", fit_to_width(label, width), hex.trim_end()).trim_end();
            text.push('\n');
        }
        Ok(text)
    }

    /// The merges of a word from bytes to tokens.
    fn word(&self, word: &PreToken) -> String {
        let labels = |ids: &[u32]| ids.iter().map(|&id| label(self.hornbook, id)).collect::<Vec<_>>();
        let mut text = String::from("\n") + &self.row(&labels(&word.initial_tokens), "");
        for merge in &word.merges {
            let names = labels(&[merge.pair.0, merge.pair.1, merge.token]);
            let note = format!("   {} + {} → {} (merge {})", names[0], names[1], names[2], merge.rank);
            text += &self.row(&labels(&merge.tokens), &note);
        }
        text
    }

    /// Tokens in a row, wrapped to the width, followed by a note.
    fn row(&self, labels: &[String], note: &str) -> String {
        let (mut text, mut used) = (String::new(), 0);
        for (i, label) in labels.iter().enumerate() {
            let width = display_width(label) + usize::from(i > 0);
            if used > 0 && used + width > self.screen.width {
                text.push('\n');
                used = 0;
            } else if i > 0 {
                text += &self.screen.dim("|");
            }
            text += label;
            used += width;
        }
        if used + display_width(note) > self.screen.width {
            text.push('\n');
        }
        text + &self.screen.dim(note) + "\n"
    }
}
