//! Writing a quantized checkpoint to a folder.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::quantized::LAYOUT;
use super::shards::SINGLE_FILE;
use super::tensor::Tensor;
use super::{Checkpoint, LinearWeights, Weights};
use crate::atomic_file::AtomicFile;
use crate::error::{Error, Result};
use crate::kernels::elements::Dtype;
use crate::kernels::formats::Precision;
use crate::kernels::formats::gptq::Feedback;

/// The alignment, in bytes, of the data section and of every tensor except those after one of an unaligned
/// size.
const ALIGNMENT: usize = 64;
/// The bytes written between two progress callbacks.
const WRITE_CHUNK: usize = 4 << 20;

/// The progress of [`Checkpoint::quantize`].
#[derive(Clone, Copy, Debug)]
pub enum QuantizeProgress {
    /// The number of matrices quantized, and the total.
    Quantized(usize, usize),
    /// The number of bytes written, and the total.
    Written(usize, usize),
}

/// A tensor to be written to the file.
pub(super) struct FileEntry<'a> {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: &'a [u8],
}

/// Returns the feedback of a block's matrices, by the number of the block: `c_attn`, `attn.c_proj`, `c_fc`
/// and `mlp.c_proj`. Called for one block after the other.
pub type BlockFeedback<'a> = dyn FnMut(usize) -> Result<[Feedback; 4]> + 'a;

impl Checkpoint {
    /// Quantizes the matrices to `precision`, one of [`Precision::in_files`], and writes the model to
    /// `folder`, with its configuration and tokenizer. With `feedback`, weights are rounded by
    /// [`gptq`](crate::kernels::formats::gptq) if the precision uses it. The weights file is replaced
    /// atomically. `on_progress` is called at every step; an error from it, or from `feedback`, cancels the
    /// work. Returns the size of the weights file in bytes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the matrices are quantized already, [`Error::InvalidFile`] if `folder` is no
    /// folder, [`Error::Tensor`] for a weight that is not a finite number or beyond the range of `precision`,
    /// [`Error::Io`] if a file cannot be written, and any error of `on_progress`. No partial weights file is
    /// left behind.
    pub fn quantize(
        &self,
        precision: Precision,
        feedback: Option<&mut BlockFeedback>,
        folder: &Path,
        mut on_progress: impl FnMut(QuantizeProgress) -> Result<()>,
    ) -> Result<usize> {
        if let Some(stored) = self.quantized_precision() {
            let problem = format!("'{}' is already quantized to {stored}", self.name);
            return Err(Error::Unsupported(problem));
        }
        if folder.exists() && !folder.is_dir() {
            return Err(Error::invalid_file(folder, "is not a folder, expected one to write the model to"));
        }
        let weights = self.weights.quantized(precision, feedback, &mut on_progress)?;
        let mut entries: Vec<FileEntry> = weights.iter().flat_map(entries).collect();
        // Sizes that are multiples of the alignment first, then by descending element size, so that all are
        // aligned.
        entries.sort_by_key(|entry| (!entry.bytes.len().is_multiple_of(ALIGNMENT), entry.dtype));

        create_folder(folder)?;
        let name = folder.join(SINGLE_FILE);
        let weights_file = AtomicFile::create(&name)?;
        let metadata = json!({"format": "pt", LAYOUT.0: LAYOUT.1});
        let bytes = write(weights_file.file(), &name, metadata, &entries, &mut on_progress)?;
        for (name, content) in self.auxiliary_files()? {
            write_file(&folder.join(name), &content)?;
        }
        weights_file.commit()?;
        Ok(bytes)
    }
}

