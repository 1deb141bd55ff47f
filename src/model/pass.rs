//! The operations of a forward pass, from named buffer to named buffer. After each, one call of
//! [`Pass::probe`] tells the observer, and costs nothing if there is none.

use super::batch::for_each_run;
use super::weights::{Linear, LmHead};
use super::workspace::Buffer::{self, Unfused, X};
use super::workspace::SegmentRows;
use super::{AdapterWeights, Config, Model, Observer, Operation, Segment, Site, Workspace};
use crate::checkpoint::LayerNormWeights;
use crate::kernels::attention::{Segments, attention, attention_weights};
use crate::kernels::elements::Elements;
use crate::kernels::embedding::copy_row;
use crate::kernels::epilogue;
use crate::kernels::linear::Epilogue;
use crate::kernels::linear::low_rank::add_low_rank;
use ndarray::{ArrayViewMutD, ShapeBuilder};
use std::ops::Range;

/// A forward pass under way.
pub(super) struct Pass<'a, 'b, O> {
    pub(super) model: &'a Model,
    pub(super) batch: &'a mut [Segment<'b>],
    pub(super) workspace: &'a mut Workspace,
    pub(super) observer: &'a mut O,
}

impl<O: Observer> Pass<'_, '_, O> {
    /// `y[t] = table[row(t)]`, the row for token `t` of a segment in the table of its adapter.
    pub(super) fn embedding(
        &mut self,
        table: for<'a> fn(&'a Model, Option<&'a AdapterWeights>) -> Elements<'a>,
        row: impl Fn(&Segment, usize) -> usize,
        y: Buffer,
    ) {
        let Workspace { segment_rows, buffers } = &mut *self.workspace;
        buffers.start(y, self.model.config.n_embd);
        let mut y = buffers.rows_mut(y);
        for (segment, rows) in self.batch.iter().zip(segment_rows) {
            let table = table(self.model, segment.adapter());
            (0..rows.n).for_each(|t| copy_row(table, row(segment, t), y.row_mut(rows.row + t)));
        }
    }

    /// `y += x`
    pub(super) fn add(&mut self, x: Buffer, y: Buffer) {
        self.apply(Epilogue::Add, x, y);
    }

    /// `y = layer_norm(x)`
    pub(super) fn layer_norm(&mut self, x: Buffer, w: &LayerNormWeights, y: Buffer, op: Operation) {
        let (model, Workspace { segment_rows, buffers }) = (self.model, &mut *self.workspace);
        buffers.start(y, model.config.n_embd);
        let (x, mut out) = buffers.pair(x, y);
        let norm = |w: &LayerNormWeights, rows: Range<usize>| {
            model.norm(x.row_range(rows.start, rows.len()), w, out.row_range_mut(rows.start, rows.len()));
        };
        for_each_run(self.batch, segment_rows, |a| a.and_then(|a| a.layer_norm(op)).unwrap_or(w), norm);
        self.probe(op, y);
    }

    /// `y = x · W + b`, `y = activation(x · W + b)` or `y += x · W + b`: the epilogue says which. If there is
    /// an adapter, or an observer of `x · W + b` by itself, the epilogue comes later; the bits are the same.
    pub(super) fn linear(&mut self, x: Buffer, w: &Linear, epilogue: Epilogue, y: Buffer, op: Operation) {
        let (buffers, width) = (&mut self.workspace.buffers, w.bias().len());
        if epilogue != Epilogue::Add {
            buffers.start(y, width);
        }
        let site = op.site_before_epilogue().filter(|&site| O::ENABLED && self.observer.is_interested(site));
        let is_changed = self.batch.iter().any(|segment| segment.low_rank(op).is_some());
        if site.is_none() && !is_changed {
            let (rows, out) = buffers.pair(x, y);
            self.model.linear(rows, w, epilogue, out);
        } else {
            buffers.start(Unfused, width);
            let (rows, out) = buffers.pair(x, Unfused);
            self.model.linear(rows, w, Epilogue::Store, out);
            self.add_low_rank(x, Unfused, op);
            site.into_iter().for_each(|site| self.emit(site, Unfused));
            self.apply(epilogue, Unfused, y);
        }
        self.probe(op, y);
    }

    /// Adds what the adapters change in the output of a linear layer, `y += scaling · (x · A) · B`.
    fn add_low_rank(&mut self, x: Buffer, y: Buffer, op: Operation) {
        let (x, mut y) = self.workspace.buffers.pair(x, y);
        for (segment, &SegmentRows { row, n, .. }) in self.batch.iter().zip(&self.workspace.segment_rows) {
            if let Some(w) = segment.low_rank(op).filter(|_| n > 0) {
                add_low_rank(&self.model.pool, x.row_range(row, n), w, y.row_range_mut(row, n));
            }
        }
    }

    /// Applies an epilogue by itself.
    fn apply(&mut self, epilogue: Epilogue, x: Buffer, y: Buffer) {
        let (x, y) = self.workspace.buffers.pair(x, y);
        epilogue::apply(&self.model.pool, x, epilogue, y);
    }

