//! A view into every step, free when nobody looks.
//!
//! An [`Observer`] is called at every named site of the forward pass with the numbers that are there, and may change
//! them. The forward pass is compiled once for each observer type; for `()`, which looks at nothing, the calls vanish.

use super::Operation;
use crate::kernels::rows::RowsMut;
use ndarray::{ArrayViewMutD, ShapeBuilder};
use std::fmt;

/// A place in the forward pass, with the layer where there is one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Token embeddings, `[n_tokens, n_embd]`.
    Embed,
    /// The residual stream before a block (in block 0: token plus position), `[n_tokens, n_embd]`.
    ResidPre(usize),
    /// Queries, `[n_tokens, n_embd]`, the heads side by side.
    Q(usize),
    /// Keys, likewise.
    K(usize),
    /// Values, likewise.
    V(usize),
    /// Attention patterns, `[n_head, n, position + n]`, one call for each sequence; changes have no effect.
    Pattern(usize),
    /// What each head brings, `[n_tokens, n_embd]`, the heads side by side, before `c_proj`.
    Z(usize),
    /// What attention adds to the residual stream, `[n_tokens, n_embd]`.
    AttnOut(usize),
    /// The residual stream between attention and MLP.
    ResidMid(usize),
    /// The MLP's inside after the activation, `[n_tokens, n_inner]`.
    Post(usize),
    /// What the MLP adds to the residual stream, `[n_tokens, n_embd]`.
    MlpOut(usize),
    /// The residual stream after a block.
    ResidPost(usize),
    /// After the last layer norm.
    FinalNorm,
    /// `[n_wanted, vocab_size]`
    Logits,
}

impl fmt::Display for Site {
    /// The names TransformerLens gives them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Embed => write!(f, "hook_embed"),
            Site::ResidPre(layer) => write!(f, "blocks.{layer}.hook_resid_pre"),
            Site::Q(layer) => write!(f, "blocks.{layer}.attn.hook_q"),
            Site::K(layer) => write!(f, "blocks.{layer}.attn.hook_k"),
            Site::V(layer) => write!(f, "blocks.{layer}.attn.hook_v"),
            Site::Pattern(layer) => write!(f, "blocks.{layer}.attn.hook_pattern"),
            Site::Z(layer) => write!(f, "blocks.{layer}.attn.hook_z"),
            Site::AttnOut(layer) => write!(f, "blocks.{layer}.hook_attn_out"),
            Site::ResidMid(layer) => write!(f, "blocks.{layer}.hook_resid_mid"),
            Site::Post(layer) => write!(f, "blocks.{layer}.mlp.hook_post"),
            Site::MlpOut(layer) => write!(f, "blocks.{layer}.hook_mlp_out"),
            Site::ResidPost(layer) => write!(f, "blocks.{layer}.hook_resid_post"),
            Site::FinalNorm => write!(f, "ln_final.hook_normalized"),
            Site::Logits => write!(f, "logits"),
        }
    }
}

/// Someone who looks at the forward pass while it runs.
pub trait Observer {
    /// Whether it looks at all; where it does, every token goes through the last block, wanted or not.
    const LOOKS: bool = true;

    /// Whether it looks at this site.
    fn wants(&self, _site: Site) -> bool {
        true
    }

    /// The numbers at a site, which may be changed.
    fn see(&mut self, site: Site, values: ArrayViewMutD<'_, f32>);

    /// An operation has ended: all that happened since the last one did. For keeping time, which needs no looking.
    fn ended(&mut self, _operation: Operation) {}
}

/// Nobody.
impl Observer for () {
    const LOOKS: bool = false;

    fn see(&mut self, _site: Site, _values: ArrayViewMutD<'_, f32>) {}
}

/// A closure sees everything.
impl<F: FnMut(Site, ArrayViewMutD<'_, f32>)> Observer for F {
    fn see(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        self(site, values);
    }
}

/// Shows rows, where there are any, to an observer that wants them.
pub(super) fn show<O: Observer>(see: &mut O, site: Site, rows: RowsMut<'_>) {
    if O::LOOKS && !rows.is_empty() && see.wants(site) {
        let shape = [rows.len(), rows.width()];
        let (data, stride) = rows.into_parts();
        let shape = shape[..].strides(&[stride, 1][..]);
        let values = ArrayViewMutD::from_shape(shape, data).expect("rows lie within their data");
        see.see(site, values);
    }
}
