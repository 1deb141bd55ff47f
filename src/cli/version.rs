//! `hornbook --version`: the version, the commit and the instruction set.

use crate::kernels::isa::Isa;

/// `0.1.0 (9fefcf3a1b2c, avx2)`: the version, the commit if known, and the instruction set in use.
pub fn version() -> String {
    let isa = Isa::choose().map_or("no instruction set", Isa::name);
    let commit = match env!("HORNBOOK_COMMIT") {
        "" => String::new(),
        commit => format!("{commit}, "),
    };
    format!("{} ({commit}{isa})", env!("CARGO_PKG_VERSION"))
}
