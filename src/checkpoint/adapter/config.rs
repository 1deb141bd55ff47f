//! `adapter_config.json`: which layers a LoRA adapter changes, and how much.

use super::super::config_fields::{Fields, excerpt};
use super::super::json_file;
use super::patterns::{Modules, Patterns};
use super::target::Target;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The configuration of a LoRA adapter, with peft's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdapterConfig {
    /// The model that the adapter was trained for.
    pub base_model_name_or_path: Option<String>,
    /// The rank of layers that `rank_pattern` does not name.
    pub r: usize,
    /// Divided by the rank, the scaling of layers that `alpha_pattern` does not name.
    pub lora_alpha: f64,
    /// The dropout of the inputs during training.
    pub lora_dropout: f64,
    /// Whether the scaling is `lora_alpha / √r`, not `lora_alpha / r`.
    pub use_rslora: bool,
    /// The biases that were trained, and are stored whole.
    pub bias: TrainedBiases,
    /// The layers that are changed; none for GPT-2's default, `c_attn`.
    pub target_modules: Option<Modules>,
    /// Layers that are not changed although `target_modules` names them.
    pub exclude_modules: Option<Modules>,
    /// The blocks that are changed; none for all.
    pub layers_to_transform: Option<Layers>,
    /// Modules stored whole, which replace the model's.
    pub modules_to_save: Option<Vec<String>>,
    /// Ranks by name of layer.
    pub rank_pattern: Patterns<usize>,
    /// `lora_alpha` by name of layer.
    pub alpha_pattern: Patterns<f64>,
}

/// The biases that an adapter replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainedBiases {
    /// None.
    #[default]
    None,
    /// Those of the layers it changes.
    LoraOnly,
    /// All of the model.
    All,
}

/// One block or several, by index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    /// One.
    One(usize),
    /// Several; all, if the list is empty.
    Several(Vec<usize>),
}

/// Features of peft that change what an adapter computes and are not supported, with the value of each that
/// turns it off and its name.
const UNSUPPORTED: [(&str, &str, &str); 13] = [
    ("use_dora", "false", "DoRA"),
    ("lora_bias", "false", "a bias of lora_B"),
    ("use_qalora", "false", "QALoRA"),
    ("use_bdlora", "null", "BD-LoRA"),
    ("alora_invocation_tokens", "null", "aLoRA"),
    ("arrow_config", "null", "Arrow"),
    ("kasa_config", "null", "KaSA"),
    ("monteclora_config", "null", "MonteCLoRA"),
    ("megatron_config", "null", "Megatron"),
    ("layer_replication", "null", "a model with replicated layers"),
    ("trainable_token_indices", "null", "single trained tokens"),
    ("target_parameters", "null", "LoRA of single parameters"),
    ("layers_pattern", "null", "another name of the blocks than h"),
];

/// Initializations that change the model's own weights, which an adapter does not contain.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            base_model_name_or_path: None,
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            bias: TrainedBiases::None,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            modules_to_save: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
        }
    }
}

impl AdapterConfig {
    /// Reads an `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] for broken JSON, [`Error::Config`] for a field with an invalid
    /// value or a feature that is not supported.
    pub fn open(file: &Path) -> Result<Self> {
        Self::from_json(file, &json_file::read_bytes(file)?)
    }

