//! # 6. Layer norm: what keeps the numbers in bounds on the way?
//!
//! Every block adds to the residual stream, so its rows grow longer from block to block. Matrices that were made for
//! numbers of one size would be fed numbers of another. So before attention and before the MLP each block takes a copy of
//! the rows in which every row has the mean 0 and the variance 1, then scales and shifts each column as learned.
//!
//! ```text
//! y = (x − mean(x)) / √(var(x) + ε) · weight + bias
//! ```
//!
//! Only the copy is normalised; the stream itself goes on as it was, which is how a block far down can still read what
//! the first one wrote, and how training can reach the first one from the end.
//!
//! ```
//! use hornbook::kernels::layer_norm;
//! use hornbook::model::{Session, Site};
//! use hornbook::Hornbook;
//! use ndarray::ArrayViewMutD;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("Once upon a time there was a king")?;
//!
//! // How long the last token's row is when each block is done with it.
//! let mut lengths: Vec<f32> = vec![];
//! let look = |site: Site, values: ArrayViewMutD<'_, f32>| {
//!     if matches!(site, Site::ResidPre(0) | Site::ResidPost(_)) {
//!         let last = values.outer_iter().next_back().expect("a token");
//!         lengths.push(last.iter().map(|x| x * x).sum::<f32>().sqrt());
//!     }
//! };
//! Session::observed(fable.model(), 16, None, look).feed(&ids)?;
//! assert!(lengths[6] > 2.0 * lengths[0]); // it grows
//!
//! // Layer norm brings any row back to the same size: here one, and a hundred times as much.
//! let (ones, zeros) = (vec![1.0; 4], vec![0.0; 4]);
//! let small = layer_norm::reference(&[1.0, 2.0, 3.0, 6.0], &ones, &zeros, 1e-5);
//! let large = layer_norm::reference(&[100.0, 200.0, 300.0, 600.0], &ones, &zeros, 1e-5);
//! assert!(small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-4));
//! assert!(small.iter().sum::<f32>().abs() < 1e-5); // mean 0
//! # Ok(())
//! # }
//! ```
//!
//! The textbook form is [`layer_norm::reference`](crate::kernels::layer_norm::reference); its file is the shortest whole
//! example of how an operation is made fast.
//!
//! Next: [how numbers become a prediction](super::head).
