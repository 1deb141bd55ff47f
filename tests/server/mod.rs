//! `hornbook serve`: the server in this process, asked over HTTP. What OpenAI's clients rely on is in the files named
//! after its parts, one test for each of the details that others got wrong.

pub mod client;
mod commands;
mod connections;
mod keys;
mod logprobs;
mod refusals;
mod requests;
mod streams;
