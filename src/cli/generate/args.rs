//! What can be asked of `hornbook generate`.

use super::output::Form;
use crate::cli::changes::ChangesArgs;
use crate::cli::machine::ModelArgs;
use crate::cli::prompt::PromptArgs;
use crate::generate::Options;
use crate::sampling::{BeamParams, EarlyStopping, SamplingParams};
use clap::{Args, ValueEnum, value_parser};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::OnceLock;

/// The longest draft: the logits of its tokens are all kept.
const MOST_DRAFTED: i64 = 128;

/// Continue a prompt
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook generate \"Once upon a time\"                  another story each time
  hornbook generate \"Once upon a time\" --seed 7 --echo  the same each time
  hornbook generate \"Alice said\" --temperature 0        the likeliest token
  hornbook generate \"Alice said\" --beams 4              the likeliest text found
  hornbook generate \"The king\" -n 3 --stop .            three sentences
  hornbook generate \"The king\" --json --logprobs 2      as OpenAI's API answers
  hornbook generate \"The king\" --ablate L0H3,mlp2       without these parts, and before
  hornbook generate \"The king\" --scale L5H1=2           with twice of what a head brings
  hornbook generate --prompt-file story.txt --stats     times and memory too
  hornbook generate \"The end. The end. The\" --prompt-lookup --stats
  hornbook generate --model gpt2 \"The sea\"              from the local cache
  hornbook generate --model DIR --prompt-ids 15,3,7 --output ids

Environment:
  HORNBOOK_ISA           portable, avx2 or avx512: what to compute with
  HF_HUB_CACHE, HF_HOME  where the Hugging Face cache is")]
pub struct Generate {
    #[command(flatten)]
    pub prompt: PromptArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    /// The most tokens to write [default: 200, or what the context has room for]
    #[arg(long, value_name = "N", help_heading = "How much")]
    pub max_tokens: Option<usize>,

