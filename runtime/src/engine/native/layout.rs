//! Parts of the native engine's scratch arena and their sizes.

use super::scratch::Arena;
use crate::ops::linear::{inner_stride, stride};
use crate::ops::pooling::Pool;
use crate::spec::{Config, Convolution, Pooling};

/// A part of the scratch arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Content.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
}

/// Number of [`scratch_parts`].
pub const PARTS: usize = 12;

/// Number of elements of each part. All sums and products saturate, so a configuration that is too large for the
/// address space needs more than there can be.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Rows between the first layer and the last, and the rows of a chunk: `[look_ahead + chunk, C]`.
    residual: (usize, usize),
    /// Gated rows that each layer reads again: `[Σ (K − 1)·dilation, C]`.
    history: usize,
    /// History of one layer and the gated rows of a chunk: `[max (K − 1)·dilation + chunk, C]`.
    gated: usize,
    /// Gate, convolution with its computed taps, or the inner rows of the feed-forward network.
    inner: usize,
    /// Input or output of a branch, `[chunk, C]`.
    branch: usize,
    /// Quantized rows.
    q: usize,
    /// Their scales, `[chunk]`.
    scales: usize,
    /// Sums of the mean or the maximum so far, `[C]`.
    pool: usize,
    pooling: Pooling,
    /// Sums of the scores of n-grams, `[num_labels]`.
    ngrams: usize,
    /// Tokens not yet embedded, `[chunk]`.
    tokens: usize,
    /// Where the texts of a pack end, one each; none where texts go one by one.
    ends: usize,
}

impl Layout {
    pub(super) const fn new(config: &Config, chunk: usize) -> Self {
        let (c, ff) = (config.hidden_size, config.intermediate_size);
        let (mut taps, mut widest, mut all) = (0, 0, 0usize);
        let mut i = 0;
        while let Some(convolution) = config.convolution(i) {
            let span = convolution.left().saturating_add(convolution.right());
            taps = max(taps, convolution.taps);
            widest = max(widest, span);
            all = all.saturating_add(span);
            i += 1;
        }
        let ahead = match config.look_ahead() {
            Some(rows) => rows,
            None => 0,
        };
        let mixer = &config.mixer;
        let computed = if mixer.kind().reads_input() { mixer.kernel_heads().saturating_mul(taps) } else { 0 };
        Layout {
            residual: (ahead.saturating_mul(c), chunk.saturating_mul(c)),
            history: all.saturating_mul(c),
            gated: widest.saturating_add(chunk).saturating_mul(c),
            inner: chunk.saturating_mul(max(inner_stride(ff), c.saturating_add(computed))),
            branch: chunk.saturating_mul(c),
            q: chunk.saturating_mul(max(stride(c), stride(ff))),
            scales: chunk,
            pool: c,
            pooling: config.pooling,
            ngrams: if config.ngrams > 0 { config.num_labels } else { 0 },
            tokens: chunk,
            ends: 0,
        }
    }

    /// The same for whole texts side by side, `rows` tokens of at most `texts` texts: nothing waits, and the gated rows of neighbours
    /// have [`gap`] rows between them.
    pub(super) const fn packed(config: &Config, rows: usize, texts: usize) -> Self {
        let (mut widest, mut i) = (0, 0);
        while let Some(convolution) = config.convolution(i) {
            widest = max(widest, gap(&convolution));
            i += 1;
        }
        let gaps = texts.saturating_add(1).saturating_mul(widest);
        let one_by_one = Layout::new(config, rows);
        Layout {
            residual: (0, one_by_one.residual.1),
            history: 0,
            gated: gaps.saturating_add(rows).saturating_mul(config.hidden_size),
            ends: texts,
            ..one_by_one
        }
    }

