//! The files that `hornbook quantize` writes.
//!
//! Such a file is ordinary safetensors. It stores a matrix `NAME` of `[in, out]` weights as the tensors of
//! its format, which are used from the memory map without a copy ([`Int8`](crate::kernels::formats::Int8) and
//! [`Int4`](crate::kernels::formats::Int4) document the dimensions; `out / 32` and `in / 64` are rounded up):
//!
//! ```text
//! NAME.int8    U8   [out / 32, in / 64, 16, 2, 16, 4]    NAME.scale    F32  [out]
//! NAME.int4    U8   [out / 32, in / 64, 8, 2, 16, 4]     NAME.scale    F16  [out / 32, in / 64, 2, 2, 16]
//! ```
//!
//! The LM head is `lm_head.weight.int8`, `[n_embd, vocab_size]`, in both precisions; embeddings, biases and
//! layer norms are copied from the original. `__metadata__` contains `"hornbook.layout": "1"`, and
//! `config.json` is the original's.

/// The metadata key and value of a quantized file.
pub(super) const LAYOUT: (&str, &str) = ("hornbook.layout", "1");
