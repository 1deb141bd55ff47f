//! The whole of GPT-2 in sixty lines, as simple as its formulas. Read this file first.
//!
//! [`gpt2`] takes a text as token ids and returns a score for every token that could come next. It calls the
//! `reference` function of each operation, which is that operation's formula and lies in a file of its own:
//! follow the links from here. There are no threads, no vector instructions and no cache, so this takes
//! seconds where [`Model::forward`] takes milliseconds. A test compares the two.

use super::Model;
use super::weights::{Block, Linear, LmHead, matrix};
use crate::checkpoint::{Config, LayerNormWeights};
use crate::kernels::linear::Matrix;
use crate::kernels::rows::Rows;
use crate::kernels::{attention, embedding, layer_norm, logits, mlp, positions};

/// A vector for every token.
type Vectors = Vec<Vec<f32>>;

/// The logits after every token of a text, `[n_tokens, vocab_size]`: the higher that of a token, the likelier
/// the token comes next.
///
/// Those of the model itself: an adapter is left out.
///
/// # Panics
/// Panics if an id is outside the vocabulary or the text is longer than the context.
///
/// ```
/// use hornbook::{Hornbook, model::reference::gpt2, sampling::top_logprobs};
///
/// let fable = Hornbook::open("fable")?;
/// let logits = gpt2(fable.model(), &fable.encode("Once upon a")?);
/// let (next, _) = top_logprobs(logits.last().expect("a token"), 1)[0];
/// assert_eq!(fable.tokenizer()?.decode(&[next]), " time");
/// # Ok::<(), hornbook::Error>(())
/// ```
pub fn gpt2(model: &Model, ids: &[u32]) -> Vectors {
    let (config, w) = (&model.config, &model.weights);
    let wpe = Matrix::new(model.wpe(None), config.n_positions, config.n_embd);

    // The residual stream: every token's embedding plus that of its position, [n_tokens, n_embd].
    let token = |&id: &u32| embedding::reference(matrix(&w.wte), id as usize);
    let position = |(t, x): (usize, Vec<f32>)| positions::reference(&x, wpe, t);
    let mut x: Vectors = ids.iter().map(token).enumerate().map(position).collect();

    // Every block adds to it twice: what each token gathers from others, then what it makes of that.
    for (layer, block) in w.blocks.iter().enumerate() {
        x = add(&x, &attention(&layer_norm(&x, &block.ln_1, config), block, layer, config));
        x = add(&x, &mlp(&layer_norm(&x, &block.ln_2, config), block, config));
    }

    // The LM head, [n_tokens, n_embd] -> [n_tokens, vocab_size].
    let x = layer_norm(&x, &w.ln_f, config);
    match &w.lm_head {
        LmHead::Embedding(table) => x.iter().map(|x| logits::reference(x, matrix(table))).collect(),
        LmHead::Quantized(layer) => linear(&x, layer),
    }
}

/// Multi-head attention: every token reads from itself and those before it.
fn attention(x: &Vectors, block: &Block, layer: usize, config: &Config) -> Vectors {
    let (n_embd, head_dim) = (config.n_embd, config.n_embd / config.n_head);
    let qkv = linear(x, &block.c_attn); // queries, keys and values of all heads, [n_tokens, 3 * n_embd]
    let mut z = vec![vec![]; x.len()]; // the heads' outputs, concatenated to [n_tokens, n_embd]
    for head in 0..config.n_head {
        let columns = |i| (i * n_embd + head * head_dim)..(i * n_embd + (head + 1) * head_dim);
        let of_head = |i| qkv.iter().flat_map(|row| row[columns(i)].to_vec()).collect::<Vec<f32>>();
        let (q, k, v) = (of_head(0), of_head(1), of_head(2)); // [n_tokens, head_dim] each
        let [q, k, v] = [&q, &k, &v].map(|x| Rows::dense(x, head_dim));
        let (out, _) = attention::reference(q, k, v, config.attention_scale(layer));
        z.iter_mut().zip(out.chunks(head_dim)).for_each(|(z, out)| z.extend(out.iter().map(|&x| x as f32)));
    }
    linear(&z, &block.attn_proj) // [n_tokens, n_embd]
}

/// The MLP: every token by itself, through n_inner neurons.
fn mlp(x: &Vectors, block: &Block, config: &Config) -> Vectors {
    let mlp = block.mlp(config.activation_function);
    x.iter().map(|x| mlp::reference(x, &mlp)).collect() // [n_tokens, n_embd]
}

fn layer_norm(x: &Vectors, w: &LayerNormWeights, config: &Config) -> Vectors {
    let (weight, bias, epsilon) = (w.weight.as_f32(), w.bias.as_f32(), config.layer_norm_epsilon);
    x.iter().map(|x| layer_norm::reference(x, weight, bias, epsilon)).collect()
}

fn linear(x: &Vectors, w: &Linear) -> Vectors {
    x.iter().map(|x| w.weight_matrix().reference(x, w.bias())).collect()
}

fn add(x: &Vectors, y: &Vectors) -> Vectors {
    x.iter().zip(y).map(|(x, y)| x.iter().zip(y).map(|(x, y)| x + y).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::attention::KvPrecision;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;
    use crate::model::{Precision, Session};
    use std::path::Path;

    /// Every checkpoint under tests/data: they differ in widths, heads, activation, scaling of attention, LM
    /// head, positions and precision.
    fn tiny_models() -> Vec<Model> {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let folders = data.read_dir().unwrap().map(|entry| entry.unwrap().path());
        let checkpoints = folders.filter(|folder| folder.join("config.json").exists());
        let pool = || ThreadPool::new(2, Isa::available()[0]);
        checkpoints.map(|folder| Model::new(Checkpoint::from_folder(&folder).unwrap(), pool())).collect()
    }

    /// Asserts that the reference and the forward pass agree, relative to the largest logit.
    fn assert_agree(model: &Model, tolerance: f32) {
        let vocab_size = model.config().vocab_size as u32;
        let ids: Vec<u32> = (0..40).map(|i| i * i * 7 % vocab_size).collect();
        let mut session = Session::new(model, ids.len(), KvPrecision::F32);
        let found = session.feed_all(&ids).unwrap();
        let expected = gpt2(model, &ids);
        let largest = expected.iter().flatten().fold(0.0f32, |max, x| max.max(x.abs()));
        for (t, expected) in expected.iter().enumerate() {
            for (found, expected) in found.row(t).iter().zip(expected) {
                let difference = (found - expected).abs();
                assert!(difference <= tolerance * largest, "{:?}: {found}, {expected}", model.config());
            }
        }
    }

    #[test]
    fn reference_and_forward_pass_agree_on_every_tiny_model() {
        let models = tiny_models();
        assert!(models.len() >= 12, "{} models", models.len());
        models.iter().for_each(|model| assert_agree(model, 1e-5));
    }

    /// Where an activation lies between two steps of its quantization, rounding decides: only so close.
    #[test]
    fn reference_and_forward_pass_agree_on_quantized_models() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-relu-untied");
        for precision in [Precision::Int8, Precision::Int4, Precision::Bf16Dot] {
            let (checkpoint, pool) =
                (Checkpoint::from_folder(&folder).unwrap(), ThreadPool::new(2, Isa::Portable));
            assert_agree(&Model::with_precision(checkpoint, pool, Some(precision)).unwrap(), 5e-2);
        }
    }
}
