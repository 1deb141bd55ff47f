//! What can be asked of `hornbook generate`.

use super::output::Form;
use super::repeat_until::parse_pattern;
use crate::cli::changes::ChangesArgs;
use crate::cli::machine::ModelArgs;
use crate::cli::prompt::PromptArgs;
use crate::cli::sampling::SamplingArgs;
use crate::generate::{ContextPolicy, Options};
use crate::sampling::{BeamParams, EarlyStopping};
use clap::{Args, ValueEnum, value_parser};
use regex::Regex;
use std::num::NonZeroUsize;

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
  hornbook generate \"The king\" --max-tokens 2000 --context shift
  hornbook generate \"The king\" --max-tokens 30 --repeat-until 'queen.*\\.'
  hornbook generate \"Round and round and round and\" --prompt-lookup --stats
  hornbook generate --model gpt2 \"The sea\"              from the local cache
  hornbook generate --model DIR --prompt-ids 15,3,7 --output ids

Environment:
  HORNBOOK_ISA           portable, avx2, avx512 or amx: what to compute with
  HF_HUB_CACHE, HF_HOME  where the Hugging Face cache is")]
pub struct Generate {
    #[command(flatten)]
    pub prompt: PromptArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Completions to write, computed together; in text, a line of --- separates them
    #[arg(short, value_name = "N", default_value = "1", help_heading = "How much")]
    pub n: NonZeroUsize,

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

    /// What to do where the text reaches the end of the model's context
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = AtEnd::Stop, help_heading = "Long text", conflicts_with = "beams")]
    pub context: AtEnd,

    /// Write again, with the next seed each time, until the text matches a regular expression, and print that one
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern, help_heading = "Long text", conflicts_with_all = ["n", "beams", "ablate", "scale", "prompt_lookup"])]
    pub repeat_until: Option<Regex>,

    /// The most attempts to find a match
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..), help_heading = "Long text", requires = "repeat_until")]
    pub attempts: u32,

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

/// What is done at the end of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AtEnd {
    /// End the text there, and refuse a prompt that is longer
    Stop,
    /// Go on from the last half alone, read again as if the text began there
    Shift,
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
        let context = match self.context {
            AtEnd::Stop => ContextPolicy::Stop,
            AtEnd::Shift => ContextPolicy::Shift,
        };
        Options { context, ..self.sampling.options(self.model.kv_precision) }
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
