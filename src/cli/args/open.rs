//! Opens what the options name: threads and models.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::adapter::Adapter;
use crate::kernels::isa::Isa;
use crate::kernels::thread_pool::{MAX_THREADS, ThreadPool};
use crate::model::Precision;
use crate::tokenizer::Tokenizer;
use crate::{Error, Hornbook, Result};
use std::num::NonZeroUsize;
use std::path::Path;

/// A pool of `threads`, or of one per core, with the instruction set in use.
pub fn thread_pool(threads: Option<NonZeroUsize>) -> Result<ThreadPool> {
    let threads = threads.map_or(0, NonZeroUsize::get);
    check_threads(threads)?;
    Ok(ThreadPool::new(threads, Isa::choose()?))
}

pub fn check_threads(threads: usize) -> Result<()> {
    match threads <= MAX_THREADS {
        true => Ok(()),
        false => Err(Error::Parameter {
            name: "--threads".into(),
            found: threads.to_string(),
            expected: format!("at most {MAX_THREADS}"),
        }),
    }
}

/// Opens a model, and prints notes on files that disagree with each other.
pub fn open_checkpoint(model: &str) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(model)?;
    for note in &checkpoint.notes {
        stderr_line!("hornbook: {note}");
    }
    Ok(checkpoint)
}

/// Opens a model to run it, and prints notes on its files.
pub fn open_hornbook(model: &str, pool: ThreadPool, precision: Option<Precision>) -> Result<Hornbook> {
    let hornbook = Hornbook::with_precision(open_checkpoint(model)?, pool, precision)?;
    let special = hornbook.try_tokenizer().map(Tokenizer::special_tokens);
    print_tokenizer_problems(special.map_or(&[], |special| &special.problems));
    Ok(hornbook)
}

/// The model with the adapter in a folder, if there is one.
pub fn with_adapter(hornbook: Hornbook, folder: Option<&Path>) -> Result<Hornbook> {
    match folder {
        Some(folder) => {
            let adapter = Adapter::open(folder, hornbook.config())?;
            hornbook.with_adapter(&adapter)
        }
        None => Ok(hornbook),
    }
}

/// Prints notes on parts of the tokenizer's files that cannot be read and are not used.
pub fn print_tokenizer_problems(problems: &[Error]) {
    for problem in problems {
        stderr_line!("hornbook: {problem}; not used");
    }
}
