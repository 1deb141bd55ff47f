//! The engine: results are bit-identical to those of a request alone; rejection, cancellation and shutdown.

use crate::reference::data;
use hornbook::checkpoint::Checkpoint;
use hornbook::engine::{
    CompletionParams, Engine, EngineOptions, Event, EventStream, FairLock, Priority, Request, RequestKind,
    ScoredToken, Statistics, SubmitError,
};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{LogitsWanted, Model, Segment, Session, Site, Workspace};
use hornbook::sampling::{LogSoftmax, SamplingParams, top_logprobs};
use hornbook::{FinishReason, Hornbook, Options, Token};
use std::time::{Duration, Instant};

/// A token with the bits of its logprobs.
type TokenBits = (u32, String, u32, Vec<(u32, u32)>);

/// A scored token with the bits of its logprobs.
type ScoreBits = (u32, Option<u32>, Vec<(u32, u32)>);

/// All results of a request.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    prompt: Option<Vec<ScoreBits>>,
    choices: Vec<(Vec<TokenBits>, Option<FinishReason>)>,
}

fn bits(logprobs: &[(u32, f32)]) -> Vec<(u32, u32)> {
    logprobs.iter().map(|&(id, logprob)| (id, logprob.to_bits())).collect()
}

fn token_bits(token: Token) -> TokenBits {
    (token.id, token.text, token.logprob.to_bits(), bits(&token.top_logprobs))
}

fn score_bits(token: &ScoredToken) -> ScoreBits {
    (token.id, token.logprob.map(f32::to_bits), bits(&token.top_logprobs))
}

impl Outcome {
    fn add(&mut self, event: Event) {
        match event {
            Event::Prompt(tokens) => {
                assert!(self.prompt.is_none() && self.choices.iter().all(|choice| choice.0.is_empty()));
                self.prompt = Some(tokens.iter().map(score_bits).collect());
            }
            Event::Token { choice, token } => {
                assert_eq!(self.choices[choice].1, None, "token after the end");
                self.choices[choice].0.push(token_bits(token));
            }
            Event::Finished { choice, reason } => {
                assert_eq!(self.choices[choice].1.replace(reason), None, "finished twice");
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Collects a stream's events.
    fn collect(mut stream: EventStream, choices: usize) -> Self {
        let mut outcome = Self { prompt: None, choices: vec![Default::default(); choices] };
        while let Some(event) = stream.blocking_next() {
            outcome.add(event);
        }
        outcome
    }

    /// The results of a request without an engine.
    fn reference(hornbook: &Hornbook, prompt: &[u32], params: &CompletionParams) -> Self {
        let CompletionParams { options, choices, top_logprobs: n, score_prompt, .. } = params;
        let mut generation = hornbook.generate(prompt, options).unwrap().with_top_logprobs(*n);
        let prompt = generation.prompt().to_vec();
        let mut outcome = Outcome::default();
        for choice in 0..*choices {
            if choice > 0 {
                generation.restart().unwrap();
            }
            let tokens = generation.by_ref().map(|token| token_bits(token.unwrap())).collect();
            outcome.choices.push((tokens, generation.finish_reason()));
        }
        if *score_prompt {
            let mut all = vec![(prompt[0], None, vec![])];
            let mut session = Session::new(hornbook.model(), prompt.len(), options.kv_precision);
            let each = |t: usize, logits: &[f32]| {
                if let Some(&id) = prompt.get(t + 1) {
                    let logprob = LogSoftmax::new(logits).logprob(logits[id as usize]);
                    all.push((id, Some(logprob.to_bits()), bits(&top_logprobs(logits, *n))));
                }
            };
            session.score(&prompt, each).unwrap();
            outcome.prompt = Some(all);
        }
        outcome
    }
}

fn model(folder: &str, threads: usize) -> Hornbook {
    let checkpoint = match folder {
        "fable" => Checkpoint::open(folder).unwrap(),
        tiny => Checkpoint::from_folder(&data(tiny)).unwrap(),
    };
    Hornbook::new(checkpoint, ThreadPool::new(threads, Isa::available()[0])).unwrap()
}

fn fable(options: EngineOptions) -> Engine {
    Engine::start(model("fable", 2), options).unwrap()
}

fn submit(engine: &Engine, prompt: &[u32], params: &CompletionParams) -> Result<EventStream, SubmitError> {
    submit_with(engine, Priority::Live, prompt, RequestKind::Complete(params.clone()))
}

fn submit_with(
    engine: &Engine,
    priority: Priority,
    prompt: &[u32],
    kind: RequestKind,
) -> Result<EventStream, SubmitError> {
    engine.submit(Request { prompt: prompt.to_vec(), kind, adapter: None, priority })
}

fn tokens(n: usize, salt: usize, vocab_size: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + i * 7 + salt * 101) % (vocab_size - 1)) as u32).collect()
}

