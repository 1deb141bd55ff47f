//! The header of a safetensors file: which tensors it holds, and one line for each way it can lie.
//!
//! A file is 8 bytes of little-endian header length, that many bytes of JSON, and the data section, which the
//! tensors fill without gap or overlap (<https://github.com/huggingface/safetensors#format>).

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Error, Result};

/// The format's own limit on the header's length.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of one file, and the byte its data section starts at.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: HashMap<String, TensorInfo>,
    pub(super) data_start: usize,
    /// What else the file says of itself.
    pub(super) metadata: HashMap<String, String>,
}

/// Reads and checks the header of `bytes`, the whole content of `file`: afterwards every tensor's `data_offsets`
/// lie within the data section and agree with its shape and dtype.
///
/// `safetensors` checks the tensors against each other. The length of the file is checked here rather than by its
/// `SafeTensors::read_metadata`, which adds the last offset and the header's length without asking whether the sum
/// fits, and whose errors carry neither names nor numbers.
pub(super) fn read_header(file: &Path, bytes: &[u8]) -> Result<Header> {
    let broken = |problem: String| Error::Checkpoint { file: file.to_path_buf(), problem };
    if bytes.is_empty() {
        return Err(broken("found an empty file, expected a safetensors file".into()));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(broken(format!(
            "found {} bytes, expected at least the 8 of the header length",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(broken(format!(
            "found a header length of {length} bytes, expected at most {MAX_HEADER_BYTES}: not a safetensors file"
        )));
    }
    // At most 10^8, so it fits any usize.
    let length = length as usize;
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(broken(format!(
            "found a header length of {length} bytes, expected at most the {} that follow: the file is cut short",
            rest.len()
        )));
    };

    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| explain(file, header, &error))?;
    if metadata.data_len() != data.len() {
        let why = if metadata.data_len() > data.len() {
            "the file is cut short"
        } else {
            "bytes that belong to no tensor"
        };
        return Err(broken(format!(
            "found {} bytes of data, expected the {} of the header's tensors: {why}",
            data.len(),
            metadata.data_len()
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    let about = metadata.metadata().clone().unwrap_or_default();
    Ok(Header { tensors, data_start: 8 + length, metadata: about })
}

/// Why a header was refused, with the tensor and the numbers: the parser's own error knows neither.
fn explain(file: &Path, header: &[u8], refusal: &serde_json::Error) -> Error {
    let broken = |problem: String| Error::Checkpoint { file: file.to_path_buf(), problem };
    let lying = |tensor: &str, found: String, expected: String| Error::Tensor {
        file: file.to_path_buf(),
        tensor: tensor.escape_debug().to_string(),
        found,
        expected,
    };

    let entries: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(header) {
        Ok(entries) => entries,
        Err(error) => return broken(format!("the header is not a JSON object: {error}")),
    };
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        if name == "__metadata__" {
            continue;
        }
        match serde_json::from_value::<TensorInfo>(entry) {
            Ok(info) => tensors.push((name, info)),
            Err(error) => {
                let found = error.to_string().escape_debug().to_string();
                let expected = "dtype, shape and data_offsets as safetensors defines them";
                return lying(&name, found, expected.into());
            }
        }
    }

    tensors.sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let mut free = 0; // where the next tensor has to start
    for (name, info) in &tensors {
        let (start, end) = info.data_offsets;
        if start != free || end < start {
            return lying(
                name,
                format!("data_offsets {start} to {end}"),
                format!("offsets that start at {free}, where the tensor before ends"),
            );
        }
        free = end;
        let bits = (info.shape.iter().copied())
            .try_fold(info.dtype.bitsize(), usize::checked_mul)
            .filter(|bits| bits % 8 == 0);
        let shape = format!("{} {:?}", info.dtype, info.shape);
        match bits {
            None => return lying(name, shape, "a size that is a number of bytes".into()),
            Some(bits) if bits / 8 != end - start => {
                return lying(
                    name,
                    format!("{} bytes at offsets {start} to {end}", end - start),
                    format!("{} bytes for {shape}", bits / 8),
                );
            }
            Some(_) => {}
        }
    }
    broken(format!("the header is not what safetensors defines: {}", refusal.to_string().escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_good_header_is_read() {
        let bytes = file(r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]);
        let header = read_header(Path::new("m"), &bytes).unwrap();
        assert_eq!(header.tensors["a"].shape, [2]);
        assert_eq!(header.data_start, bytes.len() - 4);
    }

    /// Sixteen tensors that end at the last byte a `usize` can name: adding the header's length overflows.
    #[test]
    fn offsets_up_to_the_end_of_the_address_space_are_refused() {
        let step = usize::MAX / 16 + 1;
        let entries: Vec<String> = (0..16)
            .map(|i| {
                let (start, end) = (i * step, i * step + (step - usize::from(i == 15)));
                let size = end - start;
                format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        let bytes = file(&format!("{{{}}}", entries.join(",")), &[]);
        let error = read_header(Path::new("m"), &bytes).unwrap_err();
        assert!(error.to_string().contains("cut short"), "{error}");
    }
}
