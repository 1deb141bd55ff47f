//! The command line: parse, run, say what went wrong in one line.

use clap::Parser;
use hornbook::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hornbook: {error}");
            ExitCode::FAILURE
        }
    }
}
