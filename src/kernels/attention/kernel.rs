//! The interface of an attention kernel, and its parameters.
//!
//! A kernel is called once for a whole batch ([`AttentionParams`]): the queries of any number of sequences,
//! their keys and values, the output and the threads. Most kernels split the work into [`QueryBlock`]s,
//! consecutive queries of one head, and define what to do with one
//! ([`AttentionParams::for_each_query_block`], which runs in parallel). A kernel that needs another split,
//! like split-KV, partitions the work itself.

use super::KeyValues;
use crate::aligned_vec::AlignedVec;
use crate::gemm::blocking::{block_range, mr};
use crate::isa::Isa;
use crate::rows::{DisjointRows, Rows, RowsMut};
use crate::thread_pool::ThreadPool;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An implementation of attention.
///
/// A query's blocks and summation order must depend on its position alone. If they depended on anything else
/// (the chunk of the prompt that it is in, the number of threads), the same text could give different bits.
///
/// Positions are read in multiples of sixteen, past the last token up to the cache's capacity
/// ([`KeyValues::capacity`]), which is a multiple of 64. So KV blocks of 16, 32 or 64 positions from
/// position 0 are always whole; a kernel with larger ones shortens the last block of a sequence.
pub trait AttentionKernel: fmt::Debug + Sync {
    /// Returns the name that `--attention` takes.
    fn name(&self) -> &'static str;

    /// Returns a description of the algorithm in half a line.
    fn description(&self) -> &'static str;

    /// Returns the attention mask.
    fn mask(&self) -> Mask {
        Mask::Causal
    }

    /// Returns the elements of scores that a thread keeps at once for `queries` queries and `kv_len` keys of
    /// a head, if they grow with both. They can exceed the memory, so a caller may check first.
    fn score_matrix_len(&self, _queries: usize, _kv_len: usize) -> usize {
        0
    }

    /// Computes attention and writes every query's output.
    fn attend(&self, params: &mut AttentionParams);
}

/// The attention mask: which positions a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The query's own position and all before it.
    Causal,
    /// The given number of most recent positions, the query's own included.
    SlidingWindow(usize),
}

impl Mask {
    /// Returns the positions that are not masked for the query at `position`.
    pub fn visible(self, position: usize) -> Range<usize> {
        let end = position + 1;
        match self {
            Mask::Causal => 0..end,
            Mask::SlidingWindow(n) => end.saturating_sub(n)..end,
        }
    }
}

/// Consecutive queries of one sequence, and the keys and values they attend to.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The row of the first query in the batch.
    pub first_row: usize,
    /// The number of queries.
    pub len: usize,
    /// The position of the first query in its sequence.
    pub position: usize,
    /// The sequence's keys and values, those of these queries included.
    pub kv: &'a KeyValues,
}

/// The segments of a batch, each computed from its index.
#[derive(Clone, Copy)]
pub struct Segments<'a> {
    len: usize,
    get: &'a (dyn Fn(usize) -> Segment<'a> + Sync),
}

impl<'a> Segments<'a> {
    /// The segments `get(0)` to `get(len - 1)`.
    pub fn new(len: usize, get: &'a (dyn Fn(usize) -> Segment<'a> + Sync)) -> Self {
        Self { len, get }
    }

    /// Returns the segments in order.
    pub fn iter(self) -> impl Iterator<Item = Segment<'a>> {
        (0..self.len).map(move |i| (self.get)(i))
    }
}

thread_local! {
    /// A thread's workspace, reused from one query block to the next: nothing is allocated per token.
    static THREAD_WORKSPACE: RefCell<AlignedVec<f32>> = RefCell::new(AlignedVec::zeroed(0));
    /// The workspace shared by the threads of a call, kept by the calling thread.
    static SHARED_WORKSPACE: RefCell<AlignedVec<f32>> = RefCell::new(AlignedVec::zeroed(0));
}

/// Returns the first `len` elements of a buffer, which grows if it is too small.
fn grow(buffer: &mut AlignedVec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        // Rare: only for kernels whose workspace grows with kv_len.
        *buffer = AlignedVec::zeroed(len.next_power_of_two());
    }
    &mut buffer[..len]
}

