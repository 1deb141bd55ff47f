//! Parsing and validation of safetensors headers, with a one-line error for every way a header can be
//! invalid.
//!
//! A file consists of 8 bytes of little-endian header length, that many bytes of JSON, and the data section,
//! which the tensors cover without gap or overlap (<https://github.com/huggingface/safetensors#format>).

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::foreign;
use crate::error::{Error, Result};

/// The format's own limit on the header's length.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The header of one file.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: HashMap<String, TensorInfo>,
    /// The offset of the data section in the file, in bytes.
    pub(super) data_start: usize,
    /// The entries of `__metadata__`.
    pub(super) metadata: HashMap<String, String>,
}

/// Parses and validates the header of `bytes`, the complete content of `file`. On success every tensor's
/// `data_offsets` lie within the data section and agree with its shape and dtype.
///
/// The `safetensors` crate validates the tensors against each other. The file length is checked here and not
/// by its `SafeTensors::read_metadata`, which adds the last offset and the header length without an overflow
/// check, and whose errors contain no names or values.
pub(super) fn read_header(file: &Path, bytes: &[u8]) -> Result<Header> {
    let invalid_file = |problem: String| Error::Checkpoint { file: file.to_path_buf(), problem };
    if bytes.is_empty() {
        return Err(invalid_file("found an empty file, expected a safetensors file".into()));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(invalid_file(format!(
            "found {} bytes, expected at least the 8 of the header length",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(invalid_file(foreign::content(file, bytes).unwrap_or_else(|| {
            format!(
                "found a header length of {length} bytes, expected at most {MAX_HEADER_BYTES}: \
                 not a safetensors file"
            )
        })));
    }
    // At most 10^8, so it fits into any usize.
    let length = length as usize;
    let Some((header, data)) = rest.split_at_checked(length) else {
        return Err(invalid_file(format!(
            "found a header length of {length} bytes, expected at most the {} that follow: \
             the file is truncated",
            rest.len()
        )));
    };

    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| diagnose(file, header, &error))?;
    if metadata.data_len() != data.len() {
        let reason = if metadata.data_len() > data.len() {
            "the file is truncated"
        } else {
            "trailing bytes belong to no tensor"
        };
        return Err(invalid_file(format!(
            "found {} bytes of data, expected the {} of the header's tensors: {reason}",
            data.len(),
            metadata.data_len()
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok(Header { tensors, data_start: 8 + length, metadata })
}

/// Finds the cause of a parse error, with the tensor and the values, which the parser's own error does not
/// contain.
fn diagnose(file: &Path, header: &[u8], parse_error: &serde_json::Error) -> Error {
    let invalid_file = |problem: String| Error::Checkpoint { file: file.to_path_buf(), problem };
    let invalid_tensor = |tensor: &str, found: String, expected: String| Error::Tensor {
        file: file.to_path_buf(),
        tensor: tensor.escape_debug().to_string(),
        found,
        expected,
    };

    let entries: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(header) {
        Ok(entries) => entries,
        Err(error) => return invalid_file(format!("the header is not a JSON object: {error}")),
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
                let expected = "dtype, shape and data_offsets as defined by safetensors";
                return invalid_tensor(&name, found, expected.into());
            }
        }
    }

    tensors.sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let mut next_start = 0; // the required start of the next tensor
    for (name, info) in &tensors {
        let (start, end) = info.data_offsets;
        if start != next_start || end < start {
            return invalid_tensor(
                name,
                format!("data_offsets {start} to {end}"),
                format!("offsets that start at {next_start}, where the previous tensor ends"),
            );
        }
        next_start = end;
        let bits = (info.shape.iter().copied())
            .try_fold(info.dtype.bitsize(), usize::checked_mul)
            .filter(|bits| bits % 8 == 0);
        let shape = format!("{} {:?}", info.dtype, info.shape);
        match bits {
            None => {
                return invalid_tensor(name, shape, "a size in whole bytes that does not overflow".into());
            }
            Some(bits) if bits / 8 != end - start => {
                return invalid_tensor(
                    name,
                    format!("{} bytes at offsets {start} to {end}", end - start),
                    format!("{} bytes for {shape}", bits / 8),
                );
            }
            Some(_) => {}
        }
    }
    invalid_file(format!("the header is not valid safetensors: {}", parse_error.to_string().escape_debug()))
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
    fn valid_header_is_parsed() {
        let bytes = file(r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]);
        let header = read_header(Path::new("m"), &bytes).unwrap();
        assert_eq!(header.tensors["a"].shape, [2]);
        assert_eq!(header.data_start, bytes.len() - 4);
    }

    /// Sixteen tensors that end at `usize::MAX`: adding the header length overflows.
    #[test]
    fn offsets_to_end_of_address_space_are_error() {
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
        assert!(error.to_string().contains("truncated"), "{error}");
    }
}
