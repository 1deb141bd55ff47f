//! `hornbook heads`: classifies attention heads.

use crate::Result;
use crate::atomic_file::AtomicFile;
use crate::cli::args::model::ModelArgs;
use crate::cli::output::progress;
use crate::cli::output::screen::Screen;
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::lens::heads::{self, HeadKind, HeadScores};
use crate::memory;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Score attention heads: induction, previous token, duplicate token, first token
///
/// The model reads a random token sequence that is repeated once. A head's score for a kind is the mean
/// attention weight on the position that this kind attends to: the token before (previous), the earlier
/// occurrence of the same token (duplicate), the token after that occurrence (induction), or the first token
/// of the sequence (first, the attention sink of idle heads). Scores are between 0 and 1.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook heads
  hornbook heads --sort previous
  hornbook heads --model gpt2 --html heads.html
  hornbook heads --json
  hornbook generate \"The king\" --ablate L5H1     generate without a head")]
pub struct Heads {
    /// Model options
    #[command(flatten)]
    model: ModelArgs,

    /// Sort by the score of this kind
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Sort::Induction)]
    sort: Sort,

    /// Length of the repeated sequence in tokens [default: 64, or what fits into the context]
    #[arg(long, value_name = "N")]
    length: Option<NonZeroUsize>,

    /// Number of random sequences to average over
    #[arg(long, value_name = "N", default_value = "8")]
    sequences: NonZeroUsize,

    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Also write an HTML page with the scores as heat maps
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Sort order of the heads.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// Induction score, highest first
    Induction,
    /// Previous-token score
    Previous,
    /// Duplicate-token score
    Duplicate,
    /// First-token score
    First,
    /// Layer and head
    Layer,
}

impl Heads {
    pub(super) fn run(self) -> Result<ExitCode> {
        let hornbook = self.model.open()?;
        let length = self.length.map(NonZeroUsize::get);
        let sequence_bytes = size_of::<Vec<u32>>() + 2 * hornbook.config().n_positions * size_of::<u32>();
        let n = self.sequences;
        memory::check("--sequences", &n.to_string(), &[n.get(), sequence_bytes])?;
        let sequences =
            heads::repeated_random_tokens(hornbook.model(), self.sequences.get(), length, self.seed)?;
        let bar = progress::bar(sequences.len());
        let scores = heads::score(hornbook.model(), &sequences, || bar.inc(1));
        bar.finish_and_clear();
        let scores = self.sorted(scores?);

        if let Some(file) = &self.html {
            let page = heads::html(hornbook.name(), &scores)?;
            AtomicFile::create(file)?.write_and_commit(page.as_bytes())?;
        }
        match self.json {
            true => {
                let length = sequences[0].len() / 2;
                let (model, n, seed) = (hornbook.name(), sequences.len(), self.seed);
                let report =
                    json!({"model": model, "sequences": n, "length": length, "seed": seed, "heads": scores});
                write_json(&report)?;
            }
            false => write_line(table(Screen::new(None)?, &scores).trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn sorted(&self, mut scores: Vec<HeadScores>) -> Vec<HeadScores> {
        let kind = match self.sort {
            Sort::Induction => HeadKind::Induction,
            Sort::Previous => HeadKind::PreviousToken,
            Sort::Duplicate => HeadKind::DuplicateToken,
            Sort::First => HeadKind::FirstToken,
            Sort::Layer => return scores, // already in this order
        };
        scores.sort_by(|a, b| b.score(kind).total_cmp(&a.score(kind)));
        scores
    }
}

fn table(screen: Screen, scores: &[HeadScores]) -> String {
    let names: String = HeadKind::ALL.iter().map(|kind| format!("{:>11}", kind.short_name())).collect();
    let mut text = format!("{}\n", screen.bold(&format!("head   {names}   kind")));
    for head in scores {
        let name = format!("L{}H{}", head.layer, head.head);
        let cells: String = HeadKind::ALL
            .iter()
            .map(|&kind| {
                format!(
                    "    {}",
                    screen.on_heat_color(&format!("{:7.3}", head.score(kind)), head.score(kind) as f32)
                )
            })
            .collect();
        let kind = head.kind().map_or("", HeadKind::name);
        text += format!("{name:7}{cells}   {kind}").trim_end();
        text.push('\n');
    }
    text
}
