//! What an attention kernel is, and what it is called with.
//!
//! A kernel gets everything at once ([`Call`]): the queries of any number of sequences, their pasts, where the mixtures
//! go and the threads. Most cut it into [`Tile`]s, some consecutive queries of one head, and say what to do with one
//! ([`Call::for_each_tile`]); tiles go to whichever thread is free. Whoever wants it otherwise, like split-KV, shares
//! the work out as it likes.

use super::KeyValues;
use super::aligned::Aligned;
use crate::kernels::isa::Isa;
use crate::kernels::rows::{Rows, RowsMut, SharedRows};
use crate::kernels::threads::Team;
use crate::kernels::tile::{tile_range, tile_rows};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A way to compute attention.
///
/// Every query is answered from positions alone: a kernel that starts, cuts or sums by anything else (the chunk it was
/// called with, the number of threads) would give other bits for the same text.
pub trait AttentionKernel: fmt::Debug + Sync {
    /// What `--attention` calls it.
    fn name(&self) -> &'static str;

    /// The idea, in half a line.
    fn about(&self) -> &'static str;

    /// What a query may see.
    fn mask(&self) -> Mask {
        Mask::Causal
    }

    /// Writes every query's mixture.
    fn attend(&self, call: &mut Call);
}

/// What a query may see of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Itself and all that came before it.
    Causal,
    /// Itself and the tokens before it, so many together.
    Window(usize),
}

impl Mask {
    /// The positions that the token at `position` sees.
    pub fn seen(self, position: usize) -> Range<usize> {
        let end = position + 1;
        match self {
            Mask::Causal => 0..end,
            Mask::Window(n) => end.saturating_sub(n)..end,
        }
    }
}

/// Consecutive tokens of one sequence that look back on it.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The row of the first of them among the queries.
    pub row: usize,
    /// How many.
    pub n: usize,
    /// The position of the first of them in the sequence.
    pub position: usize,
    /// The sequence's keys and values, those of these tokens included.
    pub past: &'a KeyValues,
}

/// The spans of a batch: how many, and each by its number.
#[derive(Clone, Copy)]
pub struct Spans<'a> {
    n: usize,
    get: &'a (dyn Fn(usize) -> Span<'a> + Sync),
}

impl<'a> Spans<'a> {
    /// `get(0)` to `get(n - 1)`.
    pub fn new(n: usize, get: &'a (dyn Fn(usize) -> Span<'a> + Sync)) -> Self {
        Self { n, get }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Span<'a>> {
        (0..self.n).map(move |i| (self.get)(i))
    }
}

thread_local! {
    /// What a thread works in, kept from one tile to the next: nothing is allocated for a token.
    static OF_TILE: RefCell<Aligned<f32>> = RefCell::new(Aligned::zeroed(0));
    /// What the threads of a call share, kept by the one that called.
    static OF_CALL: RefCell<Aligned<f32>> = RefCell::new(Aligned::zeroed(0));
}

/// The first `n` numbers of a buffer that grows.
fn first(buffer: &mut Aligned<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        *buffer = Aligned::zeroed(n.next_power_of_two()); // seldom, for kernels whose scratch grows with the past
    }
    &mut buffer[..n]
}

/// One computation of attention.
pub struct Call<'a, 's> {
    team: &'a Team,
    q: Rows<'a>,
    spans: Spans<'s>,
    scale: f32,
    z: SharedRows<'a>,
    /// Bytes of scratch: the most that a tile took, and what the call took.
    of_tile: AtomicUsize,
    of_call: AtomicUsize,
}

impl<'a, 's> Call<'a, 's> {
    /// Attention of queries `q` to their spans, into `z`; both are `[n_tokens, n_embd]`, the heads side by side. Panics
    /// where the shapes do not fit.
    pub fn new(team: &'a Team, q: Rows<'a>, spans: Spans<'s>, scale: f32, z: &'a mut RowsMut) -> Self {
        assert_eq!((q.width(), q.len()), (z.width(), z.len()), "z has the shape of q");
        for span in spans.iter() {
            assert_eq!(q.width(), span.past.n_head() * span.past.head_dim(), "q is [n_tokens, n_embd]");
            assert!(span.row + span.n <= q.len() && span.position + span.n <= span.past.capacity());
        }
        let (of_tile, of_call) = Default::default();
        Self { team, q, spans, scale, z: z.share(), of_tile, of_call }
    }

    /// The threads.
    pub fn team(&self) -> &Team {
        self.team
    }

    /// Rows of the largest tile whose sums stay in registers, on the instruction set in use.
    pub fn tile_rows(&self) -> usize {
        tile_rows(self.team.isa().is_wide())
    }

    /// The most positions that a query of this call sees.
    pub fn longest(&self) -> usize {
        let seen = self.spans.iter().filter(|span| span.n > 0).map(|span| span.position + span.n);
        seen.max().unwrap_or(0)
    }