fn greedy(max_tokens: usize) -> CompletionParams {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    CompletionParams {
        options: Options { sampling, max_tokens: Some(max_tokens), ..Options::default() },
        ..CompletionParams::default()
    }
}

/// Requests of all kinds, within the model's context.
fn requests(hornbook: &Hornbook) -> Vec<(Vec<u32>, CompletionParams)> {
    let config = hornbook.config();
    let prompt = |n: usize, salt| tokens(n.min(config.n_positions - 3), salt, config.vocab_size);
    let sampled = |seed, max_tokens, choices| {
        let sampling = SamplingParams {
            seed,
            temperature: 1.1,
            top_p: 0.97,
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            ..SamplingParams::default()
        };
        let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
        CompletionParams { options, choices, top_logprobs: 3, ..CompletionParams::default() }
    };
    let mut stopped = sampled(4, 60, 2);
    stopped.options.stop = vec!["the".into(), "e".into()];
    vec![
        (prompt(9, 1), sampled(1, 40, 1)),
        (prompt(70, 2), greedy(25)),
        (prompt(33, 3), CompletionParams { score_prompt: true, ..sampled(2, 12, 3) }),
        (vec![], sampled(3, 30, 4)),
        (prompt(70, 2), CompletionParams { score_prompt: true, ..greedy(0) }), // as the second
        (prompt(1, 5), stopped),
        (prompt(65, 6), CompletionParams { top_logprobs: 5, score_prompt: true, ..greedy(1) }),
        (prompt(usize::MAX, 7), greedy(5)), // the context ends before max_tokens
    ]
}

#[test]
fn results_are_independent_of_the_batch() {
    for (folder, chunks) in
        [("fable", &[1, 7, 64][..]), ("tiny-relu-untied", &[7, 64]), ("tiny-gelu-new-bf16", &[5])]
    {
        let reference = model(folder, 1);
        let requests = requests(&reference);
        let expected: Vec<Outcome> =
            requests.iter().map(|(prompt, params)| Outcome::reference(&reference, prompt, params)).collect();
        assert!(folder != "fable" || expected[5].choices.iter().any(|c| c.1 == Some(FinishReason::Stop)));
        for &prefill_chunk in chunks {
            for neighbors in [0, 1, 2, 7] {
                let options = EngineOptions { prefill_chunk, ..EngineOptions::default() };
                let engine = Engine::start(model(folder, 2), options).unwrap();
                // The second round reuses the prefix cache of the first.
                for round in 0..2 {
                    for first in (0..requests.len()).step_by(neighbors + 1) {
                        let batch = first..requests.len().min(first + neighbors + 1);
                        let streams: Vec<EventStream> = requests[batch.clone()]
                            .iter()
                            .map(|(prompt, params)| submit(&engine, prompt, params).unwrap())
                            .collect();
                        for (i, stream) in batch.zip(streams) {
                            let actual = Outcome::collect(stream, expected[i].choices.len());
                            let context =
                                format!("{folder}, by {prefill_chunk}, {neighbors} neighbors, round {round}");
                            assert_eq!(actual, expected[i], "{context}, request {i}");
                        }
                    }
                }
                let Statistics { prefix_cache_hits, running, waiting, kv_bytes, .. } = engine.statistics();
                assert!(prefix_cache_hits >= 3, "{folder}, {neighbors} neighbors: {prefix_cache_hits}");
                assert_eq!((running, waiting, kv_bytes), (0, 0, 0));
            }
        }
    }
}

