//! One chunk's pass through the layers.
//!
//! Positions are counted from the first token. The residual stream has one row per position, `look_ahead + chunk` of
//! them; a row holds the position's vector as left by the last layer that processed it, so rows that wait for their
//! neighbours to the right wait in place. Layer `i` reads a window of positions that is `Σ right` of the earlier layers
//! behind the newest one, and writes a window that is its own `right` further behind. Outside of the text everything is
//! zero.

use core::ops::Range;

use super::layout::Buffers;
use super::run::Run;
use crate::backend::{Backend, Window};
use crate::bundle::{Layer, ReadBundle};
use crate::ops::linear::Room;
use crate::ops::{embedding, ffn, glu, mix, norm, taps};
use crate::spec::{Config, Norm};

/// A window of positions as long as the chunk.
#[derive(Clone, Copy)]
struct Positions {
    /// The first one; negative before the text.
    first: i64,
    /// Rows of the chunk.
    rows: usize,
    /// Number of tokens of the text, as far as known.
    end: i64,
}

impl Positions {
    /// Returns the rows of the window that are tokens.
    fn tokens(self) -> Range<usize> {
        let rows = self.rows as i64;
        let before = (-self.first).max(0).min(rows);
        let behind = self.end.saturating_sub(self.first).max(before).min(rows);
        before as usize..behind as usize
    }

    /// Returns the window that is `rows` positions further behind.
    fn behind(self, rows: usize) -> Self {
        Positions { first: self.first - rows as i64, ..self }
    }

    /// Returns whether all of it is before the first token.
    fn is_before(self) -> bool {
        self.first + self.rows as i64 <= 0
    }

    /// Returns whether all of it is after the last token.
    fn is_after(self) -> bool {
        self.first >= self.end
    }
}

/// Returns rows `rows` of a matrix `[_, columns]`; all sizes come from [`super::layout`], so they exist.
pub(super) fn part_mut(x: &mut [f32], rows: Range<usize>, columns: usize) -> &mut [f32] {
    debug_assert!(rows.start <= rows.end && rows.end * columns <= x.len());
    x.get_mut(rows.start * columns..rows.end * columns).unwrap_or_default()
}

pub(super) fn part(x: &[f32], rows: Range<usize>, columns: usize) -> &[f32] {
    debug_assert!(rows.start <= rows.end && rows.end * columns <= x.len());
    x.get(rows.start * columns..rows.end * columns).unwrap_or_default()
}

fn copy(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
}

/// Moves `x[by..by + count]` to the beginning.
pub(super) fn shift(x: &mut [f32], by: usize, count: usize) {
    let (mut rest, mut left) = (x, if by == 0 { 0 } else { count });
    while left > 0 {
        let Some((to, from)) = rest.split_at_mut_checked(by) else { return };
        to.iter_mut().zip(from.iter()).take(left).for_each(|(to, &from)| *to = from);
        left = left.saturating_sub(by);
        rest = from;
    }
}

