//! # 2. Embedding: what does the model know a token as?
//!
//! A token's number says nothing about it: 1200 is not more than 600. So the number only picks a row out of a table,
//! and that row, a few hundred numbers, is what the model works with from here on. The table `wte` is learned like every
//! other weight, and training moves the rows of tokens that are used alike towards each other: directions in this space
//! come to stand for properties of words.
//!
//! ```text
//! x[t] = wte[id[t]]          wte is [vocab_size, n_embd]
//! ```
//!
//! How alike are two rows? The cosine of the angle between them says it: their product, over their lengths; 1 for the
//! same direction, about 0 for two directions that have nothing to do with each other.
//!
//! ```
//! use hornbook::model::{Session, Site};
//! use hornbook::Hornbook;
//! use ndarray::ArrayViewMutD;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode(" king queen prince of the")?;
//!
//! let mut rows: Vec<Vec<f32>> = vec![]; // what the model has for them, before anything else happens
//! let look = |site: Site, values: ArrayViewMutD<'_, f32>| {
//!     if site == Site::Embed {
//!         rows = values.outer_iter().map(|row| row.iter().copied().collect()).collect();
//!     }
//! };
//! Session::observed(fable.model(), 8, None, look).feed(&ids)?;
//! assert_eq!((rows.len(), rows[0].len()), (5, 256)); // 5 tokens, 256 numbers each
//!
//! let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
//! let alike = |i: usize, j: usize| dot(&rows[i], &rows[j]) / (dot(&rows[i], &rows[i]) * dot(&rows[j], &rows[j])).sqrt();
//! assert!(alike(0, 2) > 3.0 * alike(0, 3).max(0.0)); // a king is like a prince, not like "of"
//! # Ok(())
//! # }
//! ```
//!
//! The lines above use an *observer*: a function that is shown the numbers at every named place of the pass
//! ([`Observer`](crate::model::Observer), [`Site`](crate::model::Site)). The code that reads the table is
//! [`copy_row`](crate::kernels::embedding::copy_row).
//!
//! From here on a token is a row, a text of n tokens a matrix `[n, n_embd]`, and everything that follows *adds* to
//! this matrix. It is called the *residual stream*.
//!
//! Next: [how the model knows which token comes first](super::positions).
