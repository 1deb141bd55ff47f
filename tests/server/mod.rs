//! The server in this process, tested over HTTP: one file per part of the API, one test per detail that
//! OpenAI's clients rely on.

mod adapters;
mod batches;
pub mod client;
mod commands;
mod connections;
mod embeddings;
mod errors;
mod fields;
mod files;
mod fine_tuning;
mod generation;
mod keys;
mod lens;
mod logprobs;
mod measure;
mod memory;
mod responses;
mod routes;
mod shared_limits;
mod streams;
mod untrusted_clients;

use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}
