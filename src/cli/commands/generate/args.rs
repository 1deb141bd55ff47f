//! The options of `hornbook generate`.

use super::output::OutputFormat;
use super::repeat_until::parse_pattern;
use crate::Hornbook;
use crate::cli::args::draft::DraftArgs;
use crate::cli::args::interventions::InterventionArgs;
use crate::cli::args::model::ModelArgs;
use crate::cli::args::prompt::PromptArgs;
use crate::cli::args::sampling::SamplingArgs;
use crate::generate::{ContextPolicy, Options};
use crate::sampling::{BeamParams, EarlyStopping, PARAMETERS};
use clap::{Args, ValueEnum, value_parser};
use regex::Regex;
use std::num::NonZeroUsize;

/// Upper bound of the draft length: the logits of every drafted token are kept.
const MAX_DRAFT_LEN: i64 = 128;

/// Tokens beyond the default length within which a text ends with a sentence.
pub const SENTENCE_MARGIN: usize = 72;

/// Generate text from a prompt
///
/// At a terminal, the prompt is shown before its continuation, and lines are wrapped between words. Without
/// --max-tokens, the text ends with the first sentence that ends after 200 tokens.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook generate \"Once upon a time\"                  a different story each time
  hornbook generate \"Once upon a time\" --seed 7 --echo  the same story each time
  hornbook generate \"Alice said\" --temperature 0        greedy decoding
  hornbook generate \"Alice said\" --beams 4              beam search
  hornbook generate \"The king\" -n 3 --stop .            three sentences
  hornbook generate \"The king\" --json --logprobs 2      in the format of OpenAI's API
  hornbook generate \"The king\" --ablate L0H3,mlp2       with these parts ablated, and without
  hornbook generate \"The king\" --scale L5H1=2           with the output of a head doubled
  echo \"The king\" > story.txt
  hornbook generate --prompt-file story.txt --stats     with timings and memory
  hornbook generate \"The king\" --max-tokens 2000 --context shift
  hornbook generate \"The king\" --repeat-until queen
  hornbook generate \"Round and round and round and\" --prompt-lookup --stats
  hornbook generate --model gpt2 \"The sea\"              from the local cache
  hornbook generate --model gpt2 --adapter my-adapter \"Dear Anna,\"
  hornbook generate --prompt-ids 15,3,7 --output ids    token ids; needs no tokenizer

Environment:
  HORNBOOK_ISA           force an instruction set, e.g. portable; an unknown one lists those there are
  HF_HUB_CACHE, HF_HOME  location of the Hugging Face cache")]
pub struct Generate {
    #[command(flatten)]
    pub prompt: PromptArgs,

    #[command(flatten)]
    pub model: ModelArgs,

    #[command(flatten)]
    pub sampling: SamplingArgs,

    /// Number of completions, generated as a batch and separated by --- in text output
    #[arg(short, value_name = "N", default_value = "1", help_heading = "Length")]
    pub n: NonZeroUsize,

    /// Use beam search with B beams instead of sampling; -n sets how many of the results are printed
    #[arg(
        long,
        value_name = "B",
        help_heading = "Beam search",
        conflicts_with_all = ["logprobs", "stop", "seed", "ablate", "scale", "draft"],
        conflicts_with_all = warper_names(),
    )]
    pub beams: Option<NonZeroUsize>,

    /// Length penalty: above 0 favors longer texts, below 0 shorter ones
    #[arg(
        long,
        value_name = "L",
        default_value_t = 1.0,
        allow_hyphen_values = true,
        help_heading = "Beam search",
        requires = "beams"
    )]
    pub length_penalty: f32,

    /// When to stop once B beams are finished
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t = EarlyStoppingArg::False,
        help_heading = "Beam search",
        requires = "beams",
    )]
    pub early_stopping: EarlyStoppingArg,

    /// Behavior at the end of the model's context
    #[arg(
        long,
        value_name = "POLICY",
        value_enum,
        default_value_t = ContextFullArg::Stop,
        help_heading = "Long context",
        conflicts_with = "beams",
    )]
    pub context: ContextFullArg,

    /// Generate again with the next seed until the text matches a regular expression, and print that text
    #[arg(
        long,
        value_name = "PATTERN",
        value_parser = parse_pattern,
        help_heading = "Retries",
        conflicts_with_all = ["n", "beams", "ablate", "scale", "prompt_lookup", "draft"],
    )]
    pub repeat_until: Option<Regex>,

    /// Maximum number of attempts for --repeat-until
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..),
        help_heading = "Retries",
        requires = "repeat_until",
    )]
    pub attempts: u32,

    /// Speculative decoding: draft up to N tokens by looking up repetitions in the text [default N: 8]
    ///
    /// The output is the same, bit for bit. Text that repeats itself, as in copying or editing, is
    /// generated faster; on other text hardly any tokens are drafted and the speed is the same.
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "8",
        value_parser = value_parser!(u16).range(1..=MAX_DRAFT_LEN),
        help_heading = "Speculative decoding",
        conflicts_with = "beams",
    )]
    pub prompt_lookup: Option<u16>,

    #[command(flatten)]
    pub draft: DraftArgs,

    /// Interventions on the model
    #[command(flatten)]
    pub interventions: InterventionArgs,

    /// Print the prompt before the completion
    #[arg(long, help_heading = "Output")]
    pub echo: bool,

    /// Output format
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t = OutputFormat::Text,
        help_heading = "Output",
    )]
    pub output: OutputFormat,

    /// Print one JSON object in the format of OpenAI's completions, plus token_ids and seed
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print the logprobs of each token and its N most likely alternatives, in the JSON or on standard error
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub logprobs: Option<usize>,

    /// Print timings, tokens per second and memory on standard error
    #[arg(long, help_heading = "Output")]
    pub stats: bool,
}

/// Behavior when the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ContextFullArg {
    /// Stop generating; reject a prompt that does not fit
    Stop,
    /// Drop the older half, reevaluate the newer half as if the text began there, and continue
    Shift,
}

/// `early_stopping` of `transformers`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum EarlyStoppingArg {
    /// Stop when the best running beam, if it ended now, would not beat the worst finished one
    False,
    /// Stop at once
    True,
    /// Stop only when no running beam can still beat the worst finished one
    Never,
}

/// The parameters of the warpers, which beam search does not have.
fn warper_names() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().filter(|parameter| !parameter.is_processor).map(|parameter| parameter.name)
}

impl Generate {
    /// Returns the generation options.
    pub fn options(&self, hornbook: &Hornbook) -> Options {
        let context = match self.context {
            ContextFullArg::Stop => ContextPolicy::Stop,
            ContextFullArg::Shift => ContextPolicy::Shift,
        };
        let max_tokens = hornbook.default_options().max_tokens;
        let open_ended = self.sampling.max_tokens.is_none() && max_tokens == Options::default().max_tokens;
        let sentence_margin = if open_ended && self.beams.is_none() { SENTENCE_MARGIN } else { 0 };
        let options = self.sampling.options(hornbook, self.model.execution.kv_precision);
        Options { context, sentence_margin, ..options }
    }

    /// Returns the beam search parameters.
    pub fn beam_params(&self) -> BeamParams {
        BeamParams {
            num_beams: self.beams.map_or(1, NonZeroUsize::get),
            length_penalty: self.length_penalty,
            early_stopping: match self.early_stopping {
                EarlyStoppingArg::False => EarlyStopping::Heuristic,
                EarlyStoppingArg::True => EarlyStopping::Immediate,
                EarlyStoppingArg::Never => EarlyStopping::Never,
            },
        }
    }
}
