//! # 10. Kernels: how is all of it made fast without changing a bit?
//!
//! Every operation of this tour is a few lines in its textbook form, and would take a hundred times as long in it. The
//! fast forms, the *kernels*, do the same additions and multiplications; what they change is where the numbers wait and
//! how many are worked on at once:
//!
//! * **vectors**: sixteen numbers in one instruction ([`simd`](crate::kernels::simd)), chosen when the program runs
//!   ([`isa`](crate::kernels::isa));
//! * **tiles**: a block of the result is kept in registers while its inputs stream by, so that each number that was
//!   fetched is used many times ([`linear`](crate::kernels::linear));
//! * **never storing what can be used at once**: attention without its score matrix
//!   ([`attention`](crate::kernels::attention));
//! * **threads** that share the outputs of an operation ([`thread_pool`](crate::kernels::thread_pool)).
//!
//! There is a catch. Numbers in a computer are rounded at every step, so (a + b) + c need not be a + (b + c), and most
//! fast programs give another result on another machine, with other threads, or in other company. Here every output is
//! computed by one thread in one order of additions that the formula fixes:
//!
//! ```text
//! y[j] = ((x[0] · W[0, j] + x[1] · W[1, j]) + x[2] · W[2, j]) + …      each step one fused multiply-add
//! ```
//!
//! Threads, batches, chunks and vector widths decide only who computes what and when. So the same seed tells the same
//! story everywhere, and a fast form can be held to its textbook by a test.
//!
//! ```
//! use hornbook::checkpoint::Checkpoint;
//! use hornbook::kernels::isa::Isa;
//! use hornbook::kernels::softmax;
//! use hornbook::kernels::thread_pool::ThreadPool;
//! use hornbook::model::{Model, Session};
//! # fn main() -> hornbook::Result<()> {
//! // The same bits from plain Rust on one thread, and from the best instructions on three.
//! let logits = |threads: usize, isa: Isa| -> hornbook::Result<Vec<f32>> {
//!     let model = Model::new(Checkpoint::open("fable")?, ThreadPool::new(threads, isa));
//!     let mut session = Session::new(&model, 8, None);
//!     Ok(session.feed(&[401, 17, 3000, 256, 9])?.to_vec())
//! };
//! assert_eq!(logits(1, Isa::Portable)?, logits(3, Isa::available()[0])?);
//!
//! // A fast form beside its textbook.
//! let scores = [0.5, -1.0, 3.0, 2.0, 2.0];
//! let mut fast = scores;
//! softmax::softmax(Isa::available()[0], &mut fast);
//! assert!(fast.iter().zip(softmax::reference(&scores)).all(|(a, b)| (a - b).abs() < 1e-6));
//! # Ok(())
//! # }
//! ```
//!
//! [`kernels`](crate::kernels) lists them all; [`layer_norm`](crate::kernels::layer_norm) is the one to read first.
//! `hornbook bench` measures them beside what this machine allows.
//!
//! This is the end of the tour. [`model`](crate::model) puts the pieces together in one file.
