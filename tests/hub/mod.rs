//! `hornbook pull` against a server on this machine that answers as the Hugging Face hub does, and as it should not.

mod errors;
mod fake;
mod faults;
mod pull;
