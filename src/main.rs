//! The program `hornbook`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hornbook::cli::main(std::env::args_os())
}
