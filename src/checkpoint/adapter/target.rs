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

    /// The layer of a block, whose layers are given in the order of [`Target::ALL`].
    pub fn of<T>(self, [c_attn, attn_proj, c_fc, mlp_proj]: [T; 4]) -> T {
        match self {
            Target::CAttn => c_attn,
            Target::AttnProj => attn_proj,
            Target::CFc => c_fc,
            Target::MlpProj => mlp_proj,
        }
    }

    /// The name in a block.
    pub fn name(self) -> &'static str {
        self.of(["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
    }

    /// The name in the model, as transformers and peft write it: `transformer.h.0.attn.c_attn`.
    pub fn module(self, layer: usize) -> String {
        format!("transformer.h.{layer}.{}", self.name())
    }

    /// The numbers of inputs and outputs.
    pub fn widths(self, config: &Config) -> (usize, usize) {
        let &Config { n_embd, n_inner, .. } = config;
        self.of([(n_embd, 3 * n_embd), (n_embd, n_embd), (n_embd, n_inner), (n_inner, n_embd)])
    }
}
