//! Bundles, run by Kinglet's own kernels: int8, streaming, inside a buffer whose size is known beforehand.
//!
//! Tokens go through all layers chunk by chunk, whatever the length of the text, so a text of ten tokens and one of a million
//! need the same memory. Between chunks each layer keeps the gated rows that its convolution reads again, and the rows
//! that still wait for their neighbours to the right stay where they are in the residual stream. How a text is cut
//! into chunks and pushes changes no bit of the scores, nor does the backend of [`Backend`].
//!
//! Nothing allocates and nothing panics: the caller gives the scratch arena ([`scratch_bytes`]), and every size is checked
//! when the engine is made.

use core::fmt;

use super::{Engine, EngineError};
use crate::backend::Backend;
use crate::bundle::Bundle;
use crate::ops::linear::Room;
use crate::ops::pooling;
use crate::spec::Config;
use crate::stream::Stream;

mod layout;
#[cfg(feature = "std")]
pub mod parallel;
mod pass;
#[cfg(feature = "std")]
pub mod shared;

use layout::Buffers;
pub use layout::{PARTS, Part, scratch_bytes, scratch_parts};

pub use crate::ops::embedding::FETCHED_AHEAD;
pub use crate::ops::linear::{inner_stride, stride};

/// Rows of a chunk, unless changed: enough for the kernels to be at their speed, few enough for the cache.
pub const DEFAULT_CHUNK: usize = 48;

/// Most tokens of one text.
pub const MAX_TOKENS: u32 = u32::MAX;

/// Why an engine cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NativeError {
    /// The scratch arena is too small.
    ScratchTooSmall {
        /// Bytes needed: [`scratch_bytes`].
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// A chunk must have at least one row.
    EmptyChunk,
    /// Attention reads the whole text and cannot stream; this engine runs convolutions.
    Attention,
    /// There must be at least one thread.
    NoThreads,
}

impl fmt::Display for NativeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NativeError::ScratchTooSmall { need, got } => {
                write!(f, "the engine needs {need} bytes of scratch, got {got}")
            }
            NativeError::EmptyChunk => f.write_str("a chunk must have at least one row"),
            NativeError::Attention => {
                f.write_str("the native engine runs convolutional models, not attention; use the ONNX file")
            }
            NativeError::NoThreads => f.write_str("there must be at least one thread"),
        }
    }
}

impl core::error::Error for NativeError {}

/// Runs one bundle, one text at a time.
///
/// Tokens come by [`NativeEngine::push_tokens`] or, as text, through [`NativeEngine::stream`]; [`NativeEngine::finish`]
/// gives the scores. [`Engine::logits`] is all of that for a text whose tokens are there.
pub struct NativeEngine<'a> {
    bundle: Bundle<'a>,
    backend: Backend,
    chunk: usize,
    /// Rows that wait in the residual stream: tokens to the right that a position depends on.
    look_ahead: usize,
    buffers: Buffers<'a>,
    /// Tokens that wait in `buffers.tokens`.
    waiting: usize,
    /// Positions that the first layer has taken.
    position: u64,
    /// Positions whose rows are pooled, from the first to before the last: all, but for a range of a longer text.
    pooled: (u64, u64),
    /// Why the text cannot be scored; stays until the next text.
    fault: Option<Fault>,
}

/// What makes a text unfit.
#[derive(Clone, Copy)]
enum Fault {
    UnknownToken(u32),
    TooLong,
}

impl fmt::Debug for NativeEngine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeEngine")
            .field("backend", &self.backend)
            .field("chunk", &self.chunk)
            .field("tokens", &self.tokens())
            .finish_non_exhaustive()
    }
}

impl<'a> NativeEngine<'a> {
    /// An engine with the fastest backend of this processor and chunks of [`DEFAULT_CHUNK`] rows.
    ///
    /// `scratch`: at least [`scratch_bytes`]`(config, DEFAULT_CHUNK)` bytes; what they hold does not matter.
    ///
    /// # Errors
    /// When `scratch` is too small.
    pub fn new(bundle: Bundle<'a>, scratch: &'a mut [u8]) -> Result<Self, NativeError> {
        Self::with_chunk(bundle, scratch, Backend::detect(), DEFAULT_CHUNK)
    }

