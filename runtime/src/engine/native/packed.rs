//! Whole texts side by side: many short ones go through the layers together.
//!
//! A text of ten tokens fills a chunk a quarter, yet reads every matrix of the model once. Here as many texts as there are rows for
//! go through each matrix together, and through the head as well. Nothing streams: each layer has all tokens of a text, with
//! rows of zeros between the gated rows of neighbours, as there are zeros before and after a text in [`super::pass`]. So what is
//! beside a text changes no bit of its scores, which are those of [`NativeEngine`](super::NativeEngine).

use core::fmt;

use super::layout::{Buffers, Layout, gap, most_texts, packed_scratch_bytes};
use super::pass::{Block, part, part_mut, shift};
use super::scratch::Scratch;
use crate::backend::{Activation, Backend, Window};
use crate::bundle::ReadBundle;
use crate::error::Error;
use crate::ops::linear::Room;
use crate::ops::ngrams::Seen;
use crate::ops::{embedding, glu, mix, norm, pooling, taps};
use crate::spec::{Convolution, Norm};

/// Default number of tokens of a pack: enough for full speed, few enough for the cache.
pub const DEFAULT_PACK: usize = 96;

/// Scores many short texts in one pass, with the bits of [`NativeEngine`](super::NativeEngine).
///
/// [`PackedEngine::push`] takes texts as long as there is room, [`PackedEngine::scores`] scores them all. For servers and
/// files; a device, which has one text at a time and little memory, needs [`NativeEngine`](super::NativeEngine) alone. Nothing
/// allocates and nothing panics.
///
/// ```
/// use kinglet::bundle::Bundle;
/// use kinglet::engine::native::{DEFAULT_PACK, PackedEngine, packed_scratch_bytes};
/// # let bytes = kinglet::bundle::Buffer::new(&std::fs::read("../models/intents/model.kinglet").unwrap());
/// # let bytes = bytes.as_slice();
///
/// let bundle = Bundle::new(bytes)?;
/// let (table, labels) = (bundle.tokenizer(), bundle.labels());
/// let scratch = vec![0; packed_scratch_bytes(bundle.config(), DEFAULT_PACK)];
/// let mut engine = PackedEngine::new(bundle, scratch)?;
/// for text in ["wake me at seven tomorrow", "play some jazz"] {
///     assert!(engine.push(&table.encode(text.as_bytes()))?, "two short texts fit");
/// }
/// let mut scores = vec![0.0; engine.texts() * labels.len()];
/// engine.scores(&mut scores)?;
/// # let best = kinglet::answer::best(&scores[..labels.len()]).unwrap();
/// # assert_eq!(labels.get(best.0), Some("alarm"));
/// # Ok::<(), kinglet::Error>(())
/// ```
pub struct PackedEngine<M, S> {
    model: M,
    scratch: S,
    pack: Pack,
}

/// State of an engine; the tokens of the texts so far, and where each ends, are in its scratch memory.
struct Pack {
    backend: Backend,
    layout: Layout,
    /// Most tokens of all texts together.
    rows: usize,
    tokens: usize,
    texts: usize,
}

impl<M: ReadBundle, S: Scratch> PackedEngine<M, S> {
    /// Creates an engine with the fastest backend of this processor for [`DEFAULT_PACK`] tokens.
    ///
    /// `scratch`: at least [`packed_scratch_bytes`]`(config, DEFAULT_PACK)` bytes with any content.
    ///
    /// # Errors
    /// If `scratch` is too small, or the model has an attention mixer.
    pub fn new(model: M, scratch: S) -> Result<Self, Error> {
        Self::with_rows(model, scratch, Backend::detect(), DEFAULT_PACK)
    }