/// The parameters of one attention call: queries, keys and values, output, scale, threads and workspace.
pub struct AttentionParams<'a, 's> {
    pool: &'a ThreadPool,
    q: Rows<'a>,
    segments: Segments<'s>,
    scale: f32,
    out: DisjointRows<'a>,
    /// The largest workspace that a thread used, in bytes.
    thread_workspace_bytes: AtomicUsize,
    /// The largest shared workspace, in bytes.
    shared_workspace_bytes: AtomicUsize,
}

impl<'a, 's> AttentionParams<'a, 's> {
    /// Prepares attention of the queries `q` over their segments, into `out`; both are `[n_tokens, n_embd]`,
    /// heads concatenated.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn new(
        pool: &'a ThreadPool,
        q: Rows<'a>,
        segments: Segments<'s>,
        scale: f32,
        out: &'a mut RowsMut,
    ) -> Self {
        assert_eq!((q.width(), q.len()), (out.width(), out.len()), "the output has the shape of q");
        for segment in segments.iter() {
            assert_eq!(q.width(), segment.kv.n_head() * segment.kv.head_dim(), "q is [n_tokens, n_embd]");
            assert!(segment.first_row + segment.len <= q.len());
            assert!(segment.position + segment.len <= segment.kv.capacity());
        }
        let (thread_workspace_bytes, shared_workspace_bytes) = Default::default();
        Self {
            pool,
            q,
            segments,
            scale,
            out: out.as_disjoint(),
            thread_workspace_bytes,
            shared_workspace_bytes,
        }
    }

    /// Returns the thread pool.
    pub fn pool(&self) -> &ThreadPool {
        self.pool
    }

    /// Returns MR, the rows of the largest register tile of the instruction set in use: a query block of this
    /// size keeps its accumulators in registers.
    pub fn mr(&self) -> usize {
        mr(self.pool.isa().is_wide())
    }

    /// Returns the largest number of positions that a query of this call attends to.
    pub fn max_kv_len(&self) -> usize {
        let kv_lens = self.segments.iter().filter(|segment| segment.len > 0);
        kv_lens.map(|segment| segment.position + segment.len).max().unwrap_or(0)
    }

    /// Returns the largest number of queries of one sequence, at least one.
    pub fn max_query_len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).max().unwrap_or(0).max(1)
    }

    /// Returns head_dim, rounded up to whole vectors: the width of an output accumulator.
    pub fn padded_head_dim(&self) -> usize {
        self.segments.iter().map(|segment| segment.kv.padded_head_dim()).max().unwrap_or(0)
    }

    /// Returns the number of query blocks of at most `max_rows` queries, over all segments and heads.
    pub fn query_blocks(&self, max_rows: usize) -> usize {
        self.segments.iter().map(|segment| segment.len.div_ceil(max_rows) * segment.kv.n_head()).sum()
    }

    /// Returns query block `index` of [`AttentionParams::query_blocks`]. The blocks of a head are
    /// consecutive, so that its keys and values stay in the cache.
    pub fn query_block(&self, max_rows: usize, index: usize) -> QueryBlock<'_> {
        let mut rest = index;
        let blocks_per_head = |segment: &Segment| segment.len.div_ceil(max_rows);
        let mut segments = self.segments.iter();
        let segment = loop {
            let segment = segments.next().expect("index < query_blocks(max_rows)");
            match rest.checked_sub(blocks_per_head(&segment) * segment.kv.n_head()) {
                Some(beyond) => rest = beyond,
                None => break segment,
            }
        };
        let head_dim = segment.kv.head_dim();
        let (head, block) = (rest / blocks_per_head(&segment), rest % blocks_per_head(&segment));
        let (first, n) = block_range(segment.len, max_rows, block);
        QueryBlock {
            index,
            isa: self.pool.isa(),
            q: self.q.row_range(segment.first_row + first, n).columns(head * head_dim, head_dim),
            kv: segment.kv,
            head,
            position: segment.position + first,
            scale: self.scale,
            first_row: segment.first_row + first,
        }
    }

    /// Calls `work` for every query block of at most `max_rows` queries, in parallel, with `workspace_len`
    /// elements of workspace (holding whatever the last block left) and the block's output rows.
    pub fn for_each_query_block(
        &mut self,
        max_rows: usize,
        workspace_len: impl Fn(&QueryBlock) -> usize + Sync,
        work: impl Fn(&QueryBlock, &mut [f32], &mut OutputBlock) + Sync,
    ) {
        let params = &*self;
        params.pool.run(params.query_blocks(max_rows), |i| {
            let block = params.query_block(max_rows, i);
            let first_column = block.head * block.q.width();
            let mut out = OutputBlock {
                out: &params.out,
                first_row: block.first_row,
                n: block.q.len(),
                first_column,
                width: block.q.width(),
            };
            params.with_workspace(workspace_len(&block), |workspace| work(&block, workspace, &mut out));
        });
    }

    /// Takes note that every thread used `len` elements of workspace.
    pub fn record_workspace(&self, len: usize) {
        record_max_bytes(&self.thread_workspace_bytes, len);
    }

    /// Calls `work` with `len` elements of this thread's workspace, holding whatever the last call left.
    pub fn with_workspace<T>(&self, len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
        self.record_workspace(len);
        THREAD_WORKSPACE.with_borrow_mut(|buffer| work(grow(buffer, len)))
    }

    /// Calls `work` with `len` elements of workspace for all threads to share, holding whatever the last call
    /// left.
    pub fn with_shared_workspace<T>(
        &mut self,
        len: usize,
        work: impl FnOnce(&mut Self, &mut [f32]) -> T,
    ) -> T {
        record_max_bytes(&self.shared_workspace_bytes, len);
        SHARED_WORKSPACE.with_borrow_mut(|buffer| work(self, grow(buffer, len)))
    }

    /// Returns the bytes of workspace used so far, assuming that every thread processed a block.
    pub fn workspace_bytes(&self) -> usize {
        let per_thread = self.thread_workspace_bytes.load(Ordering::Relaxed);
        per_thread * self.pool.threads() + self.shared_workspace_bytes.load(Ordering::Relaxed)
    }
}

