//! Fingerprints, by which a resumed run recognizes the responses of an earlier one: each is half of a
//! response's id.

use super::input::BatchRequest;
use crate::checkpoint::adapter::Adapter;
use crate::model::Session;
use crate::server::ServerOptions;
use crate::{Error, Hornbook, Result};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Number of tokens whose last logits stand for a model.
const PROBE_LEN: usize = 8;

/// Returns the fingerprint of a request: its endpoint, custom id and body.
pub fn of_request(request: &BatchRequest) -> String {
    digest([request.custom_id.as_bytes(), request.url.path().as_bytes(), request.body.as_bytes()])
}

/// Returns the fingerprint of all else that a response depends on: the models with their precision, the
/// adapters, and the chat template.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub fn of_settings(models: &[Hornbook], options: &ServerOptions) -> Result<String> {
    let mut parts: Vec<Vec<u8>> = vec![];
    for hornbook in models {
        // Logits depend on nearly every weight, and their bits on precision and arithmetic.
        let config = hornbook.config();
        let len = PROBE_LEN.min(config.n_positions).min(config.vocab_size);
        let mut session = Session::new(hornbook.model(), len, options.engine.kv_precision);
        let logits = session.feed(&(0..len as u32).collect::<Vec<u32>>())?;
        parts.push(logits.iter().flat_map(|logit| logit.to_bits().to_le_bytes()).collect());
        // With several models, names choose between them.
        parts.extend((models.len() > 1).then(|| hornbook.name().as_bytes().to_vec()));
    }
    let mut files: Vec<PathBuf> = options.chat_template.iter().cloned().collect();
    for (name, folder) in &options.adapters {
        parts.push(name.as_bytes().to_vec());
        files.extend(Adapter::FILES.map(|file| folder.join(file)));
    }
    for path in files {
        let read = std::fs::read(&path);
        parts.push(read.map_err(|source| Error::Io { path, action: "read", source })?);
    }
    Ok(digest(parts.iter().map(Vec::as_slice)))
}

/// Returns 64 bits of a digest, in hexadecimal.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
