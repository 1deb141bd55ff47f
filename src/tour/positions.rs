//! # 3. Positions: how does it know which token comes first?
//!
//! The step by which tokens learn of each other, attention, sees a heap of rows and not a line of them: shuffle the rows
//! and each finds the same as before. `dog bites man` and `man bites dog` would be one. So each row is told where it
//! stands: a second table has a row for every position, and it is added.
//!
//! ```text
//! x[t] = wte[id[t]] + wpe[t]          wpe is [n_positions, n_embd]
//! ```
//!
//! GPT-2 learned `wpe` like all else. The first transformer computed it instead, from sines and cosines of different
//! speeds, like the hands of a clock with many hands ([`sinusoidal`](crate::kernels::positions::sinusoidal)). Both have
//! in common that near positions are alike and distant ones are not, which nobody asked the learned table to be. It has
//! as many rows as the model has seen positions, and that is why a GPT-2 has a longest text: 1024 tokens, 512 for fable.
//!
//! ```
//! use hornbook::lens::positions::Positions;
//! use hornbook::model::Session;
//! use hornbook::Hornbook;
//! # fn main() -> hornbook::Result<()> {
//! let fable = Hornbook::open("fable")?;
//!
//! let learned = Positions::of(fable.model());
//! assert!(learned.at_distance(512, 1) > 0.4); // the cosine of the angle between neighbours' rows, in the mean
//! assert!(learned.at_distance(512, 256) < 0.1); // and between positions far apart
//!
//! // The order of the words matters: the same words, two predictions.
//! let mut predict = |text: &str| -> hornbook::Result<Vec<f32>> {
//!     Ok(Session::new(fable.model(), 8, None).feed(&fable.encode(text)?)?.to_vec())
//! };
//! assert_ne!(predict(" king the loved queen the")?, predict(" queen the loved king the")?);
//! # Ok(())
//! # }
//! ```
//!
//! The code is [`add_position`](crate::kernels::positions::add_position). In a terminal: `hornbook positions` draws both
//! tables side by side.
//!
//! Next: [how tokens learn of each other](super::attention).
