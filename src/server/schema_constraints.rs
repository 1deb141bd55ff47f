//! What the OpenAPI description says of fields and cannot be derived from their types: bounds, sets of
//! values, fields that need another one, and fields that are always present.

/// A client's own notes.
const METADATA: &str = r#"{"maxProperties": 16, "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512}}"#;
/// Hyperparameters of fine-tuning.
const N_EPOCHS: &str =
    r#"{"oneOf": [{"enum": ["auto", null]}, {"type": "integer", "minimum": 1, "maximum": 50}]}"#;
const BATCH_SIZE: &str =
    r#"{"oneOf": [{"enum": ["auto", null]}, {"type": "integer", "minimum": 1, "maximum": 256}]}"#;
const MULTIPLIER: &str =
    r#"{"oneOf": [{"enum": ["auto", null]}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1000}]}"#;

/// Constraints of schemas, by their path below `/components/schemas/`, which are merged into them.
pub const CONSTRAINTS: &[(&str, &str)] = &[
    // Its maximum does not matter where `max_completion_tokens` takes precedence.
    ("CompletionLimits/properties/max_tokens", r#"{"minimum": 0, "maximum": 9223372036854775807}"#),
    ("CompletionLimits/properties/max_completion_tokens", r#"{"minimum": 0}"#),
    ("CompletionLimits/properties/n", r#"{"minimum": 1, "maximum": 128}"#),
    (
        "Parameters/properties/logit_bias",
        r#"{"additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}"#,
    ),
    ("Parameters/properties/seed", r#"{"minimum": -9223372036854775808, "maximum": 9223372036854775807}"#),
    ("Parameters/properties/top_k", r#"{"minimum": -1}"#),
    ("Parameters/properties/min_tokens", r#"{"minimum": 0}"#),
    ("Parameters/properties/bad_words", r#"{"maxItems": 256}"#),
    ("Parameters/properties/bad_words/items", r#"{"pattern": "\\S", "maxLength": 128}"#),
    ("Parameters/properties/allowed_token_ids", r#"{"minItems": 1}"#),
    ("Stop/oneOf/0", r#"{"minLength": 1, "maxLength": 4096}"#),
    ("Stop/oneOf/1", r#"{"maxItems": 4}"#),
    ("Stop/oneOf/1/items", r#"{"minLength": 1, "maxLength": 4096}"#),
    ("CompletionRequest/allOf/2/properties/model", r#"{"maxLength": 256}"#),
    ("CompletionRequest/allOf/2/properties/best_of", r#"{"minimum": 1, "maximum": 20}"#),
    ("CompletionRequest/allOf/2/properties/logprobs", r#"{"minimum": 0, "maximum": 5}"#),
    ("ChatRequest/allOf/2", r#"{"required": ["messages"]}"#),
    ("LensRequest/properties/model", r#"{"maxLength": 256}"#),
    ("LensRequest/properties/ablate/items", r#"{"pattern": "^(L[0-9]{1,4}H[0-9]{1,4}|mlp[0-9]{1,4})$"}"#),
    ("LensRequest/properties/tokens", r#"{"minItems": 1}"#),
    ("LensRequest/properties/ablate_with", r#"{"enum": ["zero", "mean", null]}"#),
    // Fields that need another one.
    (
        "Parameters",
        r#"{"anyOf": [{"properties": {"stream_options": {"type": "null"}}},
            {"properties": {"stream": {"const": true}}, "required": ["stream"]}]}"#,
    ),
    (
        "ChatRequest/allOf/2",
        r#"{"anyOf": [{"properties": {"top_logprobs": {"enum": [0, null]}}},
            {"properties": {"logprobs": {"const": true}}, "required": ["logprobs"]}]}"#,
    ),
    ("ChatRequest/allOf/2/properties/model", r#"{"maxLength": 256}"#),
    ("ChatRequest/allOf/2/properties/messages", r#"{"type": "array", "minItems": 1, "maxItems": 2048}"#),
    ("ChatRequest/allOf/2/properties/top_logprobs", r#"{"minimum": 0, "maximum": 20}"#),
    ("Part/properties/type", r#"{"enum": ["text"]}"#),
    ("ResponsesRequest/allOf/1", r#"{"required": ["input"]}"#),
    ("ResponsesRequest/allOf/1/properties/model", r#"{"maxLength": 256}"#),
    (
        "ResponsesRequest/allOf/1/properties/input",
        r##"{"type": null, "items": null, "oneOf": [{"type": "string"}, {"type": "array", "minItems": 1,
            "maxItems": 2048, "items": {"$ref": "#/components/schemas/InputItem"}}]}"##,
    ),
    ("ResponsesRequest/allOf/1/properties/max_output_tokens", r#"{"minimum": 0}"#),
    ("ResponsesRequest/allOf/1/properties/top_logprobs", r#"{"minimum": 0, "maximum": 20}"#),
    (
        "ResponsesRequest/allOf/1/properties/include/items",
        r#"{"enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]}"#,
    ),
    ("ResponsesRequest/allOf/1/properties/truncation", r#"{"enum": ["auto", "disabled", null]}"#),
    ("ResponsesRequest/allOf/1/properties/tool_choice", r#"{"enum": ["auto", "none", null]}"#),
    ("ResponsesRequest/allOf/1/properties/metadata", METADATA),
    (
        "ResponsesRequest/allOf/1",
        r#"{"anyOf": [{"properties": {"top_logprobs": {"enum": [0, null]}}},
            {"properties": {"include": {"type": "array", "contains":
                {"const": "message.output_text.logprobs"}}}, "required": ["include"]}]}"#,
    ),
    ("InputItem", r#"{"required": ["role", "content"]}"#),
    ("InputItem/properties/type", r#"{"enum": ["message", null]}"#),
    (
        "InputItem/properties/role",
        r#"{"type": "string", "enum": ["system", "developer", "user", "assistant"]}"#,
    ),
    ("InputItem/properties/content", r##"{"$ref": "#/components/schemas/InputContent", "oneOf": null}"##),
    ("EmbeddingRequest", r#"{"required": ["input"]}"#),
    ("EmbeddingRequest/properties/model", r#"{"maxLength": 256}"#),
    ("EmbeddingRequest/properties/input", r##"{"$ref": "#/components/schemas/Inputs", "oneOf": null}"##),
    ("EmbeddingRequest/properties/encoding_format", r#"{"enum": ["float", "base64", null]}"#),
    ("TokenizeRequest", r#"{"required": ["prompt"]}"#),
    ("TokenizeRequest/properties/model", r#"{"maxLength": 256}"#),
    ("TokenizeRequest/properties/prompt", r#"{"type": "string"}"#),
    ("DetokenizeRequest", r#"{"required": ["tokens"]}"#),
    ("DetokenizeRequest/properties/model", r#"{"maxLength": 256}"#),
    ("DetokenizeRequest/properties/tokens", r#"{"type": "array"}"#),
    ("FileUpload/properties/file", r#"{"minLength": 1}"#),
    (
        "FileUpload/properties/purpose",
        r#"{"enum": ["fine-tune", "batch", "assistants", "vision", "user_data", "evals"]}"#,
    ),
    ("FileUpload/properties/expires_after[anchor]", r#"{"type": "string", "enum": ["created_at"]}"#),
    (
        "FileUpload/properties/expires_after[seconds]",
        r#"{"type": "integer", "minimum": 3600, "maximum": 2592000}"#,
    ),
    (
        "FileUpload",
        r#"{"dependentRequired": {"expires_after[anchor]": ["expires_after[seconds]"],
            "expires_after[seconds]": ["expires_after[anchor]"]}}"#,
    ),
    ("BatchCreation", r#"{"required": ["input_file_id", "endpoint", "completion_window"]}"#),
    ("BatchCreation/properties/input_file_id", r#"{"type": "string"}"#),
    (
        "BatchCreation/properties/endpoint",
        r#"{"type": "string", "enum": ["/v1/completions", "/v1/chat/completions", "/v1/embeddings"]}"#,
    ),
    ("BatchCreation/properties/completion_window", r#"{"type": "string", "enum": ["24h"]}"#),
    ("BatchCreation/properties/metadata", METADATA),
    ("ExpiresAfter", r#"{"required": ["anchor", "seconds"]}"#),
    ("ExpiresAfter/properties/anchor", r#"{"type": "string", "enum": ["created_at"]}"#),
    ("ExpiresAfter/properties/seconds", r#"{"type": "integer", "minimum": 3600, "maximum": 2592000}"#),
    ("CreateJob", r#"{"required": ["training_file"]}"#),
    ("CreateJob/properties/model", r#"{"maxLength": 256}"#),
    ("CreateJob/properties/training_file", r#"{"type": "string"}"#),
    ("CreateJob/properties/suffix", r#"{"pattern": "^[A-Za-z0-9._-]{1,64}$"}"#),
    ("CreateJob/properties/seed", r#"{"minimum": 0, "maximum": 4294967295}"#),
    ("CreateJob/properties/integrations", r#"{"enum": [null, []]}"#),
    ("CreateJob/properties/metadata", METADATA),
    ("MethodFields/properties/type", r#"{"enum": ["supervised", null]}"#),
    ("CreateFineTune", r#"{"required": ["training_file"]}"#),
    ("CreateFineTune/properties/model", r#"{"maxLength": 256}"#),
    ("CreateFineTune/properties/training_file", r#"{"type": "string"}"#),
    ("CreateFineTune/properties/suffix", r#"{"pattern": "^[A-Za-z0-9._-]{1,64}$"}"#),
    ("CreateFineTune/properties/compute_classification_metrics", r#"{"enum": [false, null]}"#),
    ("CreateFineTune/properties/prompt_loss_weight", r#"{"minimum": 0, "maximum": 1}"#),
    ("CreateFineTune/properties/n_epochs", N_EPOCHS),
    ("CreateFineTune/properties/batch_size", BATCH_SIZE),
    ("CreateFineTune/properties/learning_rate_multiplier", MULTIPLIER),
    ("HyperparameterFields/properties/n_epochs", N_EPOCHS),
    ("HyperparameterFields/properties/batch_size", BATCH_SIZE),
    ("HyperparameterFields/properties/learning_rate_multiplier", MULTIPLIER),
    ("Prompts/oneOf/1", r#"{"minItems": 1, "maxItems": 2048}"#),
    ("Prompts/oneOf/2", r#"{"minItems": 1}"#),
    ("Prompts/oneOf/3", r#"{"minItems": 1, "maxItems": 2048}"#),
    ("Prompts/oneOf/3/items", r#"{"minItems": 1}"#),
    // Fields that are always present, though possibly null.
    ("ErrorObject", r#"{"required": ["message", "type", "param", "code"]}"#),
    (
        "ErrorObject/properties/type",
        r#"{"enum": ["invalid_request_error", "requests", "tokens", "server_error"]}"#,
    ),
    ("Choice", r#"{"required": ["text", "index", "logprobs", "finish_reason"]}"#),
    ("ChatChoice", r#"{"required": ["index", "message", "logprobs", "finish_reason"]}"#),
    ("ChunkChoice", r#"{"required": ["index", "delta", "logprobs", "finish_reason"]}"#),
    (
        "ResponseObject",
        r#"{"required": ["id", "object", "created_at", "completed_at", "status", "error",
            "incomplete_details", "instructions", "max_output_tokens", "metadata", "model", "output",
            "temperature", "top_p", "top_logprobs", "truncation", "text", "tool_choice", "tools",
            "parallel_tool_calls", "previous_response_id", "store", "background", "usage"]}"#,
    ),
    ("AssistantMessage", r#"{"required": ["role", "content", "refusal"]}"#),
    ("ChatLogprobs", r#"{"required": ["content", "refusal"]}"#),
    ("Choice/properties/finish_reason", r#"{"enum": ["stop", "length", null]}"#),
    ("ChatChoice/properties/finish_reason", r#"{"enum": ["stop", "length", null]}"#),
    ("ChunkChoice/properties/finish_reason", r#"{"enum": ["stop", "length", null]}"#),
];
