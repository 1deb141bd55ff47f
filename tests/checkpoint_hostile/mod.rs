//! Whatever a checkpoint's files hold, the loader gives the right numbers or one clear line, and never panics.

mod corrupted;
mod invalid;
mod tiny;
mod valid;
