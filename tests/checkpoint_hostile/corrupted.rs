//! Randomly corrupted files, and random bytes.

use hornbook::checkpoint::Checkpoint;
use proptest::prelude::*;
use safetensors::Dtype;

use super::tiny::{Tiny, all_values};

/// One corruption of a file.
#[derive(Clone, Debug)]
enum Corruption {
    FlipBit(prop::sample::Index, u8),
    SetByte(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Delete(prop::sample::Index, u8),
    Splice(prop::sample::Index, prop::sample::Index, u8),
}

fn corruption() -> impl Strategy<Value = Corruption> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(i, bit)| Corruption::FlipBit(i, bit)),
        4 => (at(), prop_oneof![any::<u8>(), 0x20u8..0x7f])
            .prop_map(|(i, byte)| Corruption::SetByte(i, byte)),
        1 => at().prop_map(Corruption::Truncate),
        1 => (at(), any::<u8>()).prop_map(|(i, n)| Corruption::Delete(i, n)),
        2 => (at(), at(), any::<u8>()).prop_map(|(i, j, n)| Corruption::Splice(i, j, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, corruption: &Corruption, max_len: usize) {
    let len = bytes.len().min(max_len);
    if len == 0 {
        return;
    }
    match corruption {
        Corruption::FlipBit(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Corruption::SetByte(at, byte) => bytes[at.index(len)] = *byte,
        Corruption::Truncate(at) => bytes.truncate(at.index(len)),
        Corruption::Delete(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + usize::from(*count)).min(len));
        }
        Corruption::Splice(from, to, count) => {
            let from = from.index(len);
            let range = bytes[from..(from + usize::from(*count)).min(len)].to_vec();
            let to = to.index(len);
            bytes.splice(to..to, range);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Corrupts the header or the complete file. The result has valid shapes or is a one-line error.
    #[test]
    fn corrupted_files_load_or_error(
        weights_corruptions in prop::collection::vec(corruption(), 0..6),
        config_corruptions in prop::collection::vec(corruption(), 0..3),
        header_only in any::<bool>(),
    ) {
        let tiny = Tiny::new(Dtype::F16);
        let (mut weights, mut config) = (tiny.bytes(), tiny.config.to_string().into_bytes());
        let header = 8 + u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
        for corruption in &weights_corruptions {
            apply(&mut weights, corruption, if header_only { header } else { usize::MAX });
        }
        for corruption in &config_corruptions {
            apply(&mut config, corruption, usize::MAX);
        }
        match Checkpoint::from_bytes(&config, weights) {
            Ok(checkpoint) => {
                let config = &checkpoint.config;
                prop_assert_eq!(checkpoint.weights.wte.shape(), [config.vocab_size, config.n_embd]);
                prop_assert_eq!(checkpoint.weights.h.len(), config.n_layer);
                for (shape, values) in all_values(&checkpoint.weights) {
                    prop_assert_eq!(shape.iter().product::<usize>(), values.len());
                }
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        }
    }

    #[test]
    fn random_bytes_are_rejected(
        config in prop::collection::vec(any::<u8>(), 0..200),
        weights in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let tiny = Tiny::new(Dtype::F32);
        let valid_config = tiny.config.to_string();
        prop_assert!(Checkpoint::from_bytes(&config, tiny.bytes()).is_err());
        prop_assert!(Checkpoint::from_bytes(valid_config.as_bytes(), weights).is_err());
    }
}