    /// The most queries of one sequence.
    pub fn most_queries(&self) -> usize {
        self.spans.iter().map(|span| span.n).max().unwrap_or(0).max(1)
    }

    /// Numbers of a head's mixture: head_dim, filled up to whole vectors.
    pub fn mixture_width(&self) -> usize {
        self.spans.iter().map(|span| span.past.mixture_width()).max().unwrap_or(0)
    }

    /// Tiles of at most `rows` queries, those of all heads.
    pub fn tiles(&self, rows: usize) -> usize {
        self.spans.iter().map(|span| span.n.div_ceil(rows) * span.past.n_head()).sum()
    }

    /// Tile `index` of [`Call::tiles`]. Those of a head follow one another, so that its keys and values stay near.
    pub fn tile(&self, rows: usize, index: usize) -> Tile<'_> {
        let mut rest = index;
        let of = |span: &Span| span.n.div_ceil(rows);
        let mut spans = self.spans.iter();
        let span = loop {
            let span = spans.next().expect("as many tiles as were counted");
            match rest.checked_sub(of(&span) * span.past.n_head()) {
                Some(beyond) => rest = beyond,
                None => break span,
            }
        };
        let head_dim = span.past.head_dim();
        let (head, tile) = (rest / of(&span), rest % of(&span));
        let (first, n) = tile_range(span.n, rows, tile);
        Tile {
            index,
            isa: self.team.isa(),
            q: self.q.range(span.row + first, n).columns(head * head_dim, head_dim),
            past: span.past,
            head,
            position: span.position + first,
            scale: self.scale,
            row: span.row + first,
        }
    }

    /// Calls `work` for every tile of at most `rows` queries, on whichever threads are free, with `scratch` numbers to
    /// work in (as the last tile left them) and the rows for the tile's mixtures.
    pub fn for_each_tile(
        &mut self,
        rows: usize,
        scratch: impl Fn(&Tile) -> usize + Sync,
        work: impl Fn(&Tile, &mut [f32], &mut Mixtures) + Sync,
    ) {
        let call = &*self;
        call.team.run(call.tiles(rows), |i| {
            let tile = call.tile(rows, i);
            let start = tile.head * tile.q.width();
            let mut z = Mixtures { z: &call.z, row: tile.row, n: tile.q.len(), start, width: tile.q.width() };
            call.with_scratch(scratch(&tile), |scratch| work(&tile, scratch, &mut z));
        });
    }

    /// Calls `work` with `n` numbers that are this thread's until it returns, as the last one left them.
    pub fn with_scratch<T>(&self, n: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
        note(&self.of_tile, n);
        OF_TILE.with_borrow_mut(|buffer| work(first(buffer, n)))
    }

    /// Calls `work` with the call and `n` numbers for all threads to share, as the last call left them.
    pub fn with_shared<T>(&mut self, n: usize, work: impl FnOnce(&mut Self, &mut [f32]) -> T) -> T {
        note(&self.of_call, n);
        OF_CALL.with_borrow_mut(|buffer| work(self, first(buffer, n)))
    }

    /// Bytes of scratch so far, where every thread had a tile.
    pub fn scratch_bytes(&self) -> usize {
        let (tile, call) = (self.of_tile.load(Ordering::Relaxed), self.of_call.load(Ordering::Relaxed));
        tile * self.team.threads() + call
    }
}

/// Remembers the largest number of bytes.
fn note(most: &AtomicUsize, n: usize) {
    let bytes = n * size_of::<f32>();
    if most.load(Ordering::Relaxed) < bytes {
        most.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// Consecutive queries of one head.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// Its number in the call.
    pub index: usize,
    /// What to compute with.
    pub isa: Isa,
    /// `[n, head_dim]`
    pub q: Rows<'a>,
    /// The keys and values of all heads.
    pub past: &'a KeyValues,
    /// Which head.
    pub head: usize,
    /// The position of the first query.
    pub position: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// The row of the first query.
    row: usize,
}

impl Tile<'_> {
    /// One past the last position that any of its queries sees.
    pub fn end(&self) -> usize {
        self.position + self.q.len()
    }
}

/// A tile's part of the output, `[n, head_dim]`.
pub struct Mixtures<'a> {
    z: &'a SharedRows<'a>,
    row: usize,
    n: usize,
    start: usize,
    width: usize,
}

impl Mixtures<'_> {
    /// Query `m`'s mixture.
    #[inline(always)]
    pub fn row_mut(&mut self, m: usize) -> &mut [f32] {
        assert!(m < self.n);
        // SAFETY: these columns of these rows are this tile's own: tiles do not overlap, and while they are worked on
        // `for_each_tile` has the call for itself. `&mut self` lends one row at a time.
        unsafe { self.z.part(self.row + m, self.start, self.width) }
    }
}
