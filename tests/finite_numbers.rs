//! NaN, infinities and numbers beyond a precision's range: named, never computed with silently.

use crate::reference::data;
use hornbook::checkpoint::Checkpoint;
use hornbook::engine::{
    CompletionParams, Engine, EngineOptions, Event, EventStream, Priority, Request, RequestKind,
};
use hornbook::generate::perplexity::{SlidingWindows, score};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Precision, Session};
use hornbook::sampling::SamplingParams;
use hornbook::{Error, Hornbook, Options};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

const C_FC: &str = "transformer.h.0.mlp.c_fc.weight";

/// A copy of a tiny f32 model with other values for elements of some tensors.
pub fn changed(folder: &str, changes: &[(&str, usize, f32)]) -> TempDir {
    let copy = tempdir().unwrap();
    fs::copy(data(folder).join("config.json"), copy.path().join("config.json")).unwrap();
    let mut file = fs::read(data(folder).join("model.safetensors")).unwrap();
    let (len, rest) = file.split_first_chunk::<8>().unwrap();
    let header_len = u64::from_le_bytes(*len) as usize;
    let header: serde_json::Value = serde_json::from_slice(&rest[..header_len]).unwrap();
    for (tensor, index, value) in changes {
        let start = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        file[8 + header_len + start + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(copy.path().join("model.safetensors"), file).unwrap();
    copy
}

fn model(folder: &Path, precision: Option<Precision>) -> hornbook::Result<Model> {
    let pool = ThreadPool::new(1, Isa::available()[0]);
    Model::with_precision(Checkpoint::from_folder(folder)?, pool, precision)
}

/// The error of loading a model or of its first pass.
fn error(folder: &Path, precision: Option<Precision>, kv_precision: Option<KvPrecision>) -> Option<String> {
    let run = || Session::new(&model(folder, precision)?, 8, kv_precision).feed(&[1, 2, 3, 4]).map(drop);
    run().err().map(|error| error.to_string())
}

#[test]
fn weight_that_is_not_finite_is_named_in_every_precision() {
    let kinds = [
        ("wte.weight", 32 * 90 + 5, "[90, 5]"), // of a token that is not in the text
        ("wpe.weight", 3, "[0, 3]"),
        ("h.0.ln_1.weight", 31, "[31]"),
        ("h.0.ln_2.bias", 0, "[0]"),
        ("h.0.attn.c_attn.weight", 96 * 2 + 40, "[2, 40]"),
        ("h.0.attn.c_attn.bias", 70, "[70]"), // of a value
        ("h.0.mlp.c_fc.weight", 5, "[0, 5]"),
        ("h.0.mlp.c_proj.bias", 1, "[1]"),
        ("ln_f.weight", 2, "[2]"),
    ];
    for (tensor, index, place) in kinds {
        let tensor = format!("transformer.{tensor}");
        for (value, found) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let folder = changed("tiny-gelu-new", &[(&tensor, index, value)]);
            let file = folder.path().join("model.safetensors");
            let expected = format!(
                "{}: tensor {tensor}: found {found} at {place}, expected finite numbers",
                file.display()
            );
            for precision in Precision::ALL {
                let actual = error(folder.path(), Some(precision), None);
                assert_eq!(actual.as_ref(), Some(&expected), "{precision}");
            }
            assert_eq!(error(folder.path(), None, Some(KvPrecision::Int8)).as_ref(), Some(&expected));
        }
    }
    // Kernels of other activations keep NaN, and the transposed layout is named as the file has it.
    for (model, tensor, index, place) in [
        ("tiny-relu-untied", C_FC, 0, "[0, 0]"),
        ("tiny-gelu-new-linear", "transformer.h.0.attn.c_attn.weight", 32 * 4 + 3, "[4, 3]"),
    ] {
        let folder = changed(model, &[(tensor, index, f32::NAN)]);
        let actual = error(folder.path(), None, None).unwrap();
        let expected = format!("tensor {tensor}: found NaN at {place}, expected finite numbers");
        assert!(actual.ends_with(&expected), "{actual}");
    }
}

#[test]
fn weight_beyond_the_range_of_a_precision_is_refused_by_name() {
    let large = |value: f32| changed("tiny-gelu-new", &[(C_FC, 70, value)]);
    let refused = |value: f32, precision, range: &str| {
        let folder = large(value);
        let file = folder.path().join("model.safetensors");
        let expected = format!(
            "{}: tensor {C_FC}: found {value} at [0, 70], expected numbers that {precision} can hold, at \
             most {range}: choose int8 or f32",
            file.display()
        );
        assert_eq!(error(folder.path(), Some(precision), Some(KvPrecision::F32)), Some(expected));
    };
    refused(-65_521.0, Precision::F16, "65504");
    refused(600_000.0, Precision::Int4, "524032");
    for (value, precision) in [
        (65_504.0, Precision::F16),
        (70_000.0, Precision::Bf16),
        (70_000.0, Precision::Bf16Dot),
        (480_000.0, Precision::Int4), // the scales that fit are tried alone
        (-524_000.0, Precision::Int4),
        (1e9, Precision::Int8),
        (1e9, Precision::F32),
    ] {
        let folder = large(value);
        assert_eq!(
            error(folder.path(), Some(precision), Some(KvPrecision::F32)),
            None,
            "{value} {precision}"
        );
    }
    let int4 = model(large(480_000.0).path(), Some(Precision::Int4)).unwrap();
    let mut session = Session::new(&int4, 4, None);
    assert!(session.feed(&[1, 2]).unwrap().iter().all(|logit| logit.is_finite()));
}

#[test]
fn key_beyond_f16_is_refused_and_f32_holds_it() {
    // Biases of a key, of both signs, and of a value.
    for (bias, value) in [(32, 1e6), (32, -1e6), (64, 7e4)] {
        let folder = changed("tiny-gelu-new", &[("transformer.h.0.attn.c_attn.bias", bias, value)]);
        let actual = error(folder.path(), None, Some(KvPrecision::F16)).unwrap();
        assert_eq!(
            actual,
            "the keys or values of layer 0 are beyond the range of f16 (65504): keep them in f32 \
             (--kv-precision f32)"
        );
        assert_eq!(error(folder.path(), None, Some(KvPrecision::F32)), None);
        assert_eq!(error(folder.path(), None, Some(KvPrecision::Int8)), None);
    }
}

#[test]
fn activations_beyond_f32_are_an_error() {
    let folder = changed(
        "tiny-gelu-new",
        &[(C_FC, 0, 3e38), (C_FC, 128, 3e38), ("transformer.h.0.ln_2.weight", 0, 1e9)],
    );
    let actual = error(folder.path(), None, None).unwrap();
    assert!(actual.starts_with("the model's output is not finite"), "{actual}");
}

fn submit(engine: &Engine, prompt: &[u32], kind: RequestKind) -> EventStream {
    let request = Request { prompt: prompt.to_vec(), kind, adapter: None, priority: Priority::Live };
    engine.submit(request).unwrap()
}

fn greedy(max_tokens: usize) -> RequestKind {
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let options = Options { sampling, max_tokens: Some(max_tokens), ..Options::default() };
    RequestKind::Complete(CompletionParams { options, choices: 2, ..CompletionParams::default() })
}

#[test]
fn nan_ends_its_request_and_no_other() {
    // The position embedding of the 40th token is NaN: shorter texts are as in the original.
    let folder = changed("tiny-gelu-new", &[("transformer.wpe.weight", 32 * 39 + 7, f32::NAN)]);
    let open = |folder: &Path| {
        let pool = ThreadPool::new(1, Isa::available()[0]);
        Hornbook::new(Checkpoint::from_folder(folder).unwrap(), pool).unwrap()
    };
    let engine = Engine::start(open(folder.path()), EngineOptions::default()).unwrap();
    let long: Vec<u32> = (0..45).collect();
    let mut failing = [
        submit(&engine, &[1, 2], greedy(60)),
        submit(&engine, &long, greedy(3)),
        submit(&engine, &long, RequestKind::Embed),
    ];
    let mut healthy = submit(&engine, &[1, 2], greedy(30));
    let mut embedding = submit(&engine, &[5, 6], RequestKind::Embed);
    for stream in &mut failing {
        let last = std::iter::from_fn(|| stream.blocking_next()).last();
        let Some(Event::Failed(error)) = last else { panic!("{last:?}") };
        assert!(error.to_string().ends_with("wpe.weight: found NaN at [39, 7], expected finite numbers"));
        assert!(matches!(error, Error::Tensor { .. }));
    }
    let original = open(&data("tiny-gelu-new"));
    let RequestKind::Complete(params) = greedy(30) else { unreachable!() };
    let expected: Vec<u32> =
        original.generate(&[1, 2], &params.options).unwrap().map(|token| token.unwrap().id).collect();
    let events = std::iter::from_fn(|| healthy.blocking_next());
    let tokens = events.filter_map(|event| match event {
        Event::Token { choice: 0, token } => Some(token.id),
        Event::Failed(error) => panic!("{error}"),
        _ => None,
    });
    assert_eq!(tokens.collect::<Vec<u32>>(), expected);
    let Some(Event::Embedding(mean)) = embedding.blocking_next() else { panic!() };
    assert!(mean.iter().all(|x| x.is_finite()));
    // The failed sequences are not in the prefix cache, and one alone fails the same way.
    let mut again = submit(&engine, &[1, 2], greedy(60));
    assert!(matches!(std::iter::from_fn(|| again.blocking_next()).last(), Some(Event::Failed(_))));
    let whole = Options { max_tokens: None, ..params.options.clone() };
    let mut generation = engine.hornbook().generate(&[1, 2], &whole).unwrap();
    assert!(generation.by_ref().take(39).last().is_some_and(|token| token.is_err()));
    assert!(generation.next().is_none());
    let generation = engine.hornbook().generate(&[1, 2], &params.options).unwrap();
    assert_eq!(generation.map(|token| token.unwrap().id).collect::<Vec<u32>>(), expected);
}

#[test]
fn perplexity_of_a_model_with_nan_is_an_error() {
    let folder = changed("tiny-gelu-new", &[(C_FC, 9, f32::NAN)]);
    let model = model(folder.path(), None).unwrap();
    let windows = SlidingWindows { context: 8, stride: 8 };
    let error = score(&model, None, &[1, 2, 3, 4], windows, None, |_| {}).unwrap_err().to_string();
    assert!(error.contains(C_FC) && error.contains("found NaN at [0, 9]"), "{error}");
}

#[test]
fn commands_name_the_weight_and_print_nothing_else() {
    let original = changed("tiny-gelu-new", &[(C_FC, 9, f32::NAN)]);
    let (folder, out) = (original.path().to_str().unwrap(), tempdir().unwrap());
    let quantized = out.path().join("q");
    let ids = ["--prompt-ids", "1,2,3", "--output", "ids"];
    let runs: [&[&str]; 4] = [
        &["generate", "--model", folder],
        &["generate", "--model", folder, "--beams", "2"],
        &["generate", "--model", folder, "--precision", "int8"],
        &["generate", "--model", folder, "-n", "2"],
    ];
    let quantize = ["quantize", folder, "-o", quantized.to_str().unwrap(), "-p"];
    let all = runs.map(|run| [run, &ids].concat());
    let quantizations = ["int8", "int4"].map(|precision| [&quantize[..], &[precision]].concat());
    let bench = |phase: &[&'static str]| [phase, &["--repeat", "1", "--model", folder]].concat();
    let benches = [
        bench(&["bench", "--prompt", "2", "--depth", "1"]),
        bench(&["bench", "--prompt", "1", "--batch", "2", "--depth", "1"]),
        bench(&["bench", "roofline"]),
    ];
    for args in all.iter().chain(&quantizations).chain(&benches) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
        let Output { status, stdout, stderr } =
            command.args(args).env("HORNBOOK_CONFIG", "").output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{args:?}: {stderr}");
        assert!(stderr.contains(C_FC) && stderr.contains("found NaN at [0, 9]"), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert!(!quantized.join("model.safetensors").exists());
    // A NaN in what quantization copies is refused too.
    let copied = changed("tiny-gelu-new", &[("transformer.h.0.ln_1.bias", 3, f32::NAN)]);
    let checkpoint = Checkpoint::from_folder(copied.path()).unwrap();
    let error = checkpoint.quantize(Precision::Int8, None, &quantized, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("ln_1.bias: found NaN at [3]"), "{error}");
}
