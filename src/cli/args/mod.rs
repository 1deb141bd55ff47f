//! Options that several subcommands share, and the settings that are their defaults.

pub mod draft;
pub mod engine;
pub mod interventions;
pub mod model;
pub mod open;
pub mod output_folder;
pub mod prompt;
pub mod sampling;
pub mod settings;
pub mod synonyms;
pub mod usage_error;
pub mod values;
