//! Parses arbitrary bytes as config.json: the result is a consistent configuration or a one-line error.
#![no_main]

use std::path::Path;

use hornbook::checkpoint::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    match Config::from_json(Path::new("config.json"), json) {
        Ok(config) => {
            assert!(config.n_embd > 0 && config.n_layer > 0 && config.n_positions > 0);
            assert!(config.n_inner > 0 && config.vocab_size > 0);
            assert_eq!(config.n_embd % config.n_head, 0);
            assert!(config.layer_norm_epsilon > 0.0 && config.layer_norm_epsilon <= 1.0);
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
