//! What the forward pass keeps for the backward pass: for each block five matrices, from which all others
//! are computed again in the time that it would take to read them. That is 10 · n_embd numbers per token
//! and block.

use crate::checkpoint::Config;
use crate::kernels::aligned_vec::AlignedVec;
use crate::kernels::rows::{Rows, RowsMut, row_stride};
use crate::kernels::thread_pool::ThreadPool;

/// A matrix with one row per token of the micro-batch.
#[derive(Clone, Debug)]
pub struct Buffer {
    data: AlignedVec<f32>,
    width: usize,
    n: usize,
}

impl Buffer {
    /// Room for `max_tokens` rows of `width` elements.
    fn new(max_tokens: usize, width: usize) -> Self {
        Self { data: AlignedVec::zeroed(max_tokens * row_stride(width)), width, n: max_tokens }
    }

    /// The rows, `[n_tokens, width]`.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.data, self.n, self.width, row_stride(self.width))
    }

    /// The rows, to be written.
    pub fn rows_mut(&mut self) -> RowsMut<'_> {
        RowsMut::new(&mut self.data, self.n, self.width, row_stride(self.width))
    }

    /// The rows in use, padding included.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data[..self.n * row_stride(self.width)]
    }

    /// Calls `job` with the index of each row and the row, on all threads.
    pub fn for_each_row(&mut self, pool: &ThreadPool, job: impl Fn(usize, &mut [f32]) + Sync) {
        let (width, stride) = (self.width, row_stride(self.width));
        pool.for_each_chunk(self.as_mut_slice(), stride, |t, row| job(t, &mut row[..width]));
    }

    /// Copies another buffer of the same shape.
    pub fn copy_from(&mut self, pool: &ThreadPool, other: &Buffer) {
        let other = other.rows();
        self.for_each_row(pool, |t, row| row.copy_from_slice(other.row(t)));
    }

    /// The bytes of a token's row.
    fn row_bytes(width: usize) -> usize {
        row_stride(width) * size_of::<f32>()
    }
}

/// The activations of a block that the backward pass needs, under TransformerLens's names.
#[derive(Clone, Debug)]
pub struct BlockActivations {
    /// The residual stream before the block, `[n_tokens, n_embd]`.
    pub resid_pre: Buffer,
    /// Queries, keys and values, `[n_tokens, 3 * n_embd]`.
    pub qkv: Buffer,
    /// The outputs of the heads, concatenated, `[n_tokens, n_embd]`.
    pub z: Buffer,
    /// The residual stream between attention and MLP, `[n_tokens, n_embd]`.
    pub resid_mid: Buffer,
    /// The neurons before their activation function, `[n_tokens, n_inner]`.
    pub pre: Buffer,
}

/// All activations of a micro-batch, and the buffers of a pass.
#[derive(Clone, Debug)]
pub struct Activations {
    /// One per block.
    pub blocks: Vec<BlockActivations>,
    /// The residual stream after the last block, `[n_tokens, n_embd]`.
    pub resid_final: Buffer,
    /// The output of a layer norm, `[n_tokens, n_embd]`.
    pub normed: Buffer,
    /// The neurons, `[n_tokens, n_inner]`.
    pub hidden: Buffer,
    /// The gradient of the residual stream, `[n_tokens, n_embd]`.
    pub dx: Buffer,
    /// The gradient of a layer norm's output or of z, `[n_tokens, n_embd]`.
    pub dy: Buffer,
    /// The gradient of queries, keys and values, `[n_tokens, 3 * n_embd]`.
    pub dqkv: Buffer,
    /// The gradient of the neurons, `[n_tokens, n_inner]`.
    pub dhidden: Buffer,
}

impl Activations {
    /// Room for micro-batches of at most `max_tokens` tokens.
    pub fn new(config: &Config, max_tokens: usize) -> Self {
        let buffer = |width| Buffer::new(max_tokens, width);
        let (n_embd, n_inner) = (config.n_embd, config.n_inner);
        let block = |_| BlockActivations {
            resid_pre: buffer(n_embd),
            qkv: buffer(3 * n_embd),
            z: buffer(n_embd),
            resid_mid: buffer(n_embd),
            pre: buffer(n_inner),
        };
        Self {
            blocks: (0..config.n_layer).map(block).collect(),
            resid_final: buffer(n_embd),
            normed: buffer(n_embd),
            hidden: buffer(n_inner),
            dx: buffer(n_embd),
            dy: buffer(n_embd),
            dqkv: buffer(3 * n_embd),
            dhidden: buffer(n_inner),
        }
    }

    /// The bytes that each token of a micro-batch takes.
    pub fn bytes_per_token(config: &Config) -> usize {
        let [embd, qkv, inner] = [config.n_embd, 3 * config.n_embd, config.n_inner].map(Buffer::row_bytes);
        config.n_layer * (3 * embd + qkv + inner) + 4 * embd + qkv + 2 * inner
    }

    /// Sets the number of tokens in use. Panics if there is no room for them.
    pub fn set_n_tokens(&mut self, n: usize) {
        let blocks = self.blocks.iter_mut();
        let of_blocks =
            blocks.flat_map(|b| [&mut b.resid_pre, &mut b.qkv, &mut b.z, &mut b.resid_mid, &mut b.pre]);
        let others = [
            &mut self.resid_final,
            &mut self.normed,
            &mut self.hidden,
            &mut self.dx,
            &mut self.dy,
            &mut self.dqkv,
            &mut self.dhidden,
        ];
        for buffer in of_blocks.chain(others) {
            assert!(
                n * row_stride(buffer.width) <= buffer.data.len(),
                "the micro-batch has room for its tokens"
            );
            buffer.n = n;
        }
    }
}
