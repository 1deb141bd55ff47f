//! `hornbook positions`: similarity of the model's position embeddings and of sinusoidal ones.

use crate::checkpoint::PositionEmbedding;
use crate::cli::args::open::open_hornbook;
use crate::cli::args::open::thread_pool;
use crate::cli::output::screen::{Screen, shade};
use crate::cli::output::stdout::write_json;
use crate::cli::output::stdout::write_line;
use crate::lens::positions::PositionSimilarity;
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// The maximum width of a heat map.
const MAX_MAP_WIDTH: usize = 64;
/// The gap between the two heat maps.
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
        let hornbook = open_hornbook(&self.model, thread_pool(None)?, None)?;
        let (model_positions, sinusoidal) = (
            PositionSimilarity::from_model(hornbook.model()),
            PositionSimilarity::sinusoidal(hornbook.model()),
        );
        let n = self.first.unwrap_or(model_positions.len());
        if !(2..=model_positions.len()).contains(&n) {
            let (name, found) = ("--first".into(), n.to_string());
            return Err(Error::Parameter {
                name,
                found,
                expected: format!("2 to {}", model_positions.len()),
            });
        }
        let distances: Vec<usize> =
            (0..).map(|power| 1 << power).take_while(|distance| *distance < n).collect();
        let kind = match hornbook.config().position_embedding_type {
            PositionEmbedding::Learned => "learned",
            PositionEmbedding::Sinusoidal => "sinusoidal (model)",
        };
        match self.json {
            true => {
                let side = n.min(32);
                let to_json = |positions: &PositionSimilarity| {
                    let by_distance = distances
                        .iter()
                        .map(|&d| json!({"distance": d, "mean": positions.mean_at_distance(n, d)}));
                    let by_distance: Vec<_> = by_distance.collect();
                    json!({"similarity": positions.heat_map(n, side, side), "by_distance": by_distance})
                };
                write_json(&json!({
                    "model": hornbook.name(),
                    "positions": n,
                    "kind": kind,
                    "wpe": to_json(&model_positions),
                    "sinusoidal": to_json(&sinusoidal),
                }))?;
            }
            false => {
                let both = [(kind, &model_positions), ("sinusoidal", &sinusoidal)];
                let text = heat_maps(screen, n, both) + &table(screen, n, &distances, both);
                write_line(text.trim_end())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Both heat maps. They have half as many rows as columns, since a character is twice as high as wide.
fn heat_maps(screen: Screen, n: usize, both: [(&str, &PositionSimilarity); 2]) -> String {
    let columns = ((screen.width - GAP) / 2).min(MAX_MAP_WIDTH).min(n);
    let rows = columns.div_ceil(2);
    let [left, right] = both.map(|(_, positions)| positions.heat_map(n, rows, columns));
    let mut text = screen.bold(&format!("{:columns$}{:GAP$}{}", both[0].0, "", both[1].0)) + "\n";
    let line = |row: &Vec<f64>| -> String {
        let cell = |&similarity: &f64| {
            let heat = similarity.max(0.0) as f32;
            screen.on_heat_color(&shade(heat).to_string(), heat)
        };
        row.iter().map(cell).collect()
    };
    for (left, right) in left.iter().zip(&right) {
        text += &format!("{}{:GAP$}{}\n", line(left), "", line(right));
    }
    text + "\n"
}

/// The table of mean similarities by distance.
fn table(screen: Screen, n: usize, distances: &[usize], both: [(&str, &PositionSimilarity); 2]) -> String {
    let note = format!("mean cosine similarity of two of the first {n} positions");
    let mut text = screen.title("By distance", &note);
    text += &format!("{}\n", screen.bold(&format!("distance  {:>12}  {:>12}", both[0].0, both[1].0)));
    for &distance in distances {
        let [model_mean, sinusoidal_mean] =
            both.map(|(_, positions)| positions.mean_at_distance(n, distance));
        text += &format!("{distance:8}  {model_mean:12.3}  {sinusoidal_mean:12.3}\n");
    }
    text
}