/// Raises `max` to the bytes of `len` elements.
fn record_max_bytes(max: &AtomicUsize, len: usize) {
    let bytes = len * size_of::<f32>();
    if max.load(Ordering::Relaxed) < bytes {
        max.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// Consecutive queries of one head.
#[derive(Clone, Copy, Debug)]
pub struct QueryBlock<'a> {
    /// The index of the block in the call.
    pub index: usize,
    /// The instruction set to compute with.
    pub isa: Isa,
    /// `[n, head_dim]`
    pub q: Rows<'a>,
    /// The keys and values of all heads.
    pub kv: &'a KeyValues,
    /// The index of the head.
    pub head: usize,
    /// The position of the first query.
    pub position: usize,
    /// The factor of the scores.
    pub scale: f32,
    /// The row of the first query in the batch.
    first_row: usize,
}

impl QueryBlock<'_> {
    /// Returns the number of positions that the last query attends to under the causal mask.
    pub fn kv_len(&self) -> usize {
        self.position + self.q.len()
    }
}

/// The output rows of a query block, `[n, head_dim]`.
pub struct OutputBlock<'a> {
    out: &'a DisjointRows<'a>,
    first_row: usize,
    n: usize,
    first_column: usize,
    width: usize,
}

impl OutputBlock<'_> {
    /// Returns the output row of query `m`.
    #[inline(always)]
    pub fn row_mut(&mut self, m: usize) -> &mut [f32] {
        assert!(m < self.n);
        // SAFETY: these columns of these rows belong to this block alone: blocks do not overlap, and
        // `for_each_query_block` holds the parameters exclusively. `&mut self` lends one row at a time.
        unsafe { self.out.row_slice(self.first_row + m, self.first_column, self.width) }
    }
}
