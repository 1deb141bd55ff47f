//! # 5. MLP: and what is done with what they learned?
//!
//! Attention moves things between tokens, and all it can do with them is to add them up. What follows from them is worked
//! out by the second half of a block, for each token by itself: its row is multiplied by a matrix that makes it four times
//! as wide, bent, and multiplied by a second one that makes it as narrow as before.
//!
//! ```text
//! y += activation(x · W_fc + b_fc) · W_proj + b_proj
//! ```
//!
//! Each of the widened numbers can be read as a detector. A column of `W_fc` says what it looks for in the row, the
//! *activation* lets through what was found and holds back what was not, and a row of `W_proj` says what to add to the
//! stream in that case. Without the bend in the middle two matrices in a row would be no more than one. GPT-2's
//! activation is GELU, a soft form of "nothing below zero". Two thirds of a block's weights are here: much of what a
//! model knows, as against what it finds in its text, is taken to be kept in them.
//!
//! ```
//! use hornbook::kernels::activation::Activation;
//! use hornbook::lens::ablate::{Change, Changes, Edit, Effect};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let gelu = |x| Activation::GeluTanh.reference(x);
//! assert!((gelu(3.0) - 3.0).abs() < 0.01 && gelu(-3.0).abs() < 0.01); // through, or held back
//!
//! // What is an MLP worth? Take the first one away, and see how far the prediction moves.
//! let fable = Hornbook::open("fable")?;
//! let prompt = fable.encode("Once upon a time there was a")?;
//! let moved = |part: &str| -> hornbook::Result<f64> {
//!     let change = Change { part: part.parse().expect("a part"), edit: Edit::Zero };
//!     let changes = Changes::new(fable.model(), &prompt, &[change])?;
//!     let before = fable.generate(&prompt, &Options::default())?;
//!     let after = fable.generate_observed(&prompt, &Options::default(), changes)?;
//!     Ok(Effect::of(before.prompt_logits(), after.prompt_logits(), 1).kl_divergence)
//! };
//! assert!(moved("mlp0")? > 10.0 * moved("L0H0")?); // far more than one head
//! # Ok(())
//! # }
//! ```
//!
//! The code is [`Mlp`](crate::kernels::mlp::Mlp), two [`linear`](crate::kernels::linear) layers around an
//! [`Activation`](crate::kernels::activation::Activation), whose [`reference`](crate::kernels::activation::Activation::reference) is
//! the formula as it stands.
//!
//! Next: [what keeps the numbers in bounds](super::norm).
