//! Whatever a checkpoint's files hold, the loader gives the right numbers or one clear line, and never panics.

mod accepted;
mod damaged;
mod refused;
mod tiny;