    /// Parses the content of an `adapter_config.json`; errors name `file`.
    ///
    /// # Errors
    /// As [`AdapterConfig::open`].
    pub fn from_json(file: &Path, json: &[u8]) -> Result<Self> {
        let map: Map<String, Value> = json_file::parse(file, json)?;
        let fields = Fields { file, map: &map };
        let peft_type = map.get("peft_type").unwrap_or(&Value::Null);
        if peft_type != "LORA" {
            return Err(fields.invalid("peft_type", excerpt(peft_type), "LORA, the only type supported"));
        }
        for (field, off, feature) in UNSUPPORTED {
            if let Some(value) = map.get(field).filter(|value| is_set(value)) {
                let expected = format!("{off}, since {feature} is not supported");
                return Err(fields.invalid(field, excerpt(value), expected));
            }
        }
        let init = map.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
        if CHANGED_BASE.iter().any(|name| init.to_lowercase().starts_with(name)) {
            let expected = "an initialization that leaves the model's weights as they are; peft's \
                            path_initial_model_for_weight_conversion of save_pretrained converts the adapter";
            return Err(fields.invalid("init_lora_weights", init.into(), expected));
        }
        let config: Self = json_file::parse(file, json)?;
        // Otherwise it has no effect on a GPT-2 in peft, whose name for token embeddings it is not.
        let saves_head = config.modules_to_save.iter().flatten().any(|module| module == "lm_head");
        if saves_head && map.get("ensure_weight_tying").is_some_and(is_set) {
            let expected = "false, since an LM head that replaces the token embeddings is not supported";
            return Err(fields.invalid("ensure_weight_tying", "true".into(), expected));
        }
        config.validate(file)?;
        Ok(config)
    }

    fn validate(&self, file: &Path) -> Result<()> {
        let invalid = |field: &str, found: String, expected: &str| Error::Config {
            file: file.into(),
            field: field.into(),
            found,
            expected: expected.into(),
        };
        for (field, modules) in
            [("target_modules", &self.target_modules), ("exclude_modules", &self.exclude_modules)]
        {
            if let Some(problem) = modules.as_ref().and_then(Modules::problem) {
                return Err(invalid(field, problem, "a list of names, all-linear or a regular expression"));
            }
        }
        let problems =
            [("rank_pattern", self.rank_pattern.problem()), ("alpha_pattern", self.alpha_pattern.problem())];
        if let Some((field, problem)) = problems.into_iter().find_map(|(f, p)| Some((f, p?))) {
            return Err(invalid(field, problem, "names or regular expressions"));
        }
        if self.r == 0 || self.rank_pattern.values().any(|r| *r == 0) {
            return Err(invalid("r", "0".into(), "a rank of at least 1"));
        }
        Ok(())
    }

    /// The JSON of an `adapter_config.json` that peft loads.
    pub fn to_json(&self) -> String {
        let targets = self.target_modules.clone().unwrap_or_else(Modules::gpt2_default);
        let config = &Self { target_modules: Some(targets), ..self.clone() };
        let file = ConfigFile {
            peft_type: "LORA",
            task_type: "CAUSAL_LM",
            inference_mode: true,
            fan_in_fan_out: true, // as for every Conv1D
            config,
        };
        serde_json::to_string_pretty(&file).expect("fields are strings, numbers and lists") + "\n"
    }

    /// Whether a linear layer of a block is changed.
    pub fn is_target(&self, layer: usize, target: Target) -> bool {
        let name = target.module(layer);
        let targets = self.target_modules.clone().unwrap_or_else(Modules::gpt2_default);
        let in_layer = match &self.layers_to_transform {
            Some(Layers::One(one)) => *one == layer,
            Some(Layers::Several(some)) => some.is_empty() || some.contains(&layer),
            None => true,
        };
        let is_excluded = self.exclude_modules.as_ref().is_some_and(|modules| modules.matches(&name));
        targets.matches(&name) && in_layer && !is_excluded
    }

    /// The rank of a linear layer of a block.
    pub fn rank(&self, layer: usize, target: Target) -> usize {
        *self.rank_pattern.get(&target.module(layer)).unwrap_or(&self.r)
    }

    /// The factor of a linear layer's change.
    pub fn scaling(&self, layer: usize, target: Target) -> f32 {
        let alpha = *self.alpha_pattern.get(&target.module(layer)).unwrap_or(&self.lora_alpha);
        let r = self.rank(layer, target) as f64;
        (alpha / if self.use_rslora { r.sqrt() } else { r }) as f32
    }
}

/// The configuration with the fields that are the same for all adapters. In the order of the patterns, which
/// a [`Value`] would lose.
#[derive(Serialize)]
struct ConfigFile<'a> {
    peft_type: &'static str,
    task_type: &'static str,
    inference_mode: bool,
    fan_in_fan_out: bool,
    #[serde(flatten)]
    config: &'a AdapterConfig,
}

