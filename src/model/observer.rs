//! Observers: hooks at every named site of the forward pass, with no cost if there is no observer.
//!
//! An [`Observer`] is called at every site with the activations there, and may change them. The forward pass
//! is compiled once per observer type; for `()`, the observer that does nothing, the calls compile to nothing
//! (`cargo bench -- observer`).
//!
//! Sites have TransformerLens' names and are parsed from them: `"blocks.3.attn.hook_z".parse::<Site>()`. In
//! the order of the pass:
//!
//! | name                        | shape                       | activations                               |
//! | --------------------------- | --------------------------- | ----------------------------------------- |
//! | `hook_embed`                | `[n_tokens, n_embd]`        | token embeddings                          |
//! | `hook_pos_embed`            | `[n_tokens, n_embd]`        | position embeddings                       |
//! | `blocks.0.hook_resid_pre`   | `[n_tokens, n_embd]`        | residual stream before the block          |
//! | `….ln1.hook_normalized`     | `[n_tokens, n_embd]`        | output of the layer norm before attention |
//! | `….attn.hook_q`, `_k`, `_v` | `[n_tokens, n_embd]`        | queries, keys, values, heads concatenated |
//! | `….attn.hook_pattern`       | `[n_head, n, position + n]` | attention weights; read-only              |
//! | `….attn.hook_z`             | `[n_tokens, n_embd]`        | output of each head, heads concatenated   |
//! | `….hook_attn_out`           | `[n_tokens, n_embd]`        | output of attention                       |
//! | `….hook_resid_mid`          | `[n_tokens, n_embd]`        | residual stream between attention and MLP |
//! | `….ln2.hook_normalized`     | `[n_tokens, n_embd]`        | output of the layer norm before the MLP   |
//! | `….mlp.hook_pre`, `_post`   | `[n_tokens, n_inner]`       | neurons before and after the activation   |
//! | `….hook_mlp_out`            | `[n_tokens, n_embd]`        | output of the MLP                         |
//! | `….hook_resid_post`         | `[n_tokens, n_embd]`        | residual stream after the block           |
//! | `ln_final.hook_normalized`  | `[n_tokens, n_embd]`        | input of the LM head                      |
//! | `logits`                    | `[n_logits, vocab_size]`    | logits, as a TransformerLens run returns  |
//!
//! Changing a pattern has no effect: the fused attention kernels never store it. If an observer is interested
//! in a pattern, it is computed separately, and the pass has the same bits either way. To change the behavior
//! of a head, change its `hook_q`, `hook_k`, `hook_v` or `hook_z`.
//!
//! Of TransformerLens' other sites, `hook_scale` and `attn.hook_attn_scores` are values that no kernel
//! stores, and `attn.hook_result` is `hook_z` times the head's rows of `c_proj`. By default, TransformerLens
//! folds the layer norms' weights into the next layer. Hornbook does not; its values are those of
//! TransformerLens' `from_pretrained_no_processing`.

use super::Operation;
use ndarray::ArrayViewMutD;
use std::fmt;
use std::str::FromStr;

/// A named place in the forward pass (a hook point), with its layer if every block has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Token embeddings, `[n_tokens, n_embd]`.
    Embed,
    /// Position embeddings, `[n_tokens, n_embd]`.
    PosEmbed,
    /// The residual stream before a block, `[n_tokens, n_embd]`; before block 0, token plus position
    /// embeddings.
    ResidPre(usize),
    /// The output of the layer norm before attention, `[n_tokens, n_embd]`.
    Ln1(usize),
    /// Queries, `[n_tokens, n_embd]`, heads concatenated.
    Q(usize),
    /// Keys, of the same shape.
    K(usize),
    /// Values, of the same shape.
    V(usize),
    /// Attention patterns, `[n_head, n, position + n]`, one call per sequence; changes have no effect.
    Pattern(usize),
    /// The output of each head before `c_proj`, `[n_tokens, n_embd]`, heads concatenated.
    Z(usize),
    /// The output of attention, `[n_tokens, n_embd]`, which is added to the residual stream.
    AttnOut(usize),
    /// The residual stream between attention and MLP, `[n_tokens, n_embd]`.
    ResidMid(usize),
    /// The output of the layer norm before the MLP, `[n_tokens, n_embd]`.
    Ln2(usize),
    /// The MLP's neurons before the activation, `[n_tokens, n_inner]`.
    Pre(usize),
    /// The MLP's neurons after the activation, `[n_tokens, n_inner]`.
    Post(usize),
    /// The output of the MLP, `[n_tokens, n_embd]`, which is added to the residual stream.
    MlpOut(usize),
    /// The residual stream after a block, `[n_tokens, n_embd]`.
    ResidPost(usize),
    /// The output of the last layer norm, `[n_tokens, n_embd]`.
    FinalNorm,
    /// The logits, `[n_logits, vocab_size]`.
    Logits,
}

