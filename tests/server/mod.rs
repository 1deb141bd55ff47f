//! `hornbook serve`: the server in this process, asked over HTTP. What OpenAI's clients rely on is in the files named
//! after its parts, one test for each of the details that others got wrong.

mod answers;
pub mod client;
mod commands;
mod connections;
mod embeddings;
mod fields;
mod keys;
mod logprobs;
mod refusals;
mod routes;
mod streams;

use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}
