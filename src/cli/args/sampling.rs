//! The sampling options of `generate` and `chat`.

use crate::Hornbook;
use crate::cli::args::prompt::parse_token_id;
use crate::cli::args::values::KvPrecisionArg;
use crate::generate::Options;
use crate::sampling::SamplingParams;
use clap::Args;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// Headings of `--help`. Penalties apply first, then the sampling options in the order listed.
const LENGTH: &str = "Length";
const PENALTIES: &str = "Penalties (applied before temperature)";
const SAMPLING: &str = "Sampling (applied in this order)";

/// The options for the length of the text and the choice of each token. The defaults in brackets are those
/// of a model that has none of its own in `generation_config.json`.
#[derive(Args, Debug)]
pub struct SamplingArgs {
    /// Maximum number of tokens to generate [default: 200, or what fits into the context]
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    pub max_tokens: Option<usize>,

    /// Minimum number of tokens before the end of text is allowed
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = LENGTH)]
    pub min_tokens: usize,

    /// Stop before this text would appear (repeatable)
    #[arg(long, value_name = "TEXT", help_heading = LENGTH)]
    pub stop: Vec<String>,

    /// Stop at these token ids, as at the end of text
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        value_parser = parse_token_id,
        help_heading = LENGTH,
    )]
    pub stop_token_ids: Vec<u32>,

    /// Divide the logits by T: below 1 favors likely tokens, above 1 unlikely ones; 0 selects the most likely
    /// (greedy) [default: 0.8]
    #[arg(long, value_name = "T", help_heading = SAMPLING)]
    pub temperature: Option<f32>,

    /// Keep the K most likely tokens; 0 disables [default: 0]
    #[arg(long, value_name = "K", help_heading = SAMPLING)]
    pub top_k: Option<usize>,

    /// Keep the most likely tokens until their total probability reaches P; 1 disables [default: 0.95]
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    pub top_p: Option<f32>,

    /// Keep tokens at least P times as likely as the most likely token; 0 disables [default: 0]
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    pub min_p: Option<f32>,

    /// Keep the tokens whose surprisal is closest to the entropy, until their total probability reaches P; 1
    /// disables [default: 1]
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    pub typical_p: Option<f32>,

    /// Random seed; the same seed gives the same text [default: random]
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    pub seed: Option<u64>,

    /// Add a bias to a token's logit, e.g. 15=-5 or 15=-inf (repeatable)
    #[arg(
        long,
        value_name = "ID=BIAS",
        value_parser = parse_bias,
        allow_hyphen_values = true,
        help_heading = PENALTIES,
    )]
    pub logit_bias: Vec<(u32, f32)>,

    /// Divide the positive logits of tokens seen so far by R and multiply the negative ones, as transformers
    /// does; 1 disables [default: 1]
    #[arg(long, value_name = "R", help_heading = PENALTIES)]
    pub repetition_penalty: Option<f32>,

    /// Subtract P from the logit of each token generated so far, as OpenAI does
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        help_heading = PENALTIES,
    )]
    pub presence_penalty: f32,

    /// Subtract P from a token's logit each time it was generated, as OpenAI does
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_hyphen_values = true,
        help_heading = PENALTIES,
    )]
    pub frequency_penalty: f32,

    /// Never generate the same sequence of N tokens twice; 0 disables [default: 0]
    #[arg(long, value_name = "N", help_heading = PENALTIES)]
    pub no_repeat_ngram_size: Option<usize>,

    /// Never generate this sequence of token ids, e.g. 15,3 (repeatable)
    #[arg(long, value_name = "IDS", value_parser = parse_ids, help_heading = PENALTIES)]
    pub bad_words_ids: Vec<TokenIds>,

    /// Generate only these token ids
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        value_parser = parse_token_id,
        help_heading = PENALTIES,
    )]
    pub allowed_token_ids: Vec<u32>,
}

/// A sequence of token ids.
#[derive(Clone, Debug)]
pub struct TokenIds(Vec<u32>);

impl SamplingArgs {
    /// Returns the library's generation options. What the user does not give is the model's default.
    pub fn options(&self, hornbook: &Hornbook, kv_precision: Option<KvPrecisionArg>) -> Options {
        let Options { sampling: default, max_tokens, .. } = hornbook.default_options();
        let sampling = SamplingParams {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            typical_p: self.typical_p.unwrap_or(default.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(random_seed),
            min_tokens: self.min_tokens,
            stop_ids: self.stop_token_ids.clone(),
            bad_words_ids: self.bad_words_ids.iter().map(|TokenIds(ids)| ids.clone()).collect(),
            allowed_ids: self.allowed_token_ids.clone(),
        };
        Options {
            sampling,
            max_tokens: self.max_tokens.or(max_tokens),
            stop: self.stop.clone(),
            kv_precision: kv_precision.map(Into::into),
            ..Options::default()
        }
    }
}

/// A random seed, the same for the whole run and short enough to type.
fn random_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0) % 1_000_000_000)
}

fn parse_ids(text: &str) -> std::result::Result<TokenIds, String> {
    let ids = text.split(',').map(|id| parse_token_id(id).map_err(|_| format!("'{id}' is not a token id")));
    ids.collect::<std::result::Result<_, _>>().map(TokenIds)
}

fn parse_bias(text: &str) -> std::result::Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected ID=BIAS, e.g. 15=-5")?;
    let id = id.trim().parse().map_err(|_| format!("'{id}' is not a token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("'{bias}' is not a number"))?;
    Ok((id, bias))
}