/// TransformerLens' names of the sites outside the blocks.
const MODEL_SITES: [(Site, &str); 4] = [
    (Site::Embed, "hook_embed"),
    (Site::PosEmbed, "hook_pos_embed"),
    (Site::FinalNorm, "ln_final.hook_normalized"),
    (Site::Logits, "logits"),
];

/// The constructor of a site in a layer.
type BlockSite = fn(usize) -> Site;

/// TransformerLens' names of the sites in every block, without the prefix `blocks.N.`.
const BLOCK_SITES: [(BlockSite, &str); 14] = [
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
    /// Returns all sites of a model with `n_layer` blocks, in the order of the pass.
    pub fn all(n_layer: usize) -> impl Iterator<Item = Site> {
        let site = |(site, _)| site;
        let [before, after] =
            [&MODEL_SITES[..2], &MODEL_SITES[2..]].map(|sites| sites.iter().copied().map(site));
        let blocks = (0..n_layer).flat_map(|layer| BLOCK_SITES.iter().map(move |(site, _)| site(layer)));
        before.chain(blocks).chain(after)
    }

    /// The layer of the block that contains the site, if any.
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
    /// Writes TransformerLens' name of the site.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer() {
            None => {
                let (_, name) =
                    MODEL_SITES.iter().find(|(site, _)| site == self).expect("every site has a name");
                f.write_str(name)
            }
            Some(layer) => {
                let named = BLOCK_SITES.iter().find(|(site, _)| site(layer) == *self);
                write!(f, "blocks.{layer}.{}", named.expect("every site has a name").1)
            }
        }
    }
}

impl FromStr for Site {
    type Err = String;

    /// Parses a name. Whether the model has such a layer is not checked.
    fn from_str(name: &str) -> Result<Self, String> {
        let model_site = MODEL_SITES.iter().find(|(_, site_name)| *site_name == name).map(|(site, _)| *site);
        let block_site = || {
            let (layer, name) = name.strip_prefix("blocks.")?.split_once('.')?;
            let (site, _) = BLOCK_SITES.iter().find(|(_, site_name)| *site_name == name)?;
            Some(site(layer.parse().ok()?))
        };
        model_site.or_else(block_site).ok_or_else(|| {
            let names: Vec<String> = Site::all(1).map(|site| site.to_string()).collect();
            format!("unknown site '{name}', expected one of {}", names.join(", "))
        })
    }
}

/// Reads, and may change, the activations of the forward pass while it runs.
pub trait Observer {
    /// Whether the observer observes any site. If so, every token goes through the last block, whether its
    /// logits are requested or not.
    const ENABLED: bool = true;

    /// Whether the observer is to be called at this site.
    fn is_interested(&self, _site: Site) -> bool {
        true
    }

    /// Called with the activations at a site, which may be changed.
    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>);

    /// Called at the end of every operation, even if `ENABLED` is false; for timing.
    fn operation_finished(&mut self, _operation: Operation) {}
}

/// No observer.
impl Observer for () {
    const ENABLED: bool = false;

    fn observe(&mut self, _site: Site, _values: ArrayViewMutD<'_, f32>) {}
}

/// Two observers, one after the other: the second observes the changes of the first.
impl<A: Observer, B: Observer> Observer for (A, B) {
    const ENABLED: bool = A::ENABLED || B::ENABLED;

    fn is_interested(&self, site: Site) -> bool {
        self.0.is_interested(site) || self.1.is_interested(site)
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        if self.0.is_interested(site) {
            self.0.observe(site, values.view_mut());
        }
        if self.1.is_interested(site) {
            self.1.observe(site, values);
        }
    }
}

/// A closure observes every site.
impl<F: FnMut(Site, ArrayViewMutD<'_, f32>)> Observer for F {
    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        self(site, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_name_round_trips() {
        let all: Vec<Site> = Site::all(12).collect();
        assert_eq!(all.len(), MODEL_SITES.len() + 12 * BLOCK_SITES.len());
        assert!(Site::all(1).is_sorted(), "the enum is in the order of the pass");
        for site in all {
            assert_eq!(site.to_string().parse(), Ok(site));
        }
        assert_eq!("blocks.11.attn.hook_pattern".parse(), Ok(Site::Pattern(11)));
        for invalid in
            ["", "blocks", "blocks.1", "blocks.x.hook_resid_pre", "blocks.1.hook_z", "hook_embed.1"]
        {
            let error = invalid.parse::<Site>().unwrap_err();
            assert!(error.starts_with(&format!("unknown site '{invalid}', expected one of hook_embed, ")));
        }
    }
}