fn moved(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

impl Run {
    /// Sends the waiting tokens through all layers, with as many positions after the end of the text as are missing to
    /// `rows`.
    ///
    /// `rows`: at least the waiting tokens, at most a chunk; more than the tokens only at the end of the text, in which
    /// case `end` is the number of its tokens, otherwise a larger number.
    pub(super) fn advance(&mut self, model: &impl ReadBundle, scratch: &mut [u8], rows: usize, end: u64) {
        let (config, weights) = (model.config(), &model.weights());
        let Run { backend, layout, look_ahead, waiting, position, ngrams, .. } = self;
        let Some(mut buffers) = layout.buffers(scratch) else { return };
        let buffers = &mut buffers;
        let (c, look_ahead) = (config.hidden_size, *look_ahead);
        let newest = Positions { first: *position as i64, rows, end: end.min(i64::MAX as u64) as i64 };

        let ids = buffers.tokens.get(..*waiting).unwrap_or_default();
        let fresh = part_mut(buffers.residual, look_ahead..look_ahead + ids.len(), c);
        embedding::embedding(backend, weights, ids, c, fresh);
        if let Some(grams) = model.ngrams() {
            ngrams.add(&grams, ids, buffers.ngrams);
        }
        *waiting = 0;

        let mut lag = 0;
        let mut history_from = 0;
        for (i, layer) in weights.layers().enumerate() {
            let Some(convolution) = config.convolution(i) else { break };
            let (right, span) = (convolution.right(), convolution.left() + convolution.right());
            let input = newest.behind(lag);
            let output = input.behind(right);
            let history = history_from..history_from + span;
            history_from = history.end;
            // Before the first token, a layer has nothing to keep; after the last output, nothing to do.
            if !input.is_before() && !output.is_after() {
                let block = Block {
                    backend,
                    config,
                    layer,
                    window: Window { channels: c, taps: convolution.taps, dilation: convolution.dilation },
                    span,
                };
                let inputs = moved(input.tokens(), look_ahead - lag);
                let outputs = moved(output.tokens(), look_ahead - lag - right);
                let before = input.tokens().start;
                block.mixer(buffers, history, rows, before, inputs, output.tokens().start, outputs.clone());
                block.ffn(buffers, outputs);
            }
            lag += right;
        }

        // Rows of the last layer are at the front.
        let tokens = newest.behind(lag).tokens();
        let Buffers { residual, branch, pool, .. } = buffers;
        let mut x = part(residual, tokens, c);
        if config.norm == Norm::PreRms {
            x = norm::rms(backend, weights.final_norm(), x, branch);
        }
        pool.add(backend, x);

        shift(residual, rows * c, look_ahead * c);
        *position += rows as u64;
    }
}

/// One layer on one chunk.
pub(super) struct Block<'k, 'a> {
    pub(super) backend: &'k Backend,
    pub(super) config: &'k Config,
    pub(super) layer: Layer<'a>,
    pub(super) window: Window,
    /// Rows of history: `(K − 1)·dilation`.
    pub(super) span: usize,
}

impl Block<'_, '_> {
    /// Applies the mixer and its residual. `inputs` and `outputs` are rows of the residual stream; `before` and
    /// `before_output` are the rows of the window before the first token, `history` the rows of this layer among all
    /// histories.
    fn mixer(
        &self,
        buffers: &mut Buffers<'_>,
        history: Range<usize>,
        chunk_rows: usize,
        before: usize,
        inputs: Range<usize>,
        before_output: usize,
        outputs: Range<usize>,
    ) {
        let Block { backend, config, layer, window, span } = self;
        let (c, norm) = (window.channels, config.norm);
        let Buffers { residual, history: histories, gated, inner, branch, q, scales, .. } = buffers;
        let mut room = Room { q, scales };
        let history = part_mut(histories, history, c);

        copy(history, gated);
        let behind = before + inputs.len();
        part_mut(gated, *span..span + before, c).fill(0.0);
        part_mut(gated, span + behind..span + chunk_rows, c).fill(0.0);
        let fresh = part_mut(gated, span + before..span + behind, c);
        let x = norm::branch_input(backend, norm, &layer.mixer_norm, part(residual, inputs, c), branch);
        glu::glu(backend, &room.quantize(backend, x, c), &layer.input, &layer.gate, inner, fresh);
        copy(part(gated, chunk_rows..chunk_rows + span, c), history);

        let count = outputs.len();
        let gated = part(gated, before_output..before_output + count + span, c);
        let x = part_mut(residual, outputs, c);
        let Some((y, computed)) = inner.split_at_mut_checked(count * c) else { return };
        let input = match config.mixer.kind().reads_input() {
            true => norm::branch_input(backend, norm, &layer.mixer_norm, x, branch),
            false => &[],
        };
        let input = room.quantize(backend, input, c);
        let computed = taps(backend, &config.mixer, layer, *window, &input, computed);
        mix(backend, &config.mixer, layer, *window, gated, computed, y);
        let mixed = part_mut(branch, 0..count, c);
        room.quantize(backend, y, c).linear(backend, &layer.output, crate::backend::Activation::Identity, mixed);
        norm::residual(backend, norm, &layer.mixer_norm, mixed, x);
    }

    /// Applies the feed-forward network and its residual to `outputs`, rows of the residual stream.
    pub(super) fn ffn(&self, buffers: &mut Buffers<'_>, outputs: Range<usize>) {
        let Block { backend, config, layer, window, .. } = self;
        let (c, norm) = (window.channels, config.norm);
        let Buffers { residual, inner, branch, q, scales, .. } = buffers;
        let count = outputs.len();
        let x = part_mut(residual, outputs, c);
        let mut room = Room { q, scales };
        let operand = room.quantize(backend, norm::branch_input(backend, norm, &layer.ffn_norm, x, branch), c);
        let y = part_mut(branch, 0..count, c);
        ffn::ffn(backend, operand, &layer.up, &layer.down, inner, y);
        norm::residual(backend, norm, &layer.ffn_norm, y, x);
    }
}
