//! The fingerprint of a run's settings, by which a resumed run recognizes the responses of an earlier one.

use crate::batch::fingerprint;
use crate::checkpoint::adapter::Adapter;
use crate::model::Session;
use crate::server::ServerOptions;
use crate::{Error, Hornbook, Result};
use std::path::PathBuf;

/// Number of tokens whose last logits stand for a model.
const PROBE_LEN: usize = 8;

/// Returns the fingerprint of all but the request that a response depends on: the models with their
/// precision, the adapters, and the chat template.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub fn settings_fingerprint(models: &[Hornbook], options: &ServerOptions) -> Result<String> {
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
    Ok(fingerprint::of_parts(parts.iter().map(Vec::as_slice)))
}