    /// As [`NativeEngine::new`], with these kernels.
    ///
    /// # Errors
    /// When `scratch` is too small.
    pub fn with_backend(bundle: Bundle<'a>, scratch: &'a mut [u8], backend: Backend) -> Result<Self, NativeError> {
        Self::with_chunk(bundle, scratch, backend, DEFAULT_CHUNK)
    }

    /// As [`NativeEngine::with_backend`], with chunks of `chunk` rows: fewer need less memory and more time.
    ///
    /// # Errors
    /// When `scratch` is smaller than [`scratch_bytes`]`(config, chunk)`, or `chunk` is 0.
    pub fn with_chunk(
        bundle: Bundle<'a>,
        scratch: &'a mut [u8],
        backend: Backend,
        chunk: usize,
    ) -> Result<Self, NativeError> {
        let config = bundle.config();
        let look_ahead = config.look_ahead().ok_or(NativeError::Attention)?;
        if chunk == 0 {
            return Err(NativeError::EmptyChunk);
        }
        let (need, got) = (scratch_bytes(config, chunk), scratch.len());
        let too_small = NativeError::ScratchTooSmall { need, got };
        if got < need {
            return Err(too_small);
        }
        let buffers = Buffers::new(config, chunk, scratch).ok_or(too_small)?;
        let (waiting, position, pooled) = (0, 0, (0, u64::MAX));
        let mut engine =
            NativeEngine { bundle, backend, chunk, look_ahead, buffers, waiting, position, pooled, fault: None };
        engine.reset();
        Ok(engine)
    }

    /// The bundle it runs.
    pub fn bundle(&self) -> &Bundle<'a> {
        &self.bundle
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        self.bundle.config()
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Rows of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Tokens of the text so far.
    pub fn tokens(&self) -> u64 {
        self.position + self.waiting as u64
    }

    /// A text in parts, through the bundle's tokenizer. What was pushed before is forgotten.
    pub fn stream(&mut self) -> Stream<'_, 'a> {
        Stream::new(self)
    }

    /// Forgets the text so far.
    pub fn reset(&mut self) {
        self.buffers.history.fill(0.0);
        self.buffers.pool.clear();
        self.waiting = 0;
        self.position = 0;
        self.fault = None;
    }

    /// Takes one more token.
    ///
    /// # Errors
    /// When the id is not in the vocabulary, or the text has more than [`MAX_TOKENS`]. The text cannot be scored then: every
    /// call gives this error until [`NativeEngine::reset`] or the next text.
    pub fn push_token(&mut self, id: u32) -> Result<(), EngineError> {
        self.check()?;
        // The config's vocabulary is at most 2²⁰.
        if id as usize >= self.config().vocab_size {
            return self.fail(Fault::UnknownToken(id));
        }
        if self.tokens() >= u64::from(MAX_TOKENS) {
            return self.fail(Fault::TooLong);
        }
        if self.waiting == self.chunk {
            // Only now: at the end of a text its last tokens go through the layers together with what waits for them.
            self.advance(self.chunk, u64::MAX);
        }
        if let Some(place) = self.buffers.tokens.get_mut(self.waiting) {
            *place = id;
            self.waiting += 1;
        }
        Ok(())
    }

    /// Takes more tokens. `ids`: any number.
    ///
    /// # Errors
    /// As [`NativeEngine::push_token`].
    pub fn push_tokens(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        ids.iter().try_for_each(|&id| self.push_token(id))
    }

    /// The scores that the text would have if it consisted of the positions whose neighbours have all been seen: those up to
    /// [`Config::look_ahead`] tokens before the last one pushed. Gives their number, or `None` before the first such position;
    /// `out` is left alone then. What is pushed later is scored as if there had been no snapshot.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// When `out` has the wrong length or the text cannot be scored.
    pub fn snapshot(&mut self, out: &mut [f32]) -> Result<Option<u32>, EngineError> {
        self.check_output(out)?;
        self.check()?;
        if self.waiting > 0 {
            self.advance(self.waiting, u64::MAX);
        }
        let seen = self.position.saturating_sub(self.look_ahead as u64);
        if seen == 0 {
            return Ok(None);
        }
        self.head(seen, out);
        Ok(Some(seen as u32))
    }