    const fn parts(&self) -> [Part; PARTS] {
        let (pending, residual) = self.residual;
        let whole = Arena::piece_bytes::<f32>(pending.saturating_add(residual));
        // The two are adjacent; the cost of rounding counts for the second.
        let pending = pending.saturating_mul(size_of::<f32>());
        let pool = match self.pooling {
            Pooling::Mean => Arena::piece_bytes::<i64>(self.pool),
            Pooling::Max => Arena::piece_bytes::<f32>(self.pool),
        };
        [
            Part { name: "alignment", bytes: Arena::SLACK },
            Part { name: "history of gated rows", bytes: Arena::piece_bytes::<f32>(self.history) },
            Part { name: "pending residual rows", bytes: pending },
            Part { name: "chunk: residual rows", bytes: whole.saturating_sub(pending) },
            Part { name: "chunk: gated rows", bytes: Arena::piece_bytes::<f32>(self.gated) },
            Part { name: "chunk: inner rows", bytes: Arena::piece_bytes::<f32>(self.inner) },
            Part { name: "chunk: branch rows", bytes: Arena::piece_bytes::<f32>(self.branch) },
            Part { name: "chunk: quantized rows", bytes: Arena::piece_bytes::<u8>(self.q) },
            Part { name: "chunk: scales", bytes: Arena::piece_bytes::<f32>(self.scales) },
            Part { name: "chunk: tokens", bytes: Arena::piece_bytes::<u32>(self.tokens) },
            Part { name: "pooling", bytes: pool },
            Part { name: "n-grams", bytes: Arena::piece_bytes::<i64>(self.ngrams) },
        ]
    }
}

/// Returns the rows of zeros between the gated rows of two texts: those that a convolution reads on either side of its own.
pub(super) const fn gap(convolution: &Convolution) -> usize {
    max(convolution.left(), convolution.right())
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Returns the parts of the scratch arena for chunks of `chunk` rows. Their bytes add up to [`scratch_bytes`].
pub const fn scratch_parts(config: &Config, chunk: usize) -> [Part; PARTS] {
    Layout::new(config, chunk).parts()
}

/// Returns the bytes of scratch that the native engine needs for chunks of `chunk` rows, for any alignment of the
/// buffer. Can be evaluated at compile time, so firmware does not build if its arena is too small.
///
/// Saturates; the configuration should be valid ([`Config::validate`]).
pub const fn scratch_bytes(config: &Config, chunk: usize) -> usize {
    sum(&scratch_parts(config, chunk))
}

/// Returns the bytes of scratch that [`PackedEngine`](super::PackedEngine) needs for `rows` tokens, for any alignment of the buffer.
/// Saturates.
pub const fn packed_scratch_bytes(config: &Config, rows: usize) -> usize {
    let texts = most_texts(rows);
    sum(&Layout::packed(config, rows, texts).parts()).saturating_add(Arena::piece_bytes::<u32>(texts))
}

/// Returns the most texts that are packed into `rows` tokens: the shortest of them have a word or two.
pub(super) const fn most_texts(rows: usize) -> usize {
    rows.div_ceil(3)
}

const fn sum(parts: &[Part; PARTS]) -> usize {
    let (mut sum, mut i) = (0usize, 0);
    while i < PARTS {
        sum = sum.saturating_add(parts[i].bytes);
        i += 1;
    }
    sum
}

/// The parts of the arena, cut out of its bytes. Lengths are those of [`Layout`].
pub(super) struct Buffers<'a> {
    pub(super) tokens: &'a mut [u32],
    pub(super) residual: &'a mut [f32],
    pub(super) history: &'a mut [f32],
    pub(super) gated: &'a mut [f32],
    pub(super) inner: &'a mut [f32],
    pub(super) branch: &'a mut [f32],
    pub(super) q: &'a mut [u8],
    pub(super) scales: &'a mut [f32],
    pub(super) pool: Pool<'a>,
    pub(super) ngrams: &'a mut [i64],
    pub(super) ends: &'a mut [u32],
}

impl Layout {
    /// Cuts the parts; returns `None` if `scratch` has fewer than [`scratch_bytes`] bytes.
    pub(super) fn buffers<'a>(&self, scratch: &'a mut [u8]) -> Option<Buffers<'a>> {
        let mut arena = Arena::new(scratch);
        let (pending, residual) = self.residual;
        Some(Buffers {
            tokens: arena.take(self.tokens)?,
            residual: arena.take(pending.saturating_add(residual))?,
            history: arena.take(self.history)?,
            gated: arena.take(self.gated)?,
            inner: arena.take(self.inner)?,
            branch: arena.take(self.branch)?,
            q: arena.take(self.q)?,
            scales: arena.take(self.scales)?,
            pool: match self.pooling {
                Pooling::Mean => Pool::Mean(arena.take(self.pool)?),
                Pooling::Max => Pool::Max(arena.take(self.pool)?),
            },
            ngrams: arena.take(self.ngrams)?,
            ends: arena.take(self.ends)?,
        })
    }

    /// Cuts only the tokens, which come first.
    pub(super) fn tokens<'a>(&self, scratch: &'a mut [u8]) -> Option<&'a mut [u32]> {
        Arena::new(scratch).take(self.tokens)
    }
}
