//! The outputs of a batch's shards, put together in the order of the requests.

use super::output::check;
use crate::atomic_file::AtomicFile;
use crate::batch::{BatchRequest, Progress};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write, stdout};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Writes the responses of all outputs to one file, or to standard output for `-`, in the order of the
/// requests, and returns their outcomes. A file appears when it is complete.
///
/// # Errors
/// [`Error::Io`]; [`Error::Message`] if a request has no response or several, or if responses are those of
/// other requests or settings.
pub fn merge(input: &str, requests: &[BatchRequest], outputs: &[PathBuf], to: &Path) -> Result<Progress> {
    let (mut places, progress) = find(input, requests, outputs)?;
    let missing: Vec<&str> = requests
        .iter()
        .map(|request| request.custom_id.as_str())
        .filter(|id| !places.contains_key(*id))
        .collect();
    if let [first, ..] = missing[..] {
        return Err(Error::Message(format!(
            "{input}: {} of {} requests have no response, the first is {first:?}; run their \
             shards to the end",
            missing.len(),
            requests.len(),
        )));
    }
    let mut files = vec![];
    for path in outputs {
        files.push(File::open(path).map_err(io_error(path, "open"))?);
    }
    let mut read = |id: &str| -> Result<Vec<u8>> {
        let Some((file, bytes)) = places.remove(id) else { return Ok(vec![]) };
        let mut line = vec![0; (bytes.end - bytes.start) as usize];
        let read =
            files[file].seek(SeekFrom::Start(bytes.start)).and_then(|_| files[file].read_exact(&mut line));
        read.map(|()| line).map_err(io_error(&outputs[file], "read"))
    };
    let mut write_to = |file: &mut dyn Write, name: &Path| -> Result<()> {
        let mut file = BufWriter::new(file);
        for request in requests {
            file.write_all(&read(&request.custom_id)?).map_err(io_error(name, "write"))?;
        }
        file.flush().map_err(io_error(name, "write"))
    };
    match to == Path::new("-") {
        true => write_to(&mut stdout().lock(), Path::new("standard output"))?,
        false => {
            let file = AtomicFile::create(to)?;
            write_to(&mut file.file(), to)?;
            file.commit()?;
        }
    }
    Ok(progress)
}

/// The output with a response, and its bytes there.
type Place = (usize, Range<u64>);

/// Finds the responses by the ids of their requests.
fn find(
    input: &str,
    requests: &[BatchRequest],
    outputs: &[PathBuf],
) -> Result<(HashMap<String, Place>, Progress)> {
    let by_id: HashMap<&str, &BatchRequest> =
        requests.iter().map(|request| (request.custom_id.as_str(), request)).collect();
    let (mut places, mut all) = (HashMap::new(), Progress::default());
    for (i, path) in outputs.iter().enumerate() {
        let message = |problem: String| Error::Message(format!("{}: {problem}", path.display()));
        let file = File::open(path).map_err(io_error(path, "open"))?;
        let progress = Progress::read(BufReader::new(file), |line, bytes| {
            check(line, input, &by_id)?;
            match places.insert(line.custom_id.clone(), (i, bytes)) {
                None => Ok(()),
                Some((other, _)) => Err(format!(
                    "the request {:?} has a response already, in {}",
                    line.custom_id,
                    outputs[other].display()
                )),
            }
        });
        let progress = progress.map_err(io_error(path, "read"))?.map_err(message)?;
        all.add(progress).map_err(message)?;
    }
    Ok((places, all))
}

fn io_error<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io { path: path.into(), action, source }
}
