//! `hornbook quantize`: the file it writes is the model that `--precision` makes, bit for bit, and nothing is lost when
//! it cannot be written or read.

use crate::reference::{Reference, data};
use assert_cmd::Command;
use hornbook::Error;
use hornbook::checkpoint::{Checkpoint, Dtype, QuantizeProgress};
use hornbook::kernels::attention::KvPrecision;
use hornbook::kernels::isa::Isa;
use hornbook::kernels::thread_pool::ThreadPool;
use hornbook::model::{Model, Precision, Session};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const BOTH: [Precision; 2] = [Precision::Int8, Precision::Int4];

fn quantize(checkpoint: &Checkpoint, precision: Precision, folder: &Path) -> usize {
    checkpoint.quantize(precision.dtype(), folder, |_| Ok(())).unwrap()
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
fn a_quantized_file_gives_the_bits_of_rounding_at_load() {
    // Widths that are no multiple of a block or a vector, a head of its own, nn.Linear's layout, f16, shards.
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
        for precision in BOTH {
            let original = Checkpoint::from_folder(&data(folder)).unwrap();
            let written = tempdir().unwrap();
            quantize(&original, precision, written.path());
            let opened = Checkpoint::from_folder(written.path()).unwrap();
            assert_eq!(opened.quantized(), Some(precision.dtype()));
            let expected = logits(original, Some(precision), &ids);
            assert!(logits(opened.clone(), None, &ids) == expected, "{folder}, {precision}");
            assert!(logits(opened, Some(precision), &ids) == expected, "{folder}, {precision}");
        }
    }
}

