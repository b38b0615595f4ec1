//! One text's way through the engine: tokens in, scores out.

use super::layout::{Buffers, Layout, scratch_bytes};
use crate::backend::Backend;
use crate::bundle::ReadBundle;
use crate::error::Error;
use crate::ops::linear::Room;
use crate::ops::ngrams::Seen;
use crate::ops::pooling;
use crate::spec::Config;

/// Maximum number of tokens of a text.
pub const MAX_TOKENS: u32 = u32::MAX;

/// State of an engine and the text so far; the rest is in its scratch memory.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) backend: Backend,
    pub(super) layout: Layout,
    /// Rows of a chunk.
    pub(super) chunk: usize,
    /// Rows that wait in the residual stream: tokens to the right that a position depends on.
    pub(super) look_ahead: usize,
    /// Tokens that wait in the scratch memory.
    pub(super) waiting: usize,
    /// Positions that the first layer has processed.
    pub(super) position: u64,
    /// Whether a token of the text is a word.
    known: bool,
    /// What the n-grams of the positions have that the first layer has processed.
    pub(super) ngrams: Seen,
    /// Why the text cannot be scored; kept until the next text.
    fault: Option<Fault>,
}

/// Reason why a text cannot be scored.
#[derive(Clone, Copy)]
enum Fault {
    UnknownToken(u32),
    TooLong,
}

impl Run {
    pub(super) fn new(config: &Config, scratch: &mut [u8], backend: Backend, chunk: usize) -> Result<Self, Error> {
        let look_ahead = config.look_ahead().ok_or(Error::Attention)?;
        if chunk == 0 {
            return Err(Error::EmptyChunk);
        }
        let (need, got) = (scratch_bytes(config, chunk), scratch.len());
        if got < need {
            return Err(Error::ScratchTooSmall { need, got });
        }
        let layout = Layout::new(config, chunk);
        let mut run = Run {
            backend,
            layout,
            chunk,
            look_ahead,
            waiting: 0,
            position: 0,
            known: false,
            ngrams: Seen::default(),
            fault: None,
        };
        run.clear(scratch);
        Ok(run)
    }

    /// Returns the number of tokens of the text so far.
    pub(super) fn tokens(&self) -> u64 {
        self.position + self.waiting as u64
    }

    /// Returns whether a token of the text so far is a word.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Discards the text so far.
    pub(super) fn reset(&mut self, scratch: &mut [u8]) {
        // At the beginning of a text there is nothing to discard.
        if self.tokens() > 0 || self.fault.is_some() {
            self.clear(scratch);
        }
    }

    fn clear(&mut self, scratch: &mut [u8]) {
        if let Some(Buffers { history, mut pool, ngrams, .. }) = self.layout.buffers(scratch) {
            history.fill(0.0);
            pool.clear();
            ngrams.fill(0);
        }
        self.waiting = 0;
        self.position = 0;
        self.known = false;
        self.ngrams = Seen::default();
        self.fault = None;
    }

    pub(super) fn push(&mut self, model: &impl ReadBundle, scratch: &mut [u8], id: u32) -> Result<(), Error> {
        let vocab_size = model.config().vocab_size;
        self.check(vocab_size)?;
        // The config's vocabulary is at most 2²⁰.
        if id as usize >= vocab_size {
            self.fault = Some(Fault::UnknownToken(id));
            return self.check(vocab_size);
        }
        if self.tokens() >= u64::from(MAX_TOKENS) {
            self.fault = Some(Fault::TooLong);
            return self.check(vocab_size);
        }
        if self.waiting == self.chunk {
            // Only now: at the end of a text, its last tokens go through the layers together with what waits for them.
            self.advance(model, scratch, self.chunk, u64::MAX);
        }
        let tokens = self.layout.tokens(scratch).unwrap_or_default();
        if let Some(place) = tokens.get_mut(self.waiting) {
            *place = id;
            self.waiting += 1;
            self.known = self.known || model.tokenizer().is_word(id);
        }
        Ok(())
    }