#[test]
fn requests_start_and_finish_at_every_step() {
    let engine = fable(EngineOptions { max_concurrency: 5, ..EngineOptions::default() });
    // One request runs throughout; with each of its tokens another is submitted, which finishes 1 to 6 tokens
    // later.
    let long = CompletionParams { top_logprobs: 2, ..greedy(60) };
    let prompt = tokens(20, 0, 4096);
    let mut outcome = Outcome { prompt: None, choices: vec![Default::default()] };
    let mut stream = submit(&engine, &prompt, &long).unwrap();
    let mut joined = vec![];
    while let Some(event) = stream.blocking_next() {
        outcome.add(event);
        let i = joined.len();
        let (prompt, params) = (tokens(1 + i * 5 % 40, i, 4096), greedy(1 + i % 6));
        joined.push((submit(&engine, &prompt, &params).unwrap(), prompt, params));
    }
    assert_eq!(outcome, Outcome::reference(engine.hornbook(), &prompt, &long));
    assert_eq!(joined.len(), 61);
    for (stream, prompt, params) in joined {
        assert_eq!(Outcome::collect(stream, 1), Outcome::reference(engine.hornbook(), &prompt, &params));
    }
    let Statistics { batch_sizes, .. } = engine.statistics();
    assert_eq!(batch_sizes.len(), 6);
    assert!(batch_sizes[2..].iter().sum::<u64>() > 20, "not batched: {batch_sizes:?}");
}

#[test]
fn kv_precision_of_the_engine_applies_to_all_requests() {
    let engine = fable(EngineOptions { kv_precision: Some(KvPrecision::F16), ..EngineOptions::default() });
    let prompt = tokens(80, 1, 4096);
    let mut params = CompletionParams { top_logprobs: 1, choices: 2, ..greedy(30) };
    let actual = Outcome::collect(submit(&engine, &prompt, &params).unwrap(), 2);
    assert_ne!(actual, Outcome::reference(engine.hornbook(), &prompt, &params));
    params.options.kv_precision = Some(KvPrecision::F16);
    assert_eq!(actual, Outcome::reference(engine.hornbook(), &prompt, &params));
}

#[test]
fn first_stream_selects_the_random_number_stream() {
    let engine = fable(EngineOptions::default());
    let sampling = SamplingParams { seed: 5, ..SamplingParams::default() };
    let options = Options { sampling, max_tokens: Some(20), ..Options::default() };
    let both = CompletionParams { options, choices: 2, ..CompletionParams::default() };
    let second = CompletionParams { choices: 1, first_stream: 1, ..both.clone() };
    let prompt = tokens(5, 5, 4096);
    let both = Outcome::collect(submit(&engine, &prompt, &both).unwrap(), 2);
    let second = Outcome::collect(submit(&engine, &prompt, &second).unwrap(), 1);
    assert_eq!(both.choices[1..], second.choices);
    assert_ne!(both.choices[0], both.choices[1]);
}

/// The mean of the final hidden states, computed in one pass without an engine.
fn embedding(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let mut cache = model.kv_cache(tokens.len(), KvPrecision::F32);
    let mut sum = vec![0.0f64; model.config().n_embd];
    let mut observer = |site: Site, values: ndarray::ArrayViewMutD<'_, f32>| {
        if site == Site::FinalNorm {
            for row in values.outer_iter() {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        }
    };
    let batch = &mut [Segment { tokens, cache: &mut cache, logits: LogitsWanted::None }];
    model.forward(batch, &mut Workspace::new(), &mut observer).unwrap();
    sum.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect()
}