    /// Appends the keys and values of the new tokens to their sequences' caches.
    pub(super) fn append_to_cache(&mut self, qkv: Buffer, layer: usize) {
        let (pool, n_embd) = (&self.model.pool, self.model.config.n_embd);
        let (rows, segment_rows) = (self.workspace.buffers.rows(qkv), &self.workspace.segment_rows);
        pool.for_each_chunk(self.batch, 1, |i, segment| {
            let kv = rows.row_range(segment_rows[i].row, segment_rows[i].n);
            segment[0].cache.append(pool, layer, kv.columns(n_embd, n_embd), kv.columns(2 * n_embd, n_embd));
        });
        self.probe(Operation::KvAppend(layer), qkv);
    }

    /// `y = softmax(q · k · scale) · v` for every head, with the keys and values in the cache.
    pub(super) fn attention(&mut self, qkv: Buffer, y: Buffer, layer: usize) {
        let (model, n_embd) = (self.model, self.model.config.n_embd);
        if layer + 1 == model.config.n_layer && !O::ENABLED {
            self.workspace.retain_logit_rows(self.batch, &[X, qkv]); // only these are needed from here on
        }
        let Workspace { segment_rows, buffers } = &mut *self.workspace;
        buffers.start(y, n_embd);
        let (rows, out) = buffers.pair(qkv, y);
        let (batch, q, scale) = (&*self.batch, rows.columns(0, n_embd), model.config.attention_scale(layer));
        let segment = |i: usize| batch[i].attention_segment(layer, &segment_rows[i]);
        let segments = Segments::new(batch.len(), &segment);
        if O::ENABLED && self.observer.is_interested(Site::Pattern(layer)) {
            for segment in segments.iter() {
                let shape = [model.config.n_head, segment.len, segment.position + segment.len];
                let mut p = attention_weights(model.pool.isa(), q, segment, scale, model.attention.mask());
                let p = ArrayViewMutD::from_shape(&shape[..], &mut p).expect("patterns have this shape");
                self.observer.observe(Site::Pattern(layer), p);
            }
        }
        attention(model.attention, &model.pool, q, segments, scale, out);
        self.probe(Operation::Attention(layer), y);
    }

    /// The LM head, for the tokens whose logits are requested.
    pub(super) fn unembed(&mut self, x: Buffer, y: Buffer) {
        if O::ENABLED {
            self.workspace.retain_logit_rows(self.batch, &[x]);
        }
        let (model, Workspace { segment_rows, buffers }) = (self.model, &mut *self.workspace);
        buffers.start(y, model.config.vocab_size);
        let (x, mut out) = buffers.pair(x, y);
        let unembed = |w: &LmHead, rows: Range<usize>| {
            model.unembed(x.row_range(rows.start, rows.len()), w, out.row_range_mut(rows.start, rows.len()));
        };
        for_each_run(self.batch, segment_rows, |adapter| model.lm_head(adapter), unembed);
        self.probe(Operation::LmHead, y);
    }

    /// Tells the observer that an operation has finished, and shows it the results.
    pub(super) fn probe(&mut self, operation: Operation, results: Buffer) {
        self.observer.operation_finished(operation);
        if !O::ENABLED {
            return;
        }
        let &Config { n_embd, n_layer, .. } = &self.model.config;
        match operation {
            Operation::Embed => self.emit(Site::ResidPre(0), results),
            Operation::Ln1(layer) => self.emit(Site::Ln1(layer), results),
            Operation::CAttn(layer) => {
                self.emit_columns(Site::Q(layer), results, 0..n_embd);
                self.emit_columns(Site::K(layer), results, n_embd..2 * n_embd);
                self.emit_columns(Site::V(layer), results, 2 * n_embd..3 * n_embd);
            }
            Operation::KvAppend(_) => {}
            Operation::Attention(layer) => self.emit(Site::Z(layer), results),
            Operation::AttnProj(layer) => self.emit(Site::ResidMid(layer), results),
            Operation::Ln2(layer) => self.emit(Site::Ln2(layer), results),
            Operation::CFc(layer) => self.emit(Site::Post(layer), results),
            Operation::MlpProj(layer) => {
                self.emit(Site::ResidPost(layer), results);
                if layer + 1 < n_layer {
                    self.emit(Site::ResidPre(layer + 1), results);
                }
            }
            Operation::LnF => self.emit(Site::FinalNorm, results),
            Operation::LmHead => self.emit(Site::Logits, results),
        }
    }

    /// Passes a buffer to an observer that is interested in the site.
    pub(super) fn emit(&mut self, site: Site, buffer: Buffer) {
        let width = self.workspace.buffers.rows(buffer).width();
        self.emit_columns(site, buffer, 0..width);
    }

    /// The same for some of its columns. There is nothing to observe if it has no rows.
    fn emit_columns(&mut self, site: Site, buffer: Buffer, columns: Range<usize>) {
        let rows = self.workspace.buffers.rows_mut(buffer);
        if O::ENABLED && !rows.is_empty() && self.observer.is_interested(site) {
            let shape = [rows.len(), columns.len()];
            let (data, stride) = rows.columns_mut(columns.start, columns.len()).into_parts();
            let values = ArrayViewMutD::from_shape(shape[..].strides(&[stride, 1][..]), data);
            self.observer.observe(site, values.expect("rows lie within their data"));
        }
    }
}