    /// See [`super::NativeEngine::snapshot`].
    pub(super) fn snapshot(
        &mut self,
        model: &impl ReadBundle,
        scratch: &mut [u8],
        out: &mut [f32],
    ) -> Result<Option<u32>, Error> {
        check_output(model.config(), out)?;
        self.check(model.config().vocab_size)?;
        if self.waiting > 0 {
            self.advance(model, scratch, self.waiting, u64::MAX);
        }
        let seen = self.position.saturating_sub(self.look_ahead as u64);
        if seen == 0 {
            return Ok(None);
        }
        self.head(model, scratch, seen, out);
        Ok(Some(seen as u32))
    }

    /// See [`super::NativeEngine::finish`].
    pub(super) fn finish(&mut self, model: &impl ReadBundle, scratch: &mut [u8], out: &mut [f32]) -> Result<(), Error> {
        check_output(model.config(), out)?;
        let result = self.end(model, scratch).map(|tokens| self.head(model, scratch, tokens, out));
        self.reset(scratch);
        result
    }

    /// Ends the text: all its rows are pooled. Returns the number of tokens.
    fn end(&mut self, model: &impl ReadBundle, scratch: &mut [u8]) -> Result<u64, Error> {
        self.check(model.config().vocab_size)?;
        let end = self.tokens();
        if end == 0 {
            return Err(Error::NoTokens);
        }
        let mut left = self.waiting + self.look_ahead;
        while left > 0 {
            let rows = left.min(self.chunk);
            self.advance(model, scratch, rows, end);
            left -= rows;
        }
        Ok(end)
    }

    fn head(&self, model: &impl ReadBundle, scratch: &mut [u8], tokens: u64, out: &mut [f32]) {
        let (config, weights) = (model.config(), model.weights());
        let Some(Buffers { pool, branch, q, scales, ngrams, .. }) = self.layout.buffers(scratch) else { return };
        let vector = branch.get_mut(..config.hidden_size).unwrap_or_default();
        pool.vector(tokens, vector);
        pooling::head(&self.backend, &mut Room { q, scales }, vector, config.hidden_size, weights.head(), out);
        if let Some(grams) = model.ngrams() {
            self.ngrams.score(&grams, ngrams, out);
        }
    }

    fn check(&self, vocab_size: usize) -> Result<(), Error> {
        match self.fault {
            None => Ok(()),
            Some(Fault::UnknownToken(id)) => Err(Error::UnknownToken { id, vocab_size }),
            Some(Fault::TooLong) => {
                let max = MAX_TOKENS as usize;
                Err(Error::TooLong { tokens: max.saturating_add(1), max })
            }
        }
    }
}

pub(super) fn check_output(config: &Config, out: &[f32]) -> Result<(), Error> {
    let (need, got) = (config.num_labels, out.len());
    if need == got { Ok(()) } else { Err(Error::OutputLength { need, got }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::small;
    use crate::bundle::{Buffer, OwnedBundle};
    use std::vec;

    #[test]
    fn a_text_with_more_tokens_than_can_be_counted_is_refused() {
        let model: OwnedBundle<Buffer> = OwnedBundle::over(small(), true).unwrap();
        let mut scratch = vec![0; scratch_bytes(model.config(), 4)];
        let scratch = scratch.as_mut_slice();
        let mut run = Run::new(model.config(), scratch, Backend::SCALAR, 4).unwrap();
        let mut out = [0.0; 3];
        let max = MAX_TOKENS as usize;
        // One more does not fit in 32 bits.
        let too_long = Err(Error::TooLong { tokens: max.saturating_add(1), max });
        for chunk_begins in [0, 3] {
            // As if so many tokens had come before.
            run.position = u64::from(MAX_TOKENS) - 6 - chunk_begins;
            for id in 0..6 + chunk_begins as u32 {
                assert_eq!(run.push(&model, scratch, id), Ok(()));
            }
            assert_eq!(run.snapshot(&model, scratch, &mut out).map(|seen| seen.is_some()), Ok(true));
            assert_eq!(run.push(&model, scratch, 1), too_long);
            assert_eq!(run.push(&model, scratch, 1), too_long);
            assert_eq!(run.snapshot(&model, scratch, &mut out).map(|_| ()), too_long);
            assert_eq!(run.finish(&model, scratch, &mut out), too_long);
        }
        run.position = u64::from(MAX_TOKENS) - 1;
        run.push(&model, scratch, 1).unwrap();
        assert_eq!(run.finish(&model, scratch, &mut out), Ok(()));
        assert_eq!(run.tokens(), 0);
    }
}
