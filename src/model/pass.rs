//! The operations of a forward pass, from named buffer to named buffer. After each, one call of
//! [`Pass::probe`] tells the observer, and costs nothing if there is none.

use super::weights::Linear;
use super::workspace::Buffer::{self, Unfused, X};
use super::{Config, Model, Observer, Operation, Segment, Site, Workspace};
use crate::checkpoint::LayerNormWeights;
use crate::kernels::attention::{Segments, attention, attention_weights};
use crate::kernels::elements::Elements;
use crate::kernels::embedding::copy_row;
use crate::kernels::linear::Epilogue;
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
    /// `to[t] = table[row(t)]`, the row for token `t` of a segment.
    pub(super) fn embedding(
        &mut self,
        table: Elements,
        row: impl Fn(&Segment, usize) -> usize,
        to: Buffer,
        site: Site,
    ) {
        let Workspace { segment_rows, buffers } = &mut *self.workspace;
        buffers.start(to, self.model.config.n_embd);
        let mut y = buffers.rows_mut(to);
        for (segment, rows) in self.batch.iter().zip(segment_rows) {
            (0..rows.n).for_each(|t| copy_row(table, row(segment, t), y.row_mut(rows.row + t)));
        }
        self.emit(site, to);
    }

    /// `to += from`
    pub(super) fn add(&mut self, from: Buffer, to: Buffer) {
        self.apply(Epilogue::Add, from, to);
    }

    /// `to = layer_norm(from)`
    pub(super) fn layer_norm(
        &mut self,
        from: Buffer,
        w: &LayerNormWeights,
        to: Buffer,
        operation: Operation,
    ) {
        self.workspace.buffers.start(to, self.model.config.n_embd);
        let (x, y) = self.workspace.buffers.pair(from, to);
        self.model.norm(x, w, y);
        self.probe(operation, to);
    }

    /// `to = from · W + b`, `to = activation(from · W + b)` or `to += from · W + b`, whichever the epilogue
    /// says. To an observer of the values before it, they are shown first; the bits are the same.
    pub(super) fn linear(
        &mut self,
        from: Buffer,
        w: &Linear,
        epilogue: Epilogue,
        to: Buffer,
        operation: Operation,
    ) {
        let (model, width) = (self.model, w.bias().len());
        if epilogue != Epilogue::Add {
            self.workspace.buffers.start(to, width);
        }
        match operation.site_before_epilogue().filter(|&site| O::ENABLED && self.observer.is_interested(site))
        {
            None => {
                let (x, y) = self.workspace.buffers.pair(from, to);
                model.linear(x, w, epilogue, y);
            }
            Some(site) => {
                self.workspace.buffers.start(Unfused, width);
                let (x, y) = self.workspace.buffers.pair(from, Unfused);
                model.linear(x, w, Epilogue::Store, y);
                self.emit(site, Unfused);
                self.apply(epilogue, Unfused, to);
            }
        }
        self.probe(operation, to);
    }

    /// Applies an epilogue by itself.
    fn apply(&mut self, epilogue: Epilogue, from: Buffer, to: Buffer) {
        let (x, mut y) = self.workspace.buffers.pair(from, to);
        for t in 0..x.len() {
            let (x, y) = (x.row(t), y.row_mut(t));
            match epilogue {
                Epilogue::Add => y.iter_mut().zip(x).for_each(|(y, x)| *y += x),
                Epilogue::Store => y.copy_from_slice(x),
                Epilogue::Activate(activation) => {
                    y.copy_from_slice(x);
                    activation.apply(self.model.pool.isa(), y);
                }
            }
        }
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

    /// `to = softmax(q · k · scale) · v` for every head, with the keys and values in the cache.
    pub(super) fn attention(&mut self, qkv: Buffer, to: Buffer, layer: usize) {
        let (model, n_embd) = (self.model, self.model.config.n_embd);
        if layer + 1 == model.config.n_layer && !O::ENABLED {
            self.workspace.retain_logit_rows(self.batch, &[X, qkv]); // only these are needed from here on
        }
        let Workspace { segment_rows, buffers } = &mut *self.workspace;
        buffers.start(to, n_embd);
        let (rows, z) = buffers.pair(qkv, to);
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
        attention(model.attention, &model.pool, q, segments, scale, z);
        self.probe(Operation::Attention(layer), to);
    }

    /// The LM head, for the tokens whose logits are requested.
    pub(super) fn unembed(&mut self, from: Buffer, to: Buffer, operation: Operation) {
        if O::ENABLED {
            self.workspace.retain_logit_rows(self.batch, &[from]);
        }
        self.workspace.buffers.start(to, self.model.config.vocab_size);
        let (x, y) = self.workspace.buffers.pair(from, to);
        self.model.unembed(x, y);
        self.probe(operation, to);
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

    fn emit(&mut self, site: Site, buffer: Buffer) {
        let width = self.workspace.buffers.rows(buffer).width();
        self.emit_columns(site, buffer, 0..width);
    }

    /// Passes columns of a buffer, if it has rows, to an observer that is interested in the site.
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
