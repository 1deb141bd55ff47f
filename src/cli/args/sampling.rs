//! The sampling options of `generate` and `chat`.

use crate::Hornbook;
use crate::cli::args::prompt::parse_token_id;
use crate::cli::args::values::KvPrecisionArg;
use crate::generate::Options;
use crate::sampling::{Field, Overrides, PARAMETERS, Parameter, SamplingParams, Scalar, random_seed};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
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

    /// The parameters of the warpers
    #[command(flatten)]
    pub warpers: ParameterArgs<false>,

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

    /// The parameters of the processors
    #[command(flatten)]
    pub processors: ParameterArgs<true>,

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
        let Options { mut sampling, max_tokens, .. } = hornbook.default_options();
        self.warpers.0.apply(&mut sampling);
        self.processors.0.apply(&mut sampling);
        let sampling = SamplingParams {
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(seed_of_run),
            min_tokens: self.min_tokens,
            stop_ids: self.stop_token_ids.clone(),
            bad_words_ids: self.bad_words_ids.iter().map(|TokenIds(ids)| ids.clone()).collect(),
            allowed_ids: self.allowed_token_ids.clone(),
            ..sampling
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

/// The options of the parameters of the logits processors, or of the warpers.
#[derive(Debug)]
pub struct ParameterArgs<const PROCESSORS: bool>(Overrides);

impl<const PROCESSORS: bool> ParameterArgs<PROCESSORS> {
    fn parameters() -> impl Iterator<Item = &'static Parameter> {
        PARAMETERS.iter().filter(|parameter| parameter.is_processor == PROCESSORS)
    }
}

impl<const PROCESSORS: bool> Args for ParameterArgs<PROCESSORS> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::parameters().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const PROCESSORS: bool> FromArgMatches for ParameterArgs<PROCESSORS> {
    fn from_arg_matches(matches: &ArgMatches) -> clap::error::Result<Self> {
        let given = |it: &'static Parameter| Some((it.name, *matches.get_one(it.name)?));
        Ok(Self(Overrides(Self::parameters().filter_map(given).collect())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> clap::error::Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The option of a parameter.
fn option(parameter: &'static Parameter) -> Arg {
    let default = parameter.get(&Options::default().sampling);
    let arg = Arg::new(parameter.name)
        .long(parameter.name.replace('_', "-"))
        .value_name(parameter.value_name)
        .help_heading(if parameter.is_processor { PENALTIES } else { SAMPLING });
    // A model's own default, if it may have one, takes the place of the one in brackets.
    let arg = match parameter.in_generation_config {
        true => arg.help(format!("{} [default: {default}]", parameter.help)),
        false => arg.help(parameter.help).default_value(default.to_string()),
    };
    match &parameter.field {
        Field::Number(.., range) => arg
            .value_parser(|text: &str| text.parse().map(Scalar::<usize>::Number))
            .allow_hyphen_values(range.check(-1.0).is_ok()),
        Field::Count(..) => arg.value_parser(|text: &str| text.parse().map(Scalar::<usize>::Count)),
    }
}

/// A random seed, the same for the whole run.
fn seed_of_run() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(random_seed)
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
