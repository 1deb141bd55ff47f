//! Generation compared with transformers: greedy decoding, beam search, logits processors, logprobs. The
//! references are made by scripts/make_reference.py.

use crate::reference::{Reference, data, folders};
use hornbook::checkpoint::Checkpoint;
use hornbook::generate::beam_search;
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::Session;
use hornbook::sampling::{
    BeamParams, EarlyStopping, LogitsProcessors, PARAMETERS, Sampler, SamplingParams, token_logprob,
    top_logprobs,
};
use hornbook::{FinishReason, Generation, Hornbook, Options, Token};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The expected.json of a tiny checkpoint.
#[derive(Deserialize)]
struct Expected {
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
    /// Present in full references.
    beam_search: Option<Beams>,
    logits_processed: Option<BTreeMap<String, Processed>>,
}

#[derive(Deserialize)]
struct Beams {
    eos_token_id: u32,
    num_beams: usize,
    max_new_tokens: usize,
    searches: Vec<Search>,
}

#[derive(Deserialize)]
struct Search {
    length_penalty: f32,
    early_stopping: Value,
    sequences: Vec<Vec<u32>>,
    scores: Vec<f64>,
}

#[derive(Deserialize)]
struct Processed {
    /// The value of a single processor.
    value: Option<f32>,
    /// The parameters of a chain of processors.
    settings: Option<Map<String, Value>>,
    /// Null stands for minus infinity.
    logits: Vec<Option<f32>>,
}

/// tests/data/fable/expected.json
#[derive(Deserialize)]
struct Fable {
    greedy: Vec<Run>,
    last_position: LastPosition,
    text: Text,
}

#[derive(Deserialize)]
struct Run {
    prompt: String,
    input_ids: Vec<u32>,
    greedy: Vec<u32>,
}

#[derive(Deserialize)]
struct LastPosition {
    input_ids: Vec<u32>,
    top: Vec<(u32, f32)>,
}

#[derive(Deserialize)]
struct Text {
    input_ids: Vec<u32>,
    logprobs: Vec<f32>,
    mean_nll: f64,
}

fn expected<T: serde::de::DeserializeOwned>(folder: &str) -> T {
    serde_json::from_slice(&std::fs::read(data(folder).join("expected.json")).unwrap()).unwrap()
}

fn open(folder: &Path, threads: usize) -> Hornbook {
    let checkpoint = Checkpoint::from_folder(folder).unwrap();
    Hornbook::new(checkpoint, ThreadPool::new(threads, Isa::available()[0])).unwrap()
}

fn tiny(folder: &str) -> Hornbook {
    open(&data(folder), 2)
}

fn greedy(max_tokens: usize) -> Options {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    Options { sampling, max_tokens: Some(max_tokens), ..Options::default() }
}

fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

fn collect(generation: &mut Generation) -> Vec<Token> {
    generation.map(Result::unwrap).collect()
}

/// Greedy decoding with a session.
fn argmax(session: &mut Session, prompt: &[u32], n: usize) -> Vec<u32> {
    let mut actual = vec![];
    for step in 0..n {
        let logits = match step {
            0 => session.feed(prompt).unwrap(),
            _ => session.feed(&actual[step - 1..]).unwrap(),
        };
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        actual.push(best as u32);
    }
    actual
}

#[test]
fn greedy_tokens_equal_transformers_for_every_checkpoint() {
    for folder in folders() {
        let expected: Expected = expected(&folder);
        assert_eq!(expected.input_ids, Reference::read(&folder).ids(), "{folder}");
        assert_eq!(expected.greedy.len(), 64, "{folder}");
        let hornbook = tiny(&folder);
        let mut generation = hornbook.generate(&expected.input_ids, &greedy(64)).unwrap();
        assert_eq!(ids(&collect(&mut generation)), expected.greedy, "{folder}");
        assert_eq!(generation.finish_reason(), Some(FinishReason::Length));
        assert_eq!(generation.generated(), expected.greedy);

        let mut session = Session::new(hornbook.model(), hornbook.config().n_positions, KvPrecision::F32);
        assert_eq!(argmax(&mut session, &expected.input_ids, 64), expected.greedy, "{folder}");
    }
}

