//! Weights in other formats than safetensors, recognized to name them and the way to convert them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest signature, in bytes.
const SIGNATURE_LEN: usize = 24;

/// A format that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// llama.cpp's, and its predecessors.
    Gguf,
    /// PyTorch's: a pickle, in a zip archive since PyTorch 1.6.
    Pickle,
    /// Keras' and TensorFlow's.
    Hdf5,
    /// The text that stands for a file of Git LFS that was not downloaded.
    LfsPointer,
}

impl Format {
    /// The format that the first bytes of a file belong to.
    fn of_bytes(bytes: &[u8]) -> Option<Format> {
        let starts_with = |signature: &[u8]| bytes.starts_with(signature);
        if [&b"GGUF"[..], b"tjgg", b"lmgg", b"fmgg"].into_iter().any(starts_with) {
            Some(Format::Gguf)
        } else if starts_with(b"PK\x03\x04") || bytes.len() > 1 && bytes[0] == 0x80 && bytes[1] < 6 {
            Some(Format::Pickle)
        } else if starts_with(b"\x89HDF\r\n\x1a\n") {
            Some(Format::Hdf5)
        } else if starts_with(b"version https://git-lfs") {
            Some(Format::LfsPointer)
        } else {
            None
        }
    }

    /// The format that a file's name belongs to.
    fn of_name(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "gguf" | "ggml" => Some(Format::Gguf),
            "bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" => Some(Format::Pickle),
            "h5" | "keras" => Some(Format::Hdf5),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Gguf => "a GGUF file",
            Format::Pickle => "a PyTorch pickle",
            Format::Hdf5 => "a TensorFlow file (HDF5)",
            Format::LfsPointer => "a Git LFS pointer in place of the file",
        }
    }

    /// The next step for the user.
    fn way_out(self, path: &Path) -> String {
        let (file, folder) = (path.display(), path.parent().unwrap_or(Path::new(".")).display());
        match self {
            Format::Gguf => format!(
                "use the original model, as `hornbook pull` downloads it, or convert the file with \
                 python -c \"import sys, transformers as t; \
                 [c.from_pretrained(sys.argv[1], gguf_file=sys.argv[2]).save_pretrained('converted') \
                 for c in (t.AutoModelForCausalLM, t.AutoTokenizer)]\" {folder} {}",
                path.file_name().unwrap_or_default().display()
            ),
            Format::Pickle if is_of_transformers(path) => format!(
                "PyTorch pickle files can execute code and are not supported; convert them with python -c \
                 \"from transformers import AutoModelForCausalLM as M; import sys; \
                 M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])\" {folder}"
            ),
            Format::Pickle => format!(
                "PyTorch pickle files can execute code and are not supported; convert the file with \
                 python -c \"import sys, torch, safetensors.torch as s; \
                 d = torch.load(sys.argv[1], 'cpu', weights_only=True); \
                 s.save_file({{k: v.clone() for k, v in d.get('model', d).items()}}, 'model.safetensors')\" \
                 {file}, and put a config.json beside the result"
            ),
            Format::Hdf5 => "use the PyTorch or safetensors version of the model".into(),
            Format::LfsPointer => format!("run `git lfs pull` in {folder}"),
        }
    }
}

/// Whether transformers loads the file by its name.
fn is_of_transformers(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pytorch_model"))
}

/// The error message for a file given as a model in place of a folder.
pub(super) fn file_as_model(path: &Path) -> String {
    let mut bytes = Vec::new();
    if path.is_file()
        && let Ok(file) = File::open(path)
    {
        // Of an unreadable file only the name is known.
        let _ = file.take(SIGNATURE_LEN as u64).read_to_end(&mut bytes);
    }
    const EXPECTED: &str = "expected the folder that holds config.json and model.safetensors";
    match Format::of_bytes(&bytes).or_else(|| Format::of_name(path)) {
        Some(format) => format!("found {}, {EXPECTED}: {}", format.name(), format.way_out(path)),
        None => format!("found a file, {EXPECTED}"),
    }
}

/// The error message for the content of a safetensors file that has another format; none if it is unknown.
pub(super) fn content(path: &Path, bytes: &[u8]) -> Option<String> {
    let format = Format::of_bytes(bytes)?;
    Some(format!("found {}, expected safetensors: {}", format.name(), format.way_out(path)))
}

/// The largest file in a folder whose name is that of another format, and the next step for the user.
pub(super) fn largest_in(folder: &Path) -> Option<(String, String)> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let files = entries.filter_map(|entry| Some((entry.metadata().ok()?.len(), entry.path())));
    let foreign = files.filter_map(|(bytes, path)| Some((bytes, path.clone(), Format::of_name(&path)?)));
    let (_, path, format): (u64, PathBuf, Format) =
        foreign.max_by_key(|(bytes, path, _)| (*bytes, path.clone()))?;
    Some((path.file_name()?.to_string_lossy().escape_debug().to_string(), format.way_out(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn file_of_another_format_is_named_with_way_out() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content, found, way_out) in [
            ("gpt2.Q8_0.gguf", &b"GGUF\x03\0\0\0"[..], "a GGUF file", "gguf_file=sys.argv[2]"),
            ("model", b"GGUF\x03\0\0\0", "a GGUF file", "hornbook pull"),
            ("ckpt.pt", b"PK\x03\x04", "a PyTorch pickle", "torch.load"),
            ("pytorch_model.bin", b"\x80\x02\x8a", "a PyTorch pickle", "M.from_pretrained"),
            ("unreadable.pth", b"", "a PyTorch pickle", "torch.load"),
            ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "a TensorFlow file (HDF5)", "safetensors version"),
            ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "a Git LFS", "git lfs pull"),
            ("config.json", b"{}", "a file", "expected the folder that holds config.json"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let message = file_as_model(&path);
            assert!(message.starts_with(&format!("found {found}")), "{name}: {message}");
            assert!(message.contains(way_out) && !message.contains('\n'), "{name}: {message}");
        }
        fs::write(folder.path().join("weights.bin"), [0; 100]).unwrap();
        assert_eq!(largest_in(folder.path()).unwrap().0, "weights.bin");
    }
}
