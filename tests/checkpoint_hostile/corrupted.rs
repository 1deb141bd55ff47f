//! What nobody thought of: random damage, and random bytes.

use hornbook::checkpoint::Checkpoint;
use proptest::prelude::*;
use safetensors::Dtype;

use super::tiny::{Tiny, all_numbers};

/// One way to damage a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Drop(prop::sample::Index, u8),
    Splice(prop::sample::Index, prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(i, bit)| Damage::Flip(i, bit)),
        4 => (at(), prop_oneof![any::<u8>(), 0x20u8..0x7f]).prop_map(|(i, byte)| Damage::Set(i, byte)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), any::<u8>()).prop_map(|(i, n)| Damage::Drop(i, n)),
        2 => (at(), at(), any::<u8>()).prop_map(|(i, j, n)| Damage::Splice(i, j, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage, reach: usize) {
    let len = bytes.len().min(reach);
    if len == 0 {
        return;
    }
    match damage {
        Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Damage::Set(at, byte) => bytes[at.index(len)] = *byte,
        Damage::Cut(at) => bytes.truncate(at.index(len)),
        Damage::Drop(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + usize::from(*count)).min(len));
        }
        Damage::Splice(from, to, count) => {
            let from = from.index(len);
            let piece = bytes[from..(from + usize::from(*count)).min(len)].to_vec();
            let to = to.index(len);
            bytes.splice(to..to, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage goes to the header, where the claims are, or anywhere; the result is right shapes or one line.
    #[test]
    fn damaged_files_are_read_or_refused(
        to_weights in prop::collection::vec(damage(), 0..6),
        to_config in prop::collection::vec(damage(), 0..3),
        header_only in any::<bool>(),
    ) {
        let tiny = Tiny::new(Dtype::F16);
        let (mut weights, mut config) = (tiny.bytes(), tiny.config.to_string().into_bytes());
        let header = 8 + u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
        for damage in &to_weights {
            apply(&mut weights, damage, if header_only { header } else { usize::MAX });
        }
        for damage in &to_config {
            apply(&mut config, damage, usize::MAX);
        }
        match Checkpoint::from_bytes(&config, weights) {
            Ok(checkpoint) => {
                let config = &checkpoint.config;
                prop_assert_eq!(checkpoint.weights.wte.shape(), [config.vocab_size, config.n_embd]);
                prop_assert_eq!(checkpoint.weights.h.len(), config.n_layer);
                for (shape, numbers) in all_numbers(&checkpoint.weights) {
                    prop_assert_eq!(shape.iter().product::<usize>(), numbers.len());
                }
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(
        config in prop::collection::vec(any::<u8>(), 0..200),
        weights in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let tiny = Tiny::new(Dtype::F32);
        let good = tiny.config.to_string();
        prop_assert!(Checkpoint::from_bytes(&config, tiny.bytes()).is_err());
        prop_assert!(Checkpoint::from_bytes(good.as_bytes(), weights).is_err());
    }
}