#[test]
fn embedding_is_mean_of_final_hidden_states() {
    for prefill_chunk in [7, 64] {
        let engine = fable(EngineOptions { prefill_chunk, ..EngineOptions::default() });
        let long = CompletionParams { top_logprobs: 2, ..greedy(100) };
        let neighbor = submit(&engine, &[1, 2, 3], &long).unwrap();
        for n in [1, 2, 30, 200, 512] {
            let prompt = tokens(n, n, 4096);
            let expected = embedding(engine.hornbook().model(), &prompt);
            let mut stream = submit_with(&engine, Priority::Live, &prompt, RequestKind::Embed).unwrap();
            let Some(Event::Embedding(actual)) = stream.blocking_next() else { panic!("no embedding") };
            assert_eq!(actual, expected, "{n} tokens by {prefill_chunk}");
            assert!(stream.blocking_next().is_none());
        }
        // A completion in the same batches is unaffected.
        assert_eq!(Outcome::collect(neighbor, 1), Outcome::reference(engine.hornbook(), &[1, 2, 3], &long));
    }
}

fn first_event(stream: &mut EventStream) {
    assert!(matches!(stream.blocking_next(), Some(Event::Token { .. })));
}

fn wait_until(condition: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out: {condition}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn full_queue_rejects_until_a_request_is_cancelled() {
    let engine = fable(EngineOptions { max_concurrency: 1, queue: 3, ..EngineOptions::default() });
    let mut running = submit(&engine, &[1], &greedy(400)).unwrap();
    first_event(&mut running);
    let pair = CompletionParams { choices: 2, ..greedy(3) };
    let two = submit(&engine, &[2], &pair).unwrap();
    assert!(
        matches!(submit(&engine, &[3], &pair), Err(SubmitError::QueueFull)),
        "only one of its two sequences fits"
    );
    let third = submit(&engine, &[3], &greedy(3)).unwrap();
    assert!(matches!(submit(&engine, &[4], &greedy(1)), Err(SubmitError::QueueFull)));
    assert_eq!(engine.statistics().waiting, 3);
    drop(two);
    wait_until("its two queue places are free", || submit(&engine, &[5], &greedy(1)).is_ok());
    drop(running);
    assert_eq!(Outcome::collect(third, 1), Outcome::reference(engine.hornbook(), &[3], &greedy(3)));
    // A client that has received the last event finds the place free.
    for i in 0..50 {
        Outcome::collect(submit(&engine, &[i], &CompletionParams { choices: 4, ..greedy(1) }).unwrap(), 4);
    }
}

#[test]
fn closed_engine_completes_accepted_requests() {
    let engine = fable(EngineOptions { max_concurrency: 1, ..EngineOptions::default() });
    let open: Vec<EventStream> = (0..3).map(|i| submit(&engine, &[i], &greedy(20)).unwrap()).collect();
    engine.close();
    assert!(matches!(submit(&engine, &[9], &greedy(1)), Err(SubmitError::Closed)));
    for (i, stream) in (0..).zip(open) {
        assert_eq!(Outcome::collect(stream, 1), Outcome::reference(engine.hornbook(), &[i], &greedy(20)));
    }
}

#[test]
fn dropped_engine_fails_open_requests() {
    let engine = fable(EngineOptions { max_concurrency: 1, ..EngineOptions::default() });
    let mut streams: Vec<EventStream> =
        (0..3).map(|i| submit(&engine, &[i], &greedy(500)).unwrap()).collect();
    first_event(&mut streams[0]);
    drop(engine);
    for mut stream in streams {
        let last = std::iter::from_fn(|| stream.blocking_next()).last();
        let Some(Event::Failed(error)) = last else { panic!("{last:?}") };
        assert_eq!(error.to_string(), "the engine was shut down before the request finished");
    }
}

#[test]
fn invalid_request_is_rejected_before_queueing() {
    let engine = fable(EngineOptions::default());
    let error_of = |prompt: &[u32], params: CompletionParams| {
        let Err(SubmitError::Invalid(error)) = submit(&engine, prompt, &params) else { panic!("accepted") };
        error.to_string()
    };
    assert_eq!(error_of(&[1, 4096], greedy(1)), "token id 4096 is outside the vocabulary (0 to 4095)");
    let long = error_of(&[0; 513], greedy(1));
    assert_eq!(long, "the prompt is 513 tokens long, but the model's context is 512 tokens");
    let none = error_of(&[1], CompletionParams { choices: 0, ..greedy(1) });
    assert_eq!(none, "choices: found 0, expected an integer from 1 to 128");
    let many = error_of(&[1], CompletionParams { top_logprobs: 4097, ..greedy(1) });
    assert_eq!(many, "top_logprobs: found 4097, expected an integer from 0 to 4096");
    let mut hot = greedy(1);
    hot.options.sampling.temperature = -1.0;
    assert_eq!(error_of(&[1], hot), "temperature: found -1, expected a non-negative number");
    let mut stop = greedy(1);
    stop.options.stop = vec![String::new()];
    assert!(error_of(&[1], stop).starts_with("stop: found an empty string"));
    assert!(matches!(
        submit_with(&engine, Priority::Live, &[0; 513], RequestKind::Embed),
        Err(SubmitError::Invalid(hornbook::Error::ContextOverflow { .. }))
    ));
    assert_eq!(engine.statistics(), fable(EngineOptions::default()).statistics());

    let invalid = EngineOptions { prefill_chunk: 0, ..EngineOptions::default() };
    let error = Engine::start(model("fable", 1), invalid).err().unwrap().to_string();
    assert_eq!(error, "prefill_chunk: found 0, expected an integer of at least 1");
}

#[test]
fn engines_with_a_fair_lock_interleave_steps() {
    let fair_lock = FairLock::default();
    let start = |folder, threads| {
        let options = EngineOptions { fair_lock: fair_lock.clone(), ..EngineOptions::default() };
        Engine::start(model(folder, threads), options).unwrap()
    };
    let engines = [start("fable", 2), start("tiny-gelu-new", 2)];
    let mut streams: [Vec<EventStream>; 2] = [vec![], vec![]];
    for i in 0..requests(engines[0].hornbook()).len() {
        for (engine, streams) in engines.iter().zip(&mut streams) {
            let (prompt, params) = &requests(engine.hornbook())[i];
            streams.push(submit(engine, prompt, params).unwrap());
        }
    }
    for (engine, streams) in engines.iter().zip(streams) {
        for ((prompt, params), stream) in requests(engine.hornbook()).iter().zip(streams) {
            let expected = Outcome::reference(engine.hornbook(), prompt, params);
            assert_eq!(Outcome::collect(stream, params.choices), expected);
        }
    }
    // Neither starves the other: they alternate, so 20 tokens of one take about 20 steps of the other.
    let mut long = submit(&engines[0], &[7], &CompletionParams { choices: 4, ..greedy(400) }).unwrap();
    first_event(&mut long);
    let before = engines[0].statistics().generated_tokens;
    Outcome::collect(submit(&engines[1], &[7], &greedy(20)).unwrap(), 1);
    let meanwhile = engines[0].statistics().generated_tokens - before;
    assert!(meanwhile <= 4 * 60, "{meanwhile} tokens of one model during 20 of the other");
}

#[test]
fn stream_events_are_awaitable() {
    let engine = fable(EngineOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut stream = submit(&engine, &[7], &greedy(10)).unwrap();
    let outcome = runtime.block_on(async move {
        let mut outcome = Outcome { prompt: None, choices: vec![Default::default()] };
        while let Some(event) = stream.next().await {
            outcome.add(event);
        }
        outcome
    });
    assert_eq!(outcome, Outcome::reference(engine.hornbook(), &[7], &greedy(10)));
}
