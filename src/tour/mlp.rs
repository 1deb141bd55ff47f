//! # 5. MLP: how is each token processed by itself?
//!
//! Attention moves information between tokens, but it only adds up values. The second half of a block, the
//! *MLP* (multi-layer perceptron, also called feed-forward layer), processes each token by itself. It
//! multiplies the row by a matrix that makes it four times as wide, applies a nonlinear function, the
//! *activation*, to each value, and multiplies by a second matrix that brings it back to its old width. The
//! result is added to the residual stream.
//!
//! ```text
//! y += activation(x · W_fc + b_fc) · W_proj + b_proj
//! ```
//!
//! Each of the intermediate values is called a *neuron*. A column of `W_fc` is the pattern that the neuron
//! detects in the row. The activation passes a strong match on and suppresses the rest. The matching row of
//! `W_proj` is what the neuron then adds to the stream. Without the activation, the two matrices would be
//! equivalent to a single one. GPT-2's activation is GELU (Gaussian error linear unit), a smooth version of
//! max(x, 0). Two thirds of a block's weights are in the MLP. Much of what a model knows, as opposed to what
//! it reads in its context, is believed to be stored there.
//!
//! The example measures how much a component of the model matters by *ablation*: it replaces the component's
//! output by zero and compares the predictions before and after. The *KL divergence* (Kullback-Leibler
//! divergence) measures how different two predictions are; it is 0 if they are equal. `mlp0` is the MLP of
//! block 0, `L0H0` the attention head 0 of the same block.
//!
//! ```
//! use hornbook::kernels::activation::Activation;
//! use hornbook::lens::intervention::{Edit, Effect, Intervention, Interventions};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> hornbook::Result<()> {
//! let gelu = |x| Activation::GeluTanh.reference(x);
//! assert!((gelu(3.0) - 3.0).abs() < 0.01 && gelu(-3.0).abs() < 0.01); // passed on, or suppressed
//!
//! // Zero-ablate a component, and measure how far the prediction moves.
//! let fable = Hornbook::open("fable")?;
//! let prompt = fable.encode("Once upon a time there was a")?;
//! let kl_divergence = |component: &str| -> hornbook::Result<f64> {
//!     let ablation = Intervention { target: component.parse().expect("a component"), edit: Edit::Zero };
//!     let ablated = Interventions::new(fable.model(), &prompt, &[ablation])?;
//!     let before = fable.generate(&prompt, &Options::default())?;
//!     let after = fable.generate_observed(&prompt, &Options::default(), ablated)?;
//!     Ok(Effect::measure(before.prompt_logits(), after.prompt_logits(), 1).kl_divergence)
//! };
//! assert!(kl_divergence("mlp0")? > 10.0 * kl_divergence("L0H0")?); // mlp0 matters more than this head
//! # Ok(())
//! # }
//! ```
//!
//! The reference implementation is [`mlp::reference`](crate::kernels::mlp::reference): two
//! [`linear`](crate::kernels::linear) layers around an
//! [`Activation`](crate::kernels::activation::Activation).
//!
//! Next: [how the values stay in a useful range](super::layer_norm).