#[test]
fn beam_search_equals_transformers() {
    let (mut searches, mut ended) = (0, 0);
    for folder in folders() {
        let expected: Expected = expected(&folder);
        assert_eq!(expected.beam_search.is_some(), Reference::read(&folder).has("hidden.0"), "{folder}");
        let Some(beams) = expected.beam_search else { continue };
        let hornbook = tiny(&folder);
        assert_eq!(hornbook.config().eos_token_ids, [beams.eos_token_id], "{folder}");
        for search in beams.searches {
            let params = BeamParams {
                num_beams: beams.num_beams,
                length_penalty: search.length_penalty,
                early_stopping: match &search.early_stopping {
                    Value::Bool(true) => EarlyStopping::Immediate,
                    Value::Bool(false) => EarlyStopping::Heuristic,
                    other => {
                        assert_eq!(other, "never");
                        EarlyStopping::Never
                    }
                },
            };
            let context = format!("{folder}, {params:?}");
            let options = greedy(beams.max_new_tokens);
            let actual = beam_search(&hornbook, &expected.input_ids, params, &options).unwrap();
            let tokens: Vec<_> = actual.iter().map(|beam| beam.ids.clone()).collect();
            assert_eq!(tokens, search.sequences, "{context}");
            for (beam, score) in actual.iter().zip(search.scores) {
                let close = (beam.score - score).abs() < 1e-4;
                assert!(close, "{context}: found {}, expected {score}", beam.score);
                let stop = beam.ids.last() == Some(&beams.eos_token_id);
                assert_eq!(beam.finish_reason == FinishReason::Stop, stop, "{context}");
                ended += usize::from(stop);
            }
            searches += 1;
        }
    }
    assert!(searches >= 4 * 9 && ended > searches, "{searches} searches, {ended} ended texts");
}

/// Sets the parameter that transformers calls `name`, and returns whether it is a penalty rather than a
/// filter.
fn set(sampling: &mut SamplingParams, name: &str, value: f32) -> bool {
    let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name).unwrap();
    parameter.set(sampling, parameter.parse(&value.to_string()).unwrap());
    parameter.is_processor
}