    /// As [`PackedEngine::new`], on `backend` and for `rows` tokens.
    ///
    /// # Errors
    /// If `scratch` is smaller than [`packed_scratch_bytes`]`(config, rows)`, if `rows` is 0, or the model has an attention mixer.
    pub fn with_rows(model: M, mut scratch: S, backend: Backend, rows: usize) -> Result<Self, Error> {
        model.config().look_ahead().ok_or(Error::Attention)?;
        if rows == 0 {
            return Err(Error::EmptyChunk);
        }
        let (need, got) = (packed_scratch_bytes(model.config(), rows), scratch.bytes_mut().len());
        if got < need {
            return Err(Error::ScratchTooSmall { need, got });
        }
        let layout = Layout::packed(model.config(), rows, most_texts(rows));
        Ok(PackedEngine { model, scratch, pack: Pack { backend, layout, rows, tokens: 0, texts: 0 } })
    }

    /// Returns the model it runs.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the backend it runs on.
    pub fn backend(&self) -> &Backend {
        &self.pack.backend
    }

    /// Returns the most tokens of all texts together: a longer text never fits.
    pub fn rows(&self) -> usize {
        self.pack.rows
    }

    /// Returns the number of texts that wait for their scores.
    pub fn texts(&self) -> usize {
        self.pack.texts
    }

    /// Discards the texts that wait.
    pub fn clear(&mut self) {
        (self.pack.tokens, self.pack.texts) = (0, 0);
    }

    /// Adds a text if there is room; returns whether there was. An engine without texts has room for any of at most
    /// [`PackedEngine::rows`] tokens.
    ///
    /// # Errors
    /// If `ids` is empty or has one that is not in the vocabulary; the text is not added then.
    pub fn push(&mut self, ids: &[u32]) -> Result<bool, Error> {
        let Pack { layout, rows, tokens, texts, .. } = &mut self.pack;
        let vocab_size = self.model.config().vocab_size;
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        // The config's vocabulary is at most 2²⁰.
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(Error::UnknownToken { id, vocab_size });
        }
        let Some(Buffers { tokens: places, ends, .. }) = layout.buffers(self.scratch.bytes_mut()) else {
            return Ok(false);
        };
        let end = tokens.saturating_add(ids.len());
        match (places.get_mut(*tokens..end), ends.get_mut(*texts)) {
            (Some(places), Some(place)) if end <= *rows => {
                places.iter_mut().zip(ids).for_each(|(place, &id)| *place = id);
                // At most `rows`, whose vectors are in memory.
                *place = end as u32;
                (*tokens, *texts) = (end, *texts + 1);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Scores the texts that wait, in the order of their coming; none waits afterwards.
    ///
    /// `out`: `[texts, num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// If `out` has the wrong length; the texts still wait then.
    pub fn scores(&mut self, out: &mut [f32]) -> Result<(), Error> {
        let labels = self.model.config().num_labels;
        let (need, got) = (self.pack.texts.saturating_mul(labels), out.len());
        if need != got {
            return Err(Error::OutputLength { need, got });
        }
        self.pack.run(&self.model, self.scratch.bytes_mut(), out);
        self.clear();
        Ok(())
    }
}

impl<M: ReadBundle, S> fmt::Debug for PackedEngine<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pack { backend, rows, tokens, texts, .. } = &self.pack;
        let mut out = f.debug_struct("PackedEngine");
        out.field("backend", backend).field("rows", rows).field("tokens", tokens).field("texts", texts);
        out.finish_non_exhaustive()
    }
}

/// Returns the first row and the row after the last of each text.
fn ranges(ends: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    ends.iter().scan(0, |start, &end| Some((core::mem::replace(start, end as usize), end as usize)))
}

