//! Fingerprints: half of a response's id is its request's, and half is that of what else it depends on.

use super::requests::BatchRequest;
use sha2::{Digest, Sha256};

/// Length of a fingerprint in characters.
pub const LEN: usize = 16;

/// Returns the fingerprint of a request: its endpoint, custom id and body.
pub fn of_request(request: &BatchRequest) -> String {
    of_parts([request.custom_id.as_bytes(), request.endpoint.as_bytes(), request.body.as_bytes()])
}

/// Returns the fingerprint of anything: 64 bits of a digest, in hexadecimal.
pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..LEN / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}
