//! The command line: parses the arguments, runs the command and reports an error in one line.

use hornbook::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            cli::report_error(&error);
            cli::exit_code(&error)
        }
    }
}
