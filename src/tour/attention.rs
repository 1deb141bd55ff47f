//! # 4. Attention: how do tokens exchange information?
//!
//! To continue `The queen was angry, because she`, the row of `she` needs information from the row of
//! `queen`. Attention lets every token read from the tokens before it. Three matrices turn a token's row x
//! into three shorter vectors of `head_dim` = `n_embd` / `n_head` values:
//!
//! * a *query* q: what the token is looking for,
//! * a *key* k: what the token can be found by,
//! * a *value* v: the information it passes on.
//!
//! The dot product of a query and a key says how well they match. [Softmax](crate::kernels::softmax) turns
//! the scores of one query with all keys into weights that add up to 1; a score that is higher by 1 gets a
//! weight e times as large. The output is the weighted sum of the values:
//!
//! ```text
//! score[i, j] = (q[i] · k[j]) / √head_dim     for j ≤ i (the causal mask)
//! p[i, ·]     = softmax(score[i, 0..=i])
//! z[i]        = Σ_j p[i, j] · v[j]
//! ```
//!
//! p is the *attention pattern*: row i says how much token i attends to each token j. The *causal mask* keeps
//! a token from attending to later tokens, which do not exist yet when the model generates text. Thanks to
//! the mask, one forward pass in training predicts the next token at every position of a text.
//!
//! A block has several attention *heads*, each with its own matrices, so each can look for something
//! different. A *previous-token head* attends to the token before. An *induction head* finds an earlier
//! occurrence of the current token and attends to the token that followed it. The outputs z of all heads are
//! concatenated, multiplied by one more matrix, and added to the residual stream.
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
//! let observer = |site: Site, pattern: ArrayViewMutD<'_, f32>| {
//!     if !matches!(site, Site::Pattern(_)) {
//!         return; // "blocks.0.attn.hook_pattern" and the like
//!     }
//!     for head in pattern.outer_iter() {
//!         heads += 1;
//!         for (i, row) in head.outer_iter().enumerate() {
//!             assert!((row.sum() - 1.0).abs() < 1e-5); // every row adds up to 1
//!             assert!(row.iter().skip(i + 1).all(|&weight| weight == 0.0)); // the causal mask
//!         }
//!         assert_eq!(head.iter().next(), Some(&1.0)); // the first token attends to itself only
//!     }
//! };
//! Session::observed(fable.model(), 16, None, observer).feed(&ids)?;
//! assert_eq!(heads, 6 * 4); // 6 blocks of 4 heads
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementation, of fifteen lines, is
//! [`attention::reference`](crate::kernels::attention::reference). The matrices for queries, keys and values
//! are one [`linear`](crate::kernels::linear) layer. In a terminal: `hornbook heads` scores how well every
//! head fits these kinds.
//!
//! Next: [how each token is processed by itself](super::mlp).
