//! Resident memory of the process, on Linux.

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
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self { anonymous: field("RssAnon:")?, file: field("RssFile:")? })
    }
}
