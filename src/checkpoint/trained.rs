//! Writing numbers that training has changed: a model's weights, and the state of a run.

use super::shards::SINGLE_FILE;
use super::write::{FileEntry, create_folder, write, write_file};
use super::{Checkpoint, json_file};
use crate::Result;
use crate::atomic_file::AtomicFile;
use crate::kernels::elements::Dtype;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::Path;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct F32Tensor<'a> {
    /// The name in the file.
    pub name: String,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The elements, as many as the dimensions say.
    pub values: &'a [f32],
}

impl F32Tensor<'_> {
    fn entry(&self) -> FileEntry<'_> {
        FileEntry {
            name: self.name.clone(),
            dtype: Dtype::F32,
            shape: self.shape.clone(),
            bytes: bytemuck::cast_slice(self.values),
        }
    }
}

/// Writes a safetensors file with its `__metadata__`, strings by name, atomically.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); the file is then as before.
pub fn write_f32_tensors(path: &Path, metadata: Value, tensors: &[F32Tensor]) -> Result<()> {
    write_tensors(path, metadata, &tensors.iter().map(F32Tensor::entry).collect::<Vec<_>>()).map(drop)
}

impl Checkpoint {
    /// Writes this model with other weights to a folder, as transformers reads it: with its configuration,
    /// tokenizer and chat template.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for a file that cannot be written.
    pub fn write_trained(&self, folder: &Path, tensors: &[F32Tensor]) -> Result<()> {
        self.write_weights(folder, &tensors.iter().map(F32Tensor::entry).collect::<Vec<_>>()).map(drop)
    }

    /// The same, for tensors of one type of float. Returns the size of the weights file in bytes.
    pub(super) fn write_weights(&self, folder: &Path, tensors: &[FileEntry]) -> Result<usize> {
        create_folder(folder)?;
        let dtype = tensors.first().map_or(Dtype::F32, |tensor| tensor.dtype);
        for (name, mut content) in self.auxiliary_files()? {
            let path = folder.join(name);
            if name == "config.json" {
                let mut config: Map<String, Value> = json_file::parse(&path, &content)?;
                for field in ["torch_dtype", "dtype"] {
                    config.entry(field).and_modify(|value| *value = torch_name(dtype).into());
                }
                content = Cow::Owned(format!("{:#}\n", Value::Object(config)).into_bytes());
            }
            write_file(&path, &content)?;
        }
        write_tensors(&folder.join(SINGLE_FILE), json!({"format": "pt"}), tensors)
    }
}

/// Writes a safetensors file, atomically. Returns its size in bytes.
fn write_tensors(path: &Path, metadata: Value, tensors: &[FileEntry]) -> Result<usize> {
    let file = AtomicFile::create(path)?;
    let bytes = write(file.file(), path, metadata, tensors, &mut |_| Ok(()))?;
    file.commit()?;
    Ok(bytes)
}

/// PyTorch's name of a type of elements.
fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::Bf16 => "bfloat16",
        _ => "float32",
    }
}
