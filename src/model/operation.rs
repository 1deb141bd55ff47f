//! The operations of the forward pass, in their order.

use std::fmt;

/// An operation, with the layer where there is one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A row of `wte` and one of `wpe` for every token.
    Embed,
    /// The layer norm before attention.
    Ln1(usize),
    /// Queries, keys and values.
    CAttn(usize),
    /// Keys and values join the cache.
    KvAppend(usize),
    /// Attention.
    Attention(usize),
    /// What attention brings, into the residual stream.
    AttnProj(usize),
    /// The layer norm before the MLP.
    Ln2(usize),
    /// The MLP's first layer and its activation.
    CFc(usize),
    /// The MLP's second layer, into the residual stream.
    MlpProj(usize),
    /// The last layer norm.
    LnF,
    /// The logits.
    Head,
}

impl Operation {
    /// Those of a block.
    pub fn of_block(layer: usize) -> [Operation; 8] {
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

    /// Those of a whole pass.
    pub fn of_pass(n_layer: usize) -> impl Iterator<Item = Operation> {
        let blocks = (0..n_layer).flat_map(Operation::of_block);
        [Operation::Embed].into_iter().chain(blocks).chain([Operation::LnF, Operation::Head])
    }
}

/// As checkpoints call it, without the layer.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
            Operation::Head => "lm_head",
        })
    }
}
