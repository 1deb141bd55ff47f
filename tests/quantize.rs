//! `hornbook quantize`: the written model equals the one `--precision` quantizes on load, bit for bit, and
//! failed writes and invalid files leave existing models unchanged.

use crate::reference::{Reference, data};
use assert_cmd::Command;
use hornbook::Error;
use hornbook::checkpoint::{Checkpoint, QuantizeProgress};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Precision, Session};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const PRECISIONS: [Precision; 2] = [Precision::Int8, Precision::Int4];

fn quantize(checkpoint: &Checkpoint, precision: Precision, folder: &Path) -> usize {
    checkpoint.quantize(precision, None, folder, |_| Ok(())).unwrap()
}

fn logits(checkpoint: Checkpoint, precision: Option<Precision>, ids: &[u32]) -> Vec<u32> {
    let model =
        Model::with_precision(checkpoint, ThreadPool::new(2, Isa::available()[0]), precision).unwrap();
    let mut session = Session::new(&model, ids.len(), KvPrecision::F32);
    let mut bits = vec![];
    session.score(ids, |_, logits| bits.extend(logits.iter().map(|x| x.to_bits()))).unwrap();
    bits
}

#[test]
fn quantized_file_gives_same_bits_as_quantizing_on_load() {
    // Widths that are not multiples of a block or a vector, an untied LM head, nn.Linear's layout, f16,
    // shards.
    let folders = [
        "tiny-gelu-tanh-unscaled",
        "tiny-relu-untied",
        "tiny-one-head",
        "tiny-gelu-new-linear",
        "tiny-gelu-new-f16",
        "tiny-gelu-new-sharded",
        "tiny-sinusoidal",
    ];
    for folder in folders {
        let ids = Reference::read(folder).ids();
        for precision in PRECISIONS {
            let original = Checkpoint::from_folder(&data(folder)).unwrap();
            let written = tempdir().unwrap();
            quantize(&original, precision, written.path());
            let opened = Checkpoint::from_folder(written.path()).unwrap();
            assert_eq!(opened.quantized_precision(), Some(precision));
            let expected = logits(original, Some(precision), &ids);
            assert!(logits(opened.clone(), None, &ids) == expected, "{folder}, {precision}");
            assert!(logits(opened, Some(precision), &ids) == expected, "{folder}, {precision}");
        }
    }
}

#[test]
fn quantized_file_is_mapped_and_aligned_to_cache_lines() {
    for precision in PRECISIONS {
        let written = tempdir().unwrap();
        let original = Checkpoint::embedded().unwrap();
        let bytes = quantize(&original, precision, written.path());
        let file = written.path().join("model.safetensors");
        assert_eq!(fs::metadata(&file).unwrap().len(), bytes as u64);
        let opened = Checkpoint::from_folder(written.path()).unwrap();
        assert_eq!(opened.owned_bytes(), 0);
        // The safetensors crate reads the file.
        let content = fs::read(file).unwrap();
        let file = SafeTensors::deserialize(&content).unwrap();
        let blocks = match precision {
            Precision::Int8 => [24, 4, 16, 2, 16, 4],
            _ => [24, 4, 8, 2, 16, 4],
        };
        let name = format!("h.0.attn.c_attn.weight.{precision}");
        assert_eq!(file.tensor(&name).unwrap().shape(), blocks);
        for (name, tensor) in file.tensors() {
            let offset = tensor.data().as_ptr().addr() - content.as_ptr().addr();
            assert!(offset.is_multiple_of(64), "{name} at {offset}");
        }
    }
}

