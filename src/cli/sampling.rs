//! How text is written: the options of `generate` and `chat`.

use super::kv::Kv;
use crate::generate::Options;
use crate::sampling::SamplingParams;
use clap::Args;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// Headings of `--help`, in whose order the options take effect.
const PENALTIES: &str = "Penalties, before the temperature";
const IN_ORDER: &str = "Sampling, in the order it is applied";

/// How much, and how each token is chosen.
#[derive(Args, Debug)]
pub struct SamplingArgs {
    /// The most tokens to write [default: 200, or what the context has room for]
    #[arg(long, value_name = "N", help_heading = "How much")]
    pub max_tokens: Option<usize>,

    /// The fewest tokens before the text may end by itself
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "How much")]
    pub min_tokens: usize,

    /// End the text before this one appears (can be repeated)
    #[arg(long, value_name = "TEXT", help_heading = "How much")]
    pub stop: Vec<String>,

    /// Divide the logits by T: below 1 favours likely tokens, above 1 unlikely ones; 0 takes the most likely
    #[arg(long, allow_negative_numbers = true, value_name = "T", default_value_t = Options::default().sampling.temperature, help_heading = IN_ORDER)]
    pub temperature: f32,

    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = IN_ORDER)]
    pub top_k: usize,

    /// Keep the most likely tokens that together reach probability P; 1 keeps all
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = Options::default().sampling.top_p, help_heading = IN_ORDER)]
    pub top_p: f32,

    /// Keep tokens at least P times as likely as the most likely; 0 keeps all
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = 0.0, help_heading = IN_ORDER)]
    pub min_p: f32,

    /// Keep the tokens whose surprise is nearest the expected one, up to probability P; 1 keeps all
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = 1.0, help_heading = IN_ORDER)]
    pub typical_p: f32,

    /// The number all chance comes from: the same seed, the same text [default: a new one each time]
    #[arg(long, value_name = "N", help_heading = IN_ORDER)]
    pub seed: Option<u64>,

    /// Add to a token's logit (can be repeated), e.g. 15=-5 or 15=-inf
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias, allow_hyphen_values = true, help_heading = PENALTIES)]
    pub logit_bias: Vec<(u32, f32)>,

    /// Divide by R the logits of tokens that occurred, multiply where negative, as transformers does; 1 is off
    #[arg(long, allow_negative_numbers = true, value_name = "R", default_value_t = 1.0, help_heading = PENALTIES)]
    pub repetition_penalty: f32,

    /// Subtract P from the logit of each token written so far, as OpenAI does
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_hyphen_values = true, help_heading = PENALTIES)]
    pub presence_penalty: f32,

    /// Subtract P from a token's logit for each time it was written, as OpenAI does
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_hyphen_values = true, help_heading = PENALTIES)]
    pub frequency_penalty: f32,

    /// Never let the same N tokens in a row come twice; 0 allows it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = PENALTIES)]
    pub no_repeat_ngram_size: usize,
}

impl SamplingArgs {
    /// The same for the library.
    pub fn options(&self, kv_precision: Option<Kv>) -> Options {
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
            kv_precision: kv_precision.map(Into::into),
            ..Options::default()
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
