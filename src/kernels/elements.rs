//! What weights are made of: f32, f16 or bf16 numbers. Every kernel widens them to f32 as it reads them.

use half::{bf16, f16};

/// Borrowed weights in the precision they are stored in, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// IEEE binary32.
    F32(&'a [f32]),
    /// IEEE binary16.
    F16(&'a [f16]),
    /// bfloat16: the upper half of a binary32.
    Bf16(&'a [bf16]),
}
