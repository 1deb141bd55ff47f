//! Writing numbers that training has changed: a model's weights, and the state of a run.

use super::shards::SINGLE_FILE;
use super::write::{FileEntry, create_folder, write, write_file};
use super::{Checkpoint, json_file};
use crate::atomic_file::AtomicFile;
use crate::kernels::elements::Dtype;
use crate::{Error, Result};
use half::{bf16, f16};
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
    fn entry<'a>(&self, dtype: Dtype, bytes: &'a [u8]) -> FileEntry<'a> {
        FileEntry { name: self.name.clone(), dtype, shape: self.shape.clone(), bytes }
    }

    /// The bytes in another precision. `file` is named in errors.
    fn stored(&self, file: &Path, dtype: Dtype) -> Result<Cow<'_, [u8]>> {
        let bytes: Vec<u8> = match dtype {
            Dtype::F16 => self.values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Dtype::Bf16 => self.values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            Dtype::F32 | Dtype::U8 => return Ok(Cow::Borrowed(bytemuck::cast_slice(self.values))),
        };
        let (max, name) = match dtype {
            Dtype::F16 => (f16::MAX.to_f32(), "f16"),
            _ => (bf16::MAX.to_f32(), "bf16"),
        };
        // Numbers that are rounded to the largest fit, those that are rounded up to infinity do not.
        let fits = |x: &&f32| match dtype {
            Dtype::F16 => f16::from_f32(**x).is_finite(),
            _ => bf16::from_f32(**x).is_finite(),
        };
        match self.values.iter().find(|x| !fits(x)) {
            None => Ok(Cow::Owned(bytes)),
            Some(found) => Err(Error::Tensor {
                file: file.into(),
                tensor: self.name.clone(),
                found: found.to_string(),
                expected: format!("numbers up to {max}, the largest in {name}; --precision f32 stores all"),
            }),
        }
    }
}

/// Writes a safetensors file with its `__metadata__`, strings by name, atomically.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); the file is then as before.
pub fn write_f32_tensors(path: &Path, metadata: Value, tensors: &[F32Tensor]) -> Result<()> {
    let entries = tensors.iter().map(|tensor| tensor.entry(Dtype::F32, bytemuck::cast_slice(tensor.values)));
    write_tensors(path, metadata, &entries.collect::<Vec<_>>()).map(drop)
}

impl Checkpoint {
    /// Writes this model with other weights, stored as `dtype`, to a folder, as transformers reads it: with
    /// its configuration, tokenizer and chat template.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a weight beyond the range of `dtype`, [`Error::Io`] for a file that cannot be
    /// written.
    pub fn write_trained(&self, folder: &Path, tensors: &[F32Tensor], dtype: Dtype) -> Result<()> {
        let file = folder.join(SINGLE_FILE);
        let stored = tensors.iter().map(|tensor| tensor.stored(&file, dtype)).collect::<Result<Vec<_>>>()?;
        let entry = |(tensor, bytes): (&F32Tensor, _)| tensor.entry(dtype, bytes);
        let entries = tensors.iter().zip(stored.iter().map(|bytes| &**bytes)).map(entry);
        self.write_weights(folder, &entries.collect::<Vec<_>>()).map(drop)
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
