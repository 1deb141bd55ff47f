//! The references under tests/data, as scripts/make_reference.py writes them.

use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// A folder under tests/data.
pub fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// The tiny checkpoints with a reference.
pub fn folders() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(data(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| data(name).join("reference.safetensors").exists())
        .collect();
    all.sort();
    assert!(all.len() >= 11, "references are missing: found {all:?}");
    all
}

/// The values computed by PyTorch for one checkpoint.
pub struct Reference(Vec<u8>);

impl Reference {
    pub fn read(folder: &str) -> Self {
        Self::from_file(folder, "reference.safetensors")
    }

    pub fn from_file(folder: &str, file: &str) -> Self {
        Self::from_path(&data(folder).join(file))
    }

    pub fn from_path(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    /// The reference written by scripts/make_parts_reference.py.
    pub fn parts(folder: &str) -> Self {
        Self(std::fs::read(data(folder).join("parts.safetensors")).unwrap())
    }

    /// The names of the tensors that start with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().filter(|name| name.starts_with(prefix)).map(str::to_string).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }

    /// The token ids.
    pub fn ids(&self) -> Vec<u32> {
        self.integers("input_ids")
    }

    /// The integers of the tensor `name`.
    pub fn integers(&self, name: &str) -> Vec<u32> {
        let to_u32 = |id: &[u8; 8]| u32::try_from(i64::from_le_bytes(*id)).unwrap();
        self.bytes(name).as_chunks().0.iter().map(to_u32).collect()
    }

    /// The values of the tensor `name`.
    pub fn values(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    }

    /// The values of the tensor `name`, in double precision.
    pub fn doubles(&self, name: &str) -> Vec<f64> {
        self.bytes(name).as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect()
    }

    /// Asserts that `found` equals the tensor `name`, up to `tolerance` times its largest absolute value.
    pub fn assert_close(&self, name: &str, found: &[f32], tolerance: f32, context: &str) {
        let expected = self.values(name);
        assert_eq!(found.len(), expected.len(), "{context}: {name}");
        let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert!((f - e).abs() <= tolerance * largest, "{context}: {name}[{i}]: found {f}, expected {e}");
        }
    }
}
