//! Parses arbitrary bytes as config.json: the result is a configuration or a one-line error.
#![no_main]

use std::path::Path;

use hornbook::checkpoint::ConfigFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Err(error) = ConfigFile::from_json(Path::new("config.json"), json) {
        assert!(!error.to_string().contains('\n'));
    }
});
