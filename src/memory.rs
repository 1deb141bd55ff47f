//! Memory of the process and of the machine, on Linux.

use crate::{Error, Result};
use std::fs::read_to_string;
use std::path::Path;

/// Resident bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Anonymous memory: heap and stacks.
    pub anonymous: u64,
    /// Resident pages of mapped files, those of the executable included.
    pub file: u64,
}

impl Memory {
    /// The memory resident now; `None` where the system does not report it.
    pub fn now() -> Option<Self> {
        let status = read_to_string("/proc/self/status").ok()?;
        Some(Self { anonymous: kib_field(&status, "RssAnon:")?, file: kib_field(&status, "RssFile:")? })
    }
}

/// Checks that the memory an option asks for, a product of sizes in bytes, can be allocated.
///
/// # Errors
/// [`Error::Parameter`] if it cannot.
pub fn check(option: &str, value: &str, sizes: &[usize]) -> Result<()> {
    let bytes = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let available = available();
    if bytes.is_some_and(|bytes| bytes as u64 <= available) {
        return Ok(());
    }
    let needed =
        bytes.map_or_else(|| "more bytes than a computer has".into(), |bytes| gigabytes(bytes as u64));
    Err(Error::Parameter {
        name: option.into(),
        found: format!("{value}, which takes {needed}"),
        expected: format!("at most the {} of free memory", gigabytes(available)),
    })
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// The bytes that can still be allocated: what is free on the machine, in the container and under the limit
/// of the process. Where the system reports none, the size of the address space.
pub fn available() -> u64 {
    let read = |path: &str| read_to_string(path).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let machine = kib_field(&read("/proc/meminfo"), "MemAvailable:");
    let container = || {
        let groups = read("/proc/self/cgroup");
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let file = |name: &str| {
            let own = Path::new("/sys/fs/cgroup").join(group).join(name);
            number(&read_to_string(own).unwrap_or_else(|_| read(&format!("/sys/fs/cgroup/{name}"))))
        };
        Some(file("memory.max")?.saturating_sub(file("memory.current")?))
    };
    let process = || {
        let limits = read("/proc/self/limits");
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
        let limit = number(limit.split_whitespace().next()?)?;
        Some(limit.saturating_sub(kib_field(&read("/proc/self/status"), "VmSize:")?))
    };
    [machine, container(), process()].into_iter().flatten().min().unwrap_or(i64::MAX as u64)
}

/// A field of a file in `/proc`, in bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn memory_that_no_machine_has_is_refused() {
        assert!(check("--repeat", "3", &[3, 8]).is_ok());
        let error = check("--beams", "20000", &[usize::MAX]).unwrap_err().to_string();
        assert!(error.starts_with("--beams: found 20000, which takes 18446744073.7 GB, expected at most"));
        let error = check("--beams", "20000", &[usize::MAX, 2]).unwrap_err().to_string();
        assert!(error.contains("more bytes than a computer has"), "{error}");
    }
}
