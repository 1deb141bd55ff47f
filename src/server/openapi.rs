//! The OpenAPI 3.1 description served at `/openapi.json`: what the handlers and types of the routes say,
//! completed with what cannot be derived, such as bounds, common errors, and the model's own limits.

use super::json::make_whole_numbers_integers;
use super::middleware::PUBLIC_PATHS;
use super::schema_constraints::CONSTRAINTS;
use crate::checkpoint::Config;
use crate::kernels::attention::KERNELS;
use crate::sampling::{PARAMETERS, Range};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use utoipa::openapi::OpenApi;

/// Schemas whose numbers are token ids.
const TOKEN_IDS: [&str; 6] = [
    "Parameters/properties/stop_token_ids/items",
    "Parameters/properties/allowed_token_ids/items",
    "DetokenizeRequest/properties/tokens/items",
    "LensRequest/properties/tokens/items",
    "Prompts/oneOf/2/items",
    "Prompts/oneOf/3/items/items",
];

/// Errors of every route, of those that need a key, and of those with a request body.
const COMMON_ERRORS: [(&str, &str); 3] = [
    ("403", "The request is not allowed from this origin or for this host"),
    ("500", "An error of the server"),
    ("503", "The server is loading its models or shutting down"),
];
const KEY_ERRORS: [(&str, &str); 1] = [("401", "No API key, or an unknown one")];
const BODY_ERRORS: [(&str, &str); 7] = [
    ("400", "A field is missing, invalid or not supported, or the context length is exceeded"),
    ("404", "The model does not exist, or the key may not use it"),
    ("408", "The request body did not arrive in time"),
    ("413", "The request body is too large"),
    ("415", "The request body is encoded in an unsupported way"),
    ("429", "A rate limit is reached or the queue is full; see `Retry-After`"),
    ("501", "The request has a transfer coding that is not known"),
];

/// Returns the description of the routes, for a server of models with these configurations.
pub fn description<'a>(routes: &OpenApi, configs: impl Iterator<Item = &'a Config> + Clone) -> Value {
    let mut description = with_parameters(routes);
    let schemas = &mut description["components"]["schemas"];
    for (path, constraints) in CONSTRAINTS {
        merge(schemas, path, &serde_json::from_str(constraints).unwrap_or_default());
    }
    // What every served model accepts.
    let max_id = configs.clone().map(|config| config.vocab_size - 1).min().unwrap_or_default();
    for path in TOKEN_IDS {
        merge(schemas, path, &json!({"minimum": 0, "maximum": max_id}));
    }
    let mut n_embd: Vec<usize> = configs.clone().map(|config| config.n_embd).collect();
    n_embd.dedup();
    let dimensions: Vec<Value> = n_embd.into_iter().map(Value::from).chain([Value::Null]).collect();
    merge(schemas, "EmbeddingRequest/properties/dimensions", &json!({"enum": dimensions}));
    let kernels: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name()).collect();
    let field = "AttentionRequest/properties/kernels";
    merge(schemas, field, &json!({"maxItems": kernels.len()}));
    merge(schemas, &format!("{field}/items"), &json!({"enum": kernels}));
    // An embedding needs a token.
    schemas["Inputs"] = schemas["Prompts"].clone();
    merge(schemas, "Inputs/oneOf/0", &json!({"minLength": 1}));
    merge(schemas, "Inputs/oneOf/1/items", &json!({"minLength": 1}));
    // The parts of a message have other types in a response's input.
    schemas["InputPart"] = schemas["Part"].clone();
    merge(schemas, "InputPart/properties/type", &json!({"enum": ["input_text", "output_text"]}));
    schemas["InputContent"] = schemas["Content"].clone();
    merge(schemas, "InputContent/oneOf/1/items", &json!({"$ref": "#/components/schemas/InputPart"}));
    let n_positions = configs.map(|config| config.n_positions).min().unwrap_or_default();
    // A prompt has at least one token.
    for field in [
        "CompletionLimits/properties/max_completion_tokens",
        "ResponsesRequest/allOf/1/properties/max_output_tokens",
        "Parameters/properties/min_tokens",
    ] {
        merge(schemas, field, &json!({"maximum": n_positions.saturating_sub(1)}));
    }
    let id_names = json!({"propertyNames": {"pattern": format!("^0*({})$", decimals_up_to(max_id))}});
    merge(schemas, "Parameters/properties/logit_bias", &id_names);
    // Generic types are described inline; their item schemas have been completed above.
    for (response, choice) in [
        ("CompletionResponse_Choice", "Choice"),
        ("CompletionResponse_ChatChoice", "ChatChoice"),
        ("CompletionResponse_ChunkChoice", "ChunkChoice"),
    ] {
        let items = json!({"$ref": format!("#/components/schemas/{choice}")});
        merge(schemas, &format!("{response}/properties/choices"), &json!({"items": items}));
    }
    description["components"]["securitySchemes"] = json!({"key": {"type": "http", "scheme": "bearer",
        "description": "Required if the server has a key file"}});
    for (path, chunk) in [
        ("/v1/completions", "CompletionResponse_Choice"),
        ("/v1/chat/completions", "CompletionResponse_ChunkChoice"),
        ("/v1/responses", "StreamEvent"),
    ] {
        let content = &mut description["paths"][path]["post"]["responses"]["200"]["content"];
        content["text/event-stream"] = json!({"schema": event_schema(chunk)});
    }
    add_engines(&mut description);
    let Some(paths) = description["paths"].as_object_mut() else { return description };
    for (path, operations) in paths {
        for operation in operations.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let public = PUBLIC_PATHS.contains(&path.as_str());
            operation["security"] = if public { json!([]) } else { json!([{}, {"key": []}]) };
            let body_errors = if operation.get("requestBody").is_some() { &BODY_ERRORS[..] } else { &[] };
            let key_errors = if public { &[] } else { &KEY_ERRORS[..] };
            for (status, meaning) in body_errors.iter().chain(key_errors).chain(&COMMON_ERRORS) {
                let response = &mut operation["responses"][status];
                if response.is_null() {
                    *response = error_response(meaning);
                }
            }
            // A parameter of a query is absent, never null.
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                if let Some(kind) = parameter.pointer("/schema/type/0").cloned() {
                    parameter["schema"]["type"] = kind;
                }
            }
        }
    }
    description
}

