//! LoRA adapters against peft: the files it writes, what a model computes with them, and the files that it
//! reads. References are made by scripts/make_adapter_reference.py.

use crate::reference::{Reference, data};
use hornbook::checkpoint::Checkpoint;
use hornbook::checkpoint::adapter::{Adapter, AdapterConfig, Modules, Patterns};
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{LogitsWanted, Model, Observer, Precision, Segment, Session, Site, Workspace};
use ndarray::ArrayViewMutD;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The maximum difference, relative to the largest absolute logit.
const TOLERANCE: f32 = 1e-5;

/// The tiny models with adapters, and the names of these.
fn adapters() -> Vec<(String, String)> {
    let mut all = vec![];
    for model in ["tiny-gelu-new", "tiny-relu-untied"] {
        let folder = data("adapters").join(model);
        let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        all.extend(names.map(|name| (model.to_string(), name)));
    }
    assert!(all.len() >= 11, "references are missing: found {all:?}");
    all
}

fn checkpoint(folder: &str) -> Checkpoint {
    Checkpoint::from_folder(&data(folder)).unwrap()
}

fn open(folder: &str, name: &str, checkpoint: &Checkpoint) -> Adapter {
    Adapter::open(&data("adapters").join(folder).join(name), &checkpoint.config).unwrap()
}

fn model(folder: &str, precision: Option<Precision>, threads: usize) -> Model {
    let pool = ThreadPool::new(threads, Isa::available()[0]);
    Model::with_precision(checkpoint(folder), pool, precision).unwrap()
}

fn all_logits<O: Observer>(mut session: Session<O>, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut all = vec![];
    for ids in ids.chunks(chunk) {
        let logits = session.feed_all(ids).unwrap();
        (0..logits.len()).for_each(|t| all.extend(logits.row(t)));
    }
    all
}

#[test]
fn logits_match_peft() {
    for (folder, name) in adapters() {
        let reference = Reference::from_file("adapters", &format!("{folder}/{name}/reference.safetensors"));
        let ids = reference.ids();
        for isa in Isa::available() {
            let checkpoint = checkpoint(&folder);
            let adapter = open(&folder, &name, &checkpoint);
            let model = Model::new(checkpoint, ThreadPool::new(2, isa)).with_adapter(&adapter).unwrap();
            let found = all_logits(Session::new(&model, ids.len(), None), &ids, usize::MAX);
            reference.assert_close("logits", &found, TOLERANCE, &format!("{folder}/{name} on {isa}"));
        }
    }
}

/// An observer of every site, which computes all of them unfused.
struct Everything;

impl Observer for Everything {
    fn observe(&mut self, _: Site, _: ArrayViewMutD<'_, f32>) {}
}

#[test]
fn chunks_threads_and_observers_do_not_change_bits() {
    for (folder, name) in adapters() {
        let ids: Vec<u32> = (0..70).map(|i| i * i % 89).collect();
        let logits = |threads: usize, chunk: usize| {
            let adapter = open(&folder, &name, &checkpoint(&folder));
            let model = model(&folder, None, threads).with_adapter(&adapter).unwrap();
            all_logits(Session::new(&model, ids.len(), None), &ids, chunk)
        };
        let expected = logits(1, usize::MAX);
        assert_eq!(logits(3, 7), expected, "{folder}/{name}");
        assert_eq!(logits(2, 1), expected, "{folder}/{name}");
        let adapter = open(&folder, &name, &checkpoint(&folder));
        let model = model(&folder, None, 2).with_adapter(&adapter).unwrap();
        let observed = Session::observed(&model, ids.len(), None, Everything);
        assert_eq!(all_logits(observed, &ids, usize::MAX), expected, "{folder}/{name}");
    }
}

/// The logits of sequences of different adapters and of none in one pass are those of each by itself, and
/// those of none are those of a model that never had an adapter.
#[test]
fn mixed_batch_has_the_bits_of_single_sequences() {
    let folder = "tiny-gelu-new";
    let quantized = [Precision::F16, Precision::Bf16Dot, Precision::Int8, Precision::Int4].map(Some);
    for precision in [None].into_iter().chain(quantized) {
        let (model, plain) = (model(folder, precision, 2), model(folder, precision, 2));
        let names = adapters().into_iter().filter(|(of, _)| of == folder);
        let checkpoint = checkpoint(folder);
        let mut sequences: Vec<_> = names.map(|(_, name)| Some(open(folder, &name, &checkpoint))).collect();
        [0, 3, 4].into_iter().for_each(|i| sequences.insert(i, None));
        let adapters: Vec<_> = sequences.iter().map(|a| Some(model.adapter(a.as_ref()?).unwrap())).collect();
        let ids = |i: usize| (0..20 + i as u32).map(|t| t * (i as u32 + 3) % 97).collect::<Vec<u32>>();
        let expected: Vec<Vec<f32>> = (0..sequences.len())
            .map(|i| {
                let model = match &sequences[i] {
                    None => &plain,
                    Some(adapter) => &self::model(folder, precision, 1).with_adapter(adapter).unwrap(),
                };
                let logits = all_logits(Session::new(model, 64, None), &ids(i), usize::MAX);
                logits[logits.len() - 97..].to_vec()
            })
            .collect();
        let cache = |i: usize| model.kv_cache(64, None).with_adapter(adapters[i].clone());
        let (mut caches, mut workspace) =
            ((0..sequences.len()).map(cache).collect::<Vec<_>>(), Workspace::new());
        let mut pass = |tokens: &dyn Fn(usize) -> std::ops::Range<usize>,
                        logits: &dyn Fn(usize) -> LogitsWanted| {
            let ids: Vec<Vec<u32>> = (0..sequences.len()).map(|i| ids(i)[tokens(i)].to_vec()).collect();
            let segment = |(i, cache): (usize, _)| Segment { tokens: &ids[i], cache, logits: logits(i) };
            let mut batch: Vec<Segment> = caches.iter_mut().enumerate().map(segment).collect();
            model.forward(&mut batch, &mut workspace, &mut ()).unwrap();
            (0..workspace.logits().len()).map(|t| workspace.logits().row(t).to_vec()).collect::<Vec<_>>()
        };
        // Prefill, then decode; of some, the logits are wanted earlier.
        let none = |_| LogitsWanted::None;
        assert!(pass(&|i| 0..18 + i, &none).is_empty());
        let is_last = |i: usize| if i.is_multiple_of(2) { LogitsWanted::Last } else { LogitsWanted::None };
        assert_eq!(pass(&|i| 18 + i..19 + i, &is_last).len(), sequences.len().div_ceil(2));
        let found = pass(&|i| 19 + i..20 + i, &|_| LogitsWanted::Last);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{:?} with {precision:?}", sequences[i].as_ref().map(|a| &a.name));
        }
        let distinct: BTreeMap<u32, usize> = found.iter().map(|row| (row[0].to_bits(), 0)).collect();
        assert!(distinct.len() >= sequences.len() - 2, "different adapters have different logits");
    }
}

