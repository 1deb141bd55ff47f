//! Sampling is reproducible, follows the distribution, and handles any logits.

use hornbook::sampling::{Sampler, SamplingParams, token_logprob};
use proptest::prelude::*;

/// Pseudo-random logits with a distribution similar to a model's.
fn logits(vocab_size: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..vocab_size).map(|_| 4.0 * (next() + next() + next() + next() - 2.0) - 30.0).collect()
}

fn sample_n(params: &SamplingParams, stream: u64, n: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(params.clone(), stream);
    let mut generated = Vec::new();
    for i in 0..n {
        let row = logits(200, i as u32);
        generated.push(sampler.sample(&row, &[1, 2, 3], &generated).id);
    }
    generated
}

/// Golden tokens, so that a difference between platforms, compilers or algorithms is detected.
#[test]
fn seed_gives_golden_tokens() {
    let unfiltered = SamplingParams { seed: 42, ..Default::default() };
    let filtered = SamplingParams {
        temperature: 0.7,
        top_k: 60,
        top_p: 0.9,
        min_p: 0.02,
        typical_p: 0.95,
        repetition_penalty: 1.1,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        no_repeat_ngram_size: 2,
        ..unfiltered.clone()
    };
    let drawn = [(&unfiltered, 0), (&unfiltered, 1), (&filtered, 0)];
    let drawn = drawn.map(|(params, stream)| sample_n(params, stream, 12));
    assert_eq!(drawn, [UNFILTERED, UNFILTERED_STREAM_1, FILTERED]);
    assert_ne!(sample_n(&SamplingParams { seed: 43, ..unfiltered }, 0, 12), UNFILTERED);
}

const UNFILTERED: [u32; 12] = [181, 128, 192, 101, 38, 135, 87, 97, 161, 116, 196, 20];
const UNFILTERED_STREAM_1: [u32; 12] = [122, 100, 43, 48, 18, 97, 135, 74, 2, 145, 168, 185];
const FILTERED: [u32; 12] = [181, 128, 32, 126, 38, 65, 198, 97, 161, 116, 196, 167];

/// A chi-squared test with 7 degrees of freedom: 24.3 is exceeded with probability 0.001, and the seed is
/// fixed.
#[test]
fn sampled_frequencies_match_distribution() {
    let row: Vec<f32> = (1..=8).map(|i| libm::logf(i as f32) - 90.0).collect();
    for temperature in [1.0, 0.5] {
        let params = SamplingParams { temperature, seed: 7, ..Default::default() };
        let mut sampler = Sampler::new(params, 3);
        let mut counts = [0f64; 8];
        let draws = 20_000;
        for _ in 0..draws {
            counts[sampler.sample(&row, &[], &[]).id as usize] += 1.0;
        }
        let weight = |i: usize| libm::pow((i + 1) as f64, 1.0 / f64::from(temperature));
        let total: f64 = (0..8).map(weight).sum();
        let expected = |i: usize| weight(i) / total * f64::from(draws);
        let chi_squared: f64 = (0..8).map(|i| (counts[i] - expected(i)).powi(2) / expected(i)).sum();
        assert!(chi_squared < 24.3, "{chi_squared}: {counts:?}");
    }
}

#[test]
fn temperature_zero_is_argmax_with_ties_by_id() {
    let greedy = SamplingParams { temperature: 0.0, top_k: 1, ..Default::default() };
    let mut sampler = Sampler::new(greedy.clone(), 0);
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0], &[], &[]).id, 1);
    let row = [0.0, 1e-30, f32::NEG_INFINITY];
    assert_eq!(sampler.sample(&row, &[], &[]).id, 1);
    // The logits processors run before the argmax.
    let mut sampler = Sampler::new(SamplingParams { presence_penalty: 2.0, ..greedy }, 0);
    assert_eq!(sampler.sample(&[1.0, 2.0], &[1], &[1]).id, 0);
}

