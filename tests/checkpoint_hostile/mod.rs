//! For any content of a checkpoint's files, the loader returns the right values or a one-line error, and
//! never panics.

mod corrupted;
mod invalid;
mod tiny;
mod valid;
