//! # 3. Positions: how does the model know the order of the tokens?
//!
//! Attention, the step that moves information between tokens, does not depend on the order of the rows it
//! reads: shuffle the earlier tokens, and the last one gets the same result as before. Without positions, the
//! model could not tell `dog bites man` from `man bites dog`. So each row must contain its position. A second
//! table, `wpe` (*word position embeddings*), has one row per position. That row is added to the token's
//! embedding:
//!
//! ```text
//! x[t] = wte[id[t]] + wpe[t]          wpe is [n_positions, n_embd]
//! ```
//!
//! GPT-2 learned `wpe`, like all its weights. The first transformer computed it from sines and cosines of
//! different frequencies ([`sinusoidal`](crate::kernels::positions::sinusoidal)). In both tables nearby
//! positions have similar rows and distant positions do not; GPT-2's table acquired this property in
//! training, fable's began with sines and cosines. Because the table has a fixed number of rows, the model
//! has a maximum text length, its *context*: 1024 tokens for GPT-2, 512 for fable.
//!
//! ```
//! use hornbook::lens::positions::PositionSimilarity;
//! use hornbook::model::Session;
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//!
//! let learned = PositionSimilarity::from_model(fable.model());
//! assert!(learned.mean_at_distance(512, 1) > 0.4); // mean cosine similarity of neighboring positions
//! assert!(learned.mean_at_distance(512, 256) < 0.2); // and of positions that are far apart
//!
//! // The order of the words matters: the same words give two different predictions.
//! let mut predict = |text: &str| -> hornbook::Result<Vec<f32>> {
//!     Ok(Session::new(fable.model(), 8, None).feed(&fable.encode(text)?)?.to_vec())
//! };
//! assert_ne!(predict(" king the loved queen the")?, predict(" queen the loved king the")?);
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementation is [`positions::reference`](crate::kernels::positions::reference). In a
//! terminal: `hornbook positions` draws both tables side by side.
//!
//! Next: [how tokens exchange information](super::attention).