#[test]
fn processed_logits_equal_transformers() {
    let mut checked = BTreeMap::new();
    for folder in folders() {
        let expected: Expected = expected(&folder);
        let all = Reference::read(&folder).values("logits");
        let logits = &all[all.len() - all.len() / expected.input_ids.len()..];
        for (name, Processed { value, settings, logits: processed }) in
            expected.logits_processed.unwrap_or_default()
        {
            let mut sampling = SamplingParams::default();
            let mut penalty = false;
            match (value, settings) {
                (Some(value), None) => penalty = set(&mut sampling, &name, value),
                (None, Some(settings)) => settings.iter().for_each(|(name, value)| {
                    set(&mut sampling, name, value.as_f64().unwrap() as f32);
                }),
                _ => panic!("{folder}, {name}: neither one processor nor a chain"),
            }
            let context = format!("{folder}, {name}");
            let processed: Vec<f32> =
                processed.iter().map(|logit| logit.unwrap_or(f32::NEG_INFINITY)).collect();
            assert_ne!(processed, logits, "{context} changes nothing");
            // Penalties apply to the whole text, as if all of it were generated.
            let history = &expected.input_ids[..];
            if penalty {
                let mut actual = logits.to_vec();
                LogitsProcessors::new(sampling.clone()).apply(&mut actual, &[], history);
                for (id, (f, e)) in actual.iter().zip(&processed).enumerate() {
                    assert!(f == e || (f - e).abs() < 1e-5, "{context}, token {id}: found {f}, expected {e}");
                }
            }
            // Probabilities cover penalties and filters alike.
            let weights: Vec<f64> = processed.iter().map(|&logit| f64::from(logit).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut actual = vec![0.0; logits.len()];
            let mut sampler = Sampler::new(sampling, 0);
            let left = sampler.distribution(logits, &[], history);
            left.probabilities().for_each(|(id, p)| actual[id as usize] = p);
            for (id, (actual, weight)) in actual.iter().zip(&weights).enumerate() {
                let expected = weight / total;
                let close = (actual - expected).abs() < 1e-5 && (*actual == 0.0) == (expected == 0.0);
                assert!(close, "{context}, token {id}: found {actual}, expected {expected}");
            }
            *checked.entry(name).or_insert(0) += 1;
        }
    }
    assert_eq!(checked.len(), 10, "{checked:?}");
    assert!(checked.values().all(|&n| n >= 4), "{checked:?}");
}

#[test]
fn fable_greedy_text_equals_transformers() {
    let expected: Fable = expected("fable");
    assert_eq!(expected.greedy.len(), 3);
    let hornbook = Hornbook::open("fable").unwrap();
    for run in expected.greedy {
        assert_eq!(hornbook.encode(&run.prompt).unwrap(), run.input_ids);
        assert_eq!(run.greedy.len(), 200);
        let tokens = collect(&mut hornbook.generate(&run.input_ids, &greedy(200)).unwrap());
        assert_eq!(ids(&tokens), run.greedy, "{}", run.prompt);
        // The concatenated texts of the tokens are the decoded text.
        let text: String = tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(text, hornbook.tokenizer().unwrap().decode(&run.greedy));
    }
}

#[test]
fn fable_logits_equal_transformers() {
    let LastPosition { input_ids, top } = expected::<Fable>("fable").last_position;
    assert_eq!(top.len(), 20);
    let hornbook = Hornbook::open("fable").unwrap();
    let mut session = Session::new(hornbook.model(), input_ids.len(), KvPrecision::F32);
    let logits = session.feed(&input_ids).unwrap();
    for &(id, expected) in &top {
        let actual = logits[id as usize];
        assert!((actual - expected).abs() < 1e-4, "token {id}: found {actual}, expected {expected}");
    }
    let best: BTreeSet<u32> = top_logprobs(logits, top.len()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(best, top.iter().map(|&(id, _)| id).collect());
}

#[test]
fn fable_logprobs_of_a_text_equal_transformers() {
    let Text { input_ids, logprobs, mean_nll } = expected::<Fable>("fable").text;
    assert_eq!((input_ids.len(), logprobs.len()), (512, 511));
    let hornbook = Hornbook::open("fable").unwrap();
    let mut session = Session::new(hornbook.model(), input_ids.len(), KvPrecision::F32);
    let mut actual = vec![];
    let score = |t: usize, logits: &[f32]| {
        assert_eq!(t, actual.len());
        actual.push(input_ids.get(t + 1).map(|&next| token_logprob(logits, next)));
    };
    session.score(&input_ids, score).unwrap();
    assert_eq!(actual.pop(), Some(None));
    let mut nll = 0.0;
    for (t, (actual, expected)) in actual.iter().zip(&logprobs).enumerate() {
        let actual = actual.unwrap();
        assert!((actual - expected).abs() < 1e-4, "token {}: found {actual}, expected {expected}", t + 1);
        nll -= f64::from(actual) / logprobs.len() as f64;
    }
    assert!((nll - mean_nll).abs() < 1e-5, "found {nll}, expected {mean_nll}");
}

/// Ids, bits of logprobs, and texts.
type TokensBits = Vec<(u32, u32, String)>;

fn sampled(hornbook: &Hornbook, prompt: &[u32], options: &Options, n: usize) -> Vec<TokensBits> {
    let mut generation = hornbook.generate(prompt, options).unwrap();
    let mut all = vec![];
    for choice in 0..n {
        if choice > 0 {
            generation.restart().unwrap();
        }
        let tokens = collect(&mut generation);
        all.push(tokens.into_iter().map(|t| (t.id, t.logprob.to_bits(), t.text)).collect());
    }
    all
}

fn seeded(seed: u64) -> Options {
    let sampling = SamplingParams { seed, ..Options::default().sampling };
    Options { sampling, max_tokens: Some(40), ..Options::default() }
}

#[test]
fn choices_differ_and_are_reproduced_by_the_seed() {
    let hornbook = Hornbook::open("fable").unwrap();
    let prompt = hornbook.encode("The old king").unwrap();
    let four = sampled(&hornbook, &prompt, &seeded(7), 4);
    assert_eq!(four.iter().collect::<BTreeSet<_>>().len(), 4, "choices repeat each other");
    assert_eq!(sampled(&hornbook, &prompt, &seeded(7), 2), four[..2]);
    assert_ne!(sampled(&hornbook, &prompt, &seeded(8), 1), four[..1]);
}

#[test]
fn tokens_are_identical_for_all_threads_and_isas() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fable");
    let one = open(&folder, 1);
    let prompt = one.encode("The old king").unwrap();
    let expected = sampled(&one, &prompt, &seeded(3), 2);
    for threads in [2, 3] {
        assert_eq!(sampled(&open(&folder, threads), &prompt, &seeded(3), 2), expected, "{threads} threads");
    }
    for isa in Isa::available() {
        let hornbook =
            Hornbook::new(Checkpoint::from_folder(&folder).unwrap(), ThreadPool::new(2, isa)).unwrap();
        assert_eq!(sampled(&hornbook, &prompt, &seeded(3), 2), expected, "{isa}");
    }
}

#[test]
fn beam_search_with_every_continuation_banned_returns_the_running_beams() {
    let hornbook = tiny("beam-all-banned"); // five tokens
    let search = |prompt: &[u32], no_repeat_ngram_size, max_tokens, early_stopping| {
        let sampling = SamplingParams { no_repeat_ngram_size, temperature: 0.0, ..SamplingParams::default() };
        let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
        let params = BeamParams { num_beams: 2, early_stopping, ..BeamParams::default() };
        beam_search(&hornbook, prompt, params, &options)
    };
    let prompt = [3, 4, 0, 3, 1, 2, 0, 0, 3, 0, 1, 1, 1, 2, 1, 4, 0, 4, 1, 2, 0, 4, 4, 0];
    let beams = search(&prompt, 2, 25, EarlyStopping::Never).unwrap();
    // transformers 5.24 also stops after six tokens, with [2, 4, 3, 3, 2, 2]: to it, unfinished beams have
    // the same score, -1e9, and its top-k picks any of them.
    assert_eq!(beams[0].ids, [2, 4, 3, 2, 3, 3]);
    assert_eq!(beams[1].ids, [2, 4, 3, 3, 2, 3]);
    assert!(beams.is_sorted_by(|a, b| a.score >= b.score));
    assert!(beams.iter().all(|beam| beam.score.is_finite() && beam.finish_reason == FinishReason::Length));
    // Two tokens are left, in either order.
    let beams = search(&[0, 1, 2], 1, 3, EarlyStopping::default()).unwrap();
    let mut found: Vec<Vec<u32>> = beams.into_iter().map(|beam| beam.ids).collect();
    found.sort();
    assert_eq!(found, [[3, 4], [4, 3]]);
    let error = search(&[0, 1, 2, 3, 4], 1, 3, EarlyStopping::default()).unwrap_err().to_string();
    assert!(error.starts_with("no token may follow the prompt"), "{error}");
}

#[test]
fn f16_kv_cache_logits_are_close() {
    for folder in folders() {
        let (hornbook, reference) = (tiny(&folder), Reference::read(&folder));
        let logits = |precision| {
            let mut session = Session::new(hornbook.model(), reference.ids().len(), precision);
            let mut all = vec![];
            session.score(&reference.ids(), |_, logits| all.extend_from_slice(logits)).unwrap();
            all
        };
        let half = logits(KvPrecision::F16);
        assert_ne!(half, logits(KvPrecision::F32), "{folder}: the option does nothing");
        reference.assert_close("logits", &half, 3e-3, &format!("{folder} with an f16 cache"));
    }
}
