//! # 4. Attention: how do tokens learn of each other?
//!
//! To continue `The queen was angry, because she`, the row of `she` has to find out about the queen. Attention is a
//! search that every token does among those before it. Three matrices turn a token's row x into three shorter ones:
//!
//! * a *query* q, what the token is looking for,
//! * a *key* k, what it can be found by,
//! * a *value* v, what it hands over when found.
//!
//! A query and a key match as well as their product is large. The products with all keys, turned into shares that add up
//! to 1 ([softmax](crate::kernels::softmax): a score higher by 1 gets e times the share), say how much of each token's
//! value is taken:
//!
//! ```text
//! score[i, j] = (q[i] · k[j]) / √head_dim     for j ≤ i: no token sees the future
//! p[i, ·]     = softmax(score[i, 0..=i])
//! z[i]        = Σ_j p[i, j] · v[j]
//! ```
//!
//! p is the *attention pattern*: row i says where token i looks. A token cannot look at what comes after it, for at that
//! time it will not be there; this also lets training ask for the next token at every place of a text at once.
//!
//! A block has several *heads*, each with matrices of its own and thus a question of its own: the token before, the
//! subject, the place where the same word stood earlier. Their z are laid side by side, mixed by one more matrix, and
//! added to the residual stream.
//!
//! ```
//! use hornbook::model::{Session, Site};
//! use hornbook::Hornbook;
//! use ndarray::ArrayViewMutD;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//! let ids = fable.encode("Once upon a time there was a king")?;
//!
//! let mut heads = 0;
//! let look = |site: Site, pattern: ArrayViewMutD<'_, f32>| {
//!     if !matches!(site, Site::Pattern(_)) {
//!         return; // "blocks.0.attn.hook_pattern" and the like
//!     }
//!     for head in pattern.outer_iter() {
//!         heads += 1;
//!         for (i, row) in head.outer_iter().enumerate() {
//!             assert!((row.sum() - 1.0).abs() < 1e-5); // shares: every row adds up to 1
//!             assert!(row.iter().skip(i + 1).all(|&share| share == 0.0)); // and none of the future
//!         }
//!         assert_eq!(head.iter().next(), Some(&1.0)); // the first token has nobody but itself
//!     }
//! };
//! Session::observed(fable.model(), 16, None, look).feed(&ids)?;
//! assert_eq!(heads, 6 * 4); // 6 blocks of 4 heads
//! # Ok(())
//! # }
//! ```
//!
//! The textbook form is [`Textbook`](crate::kernels::attention::Textbook), fifteen lines; the three matrices
//! are one [`linear`](crate::kernels::linear) layer. In a terminal: `hornbook heads` says which head looks for what.
//!
//! Next: [what is done with what they learned](super::mlp).
