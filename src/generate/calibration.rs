//! Calibration of a quantization: which inputs a text gives to the matrices of every block.
//!
//! The text runs through the model as it is, and of the inputs `x` of each matrix H = Σ_t x_tᵀ x_t is summed,
//! `[in, in]`: how much an error of one weight matters, and which weights can make up for it
//! ([`gptq`](crate::kernels::formats::gptq)). These matrices are larger than the weights, so a pass over the
//! text sums those of as many blocks as fit into memory.

use crate::kernels::backward::linear::weight_gradient;
use crate::kernels::formats::gptq::Feedback;
use crate::kernels::rows::Rows;
use crate::kernels::thread_pool::ThreadPool;
use crate::model::{Model, Observer, Session, Site};
use crate::{Error, Result};
use ndarray::ArrayViewMutD;
use std::ops::Range;

/// Windows of the text that are used at most, evenly spaced: as many as in the paper.
const MAX_WINDOWS: usize = 128;
/// Tokens per window, unless the model's context is shorter.
const WINDOW: usize = 512;
/// Tokens that a text needs at least: from fewer, H says more about the text than about the model.
pub const MIN_TOKENS: usize = 2048;

/// The calibration of a model's matrices by a text.
pub struct Calibration<'m> {
    model: &'m Model,
    windows: Vec<&'m [u32]>,
    /// Blocks per pass over the text.
    blocks_per_pass: usize,
    inputs: Inputs<'m>,
}

impl<'m> Calibration<'m> {
    /// Chooses the windows of a text. A pass over it sums the inputs of at most `blocks_per_pass` blocks, at
    /// least one, of [`block_bytes`] each.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a text of fewer than [`MIN_TOKENS`] tokens.
    pub fn new(model: &'m Model, ids: &'m [u32], blocks_per_pass: usize) -> Result<Self> {
        let n = ids.len();
        if n < MIN_TOKENS {
            let problem = format!("the text has {n} tokens, expected at least {MIN_TOKENS}");
            return Err(Error::Prompt(problem));
        }
        let config = model.config();
        let window = config.n_positions.min(WINDOW);
        let n_windows = (n / window).min(MAX_WINDOWS);
        let windows = (0..n_windows).map(|i| &ids[i * (n / n_windows)..][..window]);
        Ok(Self {
            model,
            windows: windows.collect(),
            blocks_per_pass: blocks_per_pass.clamp(1, config.n_layer),
            inputs: Inputs { pool: model.pool(), blocks: 0..0, hessians: vec![] },
        })
    }

    /// Returns the feedback of a block's matrices, `c_attn`, `attn.c_proj`, `c_fc` and `mlp.c_proj`. Blocks
    /// are asked for in their order. `on_progress` is called with the number of tokens computed and the
    /// total; an error from it ends the pass.
    ///
    /// # Errors
    /// Those of `on_progress`, and as [`Model::forward`].
    pub fn feedback(
        &mut self,
        block: usize,
        on_progress: &mut impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<[Feedback; 4]> {
        if !self.inputs.blocks.contains(&block) {
            self.pass(block, on_progress)?;
        }
        let hessians = &mut self.inputs.hessians[block - self.inputs.blocks.start];
        let mut hessians = std::mem::take(hessians).into_iter();
        Ok(widths(self.model).map(|width| Feedback::new(&hessians.next().unwrap_or_default(), width)))
    }

    /// Sums the inputs of the blocks from `first` on.
    fn pass(&mut self, first: usize, on_progress: &mut impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        let n_layer = self.model.config().n_layer;
        let blocks = first..n_layer.min(first + self.blocks_per_pass);
        let zeros = || widths(self.model).map(|width| vec![0.0; width * width]);
        let hessians = blocks.clone().map(|_| zeros().into()).collect();
        let inputs = Inputs { pool: self.model.pool(), blocks, hessians };
        let window = self.windows[0].len();
        let passes = n_layer.div_ceil(self.blocks_per_pass);
        let before = first / self.blocks_per_pass * self.windows.len();
        let mut session = Session::observed(self.model, window, None, inputs);
        for (i, tokens) in self.windows.iter().enumerate() {
            on_progress((before + i) * window, passes * self.windows.len() * window)?;
            session.truncate(0);
            session.feed(tokens)?;
        }
        self.inputs = session.into_observer();
        Ok(())
    }
}

/// The bytes that the sums of a block take.
pub fn block_bytes(model: &Model) -> usize {
    widths(model).iter().map(|width| width * width * size_of::<f32>()).sum()
}

/// The numbers of inputs of a block's matrices.
fn widths(model: &Model) -> [usize; 4] {
    let config = model.config();
    [config.n_embd, config.n_embd, config.n_embd, config.n_inner]
}

/// Sums the products of the inputs of some blocks' matrices.
struct Inputs<'m> {
    pool: &'m ThreadPool,
    blocks: Range<usize>,
    /// H of each block's matrices, `[in, in]`.
    hessians: Vec<Vec<Vec<f32>>>,
}

impl Inputs<'_> {
    /// The block and the matrix that read what is at a site.
    fn matrix(&self, site: Site) -> Option<(usize, usize)> {
        let (block, matrix) = match site {
            Site::Ln1(block) => (block, 0),
            Site::Z(block) => (block, 1),
            Site::Ln2(block) => (block, 2),
            Site::Post(block) => (block, 3),
            _ => return None,
        };
        self.blocks.contains(&block).then_some((block - self.blocks.start, matrix))
    }
}

impl Observer for Inputs<'_> {
    fn is_interested(&self, site: Site) -> bool {
        self.matrix(site).is_some()
    }

    fn observe(&mut self, site: Site, values: ArrayViewMutD<'_, f32>) {
        let Some((block, matrix)) = self.matrix(site) else { return };
        let width = values.len() / values.shape()[0];
        let values = values.as_standard_layout();
        let x = Rows::dense(values.as_slice().unwrap_or_default(), width);
        weight_gradient(self.pool, x, x, &mut self.hessians[block][matrix]);
    }
}
