//! The analyses that pages look at: as many of the newest as fit.

use super::analysis::Analysis;
use crate::server::error::ApiError;
use crate::server::middleware::random_id;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum bytes of all analyses; the newest is kept even if it takes more.
const MAX_BYTES: usize = 256 << 20;
/// Maximum number of analyses.
const MAX_ANALYSES: usize = 16;

/// The newest analyses.
#[derive(Default)]
pub struct RecentAnalyses(Mutex<VecDeque<Kept>>);

struct Kept {
    id: String,
    /// The name of the key that it belongs to; empty without keys.
    owner: String,
    analysis: Arc<Analysis>,
}

impl RecentAnalyses {
    /// A new id.
    pub fn new_id(&self) -> String {
        format!("lens-{}", random_id())
    }

    /// Keeps an analysis, and no older ones that do not fit beside it.
    pub fn insert(&self, id: String, owner: String, analysis: Analysis) {
        let mut kept = self.kept();
        kept.push_front(Kept { id, owner, analysis: Arc::new(analysis) });
        let mut bytes = 0;
        let fits = |kept: &Kept| {
            bytes += kept.analysis.bytes();
            bytes <= MAX_BYTES
        };
        let fitting = kept.iter().map(fits).take_while(|&fits| fits).count();
        kept.truncate(fitting.clamp(1, MAX_ANALYSES));
    }

    /// Returns an analysis.
    ///
    /// # Errors
    /// 404 if it is another key's, or no longer kept.
    pub fn get(&self, owner: &str, id: &str) -> Result<Arc<Analysis>, ApiError> {
        let kept = self.kept();
        let found = kept.iter().find(|kept| kept.id == id && kept.owner == owner);
        found.map(|kept| Arc::clone(&kept.analysis)).ok_or_else(|| ApiError::no_such_object("analysis", id))
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
