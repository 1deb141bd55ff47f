//! Logits processors, logits warpers and beam search match transformers (scripts/make_sampling_reference.py).

use std::path::Path;

use hornbook::sampling::{BeamParams, BeamSearch, EarlyStopping, PARAMETERS, Sampler, SamplingParams};
use serde::Deserialize;
use serde_json::{Map, Value};

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Parses generation options with transformers' names. Panics on an unknown one, which would otherwise not be
/// tested.
fn parse_options(options: &Map<String, Value>, stop_ids: &[u32]) -> (SamplingParams, BeamParams, usize) {
    let (mut sampling, mut beam, mut max_new_tokens) = (SamplingParams::default(), BeamParams::default(), 0);
    sampling.stop_ids = stop_ids.to_vec();
    for (name, value) in options {
        let number = value.as_f64().unwrap_or(f64::NAN) as f32;
        let integer = value.as_u64().unwrap_or(u64::MAX) as usize;
        match name.as_str() {
            "bad_words_ids" => sampling.bad_words_ids = serde_json::from_value(value.clone()).unwrap(),
            "allowed_token_ids" => sampling.allowed_ids = serde_json::from_value(value.clone()).unwrap(),
            "min_tokens" | "min_new_tokens" => sampling.min_tokens = integer,
            "num_beams" => beam.num_beams = integer,
            "length_penalty" => beam.length_penalty = number,
            "early_stopping" => {
                beam.early_stopping = match value {
                    Value::Bool(true) => EarlyStopping::Immediate,
                    Value::Bool(false) => EarlyStopping::Heuristic,
                    other if other == "never" => EarlyStopping::Never,
                    other => panic!("early_stopping {other}"),
                }
            }
            "max_new_tokens" => max_new_tokens = integer,
            "eos_token_id" => {
                sampling.stop_ids = match value {
                    Value::Array(_) => serde_json::from_value(value.clone()).unwrap(),
                    id => vec![id.as_u64().unwrap() as u32],
                }
            }
            other => {
                let parameter = PARAMETERS.iter().find(|parameter| parameter.name == other);
                let parameter = parameter.unwrap_or_else(|| panic!("unknown option {other}"));
                parameter.set(&mut sampling, parameter.parse(&value.to_string()).unwrap());
            }
        }
    }
    (sampling, beam, max_new_tokens)
}

