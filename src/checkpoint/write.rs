//! Writes a checkpoint with quantized matrices: a folder that can be opened like any other.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::quantized::LAYOUT;
use super::shards::SINGLE;
use super::tensor::{Dtype, Tensor};
use super::{Checkpoint, LinearWeights, Weights};
use crate::atomic_file::AtomicFile;
use crate::error::{Error, Result};

/// The data section and every tensor whose size allows it start on a cache line.
const ALIGNMENT: usize = 64;
/// Bytes that are written between two questions whether to go on.
const PIECE: usize = 4 << 20;

/// How far along the work is.
#[derive(Clone, Copy, Debug)]
pub enum QuantizeProgress {
    /// A matrix was quantized, of so many.
    Quantized(usize, usize),
    /// So many bytes were written, of so many.
    Written(usize, usize),
}

/// A tensor as the file has it.
struct Entry<'a> {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl Checkpoint {
    /// Rounds the matrices to `dtype`, `Int8` or `Int4` (the head to eight bits in both), and writes them to `folder`,
    /// with the configuration and the tokenizer. The weights appear under their name only when they are complete.
    /// `go_on` is called at every step, and ends the work with its error. Returns the size of the weights' file.
    ///
    /// # Errors
    /// [`Error::Message`] where the matrices are quantized already or `folder` is none, [`Error::Io`] for what cannot be
    /// written, and what `go_on` returns. Whatever was begun is removed.
    pub fn quantize(
        &self,
        dtype: Dtype,
        folder: &Path,
        mut go_on: impl FnMut(QuantizeProgress) -> Result<()>,
    ) -> Result<usize> {
        if let Some(stored) = self.quantized() {
            let problem = format!("'{}' is quantized already, to {}", self.name, stored.name());
            return Err(Error::Message(problem));
        }
        if folder.exists() && !folder.is_dir() {
            let problem = format!("{}: is no folder, expected one to write", folder.display());
            return Err(Error::Message(problem));
        }
        let weights = self.weights.quantized(dtype, &mut go_on)?;
        let mut entries: Vec<Entry> = weights.iter().flat_map(entries).collect();
        // First what keeps the next on a cache line, then the widest numbers, so that all are aligned.
        entries.sort_by_key(|entry| {
            let width = ["F32", "F16", "BF16", "U8"].iter().position(|dtype| *dtype == entry.dtype);
            (!entry.bytes.len().is_multiple_of(ALIGNMENT), width)
        });

        fs::create_dir_all(folder).map_err(|source| io(folder, "create", source))?;
        let name = folder.join(SINGLE);
        let new = AtomicFile::create(&name)?;
        let bytes = write(new.file(), &name, &entries, &mut go_on)?;
        for (name, content) in self.files()? {
            let path = folder.join(name);
            fs::write(&path, content).map_err(|source| io(&path, "write", source))?;
        }
        new.commit()?;
        Ok(bytes)
    }
}

impl Weights {
    /// All tensors by name, the matrices of the blocks rounded, and the head in eight bits.
    fn quantized(
        &self,
        dtype: Dtype,
        go_on: &mut impl FnMut(QuantizeProgress) -> Result<()>,
    ) -> Result<Vec<(String, Tensor)>> {
        let mut all = vec![("wte.weight".to_string(), self.wte.clone())];
        all.extend(self.wpe.iter().map(|wpe| ("wpe.weight".to_string(), wpe.clone())));
        let (mut done, matrices) = (0, 4 * self.h.len() + 1);
        let mut rounded = |name: &str, make: &dyn Fn() -> Tensor, all: &mut Vec<(String, Tensor)>| {
            all.push((format!("{name}.weight"), make()));
            done += 1;
            go_on(QuantizeProgress::Quantized(done, matrices))
        };
        for (layer, block) in self.h.iter().enumerate() {
            for (name, norm) in [("ln_1", &block.ln_1), ("ln_2", &block.ln_2)] {
                all.push((format!("h.{layer}.{name}.weight"), norm.weight.clone()));
                all.push((format!("h.{layer}.{name}.bias"), norm.bias.clone()));
            }
            let linears: [(&str, &LinearWeights); 4] = [
                ("attn.c_attn", &block.attn.c_attn),
                ("attn.c_proj", &block.attn.c_proj),
                ("mlp.c_fc", &block.mlp.c_fc),
                ("mlp.c_proj", &block.mlp.c_proj),
            ];
            for (name, linear) in linears {
                let name = format!("h.{layer}.{name}");
                all.push((format!("{name}.bias"), linear.bias.clone()));
                rounded(&name, &|| linear.weight.clone().into_dtype(dtype), &mut all)?;
            }
        }
        all.push(("ln_f.weight".to_string(), self.ln_f.weight.clone()));
        all.push(("ln_f.bias".to_string(), self.ln_f.bias.clone()));
        let table = self.lm_head.as_ref().unwrap_or(&self.wte);
        rounded("lm_head", &|| table.quantized_lm_head(dtype), &mut all)?;
        Ok(all)
    }
}

/// A tensor's entries in the file: one, or two for a quantized matrix.
fn entries((name, tensor): &(String, Tensor)) -> Vec<Entry<'_>> {
    match tensor.file_tensors() {
        Some(parts) => parts
            .into_iter()
            .map(|part| Entry {
                name: format!("{name}{}", part.suffix),
                dtype: part.dtype,
                shape: part.shape,
                bytes: part.bytes,
            })
            .collect(),
        None => {
            let dtype = match tensor.dtype() {
                Dtype::F16 => "F16",
                Dtype::Bf16 => "BF16",
                _ => "F32",
            };
            vec![Entry { name: name.clone(), dtype, shape: tensor.shape().to_vec(), bytes: &tensor.bytes }]
        }
    }
}

/// Writes the tensors to `file`, which will be called `name`; returns its size.
fn write(
    file: &File,
    name: &Path,
    entries: &[Entry],
    go_on: &mut impl FnMut(QuantizeProgress) -> Result<()>,
) -> Result<usize> {
    let mut header =
        Map::from_iter([("__metadata__".to_string(), json!({ "format": "pt", LAYOUT.0: LAYOUT.1 }))]);
    let mut total = 0;
    for Entry { name, dtype, shape, bytes } in entries {
        let offsets = [total, total + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        total += bytes.len();
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize((8 + header.len()).next_multiple_of(ALIGNMENT) - 8, b' ');

    let refused = |source| io(name, "write", source);
    let mut file = BufWriter::new(file);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(refused)?;
    file.write_all(&header).map_err(refused)?;
    let mut written = 0;
    for piece in entries.iter().flat_map(|entry| entry.bytes.chunks(PIECE)) {
        file.write_all(piece).map_err(refused)?;
        written += piece.len();
        go_on(QuantizeProgress::Written(written, total))?;
    }
    file.flush().map_err(refused)?;
    Ok(8 + header.len() + total)
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), action, source }
}
