//! `hornbook pull` against a local server that mimics the Hugging Face hub, with and without faults.

mod errors;
mod fake_hub;
mod faults;
mod mirrors;
mod pull;
