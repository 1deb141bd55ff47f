//! # 6. Layer norm: how do the values stay in a useful range?
//!
//! Every block adds to the residual stream, so its rows, as vectors, get longer from block to block. The
//! weight matrices, however, are trained for inputs of a certain length. So each block reads the stream
//! through a *layer norm*: a copy in which every row is normalized to mean 0 and variance 1, and each column
//! is then scaled and shifted by learned parameters. There is one layer norm before attention and one before
//! the MLP.
//!
//! ```text
//! y = (x − mean(x)) / √(var(x) + ε) · weight + bias
//! ```
//!
//! The small constant ε prevents a division by zero. Only the copy is normalized. The stream itself stays as
//! it is, so a late block can still read what the first block wrote. In training, the *gradient*, which says
//! how each weight should change, reaches the first block directly for the same reason.
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
//! // The length of the last token's row before the first block and after each block.
//! let mut lengths: Vec<f32> = vec![];
//! let observer = |site: Site, values: ArrayViewMutD<'_, f32>| {
//!     if matches!(site, Site::ResidPre(0) | Site::ResidPost(_)) {
//!         let last = values.outer_iter().next_back().expect("a token");
//!         lengths.push(last.iter().map(|x| x * x).sum::<f32>().sqrt());
//!     }
//! };
//! Session::observed(fable.model(), 16, None, observer).feed(&ids)?;
//! assert!(lengths[6] > 2.0 * lengths[0]); // it grows
//!
//! // Layer norm gives a row and the same row times 100 the same result.
//! let (ones, zeros) = (vec![1.0; 4], vec![0.0; 4]);
//! let small = layer_norm::reference(&[1.0, 2.0, 3.0, 6.0], &ones, &zeros, 1e-5);
//! let large = layer_norm::reference(&[100.0, 200.0, 300.0, 600.0], &ones, &zeros, 1e-5);
//! assert!(small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-4));
//! assert!(small.iter().sum::<f32>().abs() < 1e-5); // mean 0
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementation is [`layer_norm::reference`](crate::kernels::layer_norm::reference). Its
//! source file is the shortest complete example of how an operation is made fast.
//!
//! Next: [how the last row becomes a prediction](super::lm_head).
