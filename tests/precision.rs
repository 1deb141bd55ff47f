//! Every precision gives the same bits on every machine, and stays close to the original weights.

use crate::reference::{Reference, data};
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::perplexity::{SlidingWindows, score};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Precision, Session};
use hornbook::sampling::{Sampler, SamplingParams};

/// Returns the logits of a sequence as bits, computed `chunk` tokens at a time.
fn logits(model: &Model, ids: &[u32], chunk: usize, kv: Option<KvPrecision>) -> Vec<u32> {
    let mut session = Session::new(model, ids.len(), kv);
    let mut bits = vec![];
    for ids in ids.chunks(chunk) {
        session.score(ids, |_, logits| bits.extend(logits.iter().map(|x| x.to_bits()))).unwrap();
    }
    bits
}

#[test]
fn logits_are_identical_for_any_thread_count_chunk_and_isa() {
    // Widths that are not multiples of a block or a vector, and an untied LM head.
    for folder in ["tiny-gelu-tanh-unscaled", "tiny-relu-untied", "tiny-one-head"] {
        let ids = Reference::read(folder).ids();
        let model = |threads, isa, precision| {
            let checkpoint = Checkpoint::from_folder(&data(folder)).unwrap();
            Model::with_precision(checkpoint, ThreadPool::new(threads, isa), Some(precision)).unwrap()
        };
        for precision in Precision::ALL {
            let portable = logits(&model(1, Isa::Portable, precision), &ids, ids.len(), None);
            for isa in Isa::available() {
                // AMX sums bf16 products in its own order; all other combinations give the same bits.
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
                            "{folder}, {precision}: {isa}, {threads} threads, chunks of {chunk}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn quantization_error_of_fable_is_bounded() {
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
    // fable is stored in f16, so f32 and f16 have equal values. (bound on the loss, bound on the KL
    // divergence)
    let bounds = [
        (Precision::F16, 0.0, 0.0),
        (Precision::Bf16, 0.005, 1e-4),
        (Precision::Bf16Dot, 0.005, 1e-3),
        (Precision::Int8, 0.01, 2e-3),
        (Precision::Int4, 0.06, 5e-2),
    ];
    for (precision, loss_bound, kl_bound) in bounds {
        let score = loss(precision, Some(hornbook.model()));
        let kl = score.divergence.unwrap().kl;
        assert!(
            (score.loss() - exact).abs() <= loss_bound,
            "{precision}: loss {}, expected {exact}",
            score.loss()
        );
        assert!(kl <= kl_bound, "{precision}: KL divergence {kl}");
        assert_eq!(kl > 0.0, precision != Precision::F16, "{precision}: not in use?");
    }
}

/// The noise of a draw does not depend on the model: a seed mostly draws the same tokens in every precision.
#[test]
fn precisions_of_a_model_mostly_draw_the_same_tokens() {
    let text = std::fs::read_to_string(data("fable/text.txt")).unwrap();
    let ids = hornbook::Hornbook::open("fable").unwrap().encode(&text).unwrap();
    let ids = &ids[..ids.len().min(500)];
    let draws = |precision, params: &SamplingParams| {
        let pool = ThreadPool::new(2, Isa::available()[0]);
        let model = Model::with_precision(Checkpoint::embedded().unwrap(), pool, Some(precision)).unwrap();
        let (mut sampler, mut drawn) = (Sampler::new(params.clone(), 0), vec![]);
        let mut session = Session::new(&model, ids.len(), None);
        session.score(ids, |_, logits| drawn.push(sampler.sample(logits, &[], &[]).id)).unwrap();
        drawn
    };
    for (temperature, top_p) in [(1.0, 1.0), (0.8, 0.95)] {
        let params = SamplingParams { temperature, top_p, seed: 1, ..SamplingParams::default() };
        let exact = draws(Precision::F32, &params);
        for (precision, bound) in [(Precision::Int8, 0.97), (Precision::Int4, 0.84)] {
            let drawn = draws(precision, &params);
            let equal = drawn.iter().zip(&exact).filter(|(a, b)| a == b).count();
            let agreement = equal as f64 / ids.len() as f64;
            assert!(agreement >= bound, "{precision}, temperature {temperature}: {agreement}");
            assert!(agreement < 1.0, "{precision}: not in use?");
        }
    }
}

#[test]
fn announced_pass_bytes_match_the_model() {
    for folder in ["tiny-gelu-tanh-unscaled", "tiny-relu-untied", "tiny-one-head", "tiny-gelu-new-f16"] {
        for precision in Precision::ALL {
            let checkpoint = Checkpoint::from_folder(&data(folder)).unwrap();
            let announced = checkpoint.pass_bytes(precision);
            let pool = ThreadPool::new(1, Isa::available()[0]);
            let model = Model::with_precision(checkpoint, pool, Some(precision)).unwrap();
            assert_eq!(announced, model.pass_bytes(), "{folder}, {precision}");
        }
    }
}

#[test]
fn kv_cache_quantization_error_of_fable_is_bounded() {
    let text = std::fs::read_to_string(data("fable/text.txt")).unwrap();
    let hornbook = hornbook::Hornbook::open("fable").unwrap();
    let ids = hornbook.encode(&text).unwrap();
    let windows = SlidingWindows { context: 512, stride: 512 };
    let loss = |kv| score(hornbook.model(), None, &ids, windows, kv, |_| ()).unwrap().loss();
    let exact = loss(KvPrecision::F32);
    for (kv, bound) in [(KvPrecision::F16, 1e-4), (KvPrecision::Int8, 5e-3)] {
        let found = loss(kv);
        assert!((found - exact).abs() <= bound, "{kv}: loss {found}, expected {exact}");
        assert!(found != exact, "{kv}: not in use?");
    }
}

#[test]
fn kv_cache_defaults_to_f16_for_quantized_activations() {
    let ids = Reference::read("tiny-one-head").ids();
    for precision in Precision::ALL {
        let checkpoint = Checkpoint::from_folder(&data("tiny-one-head")).unwrap();
        let model =
            Model::with_precision(checkpoint, ThreadPool::new(1, Isa::available()[0]), Some(precision))
                .unwrap();
        let (default, other) = match precision.is_quantized() {
            true => (KvPrecision::F16, KvPrecision::F32),
            false => (KvPrecision::F32, KvPrecision::F16),
        };
        let found = logits(&model, &ids, ids.len(), None);
        assert_eq!(found, logits(&model, &ids, ids.len(), Some(default)), "{precision}");
        assert_ne!(found, logits(&model, &ids, ids.len(), Some(other)), "{precision}");
    }
}
