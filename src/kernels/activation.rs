//! Activations.

/// The activation of the MLP, by its name in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu_new`, `gelu_pytorch_tanh`: GELU by its tanh approximation, GPT-2's own.
    GeluTanh,
    /// `gelu`: GELU by the error function.
    GeluErf,
    /// `relu`
    Relu,
    /// `silu`: x · sigmoid(x)
    Silu,
}