#[test]
fn logprobs_are_of_the_raw_distribution() {
    let row = [1.0, 2.0, 3.0, -1.0];
    for temperature in [0.0, 0.1, 5.0] {
        let mut sampler = Sampler::new(
            SamplingParams {
                temperature,
                top_k: 1,
                logit_bias: vec![(0, 50.0)],
                repetition_penalty: 1.5,
                ..Default::default()
            },
            0,
        );
        let sampled = sampler.sample(&row, &[2], &[1]);
        assert_eq!((sampled.id, sampled.logprob), (0, token_logprob(&row, 0)));
    }
}

#[test]
fn stop_ids_are_banned_until_min_tokens() {
    let params = SamplingParams { temperature: 0.0, min_tokens: 2, stop_ids: vec![0], ..Default::default() };
    let mut sampler = Sampler::new(params, 0);
    let row = [9.0, 1.0, 2.0];
    assert_eq!(sampler.sample(&row, &[], &[]).id, 2);
    assert_eq!(sampler.sample(&row, &[], &[2]).id, 2);
    assert_eq!(sampler.sample(&row, &[], &[2, 2]).id, 0);
}

#[test]
fn bans_of_all_tokens_are_lifted() {
    for temperature in [0.0, 1.0] {
        let params = SamplingParams { temperature, no_repeat_ngram_size: 1, ..Default::default() };
        let mut sampler = Sampler::new(params, 0);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, 5.0], &[0], &[1]).id, 1);
    }
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let probability = || prop_oneof![Just(0.0f32), Just(1.0), 0.0f32..=1.0];
    (
        (prop_oneof![Just(0.0f32), Just(1.0), Just(1e-38), Just(f32::MAX), 0.01f32..3.0], 0usize..9),
        (probability(), probability(), prop_oneof![Just(1.0f32), 1e-6f32..=1.0]),
        (prop_oneof![Just(1.0f32), Just(f32::MIN_POSITIVE), Just(f32::MAX), 0.1f32..3.0]),
        (-2.0f32..=2.0, -2.0f32..=2.0, 0usize..4),
        prop::collection::vec((0u32..12, prop_oneof![Just(f32::NEG_INFINITY), -100f32..100.0]), 0..3),
        (
            any::<u64>(),
            0usize..3,
            prop::collection::vec(0u32..12, 0..3),
            prop::collection::vec(prop::collection::vec(0u32..12, 0..3), 0..3),
            prop::collection::vec(0u32..12, 0..3),
        ),
    )
        .prop_map(
            |((temperature, top_k), (top_p, min_p, typical_p), r, (presence, frequency, n), bias, rest)| {
                SamplingParams {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    typical_p,
                    repetition_penalty: r,
                    presence_penalty: presence,
                    frequency_penalty: frequency,
                    no_repeat_ngram_size: n,
                    logit_bias: bias,
                    seed: rest.0,
                    min_tokens: rest.1,
                    stop_ids: rest.2,
                    bad_words_ids: rest.3,
                    allowed_ids: rest.4,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any valid parameters and any floats: no panic, an id within the vocabulary, and the same id again.
    #[test]
    fn any_logits_give_valid_token(
        params in any_params(),
        row in prop::collection::vec(prop_oneof![
            4 => -20f32..20.0,
            1 => any::<f32>(),
            1 => prop::sample::select(
                &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0][..],
            ),
        ], 1..40),
        history in prop::collection::vec(0u32..60, 0..20),
    ) {
        let (prompt, generated) = history.split_at(history.len() / 2);
        let mut sampler = Sampler::new(params.clone(), 5);
        let sampled = sampler.sample(&row, prompt, generated);
        prop_assert!((sampled.id as usize) < row.len());
        prop_assert!(!sampled.logprob.is_nan() && sampled.logprob <= 1e-6);
        let repeated = Sampler::new(params.clone(), 5).sample(&row, prompt, generated);
        prop_assert_eq!(sampled, repeated);
        if params.temperature > 0.0 {
            let candidates: Vec<_> = sampler.distribution(&row, prompt, generated).probabilities().collect();
            prop_assert!(!candidates.is_empty());
            if row.iter().any(|l| *l > f32::NEG_INFINITY) {
                let sum: f64 = candidates.iter().map(|&(_, p)| p).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
                prop_assert!(candidates.iter().any(|&(id, p)| id == sampled.id && p > 0.0));
            }
        }
    }
}