#[test]
fn weights_are_used_where_they_lie_on_cache_lines() {
    for precision in BOTH {
        let written = tempdir().unwrap();
        let original = Checkpoint::embedded().unwrap();
        let bytes = quantize(&original, precision, written.path());
        let file = written.path().join("model.safetensors");
        assert_eq!(fs::metadata(&file).unwrap().len(), bytes as u64);
        let opened = Checkpoint::from_folder(written.path()).unwrap();
        assert_eq!(opened.owned_bytes(), 0);
        // Other readers of the format understand the file.
        let content = fs::read(file).unwrap();
        let file = SafeTensors::deserialize(&content).unwrap();
        let blocks = match precision {
            Precision::Int8 => [24, 4, 16, 2, 16, 4],
            _ => [24, 4, 8, 2, 16, 4],
        };
        let name = format!("h.0.attn.c_attn.weight.{precision}");
        assert_eq!(file.tensor(&name).unwrap().shape(), blocks);
        for (name, tensor) in file.tensors() {
            let at = tensor.data().as_ptr().addr() - content.as_ptr().addr();
            assert!(at.is_multiple_of(64), "{name} at {at}");
        }
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind_and_the_old_model_in_place() {
    let written = tempdir().unwrap();
    let original = Checkpoint::embedded().unwrap();
    quantize(&original, Precision::Int4, written.path());
    let before = fs::read(written.path().join("model.safetensors")).unwrap();
    let stops: [fn(&QuantizeProgress) -> bool; 2] = [
        |step| matches!(step, QuantizeProgress::Quantized(3, _)),
        |step| matches!(step, QuantizeProgress::Written(done, of) if 2 * done > *of),
    ];
    for stop in stops {
        let go_on = |step| if stop(&step) { Err(Error::Message("stopped".into())) } else { Ok(()) };
        let refusal = original.quantize(Dtype::Int8, written.path(), go_on).unwrap_err();
        assert_eq!(refusal.to_string(), "stopped");
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

/// The one line of a command that fails.
fn refused(arguments: &[&str], expected: &str) {
    let output = hornbook(arguments).assert().failure().get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.contains(expected), "{line}");
}

#[test]
fn the_command_line_writes_a_model_once_and_explains_what_it_refuses() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (small, smaller, file) = (path("a/small"), path("smaller"), path("file"));
    fs::write(&file, "no folder").unwrap();
    let quantize = ["quantize", "fable", "--precision", "int8", "-o"];
    hornbook(&[&quantize[..], &[&small]].concat()).assert().success();

    let story = |model: &[&str]| {
        let arguments = ["generate", "The king", "--seed", "1", "--max-tokens", "20"];
        hornbook(&[&arguments[..], model].concat()).assert().success().get_output().stdout.clone()
    };
    let told = story(&["--model", "fable", "--precision", "int8"]);
    assert_eq!(story(&["--model", &small]), told);
    assert_eq!(story(&["--model", &small, "--precision", "int8"]), told);

    refused(&[&quantize[..], &[&small]].concat(), "use --force to replace it");
    hornbook(&[&quantize[..], &[&small, "--force"]].concat()).assert().success();
    refused(&["quantize", &small, "-p", "int4", "-o", &smaller], "is quantized already, to int8");
    refused(&["quantize", &small, "-p", "int4", "-o", &small], "the model's own folder");
    refused(&["quantize", "fable", "-p", "f16", "-o", &smaller], "found f16, expected int8 or int4");
    refused(&["generate", "x", "--model", &small, "--precision", "f32"], "found f32, expected int8");
    refused(&["quantize", "fable", "-p", "int8", "-o", &file], "file: is no folder, expected one to write");
    assert!(!Path::new(&smaller).exists());
}

/// The quantized file of a tiny model, its tensors changed by `change` before it is written again.
fn opened_after(change: impl Fn(&mut Tensors, &mut HashMap<String, String>)) -> String {
    let folder = tempdir().unwrap();
    let original = Checkpoint::from_folder(&data("tiny-one-head")).unwrap();
    quantize(&original, Precision::Int8, folder.path());
    let path = folder.path().join("model.safetensors");
    let content = fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&content).unwrap();
    let mut about = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&content).unwrap();
    let mut tensors: Tensors = (file.tensors().into_iter())
        .map(|(name, tensor)| (name, (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    change(&mut tensors, &mut about);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, Some(about)).unwrap()).unwrap();
    match Checkpoint::from_folder(folder.path()) {
        Ok(_) => "fine".into(),
        Err(error) => error.to_string(),
    }
}

type Tensors = HashMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

#[test]
fn a_quantized_file_that_lies_is_refused_in_one_line() {
    const LINES: &str = "h.0.mlp.c_fc.weight.int8";
    const SCALE: &str = "h.0.mlp.c_fc.weight.scale";
    assert_eq!(opened_after(|_, _| ()), "fine");
    let refused = |change: &dyn Fn(&mut Tensors, &mut HashMap<String, String>), expected: &[&str]| {
        let line = opened_after(change);
        assert!(!line.contains('\n') && expected.iter().all(|part| line.contains(part)), "{line}");
    };
    refused(&|_, about| about.clear(), &["found hornbook.layout none", "expected 1"]);
    refused(&|_, about| _ = about.insert("hornbook.layout".into(), "2\n".into()), &["hornbook.layout 2\\n"]);
    refused(&|tensors, _| _ = tensors.remove(LINES), &[LINES, "no such tensor"]);
    refused(&|tensors, _| _ = tensors.remove(SCALE), &[SCALE, "no such tensor"]);
    refused(
        &|tensors, _| _ = tensors.remove("lm_head.weight.int8"),
        &["lm_head.weight.int8", "no such tensor"],
    );
    refused(
        &|tensors, _| tensors.get_mut(LINES).unwrap().0 = safetensors::Dtype::I8,
        &[LINES, "dtype I8", "U8"],
    );
    refused(&|tensors, _| tensors.get_mut(LINES).unwrap().1.swap(3, 5), &[LINES, "4, 16, 2]", "2, 16, 4]"]);
    let half = |tensors: &mut Tensors, _: &mut HashMap<String, String>| {
        let scale = tensors.get_mut(SCALE).unwrap();
        scale.0 = safetensors::Dtype::F16;
        scale.2.truncate(scale.2.len() / 2);
    };
    refused(&half, &[SCALE, "dtype F16", "F32"]);
}