/// Returns what the routes say, with the table of sampling parameters.
fn with_parameters(routes: &OpenApi) -> Value {
    let mut description = serde_json::to_value(routes).unwrap_or_default();
    let properties = &mut description["components"]["schemas"]["Parameters"]["properties"];
    for parameter in PARAMETERS {
        let (kind, format, minimum, maximum) = match parameter.api_range() {
            Some(Range::From(min, max)) => ("number", "float", json!(min), json!(max)),
            Some(Range::Above(min, max)) => ("number", "float", json!(min + f32::MIN_POSITIVE), json!(max)),
            None => ("integer", "int64", json!(0), json!(i64::MAX)),
        };
        let mut schema = json!({"type": [kind, "null"], "format": format, "minimum": minimum,
            "maximum": maximum, "description": parameter.description});
        make_whole_numbers_integers(&mut schema);
        properties[parameter.name] = schema;
    }
    description
}

/// Returns the schema of an event of a stream of chunks.
fn event_schema(chunk: &str) -> Value {
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    json!({"type": "object", "required": ["data"], "description": "An event of the stream",
        "properties": {"data": {"type": "string", "description": "A chunk or an error as JSON, or [DONE]",
            "anyOf": [{"const": "[DONE]"}, {"contentMediaType": "application/json",
                "contentSchema": {"oneOf": [schema(chunk), schema("ErrorBody")]}}]}}})
}

/// Returns a regular expression for the decimal numbers from 0 to `max`, without leading zeros.
fn decimals_up_to(max: usize) -> String {
    let digits = max.to_string();
    let shorter = (1..digits.len()).map(|len| format!("[0-9]{{{len}}}"));
    let smaller = digits.char_indices().filter(|(_, digit)| *digit > '0').map(|(i, digit)| {
        let below = char::from(digit as u8 - 1);
        format!("{}[0-{below}][0-9]{{{}}}", &digits[..i], digits.len() - i - 1)
    });
    shorter.chain(smaller).chain([digits.clone()]).collect::<Vec<_>>().join("|")
}

fn error_response(meaning: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/ErrorBody"});
    json!({"description": meaning, "content": {"application/json": {"schema": schema}}})
}

/// Merges an object into the schema at a path; a null removes a key.
fn merge(schemas: &mut Value, path: &str, constraints: &Value) {
    let Some(schema) = schemas.pointer_mut(&format!("/{path}")).and_then(Value::as_object_mut) else {
        return;
    };
    for (key, value) in constraints.as_object().into_iter().flatten() {
        match value {
            Value::Null => schema.remove(key),
            value => schema.insert(key.clone(), value.clone()),
        };
    }
}