#[test]
fn interrupted_quantize_keeps_the_existing_model() {
    let written = tempdir().unwrap();
    let original = Checkpoint::embedded().unwrap();
    quantize(&original, Precision::Int4, written.path());
    let before = fs::read(written.path().join("model.safetensors")).unwrap();
    let stops: [fn(&QuantizeProgress) -> bool; 2] = [
        |step| matches!(step, QuantizeProgress::Quantized(3, _)),
        |step| matches!(step, QuantizeProgress::Written(done, total) if 2 * done > *total),
    ];
    for stop in stops {
        let on_step = |step| if stop(&step) { Err(Error::Message("stopped".into())) } else { Ok(()) };
        let error = original.quantize(Precision::Int8, None, written.path(), on_step).unwrap_err();
        assert_eq!(error.to_string(), "stopped");
        let names: Vec<_> =
            fs::read_dir(written.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(fs::read(written.path().join("model.safetensors")).unwrap() == before);
    }
}

fn hornbook(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("hornbook").unwrap();
    command.args(arguments);
    command
}

/// Checks that a command fails with one line that contains `expected`.
fn assert_error_line(arguments: &[&str], expected: &str) {
    let output = hornbook(arguments).assert().failure().get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.contains(expected), "{line}");
}

#[test]
fn quantize_command_writes_a_model_and_rejects_invalid_arguments() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (small, smaller, file) = (path("a/small"), path("smaller"), path("file"));
    fs::write(&file, "not a folder").unwrap();
    let quantize = ["quantize", "fable", "--precision", "int8", "-o"];
    hornbook(&[&quantize[..], &[&small]].concat()).assert().success();

    let generate = |model: &[&str]| {
        let arguments = ["generate", "The king", "--seed", "1", "--max-tokens", "20"];
        hornbook(&[&arguments[..], model].concat()).assert().success().get_output().stdout.clone()
    };
    let expected = generate(&["--model", "fable", "--precision", "int8"]);
    assert_eq!(generate(&["--model", &small]), expected);
    assert_eq!(generate(&["--model", &small, "--precision", "int8"]), expected);

    assert_error_line(&[&quantize[..], &[&small]].concat(), "use --force to replace it");
    hornbook(&[&quantize[..], &[&small, "--force"]].concat()).assert().success();
    assert_error_line(&["quantize", &small, "-p", "int4", "-o", &smaller], "is already quantized to int8");
    assert_error_line(&["quantize", &small, "-p", "int4", "-o", &small], "the model's own folder");
    assert_error_line(
        &["quantize", "fable", "-p", "f16", "-o", &smaller],
        "invalid value 'f16' for '--precision <PRECISION>' [possible values: int8, int4]",
    );
    assert_error_line(
        &["generate", "x", "--model", &small, "--precision", "f32"],
        "found f32, expected int8",
    );
    assert_error_line(
        &["quantize", "fable", "-p", "int8", "-o", &file],
        "file: is not a folder, expected one to write the model to",
    );
    assert!(!Path::new(&smaller).exists());
}

