//! What Hornbook promises, one file a promise. One program, because linking every kernel takes longer than testing it;
//! `cargo test --release -- cli_generate` runs one file's tests. Only the count of allocations needs a program of its own.

mod architecture;
mod batch;
mod checkpoint_hostile;
mod cli_bench;
mod cli_generate;
mod cli_inspect;
mod cli_lab;
mod cli_lens;
mod contributing;
mod engine;
mod generate_reference;
mod hub;
mod lens_parts;
mod lens_reference;
mod mistakes;
mod model_reference;
mod precision;
mod quantize;
mod real_gpt2;
mod reference;
mod sampling_draws;
mod sampling_reference;
mod server;
mod settings;
mod tokenizer_files;
mod tokenizer_gpt2;
