//! One file, until it is in the cache and right.
//!
//! `hf-hub` goes on behind what an earlier run left in `blobs/ETAG.part`, and gives the file its name when it is whole.
//! It trusts what comes; here is looked at the size and, where the hub announces one, the SHA-256 of what is there.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiError};
use hf_hub::{Cache, Repo};
use sha2::{Digest, Sha256};

use super::errors::of_disk;
use super::is_plain;
use super::model_info::Remote;

/// Times a file is fetched that turns out wrong, where a part of it was from an earlier request.
const ROUNDS: u32 = 3;
/// Attempts in a row that bring nothing.
const ATTEMPTS: u32 = 5;
/// Waited before the second attempt, and twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(250);

/// From where to where files are brought.
pub(super) struct Transfer {
    pub(super) api: Api,
    /// The repository at the commit.
    pub(super) repo: Repo,
    pub(super) cache: Cache,
    pub(super) patience: Duration,
}

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum Problem {
    /// The hub's client gave up.
    Refused(ApiError),
    /// The hub says something else of the file than its listing did.
    Changed(String),
    /// The cache could not be read or cleaned up.
    Disk(std::io::Error),
    /// Nothing came for so many seconds.
    Silent(u64),
    /// It came and is not what was announced.
    Wrong { found: String, expected: String },
}

/// What the thread that downloads says.
enum Tick {
    /// A request begins to answer; so many bytes of the file are here.
    Start,
    Bytes(u64),
}

/// What a request brought, or several.
struct New {
    bytes: u64,
    /// The last one began at the file's start.
    whole: bool,
}

struct Ticker(Sender<Tick>);

impl hf_hub::api::Progress for Ticker {
    fn init(&mut self, _: usize, _: &str) {
        let _ = self.0.send(Tick::Start); // nobody listens any more where the wait was given up
    }

    fn update(&mut self, bytes: usize) {
        let _ = self.0.send(Tick::Bytes(bytes as u64));
    }

    fn finish(&mut self) {}
}

impl Transfer {
    /// Sees to it that a file is there and right. `told` hears how much of it is; returned is how much came.
    pub(super) fn run(&self, file: &Remote, mut told: impl FnMut(u64)) -> Result<u64, Problem> {
        let pointer = self.cache.repo(self.repo.clone()).pointer_path(self.repo.revision()).join(&file.name);
        let (mut came, mut problem) = (0, None);
        for _ in 0..ROUNDS {
            let mut whole = false;
            if !pointer.exists() {
                let new = self.fetch(file, &pointer, &mut told)?;
                (came, whole) = (came + new.bytes, new.whole);
            }
            problem = wrong(file, &pointer).map_err(Problem::Disk)?;
            if problem.is_none() {
                told(file.size);
                return Ok(came);
            }
            discard(&pointer).map_err(Problem::Disk)?;
            if whole {
                break;
            }
        }
        Err(problem.expect("the last round's"))
    }

    /// Downloads it, again and again as long as something comes.
    fn fetch(&self, file: &Remote, pointer: &Path, told: &mut impl FnMut(u64)) -> Result<New, Problem> {
        if pointer.is_symlink() {
            std::fs::remove_file(pointer).map_err(Problem::Disk)?; // it leads nowhere
        }
        let (mut came, mut failures) = (0, 0);
        loop {
            let (ticks, listener) = channel();
            let (api, repo, cache, file_) =
                (self.api.clone(), self.repo.clone(), self.cache.clone(), file.clone());
            let thread = thread::spawn(move || attempt(&api, &repo, &cache, &file_, Ticker(ticks)));
            let new = self.listen(&listener, |here| told(here.min(file.size)))?;
            came += new.bytes;
            let problem = match thread.join() {
                Ok(Ok(())) => return Ok(New { bytes: came, whole: new.whole }),
                Ok(Err(problem)) => problem,
                Err(_) => Problem::Changed("what came cannot be understood".into()),
            };
            failures = if new.bytes > 0 { 1 } else { failures + 1 };
            if failures >= ATTEMPTS || !may_pass(&problem) {
                return Err(problem);
            }
            thread::sleep(PAUSE * 2u32.pow(failures - 1));
        }
    }

