//! A view into every step, free when nobody looks.
//!
//! An [`Observer`] is called at every named site of the forward pass with the numbers that are there, and may change
//! them. The forward pass is compiled once for each observer type; for `()`, which looks at nothing, the calls vanish
//! (`cargo bench -- observer`).
//!
//! Sites have the names TransformerLens gives them, and are found by them: `"blocks.3.attn.hook_z".parse::<Site>()`.
//! In the order of the pass:
//!
//! | name                        | shape                          | what is there                                |
//! | --------------------------- | ------------------------------ | -------------------------------------------- |
//! | `hook_embed`                | `[n_tokens, n_embd]`           | token embeddings                             |
//! | `hook_pos_embed`            | `[n_tokens, n_embd]`           | position embeddings                          |
//! | `blocks.0.hook_resid_pre`   | `[n_tokens, n_embd]`           | the residual stream before the block         |
//! | `….ln1.hook_normalized`     | `[n_tokens, n_embd]`           | it, normalised, scaled and shifted           |
//! | `….attn.hook_q`, `_k`, `_v` | `[n_tokens, n_embd]`           | queries, keys, values, heads side by side    |
//! | `….attn.hook_pattern`       | `[n_head, n, position + n]`    | who attends to whom; to read only            |
//! | `….attn.hook_z`             | `[n_tokens, n_embd]`           | what each head brings, heads side by side    |
//! | `….hook_attn_out`           | `[n_tokens, n_embd]`           | what attention adds to the residual stream   |
//! | `….hook_resid_mid`          | `[n_tokens, n_embd]`           | the residual stream between the two          |
//! | `….ln2.hook_normalized`     | `[n_tokens, n_embd]`           | it, normalised, scaled and shifted           |
//! | `….mlp.hook_pre`, `_post`   | `[n_tokens, n_inner]`          | the MLP's inside before and after it is bent |
//! | `….hook_mlp_out`            | `[n_tokens, n_embd]`           | what the MLP adds to the residual stream     |
//! | `….hook_resid_post`         | `[n_tokens, n_embd]`           | the residual stream after the block          |
//! | `ln_final.hook_normalized`  | `[n_tokens, n_embd]`           | what the head reads                          |
//! | `logits`                    | `[n_wanted, vocab_size]`       | what TransformerLens returns from a run      |
//!
//! Changing a pattern would change nothing: the fast form of attention goes from scores to mixture in one step and
//! never holds a pattern; those that are shown are computed beside it, for whoever wants them, and the pass has the
//! same bits whether they are or not. To change what a head does, change its `hook_q`, `hook_k`, `hook_v` or `hook_z`.
//!
//! Of TransformerLens' other names `hook_scale` and `attn.hook_attn_scores` are numbers that no kernel stores, and
//! `attn.hook_result` is `hook_z` times the head's rows of `c_proj`. Its models fold the layer norms' weights into the
//! next layer unless asked not to; here nothing is folded, as with its `from_pretrained_no_processing`.

use super::Operation;
use crate::kernels::rows::RowsMut;
use ndarray::{ArrayViewMutD, ShapeBuilder};
use std::fmt;
use std::str::FromStr;

/// A place in the forward pass, with the layer where there is one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Token embeddings, `[n_tokens, n_embd]`.
    Embed,
    /// Position embeddings, `[n_tokens, n_embd]`.
    PosEmbed,
    /// The residual stream before a block (in block 0: token plus position), `[n_tokens, n_embd]`.
    ResidPre(usize),
    /// It, after the layer norm before attention.
    Ln1(usize),
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
    /// It, after the layer norm before the MLP.
    Ln2(usize),
    /// The MLP's inside before the activation, `[n_tokens, n_inner]`.
    Pre(usize),
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

/// TransformerLens' names of what there is once.
const ONCE: [(Site, &str); 4] = [
    (Site::Embed, "hook_embed"),
    (Site::PosEmbed, "hook_pos_embed"),
    (Site::FinalNorm, "ln_final.hook_normalized"),
    (Site::Logits, "logits"),
];

/// Its names of what every block has, behind `blocks.3.`.
/// A site of a layer, by its number.
type InLayer = fn(usize) -> Site;

