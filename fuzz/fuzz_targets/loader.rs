//! Loads an arbitrary config.json, a zero byte and an arbitrary model.safetensors: the result is weights of
//! the configured shapes or a one-line error. All elements are read, to detect views outside the file.
#![no_main]

use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::elements::Elements;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let config = parts.next().unwrap_or_default();
    let weights = parts.next().unwrap_or_default();
    match Checkpoint::from_bytes(config, weights.to_vec()) {
        Ok(checkpoint) => {
            let config = &checkpoint.config;
            assert_eq!(checkpoint.weights.h.len(), config.n_layer);
            assert_eq!(
                checkpoint.weights.wte.shape(),
                [config.vocab_size, config.n_embd]
            );
            for tensor in checkpoint.weights.tensors() {
                let count = match tensor.elements() {
                    Elements::F32(x) => x.iter().filter(|x| !x.is_nan()).count(),
                    Elements::F16(x) => x.iter().filter(|x| !x.is_nan()).count(),
                    Elements::Bf16(x) => x.iter().filter(|x| !x.is_nan()).count(),
                };
                assert!(count <= tensor.shape().iter().product());
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
