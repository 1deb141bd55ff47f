//! The linear layers that an adapter can change.

use super::super::Config;

/// A linear layer of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Queries, keys and values.
    CAttn,
    /// The output projection of attention.
    AttnProj,
    /// The up-projection of the MLP.
    CFc,
    /// The down-projection of the MLP.
    MlpProj,
}

impl Target {
    /// All of a block, in the order of the forward pass.
    pub const ALL: [Target; 4] = [Target::CAttn, Target::AttnProj, Target::CFc, Target::MlpProj];

    /// The name in a block.
    pub fn name(self) -> &'static str {
        match self {
            Target::CAttn => "attn.c_attn",
            Target::AttnProj => "attn.c_proj",
            Target::CFc => "mlp.c_fc",
            Target::MlpProj => "mlp.c_proj",
        }
    }

    /// The name in the model, as transformers and peft write it: `transformer.h.0.attn.c_attn`.
    pub fn module(self, layer: usize) -> String {
        format!("transformer.h.{layer}.{}", self.name())
    }

    /// The numbers of inputs and outputs.
    pub fn widths(self, config: &Config) -> (usize, usize) {
        let &Config { n_embd, n_inner, .. } = config;
        match self {
            Target::CAttn => (n_embd, 3 * n_embd),
            Target::AttnProj => (n_embd, n_embd),
            Target::CFc => (n_embd, n_inner),
            Target::MlpProj => (n_inner, n_embd),
        }
    }
}
