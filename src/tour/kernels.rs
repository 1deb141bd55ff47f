//! # 10. Kernels: how are the operations made fast without changing the result?
//!
//! The reference implementation of every operation is a few lines long, and about a hundred times slower than
//! it could be. The fast implementations, the *kernels*, do the same additions and multiplications. They
//! change where the data is held and how many values are processed at once:
//!
//! * **SIMD**: one instruction processes up to sixteen values ([`simd`](crate::kernels::simd)). The
//!   instruction set is chosen at run time ([`isa`](crate::kernels::isa)).
//! * **Register tiling**: a block of the result stays in registers while the inputs are read, so each value
//!   that is loaded is used many times ([`linear`](crate::kernels::linear)).
//! * **Fusion**: attention is computed without storing its score matrix
//!   ([`attention`](crate::kernels::attention)).
//! * **Threads**: the outputs of an operation are split among threads
//!   ([`thread_pool`](crate::kernels::thread_pool)).
//!
//! Floating-point numbers are rounded after every operation, so (a + b) + c may differ from a + (b + c). Most
//! fast programs therefore give slightly different results on another machine, with other threads, or in
//! another batch. In Hornbook the order of every sum is fixed by the shape of the operation. A linear layer
//! splits its inputs into blocks of a few hundred, the *K-blocks*. The partial sum of a K-block is one chain
//! of fused multiply-adds (FMA), and the partial sums are added in order, whichever threads computed them:
//!
//! ```text
//! p[0] = ((x[0] · W[0, j] + x[1] · W[1, j]) + x[2] · W[2, j]) + …        the first K-block, on one thread
//! y[j] = (p[0] + p[1] + …) + b[j]
//! ```
//!
//! The number of threads, the batch size, the length of the chunks in which a prompt is processed, and the
//! vector width only decide where and when a sum is computed. So the same seed gives the same text on every
//! machine (with one exception: `bf16-dot` on Intel's AMX), and a test can compare a kernel with its
//! reference.
//!
//! ```
//! use hornbook::checkpoint::Checkpoint;
//! use hornbook::kernels::isa::Isa;
//! use hornbook::kernels::softmax;
//! use hornbook::kernels::thread_pool::ThreadPool;
//! use hornbook::model::{Model, Session};
//! # fn main() -> hornbook::Result<()> {
//! // The portable code on one thread and the best instruction set on three threads give the same bits.
//! let logits = |threads: usize, isa: Isa| -> hornbook::Result<Vec<f32>> {
//!     let model = Model::new(Checkpoint::open("fable")?, ThreadPool::new(threads, isa));
//!     let mut session = Session::new(&model, 8, None);
//!     Ok(session.feed(&[401, 17, 3000, 256, 9])?.to_vec())
//! };
//! assert_eq!(logits(1, Isa::Portable)?, logits(3, Isa::available()[0])?);
//!
//! // A kernel and its reference implementation.
//! let scores = [0.5, -1.0, 3.0, 2.0, 2.0];
//! let mut fast = scores;
//! softmax::softmax(Isa::available()[0], &mut fast);
//! assert!(fast.iter().zip(softmax::reference(&scores)).all(|(a, b)| (a - b).abs() < 1e-6));
//! # Ok(())
//! # }
//! ```
//!
//! [`kernels`](crate::kernels) lists all operations; read [`layer_norm`](crate::kernels::layer_norm) first.
//! In a terminal: `hornbook bench` measures the kernels and compares them with the limits of the machine.
//!
//! This is the end of the tour. [`model::reference`](crate::model::reference) puts the reference
//! implementations together to a whole GPT-2, [`model`](crate::model) the kernels.