/// Quantizes a tiny model, applies `change` to the tensors of its file, and opens it; returns the error or
/// "fine".
fn open_after(change: impl Fn(&mut Tensors, &mut HashMap<String, String>)) -> String {
    let folder = tempdir().unwrap();
    let original = Checkpoint::from_folder(&data("tiny-one-head")).unwrap();
    quantize(&original, Precision::Int8, folder.path());
    let path = folder.path().join("model.safetensors");
    let content = fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&content).unwrap();
    let mut metadata = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&content).unwrap();
    let mut tensors: Tensors = (file.tensors().into_iter())
        .map(|(name, tensor)| (name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    change(&mut tensors, &mut metadata);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    match Checkpoint::from_folder(folder.path()) {
        Ok(_) => "fine".into(),
        Err(error) => error.to_string(),
    }
}

type Tensors = HashMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

#[test]
fn invalid_quantized_file_is_one_line_error() {
    const WEIGHT: &str = "h.0.mlp.c_fc.weight.int8";
    const SCALE: &str = "h.0.mlp.c_fc.weight.scale";
    assert_eq!(open_after(|_, _| ()), "fine");
    let assert_rejected = |change: &dyn Fn(&mut Tensors, &mut HashMap<String, String>), expected: &[&str]| {
        let line = open_after(change);
        assert!(!line.contains('\n') && expected.iter().all(|text| line.contains(text)), "{line}");
    };
    assert_rejected(&|_, metadata| metadata.clear(), &["hornbook.layout none", "expected 1"]);
    assert_rejected(
        &|_, metadata| _ = metadata.insert("hornbook.layout".into(), "2\n".into()),
        &["hornbook.layout 2\\n"],
    );
    assert_rejected(&|tensors, _| _ = tensors.remove(WEIGHT), &[WEIGHT, "no such tensor"]);
    assert_rejected(&|tensors, _| _ = tensors.remove(SCALE), &[SCALE, "no such tensor"]);
    assert_rejected(
        &|tensors, _| _ = tensors.remove("lm_head.weight.int8"),
        &["lm_head.weight.int8", "no such tensor"],
    );
    assert_rejected(
        &|tensors, _| tensors.get_mut(WEIGHT).unwrap().0 = safetensors::Dtype::I8,
        &[WEIGHT, "dtype I8", "U8"],
    );
    assert_rejected(
        &|tensors, _| tensors.get_mut(WEIGHT).unwrap().1.swap(3, 5),
        &[WEIGHT, "4, 16, 2]", "2, 16, 4]"],
    );
    let half = |tensors: &mut Tensors, _: &mut HashMap<String, String>| {
        let scale = tensors.get_mut(SCALE).unwrap();
        scale.0 = safetensors::Dtype::F16;
        scale.2.truncate(scale.2.len() / 2);
    };
    assert_rejected(&half, &[SCALE, "dtype F16", "F32"]);
}

/// What fable writes, as a text to calibrate by.
fn write_stories(file: &Path) {
    let mut text = String::new();
    for seed in 1..=6 {
        let arguments = ["generate", "Once upon a time", "--max-tokens", "500", "--logit-bias", "0=-100"];
        let story = hornbook(&arguments).args(["--seed", &seed.to_string()]).assert().success();
        text += str::from_utf8(&story.get_output().stdout).unwrap();
        text += "<|endoftext|>";
    }
    fs::write(file, text).unwrap();
}

#[test]
fn calibrated_model_is_closer_to_the_original() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (stories, short) = (path("stories.txt"), path("short.txt"));
    write_stories(Path::new(&stories));
    fs::write(&short, "Once upon a time").unwrap();
    let quantize = |name: &str, options: &[&str]| {
        let arguments = ["quantize", "fable", "--precision", "int4", "-o", &path(name)];
        hornbook(&[&arguments[..], options].concat()).assert().success();
    };
    quantize("nearest", &[]);
    quantize("one", &["--calibrate", &stories, "--threads", "1"]);
    quantize("three", &["--calibrate", &stories, "--threads", "3"]);
    let weights = |name: &str| fs::read(path(name) + "/model.safetensors").unwrap();
    assert!(weights("one") == weights("three"), "the number of threads must not matter");
    let divergence = |name: &str| {
        let text = data("fable/text.txt");
        let model = path(name);
        let arguments =
            ["perplexity", text.to_str().unwrap(), "--model", &model, "--against", "fable", "--json"];
        let report = hornbook(&arguments).assert().success();
        let report: serde_json::Value = serde_json::from_slice(&report.get_output().stdout).unwrap();
        report["against"]["kl_divergence"].as_f64().unwrap()
    };
    let (nearest, calibrated) = (divergence("nearest"), divergence("one"));
    assert!(calibrated < 0.5 * nearest, "{calibrated}, without calibration {nearest}");

    let calibrate = |precision: &str, text: &str| {
        let arguments = ["quantize", "fable", "-p", precision, "-o", &path("never"), "--calibrate", text];
        arguments.map(String::from)
    };
    let errors = [
        (calibrate("int4", &short), "the text has 4 tokens, expected at least 2048"),
        (calibrate("int8", &stories), "--calibrate: found --precision int8, expected int4"),
        (calibrate("int4", &path("none.txt")), "none.txt: cannot read"),
    ];
    for (arguments, expected) in &errors {
        assert_error_line(&arguments.each_ref().map(String::as_str), expected);
    }
    assert!(!Path::new(&path("never")).exists());
}