const IN_BLOCK: [(InLayer, &str); 14] = [
    (Site::ResidPre, "hook_resid_pre"),
    (Site::Ln1, "ln1.hook_normalized"),
    (Site::Q, "attn.hook_q"),
    (Site::K, "attn.hook_k"),
    (Site::V, "attn.hook_v"),
    (Site::Pattern, "attn.hook_pattern"),
    (Site::Z, "attn.hook_z"),
    (Site::AttnOut, "hook_attn_out"),
    (Site::ResidMid, "hook_resid_mid"),
    (Site::Ln2, "ln2.hook_normalized"),
    (Site::Pre, "mlp.hook_pre"),
    (Site::Post, "mlp.hook_post"),
    (Site::MlpOut, "hook_mlp_out"),
    (Site::ResidPost, "hook_resid_post"),
];

impl Site {
    /// All sites of a model of `n_layer` blocks, in the order of the pass.
    pub fn all(n_layer: usize) -> impl Iterator<Item = Site> {
        let once = |(site, _)| site;
        let [before, after] = [&ONCE[..2], &ONCE[2..]].map(|part| part.iter().copied().map(once));
        let blocks = (0..n_layer).flat_map(|layer| IN_BLOCK.iter().map(move |(of, _)| of(layer)));
        before.chain(blocks).chain(after)
    }

    /// The block it is in.
    pub fn layer(self) -> Option<usize> {
        match self {
            Site::Embed | Site::PosEmbed | Site::FinalNorm | Site::Logits => None,
            Site::ResidPre(layer) | Site::Ln1(layer) | Site::Q(layer) | Site::K(layer) | Site::V(layer) => {
                Some(layer)
            }
            Site::Pattern(layer) | Site::Z(layer) | Site::AttnOut(layer) | Site::ResidMid(layer) => {
                Some(layer)
            }
            Site::Ln2(layer) | Site::Pre(layer) | Site::Post(layer) => Some(layer),
            Site::MlpOut(layer) | Site::ResidPost(layer) => Some(layer),
        }
    }
}

impl fmt::Display for Site {
    /// The names TransformerLens gives them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            None => {
                let (_, name) = ONCE.iter().find(|(site, _)| site == self).expect("every site has a name");
                f.write_str(name)
            }
            Some(layer) => {
                let named = IN_BLOCK.iter().find(|(of, _)| of(layer) == *self);
                write!(f, "blocks.{layer}.{}", named.expect("every site has a name").1)
            }
        }
    }
}

impl FromStr for Site {
    type Err = String;

    /// The site of a name. Whether a model has so many blocks is for the model to say.
    fn from_str(name: &str) -> Result<Self, String> {
        let once = ONCE.iter().find(|(_, once)| *once == name).map(|(site, _)| *site);
        let in_block = || {
            let (layer, name) = name.strip_prefix("blocks.")?.split_once('.')?;
            let (of, _) = IN_BLOCK.iter().find(|(_, in_block)| *in_block == name)?;
            Some(of(layer.parse().ok()?))
        };
        once.or_else(in_block).ok_or_else(|| {
            let names: Vec<String> = Site::all(1).map(|site| site.to_string()).collect();
            format!("no site is called '{name}', expected one of {}", names.join(", "))
        })
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

/// Two, one after the other: the second sees what the first has changed.
impl<A: Observer, B: Observer> Observer for (A, B) {
    const LOOKS: bool = A::LOOKS || B::LOOKS;

    fn wants(&self, site: Site) -> bool {
        self.0.wants(site) || self.1.wants(site)
    }

    fn see(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        if self.0.wants(site) {
            self.0.see(site, values.view_mut());
        }
        if self.1.wants(site) {
            self.1.see(site, values);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_found_by_its_name() {
        let all: Vec<Site> = Site::all(12).collect();
        assert_eq!(all.len(), ONCE.len() + 12 * IN_BLOCK.len());
        assert!(Site::all(1).is_sorted(), "the order of the enum is that of the pass");
        for site in all {
            assert_eq!(site.to_string().parse(), Ok(site));
        }
        assert_eq!("blocks.11.attn.hook_pattern".parse(), Ok(Site::Pattern(11)));
        for wrong in ["", "blocks", "blocks.1", "blocks.x.hook_resid_pre", "blocks.1.hook_z", "hook_embed.1"]
        {
            let error = wrong.parse::<Site>().unwrap_err();
            assert!(error.starts_with(&format!("no site is called '{wrong}', expected one of hook_embed, ")));
        }
    }
}