/// Whether a field is anything but off.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<AdapterConfig> {
        AdapterConfig::from_json(Path::new("adapter_config.json"), json.as_bytes())
    }

    #[test]
    fn defaults_are_those_of_peft() {
        let config = parse(r#"{"peft_type": "LORA", "rank_pattern": null, "unknown": 1}"#).unwrap();
        assert_eq!(config, AdapterConfig::default());
        assert!(config.is_target(3, Target::CAttn) && !config.is_target(3, Target::AttnProj));
        assert_eq!(parse(&config.to_json()).unwrap().target_modules, Some(Modules::gpt2_default()));
    }

    #[test]
    fn rank_alpha_and_scaling_follow_the_first_pattern() {
        let config = parse(
            r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": "all-linear",
                "rank_pattern": {"h.1.attn.c_proj": 2, "c_proj": 8}, "alpha_pattern": {"mlp\\..*": 1}}"#,
        )
        .unwrap();
        assert_eq!([0, 1].map(|layer| config.rank(layer, Target::AttnProj)), [8, 2]);
        assert_eq!((config.scaling(0, Target::CAttn), config.scaling(0, Target::MlpProj)), (4.0, 0.125));
        let rslora = AdapterConfig { use_rslora: true, ..config.clone() };
        assert_eq!(rslora.scaling(0, Target::CAttn), 8.0);
        assert_eq!(parse(&rslora.to_json()).unwrap(), rslora);
    }

    #[test]
    fn targets_are_suffixes_or_an_expression_without_exclusions() {
        let targets = |json: &str| {
            let config = parse(&format!(r#"{{"peft_type": "LORA", {json}}}"#)).unwrap();
            let all = (0..2).flat_map(|layer| Target::ALL.map(|target| (layer, target)));
            all.filter(|(layer, target)| config.is_target(*layer, *target))
                .map(|(l, t)| t.module(l))
                .collect::<Vec<_>>()
        };
        assert_eq!(targets(r#""target_modules": ["proj"]"#), [""; 0]);
        assert_eq!(targets(r#""target_modules": ["c_proj"]"#).len(), 4);
        let excluded =
            r#""target_modules": ["c_proj"], "exclude_modules": ["mlp.c_proj"], "layers_to_transform": 1"#;
        assert_eq!(targets(excluded), ["transformer.h.1.attn.c_proj"]);
        assert_eq!(targets(r#""target_modules": ".*\\.h\\.0\\.mlp\\..*""#).len(), 2);
        assert_eq!(targets(r#""target_modules": "all-linear", "layers_to_transform": [0]"#).len(), 4);
    }

    #[test]
    fn unsupported_features_are_named() {
        for (fields, expected) in [
            (r#""peft_type": "LOHA""#, r#"peft_type: found "LOHA", expected LORA, the only type supported"#),
            (r#""r": 8"#, "peft_type: found null, expected LORA, the only type supported"),
            (
                r#""peft_type": "LORA", "use_dora": true"#,
                "use_dora: found true, expected false, since DoRA is not supported",
            ),
            (
                r#""peft_type": "LORA", "init_lora_weights": "pissa_niter_4""#,
                "init_lora_weights: found pissa_niter_4, expected an initialization that leaves",
            ),
            (
                r#""peft_type": "LORA", "ensure_weight_tying": true, "modules_to_save": ["lm_head"]"#,
                "ensure_weight_tying: found true, expected false, since an LM head",
            ),
            (r#""peft_type": "LORA", "r": 0"#, "r: found 0, expected a rank of at least 1"),
            (r#""peft_type": "LORA", "r": -1"#, "r: invalid value: integer `-1`"),
            (r#""peft_type": "LORA", "bias": "some""#, "bias: unknown variant `some`, expected one of"),
            (r#""peft_type": "LORA", "target_modules": "(""#, "target_modules: found (: "),
            (r#""peft_type": "LORA", "rank_pattern": {"[": 2}"#, "rank_pattern: found [: "),
        ] {
            let error = parse(&format!("{{{fields}}}")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("adapter_config.json: {expected}")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