impl Weights {
    /// All tensors by name, with the blocks' matrices and the LM head quantized for `precision`. All are
    /// finite numbers.
    fn quantized(
        &self,
        precision: Precision,
        mut feedback: Option<&mut BlockFeedback>,
        on_progress: &mut impl FnMut(QuantizeProgress) -> Result<()>,
    ) -> Result<Vec<(String, Tensor)>> {
        let mut all = vec![("wte.weight".to_string(), self.wte.clone())];
        all.extend(self.wpe.iter().map(|wpe| ("wpe.weight".to_string(), wpe.clone())));
        let (mut done, matrices) = (0, 4 * self.h.len() + 1);
        let mut push_quantized =
            |name: &str, quantize: &dyn Fn() -> Result<Tensor>, all: &mut Vec<(String, Tensor)>| {
                all.push((format!("{name}.weight"), quantize()?));
                done += 1;
                on_progress(QuantizeProgress::Quantized(done, matrices))
            };
        for (layer, block) in self.h.iter().enumerate() {
            for (name, norm) in [("ln_1", &block.ln_1), ("ln_2", &block.ln_2)] {
                all.push((format!("h.{layer}.{name}.weight"), norm.weight.clone()));
                all.push((format!("h.{layer}.{name}.bias"), norm.bias.clone()));
            }
            let feedbacks = feedback.as_mut().map(|feedback| feedback(layer)).transpose()?;
            let linears: [(&str, &LinearWeights); 4] = [
                ("attn.c_attn", &block.attn.c_attn),
                ("attn.c_proj", &block.attn.c_proj),
                ("mlp.c_fc", &block.mlp.c_fc),
                ("mlp.c_proj", &block.mlp.c_proj),
            ];
            for (i, (name, linear)) in linears.into_iter().enumerate() {
                let feedback = feedbacks.as_ref().map(|feedbacks| &feedbacks[i]);
                let name = format!("h.{layer}.{name}");
                all.push((format!("{name}.bias"), linear.bias.clone()));
                push_quantized(&name, &|| linear.weight.quantized(precision, feedback), &mut all)?;
            }
        }
        all.push(("ln_f.weight".to_string(), self.ln_f.weight.clone()));
        all.push(("ln_f.bias".to_string(), self.ln_f.bias.clone()));
        let lm_head = self.lm_head.as_ref().unwrap_or(&self.wte);
        push_quantized("lm_head", &|| lm_head.quantized_lm_head(precision.lm_head()), &mut all)?;
        all.iter().try_for_each(|(_, tensor)| tensor.check_finite())?;
        Ok(all)
    }
}

/// A tensor's entries in the file: one, or two for a quantized matrix with scales.
pub(super) fn entries((name, tensor): &(String, Tensor)) -> impl Iterator<Item = FileEntry<'_>> {
    let stored = tensor.precision.format().tensors(&tensor.shape);
    stored.into_iter().zip(&tensor.buffers).map(move |(stored, bytes)| FileEntry {
        name: format!("{name}{}", stored.suffix),
        dtype: stored.dtype,
        shape: stored.shape,
        bytes,
    })
}

/// Writes a safetensors file; `name` is its name in error messages. Returns its size in bytes.
pub(super) fn write(
    file: &File,
    name: &Path,
    metadata: Value,
    entries: &[FileEntry],
    on_progress: &mut impl FnMut(QuantizeProgress) -> Result<()>,
) -> Result<usize> {
    let mut header = Map::from_iter([("__metadata__".to_string(), metadata)]);
    let mut total = 0;
    for FileEntry { name, dtype, shape, bytes } in entries {
        let offsets = [total, total + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets}));
        total += bytes.len();
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize((8 + header.len()).next_multiple_of(ALIGNMENT) - 8, b' ');

    let write_error = |source| io(name, "write", source);
    let mut file = BufWriter::new(file);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(write_error)?;
    file.write_all(&header).map_err(write_error)?;
    let mut written = 0;
    for chunk in entries.iter().flat_map(|entry| entry.bytes.chunks(WRITE_CHUNK)) {
        file.write_all(chunk).map_err(write_error)?;
        written += chunk.len();
        on_progress(QuantizeProgress::Written(written, total))?;
    }
    file.flush().map_err(write_error)?;
    Ok(8 + header.len() + total)
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_path_buf(), action, source }
}

/// Creates a folder, if it does not exist.
pub(super) fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| io(folder, "create", source))
}

/// Writes a file, atomically.
pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let file = AtomicFile::create(path)?;
    file.file().write_all(content).map_err(|source| io(path, "write", source))?;
    file.commit()
}