    /// Passes on what the download says until it ends; how many bytes came. The first of each request are those that
    /// were here before.
    fn listen(&self, ticks: &Receiver<Tick>, mut told: impl FnMut(u64)) -> Result<New, Problem> {
        let (mut here, mut before) = (0, None);
        loop {
            match ticks.recv_timeout(self.patience) {
                Ok(Tick::Start) => (here, before) = (0, None),
                Ok(Tick::Bytes(bytes)) => {
                    here += bytes;
                    before.get_or_insert(bytes);
                    told(here);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let before = before.unwrap_or(0);
                    return Ok(New { bytes: here - before, whole: before == 0 });
                }
                // The thread is left behind, and ends with the program.
                Err(RecvTimeoutError::Timeout) => return Err(Problem::Silent(self.patience.as_secs())),
            }
        }
    }
}

/// One attempt, behind what is there already.
fn attempt(api: &Api, repo: &Repo, cache: &Cache, file: &Remote, ticker: Ticker) -> Result<(), Problem> {
    let source = api.repo(repo.clone());
    let announced = api.metadata(&source.url(&file.name)).map_err(Problem::Refused)?;
    if !is_plain(announced.etag()) || announced.commit_hash() != repo.revision() {
        let found = format!("commit {:?}, ETag {:?}", announced.commit_hash(), announced.etag());
        return Err(Problem::Changed(found));
    }
    if announced.size() as u64 != file.size {
        return Err(Problem::Changed(format!("{} bytes, {} in the list", announced.size(), file.size)));
    }
    let part = cache.repo(repo.clone()).blob_path(announced.etag()).with_extension("part");
    shorten(&part, file.size).map_err(Problem::Disk)?;
    source.download_with_progress(&file.name, ticker).map(drop).map_err(Problem::Refused)
}

/// Makes what an earlier run left shorter than the file: the hub is asked for what comes behind it, and has no answer
/// where that is nothing.
fn shorten(part: &Path, size: u64) -> std::io::Result<()> {
    match std::fs::metadata(part) {
        Ok(here) if here.len() > size => std::fs::remove_file(part),
        Ok(here) if here.len() == size && size > 0 => {
            std::fs::OpenOptions::new().write(true).open(part)?.set_len(size - 1)
        }
        _ => Ok(()),
    }
}

/// What is wrong with the file that is there.
fn wrong(file: &Remote, path: &Path) -> std::io::Result<Option<Problem>> {
    let mut opened = File::open(path)?;
    let size = opened.metadata()?.len();
    if size != file.size {
        let (found, expected) = (format!("{size} bytes"), format!("{} bytes", file.size));
        return Ok(Some(Problem::Wrong { found, expected }));
    }
    let Some(expected) = &file.sha256 else { return Ok(None) };
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match opened.read(&mut piece)? {
            0 => break,
            n => hash.update(&piece[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let of = |hash: &str| format!("SHA-256 {hash}");
    Ok((found != *expected).then(|| Problem::Wrong { found: of(&found), expected: of(expected) }))
}

/// Removes a file, and the blob it is a link to.
fn discard(pointer: &Path) -> std::io::Result<()> {
    let blob = pointer.canonicalize()?;
    std::fs::remove_file(pointer)?;
    if blob.exists() { std::fs::remove_file(blob) } else { Ok(()) }
}

/// Whether another attempt may go better.
fn may_pass(problem: &Problem) -> bool {
    match problem {
        Problem::Refused(ApiError::RequestError(error)) => match &**error {
            ureq::Error::StatusCode(status) => *status == 429 || *status >= 500,
            ureq::Error::Io(error) => !of_disk(error),
            _ => true,
        },
        Problem::Refused(ApiError::IoError(error)) => !of_disk(error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_run_is_shorter_than_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("x.part");
        shorten(&part, 5).unwrap();
        for (before, after) in [("1234", Some(4)), ("12345", Some(4)), ("123456", None)] {
            std::fs::write(&part, before).unwrap();
            shorten(&part, 5).unwrap();
            assert_eq!(std::fs::metadata(&part).ok().map(|here| here.len()), after);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_wrong_file_goes_with_its_blob() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, pointer) = (folder.path().join("blob"), folder.path().join("pointer"));
        std::fs::write(&blob, "abc").unwrap();
        std::os::unix::fs::symlink("blob", &pointer).unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let file = |size, sha256: &str| Remote { name: "f".into(), size, sha256: Some(sha256.into()) };
        assert!(wrong(&file(3, hash), &pointer).unwrap().is_none());
        assert!(matches!(wrong(&file(4, hash), &pointer).unwrap(), Some(Problem::Wrong { .. })));
        assert!(matches!(
            wrong(&file(3, &hash.replace('b', "c")), &pointer).unwrap(),
            Some(Problem::Wrong { .. })
        ));
        discard(&pointer).unwrap();
        assert!(!blob.exists() && !pointer.is_symlink());
    }
}