    /// The fewest tokens before the text may end by itself
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "How much")]
    pub min_tokens: usize,

    /// End the text before this one appears (can be repeated)
    #[arg(long, value_name = "TEXT", help_heading = "How much")]
    pub stop: Vec<String>,

    /// Completions to write; in text, a line of --- separates them
    #[arg(short, value_name = "N", default_value = "1", help_heading = "How much")]
    pub n: NonZeroUsize,

    /// Divide the logits by T: below 1 favours likely tokens, above 1 unlikely ones; 0 takes the most likely
    #[arg(long, allow_negative_numbers = true, value_name = "T", default_value_t = Options::default().sampling.temperature, help_heading = "Sampling, in the order it is applied")]
    pub temperature: f32,

    /// Keep the K most likely tokens; 0 keeps all
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0,
        help_heading = "Sampling, in the order it is applied"
    )]
    pub top_k: usize,

    /// Keep the most likely tokens that together reach probability P; 1 keeps all
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = Options::default().sampling.top_p, help_heading = "Sampling, in the order it is applied")]
    pub top_p: f32,

    /// Keep tokens at least P times as likely as the most likely; 0 keeps all
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "P",
        default_value_t = 0.0,
        help_heading = "Sampling, in the order it is applied"
    )]
    pub min_p: f32,

    /// Keep the tokens whose surprise is nearest the expected one, up to probability P; 1 keeps all
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "P",
        default_value_t = 1.0,
        help_heading = "Sampling, in the order it is applied"
    )]
    pub typical_p: f32,

    /// The number all chance comes from: the same seed, the same text [default: a new one each time]
    #[arg(long, value_name = "N", help_heading = "Sampling, in the order it is applied")]
    pub seed: Option<u64>,

    /// Add to a token's logit (can be repeated), e.g. 15=-5 or 15=-inf
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias, allow_hyphen_values = true, help_heading = "Penalties, before the temperature")]
    pub logit_bias: Vec<(u32, f32)>,

    /// Divide by R the logits of tokens that occurred, multiply where negative, as transformers does; 1 is off
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "R",
        default_value_t = 1.0,
        help_heading = "Penalties, before the temperature"
    )]
    pub repetition_penalty: f32,

    /// Subtract P from the logit of each token written so far, as OpenAI does
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        help_heading = "Penalties, before the temperature"
    )]
    pub presence_penalty: f32,

    /// Subtract P from a token's logit for each time it was written, as OpenAI does
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        help_heading = "Penalties, before the temperature"
    )]
    pub frequency_penalty: f32,

    /// Never let the same N tokens in a row come twice; 0 allows it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Penalties, before the temperature")]
    pub no_repeat_ngram_size: usize,

    /// Instead of sampling, search for the most likely text, following B at a time; -n prints the best of them
    #[arg(long, value_name = "B", help_heading = "Beam search", conflicts_with_all = ["logprobs", "stop", "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "ablate", "scale"])]
    pub beams: Option<NonZeroUsize>,

    /// Above 0 favours long texts, below 0 short ones
    #[arg(
        long,
        value_name = "L",
        default_value_t = 1.0,
        allow_hyphen_values = true,
        help_heading = "Beam search",
        requires = "beams"
    )]
    pub length_penalty: f32,

    /// When to end the search once B texts are finished
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Early::False, help_heading = "Beam search", requires = "beams")]
    pub early_stopping: Early,

    /// Guess up to N tokens from what the text said before and compute them together [default N: 8]
    ///
    /// The text stays the same to the bit, whatever was guessed; where it repeats itself, as in copying, correcting or going
    /// round in circles, it is written faster. On other text hardly anything is guessed and nothing is lost.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "8", value_parser = value_parser!(u16).range(1..=MOST_DRAFTED), help_heading = "Long text", conflicts_with = "beams")]
    pub prompt_lookup: Option<u16>,

    /// What is done to the model first
    #[command(flatten)]
    pub changes: ChangesArgs,

    /// Print the prompt before its completion
    #[arg(long, help_heading = "Output")]
    pub echo: bool,

    /// What to print
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Text, help_heading = "Output")]
    pub output: Form,

    /// One JSON object in the shape of OpenAI's completion, with each choice's token_ids and the seed besides
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Each token's logprob and the N most likely ones, in the JSON or on standard error
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub logprobs: Option<usize>,

    /// Times, tokens a second and memory, on standard error
    #[arg(long, help_heading = "Output")]
    pub stats: bool,
}

/// `transformers`' early_stopping.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Early {
    /// When the best running text would not beat the worst finished one if it ended now
    False,
    /// At once
    True,
    /// Only when no running text can beat the worst finished one any more
    Never,
}

impl Generate {
    /// How to generate.
    pub fn options(&self) -> Options {
        let sampling = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(new_seed),
            min_tokens: self.min_tokens,
            stop_ids: vec![],
        };
        Options {
            sampling,
            max_tokens: self.max_tokens.or(Options::default().max_tokens),
            stop: self.stop.clone(),
            kv_precision: self.model.kv_precision.into(),
        }
    }

    /// How to search.
    pub fn beam_params(&self) -> BeamParams {
        BeamParams {
            num_beams: self.beams.map_or(1, NonZeroUsize::get),
            length_penalty: self.length_penalty,
            early_stopping: match self.early_stopping {
                Early::False => EarlyStopping::WhenUnlikely,
                Early::True => EarlyStopping::WhenFull,
                Early::Never => EarlyStopping::WhenImpossible,
            },
        }
    }
}

/// A number nobody chose, the same for the whole run; small enough to type.
fn new_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0) % 1_000_000_000)
}

fn parse_bias(text: &str) -> std::result::Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected ID=BIAS, e.g. 15=-5")?;
    let id = id.trim().parse().map_err(|_| format!("'{id}' is not a token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("'{bias}' is not a number"))?;
    Ok((id, bias))
}
