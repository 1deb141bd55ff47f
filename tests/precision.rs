//! Every precision gives the same bits everywhere, and stays near the weights it was made from.

use crate::reference::{Reference, data};
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::perplexity::{SlidingWindows, score};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Precision, Session};

/// All logits of a sequence, given to the model `chunk` tokens at a time.
fn logits(model: &Model, ids: &[u32], chunk: usize, kv: Option<KvPrecision>) -> Vec<u32> {
    let mut session = Session::new(model, ids.len(), kv);
    let mut bits = vec![];
    for ids in ids.chunks(chunk) {
        session.score(ids, |_, logits| bits.extend(logits.iter().map(|x| x.to_bits()))).unwrap();
    }
    bits
}

#[test]
fn same_bits_for_any_team_chunk_and_instruction_set() {
    // Widths that are no multiple of a block or a vector, and a head of its own.
    for folder in ["tiny-gelu-tanh-unscaled", "tiny-relu-untied", "tiny-one-head"] {
        let ids = Reference::read(folder).ids();
        let model = |threads, isa, precision| {
            let checkpoint = Checkpoint::from_folder(&data(folder)).unwrap();
            Model::with_precision(checkpoint, ThreadPool::new(threads, isa), Some(precision)).unwrap()
        };
        for precision in Precision::ALL {
            let portable = logits(&model(1, Isa::Portable, precision), &ids, ids.len(), None);
            for isa in Isa::available() {
                // Tiles add up bfloat16 in an order of their own; elsewhere and otherwise the bits are the same.
                let expected = match (isa.name(), precision) {
                    ("amx", Precision::Bf16Dot) => logits(&model(1, isa, precision), &ids, ids.len(), None),
                    _ => portable.clone(),
                };
                for threads in [1, 3] {
                    let model = model(threads, isa, precision);
                    for chunk in [1, 7, ids.len()] {
                        let found = logits(&model, &ids, chunk, None);
                        assert!(
                            found == expected,
                            "{folder}, {precision}: {isa}, {threads} threads, by {chunk}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_rounding_costs_fable() {
    let text = std::fs::read_to_string(data("fable/text.txt")).unwrap();
    let hornbook = hornbook::Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(&text).unwrap();
    let loss = |precision, against: Option<&Model>| {
        let pool = ThreadPool::new(2, Isa::available()[0]);
        let model = Model::with_precision(Checkpoint::embedded().unwrap(), pool, Some(precision)).unwrap();
        let windows = SlidingWindows { context: 512, stride: 512 };
        score(&model, against, &ids, windows, KvPrecision::F32, |_| ()).unwrap()
    };
    let exact = loss(Precision::F32, None).loss();
    // fable is stored in f16, so f32 and f16 are the same numbers. (bound on the loss, on the divergence)
    let bounds = [
        (Precision::F16, 0.0, 0.0),
        (Precision::Bf16, 0.005, 1e-4),
        (Precision::Bf16Dot, 0.005, 1e-3),
        (Precision::Int8, 0.01, 2e-3),
        (Precision::Int4, 0.04, 2e-2),
    ];
    for (precision, on_loss, on_divergence) in bounds {
        let score = loss(precision, Some(hornbook.model()));
        let divergence = score.divergence.unwrap().kl;
        assert!((score.loss() - exact).abs() <= on_loss, "{precision}: loss {} for {exact}", score.loss());
        assert!(divergence <= on_divergence, "{precision}: divergence {divergence}");
        assert_eq!(divergence > 0.0, precision != Precision::F16, "{precision}: is it in use?");
    }
}

#[test]
fn what_a_precision_takes_is_known_before_it_is_made() {
    for folder in ["tiny-gelu-tanh-unscaled", "tiny-relu-untied", "tiny-one-head", "tiny-gelu-new-f16"] {
        for precision in Precision::ALL {
            let checkpoint = Checkpoint::from_folder(&data(folder)).unwrap();
            let announced = checkpoint.pass_bytes(precision.dtype());
            let pool = ThreadPool::new(1, Isa::available()[0]);
            let model = Model::with_precision(checkpoint, pool, Some(precision)).unwrap();
            assert_eq!(announced, model.pass_bytes(), "{folder}, {precision}");
        }
    }
}

#[test]
fn what_rounding_keys_and_values_costs_fable() {
    let text = std::fs::read_to_string(data("fable/text.txt")).unwrap();
    let hornbook = hornbook::Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(&text).unwrap();
    let windows = SlidingWindows { context: 512, stride: 512 };
    let loss = |kv| score(hornbook.model(), None, &ids, windows, kv, |_| ()).unwrap().loss();
    let exact = loss(KvPrecision::F32);
    for (kv, bound) in [(KvPrecision::F16, 1e-4), (KvPrecision::Int8, 5e-3)] {
        let found = loss(kv);
        assert!((found - exact).abs() <= bound, "{kv}: loss {found} for {exact}");
        assert!(found != exact, "{kv}: is it in use?");
    }
}

#[test]
fn where_inputs_are_rounded_keys_and_values_are() {
    let ids = Reference::read("tiny-one-head").ids();
    for precision in Precision::ALL {
        let checkpoint = Checkpoint::from_folder(&data("tiny-one-head")).unwrap();
        let model =
            Model::with_precision(checkpoint, ThreadPool::new(1, Isa::available()[0]), Some(precision))
                .unwrap();
        let rounds = matches!(precision, Precision::Bf16Dot | Precision::Int8 | Precision::Int4);
        let (kept, other) = match rounds {
            true => (KvPrecision::F16, KvPrecision::F32),
            false => (KvPrecision::F32, KvPrecision::F16),
        };
        let unasked = logits(&model, &ids, ids.len(), None);
        assert_eq!(unasked, logits(&model, &ids, ids.len(), Some(kept)), "{precision}");
        assert_ne!(unasked, logits(&model, &ids, ids.len(), Some(other)), "{precision}");
    }
}
