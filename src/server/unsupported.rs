//! Parameters of OpenAI's API and of other servers that would change the response and are not supported: one
//! table, by which every route refuses them by name.

use super::error::ApiError;
use crate::sampling::PARAMETERS;
use serde_json::{Map, Value};

/// A parameter that is refused unless its value changes nothing.
pub struct Unsupported {
    name: &'static str,
    /// Values that change nothing, as JSON; null always does not.
    neutral: &'static [&'static str],
    /// The supported parameter to use in its place.
    instead: Option<&'static str>,
    /// A field and the value of it that makes any value neutral.
    unless: Option<(&'static str, &'static str)>,
}

/// A parameter that is off at false and at an empty string, list or object.
pub const fn off(name: &'static str) -> Unsupported {
    neutral(name, &["false", "\"\"", "[]", "{}"])
}

/// A parameter that changes nothing at these values, its defaults.
pub const fn neutral(name: &'static str, neutral: &'static [&'static str]) -> Unsupported {
    Unsupported { name, neutral, instead: None, unless: None }
}

impl Unsupported {
    /// The same with the supported parameter to use in its place.
    pub const fn instead(self, name: &'static str) -> Self {
        Self { instead: Some(name), ..self }
    }

    const fn unless(self, field: &'static str, value: &'static str) -> Self {
        Self { unless: Some((field, value)), ..self }
    }
}

/// The table. Sampling parameters and a route's own fields are exempt: see
/// [`RequestBody::FIELDS`](super::json::RequestBody::FIELDS).
#[rustfmt::skip]
const TABLE: &[Unsupported] = &[
    // OpenAI
    off("suffix"), off("audio"), off("prediction"), off("web_search_options"), off("moderation"),
    off("tools").unless("tool_choice", "none"), off("functions").unless("function_call", "none"),
    neutral("tool_choice", &["\"auto\"", "\"none\""]), neutral("function_call", &["\"auto\"", "\"none\""]),
    neutral("response_format", &[r#"{"type":"text"}"#]), neutral("modalities", &[r#"["text"]"#]),
    neutral("reasoning_effort", &["\"none\""]), neutral("verbosity", &["\"medium\""]),
    // Fields of one route on another.
    off("messages"), off("echo"), off("return_token_ids"), neutral("best_of", &["1"]),
    neutral("top_logprobs", &["0"]).instead("logprobs"), off("input").instead("prompt"),
    // vLLM
    off("structured_outputs"), off("guided_json"), off("guided_regex"), off("guided_choice"),
    off("guided_grammar"), off("guided_decoding_backend"), off("guided_whitespace_pattern"),
    off("structural_tag"), off("use_beam_search"), neutral("length_penalty", &["1"]), off("early_stopping"),
    off("include_stop_str_in_output"), neutral("skip_special_tokens", &["true"]),
    neutral("spaces_between_special_tokens", &["true"]), neutral("add_special_tokens", &["true", "false"]),
    neutral("truncate_prompt_tokens", &[]), off("truncation_side"), neutral("prompt_logprobs", &[]),
    off("logprob_token_ids"), off("prompt_embeds"), off("watermarking"),
    neutral("thinking_token_budget", &["-1"]), neutral("include_reasoning", &["true", "false"]),
    neutral("add_generation_prompt", &["true"]), off("continue_final_message"), off("documents"),
    off("chat_template"), off("chat_template_kwargs"), off("media_io_kwargs"), off("mm_processor_kwargs"),
    neutral("priority", &["0"]), off("request_id"), off("session_id"), off("return_tokens_as_token_ids"),
    off("return_token_offsets"), off("return_prompt_text"), off("return_token_strs"),
    neutral("return_mm_kwargs", &["true"]), neutral("routed_experts_prompt_start", &["0"]),
    off("cache_salt"), off("kv_transfer_params"), off("ec_transfer_params"), off("vllm_xargs"),
    off("repetition_detection"), neutral("stream_interval", &["1"]), off("logits_processors"),
    off("stream_options.continuous_usage_stats"), neutral("normalize", &["false"]), off("additional_data"),
    neutral("embed_dtype", &["\"float32\""]), neutral("endianness", &["\"native\"", "\"little\""]),
    neutral("use_activation", &[]),
    // llama.cpp
    neutral("n_predict", &[]).instead("max_tokens"), neutral("n_indent", &["0"]),
    neutral("n_keep", &["0"]), neutral("n_discard", &["0"]), neutral("n_cmpl", &["1"]).instead("n"),
    neutral("n_probs", &["0"]).instead("logprobs"), neutral("min_keep", &["0"]),
    neutral("repeat_penalty", &["1"]).instead("repetition_penalty"), neutral("repeat_last_n", &["-1"]),
    neutral("penalty_last_n", &["-1"]), off("penalty_prompt"), neutral("penalize_nl", &["true"]),
    neutral("typ_p", &["1"]).instead("typical_p"), neutral("tfs_z", &["1"]), neutral("top_a", &["0"]),
    neutral("top_n_sigma", &["-1"]), neutral("dynatemp_range", &["0"]), neutral("dynatemp_exponent", &["1"]),
    neutral("dry_multiplier", &["0"]), neutral("dry_base", &["1.75"]), neutral("dry_allowed_length", &["2"]),
    neutral("dry_penalty_last_n", &["-1"]),
    neutral("dry_sequence_breakers", &[r#"["\n",":","\"","*"]"#, "[]"]),
    neutral("xtc_probability", &["0"]), neutral("xtc_threshold", &["0.1"]), neutral("mirostat", &["0"]),
    neutral("mirostat_mode", &["0"]), neutral("mirostat_tau", &["5"]), neutral("mirostat_eta", &["0.1"]),
    neutral("adaptive_target", &["-1"]), neutral("adaptive_decay", &["0.9"]), off("samplers"),
    off("sampler_order"), off("grammar"), off("grammar_lazy"), off("grammar_triggers"),
    off("grammar_type"), off("json_schema"), off("preserved_tokens"), neutral("t_max_predict_ms", &["-1"]),
    neutral("t_max_prompt_ms", &["-1"]), off("image_data"), off("multimodal_data"),
    neutral("id_slot", &["-1"]), neutral("slot_id", &["-1"]), neutral("cache_prompt", &["true"]),
    neutral("n_cache_reuse", &["0"]), off("return_tokens").instead("return_token_ids"),
    off("timings_per_token"), off("return_progress"), off("post_sampling_probs"), off("response_fields"),
    off("lora"), off("backend_sampling"), off("speculative"), neutral("speculative.n_max", &[]),
    neutral("speculative.n_min", &[]), neutral("speculative.p_min", &[]), off("speculative.type"),
    neutral("reasoning_format", &["\"none\""]), off("reasoning_in_content"), off("thinking_forced_open"),
    neutral("reasoning_budget_tokens", &["-1"]), neutral("thinking_budget_tokens", &["-1"]),
    off("parse_tool_calls"), off("input_prefix"), off("input_suffix"), off("input_extra"),
    off("with_pieces"), off("parse_special").instead("special"), neutral("add_special", &["true", "false"]),
    neutral("embd_normalize", &[]), off("verbose"),
    // TGI and TEI
    off("inputs"), off("parameters"), off("adapter_id"), off("decoder_input_details"), off("details"),
    neutral("do_sample", &["true"]).instead("temperature"),
    neutral("max_new_tokens", &[]).instead("max_tokens"), off("return_full_text").instead("echo"),
    neutral("truncate", &["false"]), off("truncation_direction"), off("watermark"),
    neutral("top_n_tokens", &["0"]).instead("logprobs"), off("stop_sequences").instead("stop"),
    off("tool_prompt"), off("guideline"),
    // SGLang, text-generation-webui and other servers
    off("regex"), off("ebnf"), off("stop_regex"), off("no_stop_trim"), off("custom_logit_processor"),
    off("custom_params"), off("lora_path"), off("return_hidden_states"), off("sampling_params"),
    neutral("num_predict", &[]).instead("max_tokens"), neutral("num_ctx", &[]), off("options"),
    neutral("num_beams", &["1"]), neutral("num_return_sequences", &["1"]).instead("n"),
    neutral("max_length", &[]).instead("max_tokens"), neutral("min_length", &["0"]).instead("min_tokens"),
    neutral("epsilon_cutoff", &["0"]), neutral("eta_cutoff", &["0"]), neutral("penalty_alpha", &["0"]),
    neutral("guidance_scale", &["1"]), off("negative_prompt"), neutral("smoothing_factor", &["0"]),
    off("ban_eos_token").instead("ignore_eos"), off("custom_token_bans").instead("logit_bias"),
];

/// Refuses the first field that is unsupported: by the table, except for the `supported` fields of a route,
/// or by the route's own table `more`.
///
/// # Errors
/// 400 that names the field.
pub fn check(fields: &Map<String, Value>, supported: &[&str], more: &[Unsupported]) -> Result<(), ApiError> {
    let is_supported = |name| supported.contains(&name) || PARAMETERS.iter().any(|own| own.name == name);
    let table = TABLE.iter().filter(|parameter| !is_supported(parameter.name));
    for parameter in table.chain(more) {
        let Some(value) = find(fields, parameter.name) else { continue };
        let waived = parameter
            .unless
            .is_some_and(|(field, value)| fields.get(field).and_then(Value::as_str) == Some(value));
        let is_neutral = |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|it| equal(&it, value));
        if !waived && !value.is_null() && !parameter.neutral.iter().any(is_neutral) {
            return Err(ApiError::unsupported_param(parameter.name, parameter.instead));
        }
    }
    Ok(())
}

/// Returns the field of a name, which may contain dots or be a path with dots.
fn find<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let nested = || name.split_once('.').and_then(|(outer, inner)| fields.get(outer)?.get(inner));
    fields.get(name).or_else(nested)
}

/// Returns whether two values are equal, where 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| Some(number) == b.as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(body: Value) -> Option<String> {
        let error = check(body.as_object().unwrap(), &["echo"], &[]).err()?;
        let body: Value = serde_json::from_str(&error.json()).unwrap();
        assert_eq!(body["error"]["code"], "unsupported_parameter");
        Some(body["error"]["message"].as_str().unwrap().to_string())
    }

    #[test]
    fn table_has_each_name_once_and_json_values() {
        for (i, parameter) in TABLE.iter().enumerate() {
            assert!(TABLE[..i].iter().all(|other| other.name != parameter.name), "{}", parameter.name);
            for text in parameter.neutral {
                serde_json::from_str::<Value>(text).unwrap_or_else(|_| panic!("{}: {text}", parameter.name));
            }
        }
    }

    #[test]
    fn null_and_neutral_values_are_accepted_and_others_refused() {
        for parameter in TABLE.iter().filter(|parameter| parameter.name != "echo") {
            let body = |value: Value| json!({parameter.name: value});
            assert_eq!(refused(body(Value::Null)), None);
            for text in parameter.neutral {
                assert_eq!(refused(body(serde_json::from_str(text).unwrap())), None, "{}", parameter.name);
            }
            for value in [json!(12345), json!("other"), json!([[1]]), json!({"other": 1})] {
                let message = refused(body(value)).unwrap();
                assert!(message.starts_with(&format!("{}: not supported", parameter.name)), "{message}");
            }
        }
    }

    #[test]
    fn values_decide_and_supported_fields_are_exempt() {
        for body in [
            json!({"echo": true, "repeat_penalty": 1.0, "dry_base": 1.75, "unknown": [1]}),
            json!({"tools": [{"type": "function"}], "tool_choice": "none", "stream_options": {}}),
            json!({"functions": [{"name": "f"}], "function_call": "none", "prompt_logprobs": null}),
        ] {
            assert_eq!(refused(body.clone()), None, "{body}");
        }
        for (body, name) in [
            (json!({"do_sample": false}), "do_sample: not supported by this server; use temperature instead"),
            (json!({"tools": [{"type": "function"}], "tool_choice": "auto"}), "tools: not supported"),
            (json!({"prompt_logprobs": 0}), "prompt_logprobs: not supported"),
            (json!({"speculative.n_max": 3}), "speculative.n_max: not supported"),
            (json!({"stream_options": {"continuous_usage_stats": true}}), "stream_options.continuous_usage"),
            (json!({"mirostat_tau": 4}), "mirostat_tau: not supported"),
        ] {
            assert!(refused(body.clone()).is_some_and(|message| message.starts_with(name)), "{body}");
        }
    }
}
