//! The answer to the deletion of an object.

use serde::Serialize;
use utoipa::ToSchema;

/// The answer to the deletion of an object.
#[derive(Serialize, ToSchema)]
pub struct Deleted {
    id: String,
    /// Type of the object, such as `file`.
    object: &'static str,
    /// Always true.
    deleted: bool,
}

impl Deleted {
    /// The object with this id is deleted.
    pub fn new(object: &'static str, id: String) -> Self {
        Self { id, object, deleted: true }
    }
}