/// The largest difference, relative to the largest logit.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |max, (f, e)| max.max((f - e).abs())) / largest
}

fn logits_of(checkpoint: Checkpoint, adapter: Option<&Adapter>, ids: &[u32]) -> Vec<f32> {
    let mut model = Model::new(checkpoint, ThreadPool::new(2, Isa::available()[0]));
    if let Some(adapter) = adapter {
        model = model.with_adapter(adapter).unwrap();
    }
    all_logits(Session::new(&model, ids.len(), None), ids, usize::MAX)
}

#[test]
fn merged_model_has_the_logits_of_the_adapter() {
    let ids: Vec<u32> = (0..40).map(|i| i * i % 89).collect();
    for (folder, name) in adapters() {
        let output = tempfile::tempdir().unwrap();
        let adapter = open(&folder, &name, &checkpoint(&folder));
        let expected = logits_of(checkpoint(&folder), Some(&adapter), &ids);
        for (precision, tolerance) in
            [(None, 1e-5), (Some(Precision::F16), 4e-2), (Some(Precision::Bf16), 3e-1)]
        {
            checkpoint(&folder).write_merged(&adapter, precision, output.path()).unwrap();
            let merged = Checkpoint::from_folder(output.path()).unwrap();
            assert_eq!(merged.weights.wte.precision(), precision.unwrap_or(Precision::F32));
            assert!(merged.notes.is_empty(), "{:?}", merged.notes);
            let difference = difference(&logits_of(merged, None, &ids), &expected);
            assert!(difference < tolerance, "{folder}/{name} in {precision:?}: {difference}");
        }
    }
}

/// Needs a Python with peft in front of the others; `accelerate` is installed with it.
#[test_with::executable(accelerate)]
fn peft_reads_what_is_written() {
    let (folder, model) = (tempfile::tempdir().unwrap(), "tiny-gelu-new");
    let names = ["c_attn", "attn.c_proj", "mlp.c_proj"].map(String::from);
    let config = AdapterConfig {
        r: 3,
        lora_alpha: 7.5,
        target_modules: Some(Modules::Names(names.into())),
        rank_pattern: Patterns(vec![("h.1.mlp.c_proj".into(), 5)]),
        alpha_pattern: Patterns(vec![("attn.c_proj".into(), 4.0)]),
        ..AdapterConfig::default()
    };
    let mut adapter = Adapter::new("written", config, &checkpoint(model).config).unwrap();
    for (i, change) in adapter.low_rank.iter_mut().enumerate() {
        let values = change.a.iter_mut().chain(&mut change.b).enumerate();
        values.for_each(|(k, x)| *x = ((i * 31 + k * k % 97) as f32).sin() * 0.3);
    }
    // Tensors stored whole: those of another adapter.
    adapter.replaced = open(model, "modules-to-save", &checkpoint(model)).replaced;
    adapter.config.modules_to_save = Some(["wte", "wpe", "ln_1", "ln_f"].map(String::from).into());
    let written = folder.path().join("written");
    adapter.write(&written).unwrap();
    let ids: Vec<u32> = (0..10).collect();
    let expected = logits_of(checkpoint(model), Some(&adapter), &ids);
    let read = Adapter::open(&written, &checkpoint(model).config).unwrap();
    assert_eq!(logits_of(checkpoint(model), Some(&read), &ids), expected);

    let merged = folder.path().join("merged");
    checkpoint(model).write_merged(&adapter, None, &merged).unwrap();
    let (file, base) = (folder.path().join("logits.safetensors"), data(model));
    for paths in [&[&file, &base, &written][..], &[&file, &merged]] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make_adapter_reference.py");
        let output = Command::new("python").arg(script).arg("--logits").args(paths).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Reference::from_path(&file).assert_close("logits", &expected, TOLERANCE, &format!("{paths:?}"));
    }
}
