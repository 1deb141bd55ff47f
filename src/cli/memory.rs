//! What the process holds in memory, where the system says (Linux).

/// Resident bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Memory of this process alone.
    pub anonymous: u64,
    /// Pages of mapped files, the program's own included.
    pub file: u64,
}

impl Memory {
    /// The memory held now; none where the system does not say.
    pub fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self { anonymous: field("RssAnon:")?, file: field("RssFile:")? })
    }
}
