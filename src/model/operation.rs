//! The operations of the forward pass, in order.

use super::Site;
use std::fmt;

/// An operation of the forward pass, with its layer if every block has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Token and position embeddings.
    Embed,
    /// The layer norm before attention.
    Ln1(usize),
    /// The linear layer that computes queries, keys and values.
    CAttn(usize),
    /// Appending keys and values to the cache.
    KvAppend(usize),
    /// Attention.
    Attention(usize),
    /// Attention's output projection, added to the residual stream.
    AttnProj(usize),
    /// The layer norm before the MLP.
    Ln2(usize),
    /// The MLP's first layer and its activation.
    CFc(usize),
    /// The MLP's second layer, added to the residual stream.
    MlpProj(usize),
    /// The last layer norm.
    LnF,
    /// The LM head.
    LmHead,
}

impl Operation {
    /// The operations of one block.
    pub fn in_block(layer: usize) -> [Operation; 8] {
        [
            Operation::Ln1(layer),
            Operation::CAttn(layer),
            Operation::KvAppend(layer),
            Operation::Attention(layer),
            Operation::AttnProj(layer),
            Operation::Ln2(layer),
            Operation::CFc(layer),
            Operation::MlpProj(layer),
        ]
    }

    /// The operations of a forward pass.
    pub fn in_pass(n_layer: usize) -> impl Iterator<Item = Operation> {
        let blocks = (0..n_layer).flat_map(Operation::in_block);
        [Operation::Embed].into_iter().chain(blocks).chain([Operation::LnF, Operation::LmHead])
    }

    /// The name in reports, without the layer: that of the weights in the checkpoint, if the operation has
    /// any.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Embed => "wte + wpe",
            Operation::Ln1(_) => "ln_1",
            Operation::CAttn(_) => "attn.c_attn",
            Operation::KvAppend(_) => "kv cache",
            Operation::Attention(_) => "attention",
            Operation::AttnProj(_) => "attn.c_proj",
            Operation::Ln2(_) => "ln_2",
            Operation::CFc(_) => "mlp.c_fc",
            Operation::MlpProj(_) => "mlp.c_proj",
            Operation::LnF => "ln_f",
            Operation::LmHead => "lm_head",
        }
    }

    /// The site of the values that a linear layer computes before its epilogue: those before the activation,
    /// or those to be added to the residual stream.
    pub(super) fn site_before_epilogue(self) -> Option<Site> {
        match self {
            Operation::AttnProj(layer) => Some(Site::AttnOut(layer)),
            Operation::CFc(layer) => Some(Site::Pre(layer)),
            Operation::MlpProj(layer) => Some(Site::MlpOut(layer)),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    /// Writes the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
