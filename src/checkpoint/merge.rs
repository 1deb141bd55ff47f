//! Merging an adapter into its model: `W + scaling · Aᵀ · Bᵀ`, computed in f32.

use super::adapter::{Adapter, LowRank, Target};
use super::write::entries;
use super::{Checkpoint, LinearWeights, Tensor};
use crate::error::{Error, Result};
use crate::kernels::formats::Precision;
use crate::kernels::parallel::*;
use std::path::Path;

impl Checkpoint {
    /// Writes the model with an adapter merged into its weights to a folder, as transformers reads it: with
    /// its configuration, tokenizer and chat template. `precision` is f32, f16 or bf16; none for the model's
    /// own. Returns the size of the weights file in bytes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for quantized weights, [`Error::Parameter`] for a quantized `precision`,
    /// [`Error::Tensor`] for a number beyond the range of `precision`, [`Error::Io`] for a file that cannot
    /// be written.
    pub fn write_merged(
        mut self,
        adapter: &Adapter,
        precision: Option<Precision>,
        folder: &Path,
    ) -> Result<usize> {
        if let Some(stored) = self.quantized_precision() {
            return Err(Error::Unsupported(format!(
                "'{}' is quantized to {stored}: merge the adapter into the original, then quantize",
                self.name
            )));
        }
        let precision = precision.unwrap_or(self.weights.wte.precision());
        if precision.is_quantized() {
            return Err(Error::Parameter {
                name: "precision".into(),
                found: precision.to_string(),
                expected: "f32, f16 or bf16: the merged model can be quantized".into(),
            });
        }
        for change in &adapter.low_rank {
            let weight = &mut self.linear(change.layer, change.target).weight;
            *weight = weight.clone().into_precision(Precision::F32)?.with_change(change);
        }
        self.replace_tensors(adapter);
        let tensors = self.weights.named().into_iter();
        let tensors = tensors.map(|(name, tensor)| Ok((name, tensor.into_precision(precision)?)));
        let tensors = tensors.collect::<Result<Vec<(String, Tensor)>>>()?;
        self.write_weights(folder, &tensors.iter().flat_map(entries).collect::<Vec<_>>())
    }

    /// Puts the tensors that the adapter stores whole in place of the model's.
    fn replace_tensors(&mut self, adapter: &Adapter) {
        let replaced = |name: &str| adapter.replaced.get(name).cloned();
        let replace =
            |name: &str, tensor: &mut Tensor| *tensor = replaced(name).unwrap_or_else(|| tensor.clone());
        for (layer, block) in self.weights.h.iter_mut().enumerate() {
            for (name, norm) in [("ln_1", &mut block.ln_1), ("ln_2", &mut block.ln_2)] {
                replace(&format!("h.{layer}.{name}.weight"), &mut norm.weight);
                replace(&format!("h.{layer}.{name}.bias"), &mut norm.bias);
            }
        }
        for (layer, target) in (0..self.weights.h.len()).flat_map(|l| Target::ALL.map(|target| (l, target))) {
            replace(&format!("h.{layer}.{}.bias", target.name()), &mut self.linear(layer, target).bias);
        }
        let weights = &mut self.weights;
        replace("ln_f.weight", &mut weights.ln_f.weight);
        replace("ln_f.bias", &mut weights.ln_f.bias);
        weights.wpe.iter_mut().for_each(|wpe| replace("wpe.weight", wpe));
        let lm_head = replaced("lm_head.weight").or(weights.lm_head.take());
        // The LM head stays what it is where it was the token embeddings.
        weights.lm_head = match replaced("wte.weight") {
            Some(wte) => {
                let old = std::mem::replace(&mut weights.wte, wte);
                Some(lm_head.unwrap_or(old))
            }
            None => lm_head,
        };
        self.config.tie_word_embeddings = weights.lm_head.is_none();
    }

    fn linear(&mut self, layer: usize, target: Target) -> &mut LinearWeights {
        let block = &mut self.weights.h[layer];
        let (attn, mlp) = (&mut block.attn, &mut block.mlp);
        target.of([&mut attn.c_attn, &mut attn.c_proj, &mut mlp.c_fc, &mut mlp.c_proj])
    }
}

impl Tensor {
    /// An f32 matrix `[in, out]` plus the change that an adapter makes.
    fn with_change(&self, change: &LowRank) -> Tensor {
        let &LowRank { r, scaling, ref a, ref b, .. } = change;
        let (inputs, outputs) = (self.shape()[0], self.shape()[1]);
        self.owned(Precision::F32, self.shape(), |[bytes, _]| {
            let sum: &mut [f32] = bytemuck::cast_slice_mut(bytes);
            sum.copy_from_slice(self.as_f32());
            sum.par_chunks_mut(outputs).enumerate().for_each(|(k, row)| {
                for (x, b) in row.iter_mut().zip(b.chunks(r)) {
                    let products = b.iter().enumerate().map(|(i, b)| a[i * inputs + k] * b);
                    *x += scaling * products.sum::<f32>();
                }
            });
        })
    }
}