impl Pack {
    fn run(&self, model: &impl ReadBundle, scratch: &mut [u8], out: &mut [f32]) {
        let (config, weights, backend) = (model.config(), &model.weights(), &self.backend);
        let Some(mut buffers) = self.layout.buffers(scratch) else { return };
        let (c, rows) = (config.hidden_size, self.tokens);
        let ids = buffers.tokens.get(..rows).unwrap_or_default();
        embedding::embedding(backend, weights, ids, c, part_mut(buffers.residual, 0..rows, c));
        for (i, layer) in weights.layers().enumerate() {
            let Some(convolution) = config.convolution(i) else { break };
            let window = Window { channels: c, taps: convolution.taps, dilation: convolution.dilation };
            let span = convolution.left() + convolution.right();
            let block = Block { backend, config, layer, window, span };
            block.mixer_of_texts(&mut buffers, &convolution, self.texts);
            block.ffn(&mut buffers, 0..rows);
        }

        let Buffers { tokens, residual, inner, branch, q, scales, mut pool, ngrams, ends, .. } = buffers;
        let ends = ends.get(..self.texts).unwrap_or_default();
        let mut x = part(residual, 0..rows, c);
        if config.norm == Norm::PreRms {
            x = norm::rms(backend, weights.final_norm(), x, branch);
        }
        let pooled = part_mut(inner, 0..self.texts, c);
        for ((start, end), pooled) in ranges(ends).zip(pooled.chunks_exact_mut(c.max(1))) {
            pool.clear();
            pool.add(backend, part(x, start..end, c));
            pool.vector((end - start) as u64, pooled);
        }
        pooling::head(backend, &mut Room { q, scales }, pooled, c, weights.head(), out);
        if let Some(grams) = model.ngrams() {
            for ((start, end), out) in ranges(ends).zip(out.chunks_exact_mut(config.num_labels.max(1))) {
                let mut seen = Seen::default();
                ngrams.fill(0);
                seen.add(&grams, tokens.get(start..end).unwrap_or_default(), ngrams);
                seen.score(&grams, ngrams, out);
            }
        }
    }
}

impl Block<'_, '_> {
    /// Applies the mixer and its residual to whole texts, side by side in the residual stream.
    fn mixer_of_texts(&self, buffers: &mut Buffers<'_>, convolution: &Convolution, texts: usize) {
        let Block { backend, config, layer, window, span } = self;
        let (c, norm) = (window.channels, config.norm);
        let (left, gap) = (convolution.left(), gap(convolution));
        let Buffers { residual, gated, inner, branch, q, scales, ends, .. } = buffers;
        let ends = ends.get(..texts).unwrap_or_default();
        let rows = ends.last().map_or(0, |&end| end as usize);
        let mut room = Room { q, scales };
        let x = part_mut(residual, 0..rows, c);

        // Behind the place of all texts and gaps, so that each text moves forwards into its own.
        let behind = (texts + 1) * gap;
        let fresh = part_mut(gated, behind..behind + rows, c);
        let input = room.quantize(backend, norm::branch_input(backend, norm, &layer.mixer_norm, x, branch), c);
        glu::glu(backend, &input, &layer.input, &layer.gate, inner, fresh);
        for (i, (start, end)) in ranges(ends).enumerate() {
            let before = start + i * gap;
            part_mut(gated, before..before + gap, c).fill(0.0);
            let by = (texts - i) * gap;
            shift(part_mut(gated, before + gap..before + gap + by + (end - start), c), by * c, (end - start) * c);
        }
        let last = rows + texts * gap;
        part_mut(gated, last..last + gap, c).fill(0.0);

        let Some((y, computed)) = inner.split_at_mut_checked(rows * c) else { return };
        // The rows are quantized already, as all of them are both read and written.
        let computed = taps(backend, &config.mixer, layer, *window, &input, computed);
        let per_row = computed.len().checked_div(rows).unwrap_or(0);
        for (i, (start, end)) in ranges(ends).enumerate() {
            let first = start + (i + 1) * gap - left;
            let x = part(gated, first..first + (end - start) + span, c);
            let taps = part(computed, start..end, per_row);
            mix(backend, &config.mixer, layer, *window, x, taps, part_mut(y, start..end, c));
        }
        let mixed = part_mut(branch, 0..rows, c);
        input.into_room().quantize(backend, y, c).linear(backend, &layer.output, Activation::Identity, mixed);
        norm::residual(backend, norm, &layer.mixer_norm, mixed, x);
    }
}