#[derive(Deserialize)]
struct Warpers {
    inputs: Vec<Input>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Input {
    logits: Vec<f32>,
    prompt: Vec<u32>,
    generated: Vec<u32>,
    stop_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Case {
    input: usize,
    options: Map<String, Value>,
    kept: Vec<u32>,
    probabilities: Vec<f64>,
}

#[test]
fn distribution_matches_transformers() {
    let Warpers { inputs, cases } = read("warpers.json");
    assert!(cases.len() > 90);
    for case in cases {
        let input = &inputs[case.input];
        let (sampling, ..) = parse_options(&case.options, &input.stop_ids);
        sampling.validate(input.logits.len()).unwrap();
        let mut sampler = Sampler::new(sampling, 0);
        for _ in 0..2 {
            let candidates = sampler.distribution(&input.logits, &input.prompt, &input.generated);
            let mut found = vec![0.0; input.logits.len()];
            candidates.probabilities().for_each(|(id, p)| found[id as usize] = p);
            let mut expected = vec![0.0; input.logits.len()];
            for (&id, &p) in case.kept.iter().zip(&case.probabilities) {
                expected[id as usize] = p;
            }
            for (id, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Probabilities below about 1e-11 are 0 here.
                let close = (found - expected).abs() < 1e-11 + 1e-5 * expected;
                let context = format!("input {}, {:?}, token {id}", case.input, case.options);
                assert!(close, "{context}: {found}, expected {expected}");
            }
        }
    }
}

#[derive(Deserialize)]
struct Beams {
    tables: Vec<Vec<Vec<f32>>>,
    searches: Vec<Search>,
}

#[derive(Deserialize)]
struct Search {
    table: usize,
    prompt: Vec<u32>,
    options: Map<String, Value>,
    hypotheses: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    /// None for greedy search.
    score: Option<f64>,
}

/// The logits of a toy model: a table lookup by the text's last token and its length.
fn table_logits(table: &[Vec<f32>], tokens: &[u32]) -> Vec<f32> {
    let last = &table[tokens[tokens.len() - 1] as usize];
    let by_length = &table[tokens.len() % table.len()];
    last.iter().zip(by_length).map(|(a, b)| a + b / 2.0).collect()
}

#[test]
fn beam_search_matches_transformers() {
    let Beams { tables, searches } = read("beam.json");
    assert!(searches.len() > 200);
    for search in searches {
        let table = &tables[search.table];
        let (sampling, beam, max_new_tokens) = parse_options(&search.options, &[]);
        if beam.num_beams == 1 {
            let tokens = greedy(table, &search.prompt, sampling, max_new_tokens);
            assert_eq!(tokens, search.hypotheses[0].tokens);
            continue;
        }
        let mut beams = BeamSearch::new(beam, sampling, &search.prompt, max_new_tokens).unwrap();
        // A KV cache receives only parents and tokens, so these must reproduce the hypotheses.
        let mut texts = vec![search.prompt.clone()];
        loop {
            let logits: Vec<Vec<f32>> = texts.iter().map(|text| table_logits(table, text)).collect();
            let rows: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
            let Some(step) = beams.step(&rows) else { break };
            let steps = step.parents.iter().zip(&step.tokens);
            texts = steps.map(|(&parent, &token)| [&texts[parent][..], &[token]].concat()).collect();
        }
        let hypotheses = beams.into_hypotheses();
        let context = format!("table {}, {:?}", search.table, search.options);
        assert_eq!(hypotheses.len(), beam.num_beams, "{context}");
        for (found, expected) in hypotheses.iter().zip(&search.hypotheses) {
            assert_eq!(found.tokens, expected.tokens, "{context}");
            if let Some(score) = expected.score {
                let close = (found.score - score).abs() < 1e-4 * score.abs().max(1.0);
                assert!(close, "{context}: {}, expected {score}", found.score);
            }
        }
    }
}

/// Greedy decoding, as in transformers with `num_beams = 1`.
fn greedy(table: &[Vec<f32>], prompt: &[u32], sampling: SamplingParams, max: usize) -> Vec<u32> {
    let stop_ids = sampling.stop_ids.clone();
    let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..sampling }, 0);
    let mut text = prompt.to_vec();
    for _ in 0..max {
        let (prompt, generated) = text.split_at(prompt.len());
        let id = sampler.sample(&table_logits(table, &text), prompt, generated).id;
        text.push(id);
        if stop_ids.contains(&id) {
            break;
        }
    }
    text.split_off(prompt.len())
}

#[test]
fn beam_search_without_tokens_is_empty_and_invalid_params_are_named() {
    let empty = BeamSearch::new(BeamParams::default(), SamplingParams::default(), &[1], 0).unwrap();
    assert!(empty.into_hypotheses().is_empty());
    for (params, message) in [
        (
            BeamParams { num_beams: 1, ..Default::default() },
            "beams: found 1, expected at least 2 (1 is greedy search: temperature 0)",
        ),
        (
            BeamParams { length_penalty: f32::NAN, ..Default::default() },
            "length_penalty: found NaN, expected a finite number",
        ),
    ] {
        let error = BeamSearch::new(params, SamplingParams::default(), &[1], 4).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// NaN and infinities, a vocabulary smaller than the number of beams, and bans of every token.
#[test]
fn beam_search_handles_any_logits() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for row in [&[nan, nan][..], &[-inf, -inf], &[inf, 1.0, inf], &[nan, 0.0, -inf], &[1.0]] {
        let sampling = SamplingParams { no_repeat_ngram_size: 1, ..Default::default() };
        let params = BeamParams { num_beams: 4, ..Default::default() };
        let mut beams = BeamSearch::new(params, sampling, &[], 5).unwrap();
        let mut n = 1;
        while let Some(step) = beams.step(&vec![row; n]) {
            n = step.tokens.len();
        }
        for hypothesis in beams.into_hypotheses() {
            assert!(!hypothesis.tokens.is_empty() && !hypothesis.score.is_nan());
        }
    }
}