/// Adds the routes that have no handler of their own.
fn add_engines(description: &mut Value) {
    let parameter = |name: &str| {
        json!([{"name": name, "in": "path", "required": true, "description": "The model name",
            "schema": {"type": "string", "minLength": 1, "maxLength": 256}}])
    };
    let paths = &mut description["paths"];
    for path in ["completions", "chat/completions", "embeddings"] {
        let mut operation = paths[format!("/v1/{path}")]["post"].clone();
        let id = operation["operationId"].as_str().unwrap_or_default().replacen("create", "createEngine", 1);
        operation["operationId"] = id.into();
        operation["deprecated"] = true.into();
        operation["parameters"] = parameter("engine");
        paths[format!("/v1/engines/{{engine}}/{path}")] = json!({"post": operation});
    }
}

/// Returns the names of all fields, of requests and others.
pub(super) fn field_names(routes: &OpenApi) -> HashSet<String> {
    let mut names = HashSet::new();
    collect_properties(&with_parameters(routes), &mut names);
    names
}

fn collect_properties(value: &Value, names: &mut HashSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_properties(item, names)),
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                names.extend(properties.keys().cloned());
            }
            fields.values().for_each(|field| collect_properties(field, names));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The description for a model with token ids from 0 to 96.
    fn example() -> Value {
        let hornbook = crate::Hornbook::open("tests/data/tiny-gelu-new").unwrap();
        description(&crate::server::routes::description(), [hornbook.config()].into_iter())
    }

    /// Returns all references below a value.
    fn references(value: &Value) -> Vec<&str> {
        match value {
            Value::Object(fields) => {
                let own = fields.get("$ref").and_then(Value::as_str);
                own.into_iter().chain(fields.values().flat_map(references)).collect()
            }
            Value::Array(items) => items.iter().flat_map(references).collect(),
            _ => vec![],
        }
    }

    #[test]
    fn constraints_and_references_name_schemas_that_exist() {
        let description = example();
        let schemas = &description["components"]["schemas"];
        for (path, constraints) in CONSTRAINTS {
            let schema = schemas.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("{path}"));
            for (key, value) in serde_json::from_str::<Value>(constraints).unwrap().as_object().unwrap() {
                assert!(value.is_null() || !schema[key].is_null(), "{path}: {key}");
            }
        }
        for reference in references(&description) {
            assert!(description.pointer(&reference[1..]).is_some(), "{reference}");
        }
        for path in TOKEN_IDS {
            assert_eq!(schemas.pointer(&format!("/{path}")).unwrap()["maximum"], 96, "{path}");
        }
    }

    #[test]
    fn pattern_matches_exactly_the_numbers_up_to_the_maximum() {
        for max in [0, 9, 96, 100, 4095] {
            let pattern = regex::Regex::new(&format!("^0*({})$", decimals_up_to(max))).unwrap();
            for number in 0..=2 * max + 20 {
                assert_eq!(pattern.is_match(&number.to_string()), number <= max, "{number} of {max}");
            }
            assert!(
                pattern.is_match("007") == (max >= 7) && !pattern.is_match("+7") && !pattern.is_match("")
            );
        }
    }

    #[test]
    fn operations_are_unique_and_have_their_errors() {
        let description = example();
        assert_eq!(description["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        for (path, operations) in description["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_string()), "{id}");
                let responses = operation["responses"].as_object().unwrap();
                let mut expected = vec!["500", "503"];
                if operation.get("requestBody").is_some() {
                    expected.extend(["400", "401", "404", "413", "429"]);
                }
                for status in expected {
                    assert!(responses.contains_key(status), "{method} {path}: {status}");
                }
                for (status, response) in responses {
                    assert!(!response["content"].is_null(), "{method} {path}: {status}");
                }
                let in_path = path.matches('{').count();
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let described = parameters.filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(described, in_path, "{path}");
            }
        }
        for path in ["/v1/completions", "/v1/chat/completions", "/v1/responses"] {
            let content = &description["paths"][path]["post"]["responses"]["200"]["content"];
            assert!(!content["text/event-stream"].is_null(), "{path}");
        }
        assert!(ids.len() >= 16, "only {} operations", ids.len());
    }
}
