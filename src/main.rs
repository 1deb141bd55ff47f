//! The command line: parse, run, say what went wrong in one line.

use clap::Parser;
use hornbook::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hornbook: {error}");
            ExitCode::FAILURE
        }
    }
}
