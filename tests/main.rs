//! The integration tests, one file per promise, in one program: linking takes longer than running them.
//! `cargo test --release -- cli_generate` runs the tests of one file. Only the count of allocations needs a
//! program of its own.

mod adapter_reference;
mod architecture;
mod batch;
mod checkpoint_hostile;
mod cli_adapter;
mod cli_bench;
mod cli_bench_kernels;
mod cli_chat;
mod cli_generate;
mod cli_inspect;
mod cli_lens;
mod cli_long_text;
mod cli_sizes;
#[cfg(target_os = "linux")]
mod cli_terminal;
mod cli_text_input;
mod cli_training;
mod cli_usage;
mod context_shift;
mod contributing;
mod documents;
mod draft_model;
mod engine;
mod finite_numbers;
mod generate_reference;
mod hub;
mod lens_components;
mod lens_reference;
mod model_folder;
mod model_reference;
mod pages;
mod precision;
mod prompt_lookup;
mod quantize;
mod real_gpt2;
mod reference;
mod sampling_draws;
mod sampling_reference;
mod self_draft;
mod server;
mod settings;
mod store_faults;
mod tokenizer_files;
mod tokenizer_gpt2;
mod train_reference;
mod user_errors;
