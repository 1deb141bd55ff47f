//! `hornbook positions`: how alike positions are, learned and by the formula.

use super::screen::{Screen, shade};
use super::{write_json, write_line};
use crate::checkpoint::PositionEmbedding;
use crate::lens::positions::PositionSimilarity;
use crate::{Error, Hornbook, Result};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// The widest a map becomes, and how far apart two stand.
const WIDEST: usize = 64;
const GAP: usize = 3;

/// Compare position embeddings with the sinusoidal formula
///
/// Two heat maps show the cosine similarity of each pair of positions: of the embeddings that the model has
/// learned, and of the sinusoidal formula of the original transformer. Lighter cells
/// (without colors, denser ones) are more similar.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook positions
  hornbook positions --first 64          only the first 64 positions
  hornbook positions --model gpt2 --json")]
pub struct PositionsArgs {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable")]
    model: String,

    /// Use only the first N positions [default: all]
    #[arg(long, value_name = "N")]
    first: Option<usize>,

    /// Print one JSON object: both maps, at most 32 by 32, and the means by distance
    #[arg(long)]
    json: bool,

    /// Width in columns [default: that of the terminal, or 100]
    #[arg(long, value_name = "COLUMNS")]
    width: Option<usize>,
}

impl PositionsArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let screen = Screen::new(self.width)?;
        let hornbook = Hornbook::open(&self.model)?;
        let (own, formula) = (
            PositionSimilarity::from_model(hornbook.model()),
            PositionSimilarity::sinusoidal(hornbook.model()),
        );
        let n = self.first.unwrap_or(own.len());
        if !(2..=own.len()).contains(&n) {
            let (name, found) = ("--first".into(), n.to_string());
            return Err(Error::Parameter { name, found, expected: format!("2 to {}", own.len()) });
        }
        let distances: Vec<usize> =
            (0..).map(|power| 1 << power).take_while(|distance| *distance < n).collect();
        let own_name = match hornbook.config().position_embedding_type {
            PositionEmbedding::Learned => "learned",
            PositionEmbedding::Sinusoidal => "this model's",
        };
        match self.json {
            true => {
                let side = n.min(32);
                let of = |positions: &PositionSimilarity| {
                    let by_distance = distances
                        .iter()
                        .map(|&d| json!({"distance": d, "mean": positions.mean_at_distance(n, d)}));
                    json!({"map": positions.map(n, side, side), "by_distance": by_distance.collect::<Vec<_>>()})
                };
                let report = json!({"model": hornbook.name(), "positions": n, "kind": own_name, "own": of(&own), "formula": of(&formula)});
                write_json(&report)?;
            }
            false => {
                let both = [(own_name, &own), ("sinusoidal", &formula)];
                let text = maps(screen, n, both) + &table(screen, n, &distances, both);
                write_line(text.trim_end())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Both maps; a character is twice as high as it is wide.
fn maps(screen: Screen, n: usize, both: [(&str, &PositionSimilarity); 2]) -> String {
    let columns = ((screen.width - GAP) / 2).min(WIDEST).min(n);
    let rows = columns.div_ceil(2);
    let [left, right] = both.map(|(_, positions)| positions.map(n, rows, columns));
    let mut text = screen.bold(&format!("{:columns$}{:GAP$}{}", both[0].0, "", both[1].0)) + "\n";
    let line = |row: &Vec<f64>| -> String {
        let field = |&similarity: &f64| {
            let share = similarity.max(0.0) as f32;
            screen.on_heat_color(&shade(share).to_string(), share)
        };
        row.iter().map(field).collect()
    };
    for (left, right) in left.iter().zip(&right) {
        text += &format!("{}{:GAP$}{}\n", line(left), "", line(right));
    }
    text + "\n"
}

/// Means by distance.
fn table(screen: Screen, n: usize, distances: &[usize], both: [(&str, &PositionSimilarity); 2]) -> String {
    let note = format!("how alike two of the first {n} positions are, in the mean");
    let mut text = screen.title("By distance", &note);
    text += &format!("{}\n", screen.bold(&format!("distance  {:>12}  {:>12}", both[0].0, both[1].0)));
    for &distance in distances {
        let [own, formula] = both.map(|(_, positions)| positions.mean_at_distance(n, distance));
        text += &format!("{distance:8}  {own:12.3}  {formula:12.3}\n");
    }
    text
}