    /// Ends the text and gives its scores; the engine is then ready for the next text.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// When `out` has the wrong length (the text goes on), when no token was pushed, or when the text cannot be scored.
    pub fn finish(&mut self, out: &mut [f32]) -> Result<(), EngineError> {
        self.check_output(out)?;
        let result = self.pool_rest().map(|tokens| self.head(tokens, out));
        self.reset();
        result
    }

    /// Ends the text: all its rows are pooled. Gives the number of tokens.
    fn pool_rest(&mut self) -> Result<u64, EngineError> {
        self.check()?;
        let end = self.tokens();
        if end == 0 {
            return Err(EngineError::NoTokens);
        }
        let mut left = self.waiting + self.look_ahead;
        while left > 0 {
            let rows = left.min(self.chunk);
            self.advance(rows, end);
            left -= rows;
        }
        Ok(end)
    }

    fn head(&mut self, tokens: u64, out: &mut [f32]) {
        let Buffers { pool, branch, q, scales, .. } = &mut self.buffers;
        let vector = branch.get_mut(..self.bundle.config().hidden_size).unwrap_or_default();
        pool.vector(tokens, vector);
        pooling::head(&self.backend, &mut Room { q, scales }, vector, self.bundle.weights().head(), out);
    }

    fn fail(&mut self, fault: Fault) -> Result<(), EngineError> {
        self.fault = Some(fault);
        self.check()
    }

    fn check(&self) -> Result<(), EngineError> {
        match self.fault {
            None => Ok(()),
            Some(Fault::UnknownToken(id)) => {
                Err(EngineError::UnknownToken { id, vocab_size: self.config().vocab_size })
            }
            Some(Fault::TooLong) => {
                let max = MAX_TOKENS as usize;
                Err(EngineError::TooLong { tokens: max.saturating_add(1), max })
            }
        }
    }

    fn check_output(&self, out: &[f32]) -> Result<(), EngineError> {
        let (need, got) = (self.config().num_labels, out.len());
        if need == got { Ok(()) } else { Err(EngineError::OutputLength { need, got }) }
    }
}

impl Engine for NativeEngine<'_> {
    fn num_labels(&self) -> usize {
        self.config().num_labels
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS as usize
    }

    /// What was pushed before is forgotten.
    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), EngineError> {
        self.check_output(out)?;
        self.reset();
        if let Err(error) = self.push_tokens(ids) {
            self.reset();
            return Err(error);
        }
        self.finish(out)
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use crate::bundle::tests::small;
    use std::vec;

    #[test]
    fn a_text_with_more_tokens_than_can_be_counted_is_refused() {
        let bytes = small();
        let bundle = Bundle::new(bytes.as_slice()).unwrap();
        let mut scratch = vec![0; scratch_bytes(bundle.config(), 4)];
        let mut engine = NativeEngine::with_chunk(bundle, &mut scratch, Backend::SCALAR, 4).unwrap();
        let mut out = [0.0; 3];
        let max = MAX_TOKENS as usize;
        // One more does not fit into 32 bits.
        let too_long = Err(EngineError::TooLong { tokens: max.saturating_add(1), max });
        for chunk_begins in [0, 3] {
            // As if so many tokens had gone before.
            engine.position = u64::from(MAX_TOKENS) - 6 - chunk_begins;
            for id in 0..6 + chunk_begins as u32 {
                assert_eq!(engine.push_token(id), Ok(()));
            }
            assert_eq!(engine.snapshot(&mut out).map(|seen| seen.is_some()), Ok(true));
            assert_eq!(engine.push_token(1), too_long);
            assert_eq!(engine.push_token(1), too_long);
            assert_eq!(engine.snapshot(&mut out).map(|_| ()), too_long);
            assert_eq!(engine.finish(&mut out), too_long);
        }
        engine.position = u64::from(MAX_TOKENS) - 1;
        engine.push_token(1).unwrap();
        assert_eq!(engine.finish(&mut out), Ok(()));
        assert_eq!(engine.tokens(), 0);
    }
}
