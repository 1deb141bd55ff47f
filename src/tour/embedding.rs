//! # 2. Embedding: which vector stands for a token?
//!
//! A token id is only an index, and its size means nothing. The model therefore looks the id up in a table,
//! `wte` (*word token embeddings*), which has one row per token of the vocabulary. The row is a vector of
//! `n_embd` values, the token's *embedding*. The table is learned, like all weights. During training, tokens
//! that are used in similar ways get similar embeddings, so directions in this space come to represent
//! properties of words.
//!
//! ```text
//! x[t] = wte[id[t]]          wte is [vocab_size, n_embd]
//! ```
//!
//! *Cosine similarity* measures how similar two vectors are: their dot product divided by the product of
//! their lengths. It is 1 for vectors with the same direction and about 0 for unrelated vectors.
//!
//! ```
//! use hornbook::model::{Session, Site};
//! use hornbook::Hornbook;
//! use ndarray::ArrayViewMutD;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode(" king queen prince of the")?;
//!
//! let mut rows: Vec<Vec<f32>> = vec![]; // the embeddings of the five tokens
//! let observer = |site: Site, values: ArrayViewMutD<'_, f32>| {
//!     if site == Site::Embed {
//!         rows = values.outer_iter().map(|row| row.iter().copied().collect()).collect();
//!     }
//! };
//! Session::observed(fable.model(), 8, None, observer).feed(&ids)?;
//! assert_eq!((rows.len(), rows[0].len()), (5, 256)); // 5 tokens, 256 values each
//!
//! let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
//! let norm = |i: usize| dot(&rows[i], &rows[i]).sqrt();
//! let cosine = |i: usize, j: usize| dot(&rows[i], &rows[j]) / (norm(i) * norm(j));
//! assert!(cosine(0, 2) > 3.0 * cosine(0, 3).max(0.0)); // "king" is similar to "prince", not to "of"
//! # Ok(())
//! # }
//! ```
//!
//! The example uses an *observer*: a function that is called at every named *site* of the forward pass with
//! the *activations* (intermediate values) there, like a hook in
//! [TransformerLens](https://github.com/TransformerLensOrg/TransformerLens)
//! ([`Observer`](crate::model::Observer), [`Site`](crate::model::Site)). The table lookup itself is
//! [`copy_row`](crate::kernels::embedding::copy_row).
//!
//! From here on a token is a vector, and a text of n tokens is a matrix `[n, n_embd]`. Every later step
//! *adds* to this matrix. It is called the *residual stream*.
//!
//! Next: [how the model knows the order of the tokens](super::positions).
