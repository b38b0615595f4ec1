//! Bundles, run by Kinglet's own backends: int8, streaming, inside a buffer whose size is known beforehand.
//!
//! Tokens go through all layers chunk by chunk, whatever the length of the text, so a text of ten tokens and one of a million
//! need the same memory. Between chunks each layer keeps the gated rows that its convolution reads again, and the rows
//! that still wait for their neighbours to the right stay where they are in the residual stream. How a text is cut
//! into chunks and pushes changes no bit of the scores, nor does the backend of [`Backend`].
//!
//! Nothing allocates and nothing panics: the caller gives the scratch memory ([`scratch_bytes`]), and every size is checked
//! when the engine is made.
//!
//! # Example
//! An engine in static memory, as firmware has it: the model stays in flash, and the compiler knows how much memory it needs.
//!
//! ```
//! use std::sync::Mutex;
//!
//! use kinglet::answer::best;
//! use kinglet::bundle::{Aligned, Bundle};
//! use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
//! use kinglet::stream::Stream;
//! # macro_rules! include_bytes { ($f:literal) => { core::include_bytes!("../../../../models/intents/model.kinglet") } }
//!
//! static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("model.kinglet"));
//! const SCRATCH: usize = match Bundle::peek_config(&MODEL.0) {
//!     Some(config) => scratch_bytes(&config, DEFAULT_CHUNK),
//!     None => panic!("the file is not a bundle"),
//! };
//! static ARENA: Mutex<[u8; SCRATCH]> = Mutex::new([0; SCRATCH]);
//!
//! let bundle = Bundle::new(&MODEL.0)?;
//! let labels = bundle.labels();
//! let mut arena = ARENA.lock().unwrap();
//! let mut engine = NativeEngine::new(bundle, &mut *arena)?;
//!
//! // Text comes in parts, cut anywhere.
//! let mut stream = Stream::new(&mut engine);
//! stream.push("wake me at se")?;
//! stream.push("ven tomorrow")?;
//! let mut scores = [0.0; 151];
//! stream.finish(&mut scores)?;
//! let (class, _) = best(&scores).unwrap();
//! assert_eq!(labels.get(class), Some("alarm"));
//! # Ok::<(), kinglet::Error>(())
//! ```

use crate::backend::Backend;
use crate::bundle::{Bundle, ReadBundle};
use crate::engine::Engine;
use crate::error::Error;
use crate::spec::Config;
use crate::tokenizer::Encoder;

mod layout;
mod packed;
mod pass;
mod run;
mod scratch;

pub use layout::{PARTS, Part, packed_scratch_bytes, scratch_bytes, scratch_parts};
pub use packed::{DEFAULT_PACK, PackedEngine};
pub use run::MAX_TOKENS;
pub use scratch::Scratch;

pub use crate::ops::embedding::FETCHED_AHEAD;
pub use crate::ops::linear::{inner_stride, stride};

use run::{Run, check_output};

/// Default number of rows per chunk: enough for full speed, few enough for the cache.
pub const DEFAULT_CHUNK: usize = 48;

/// Runs one model, one text at a time.
///
/// It owns or borrows model and scratch memory, according to their types: over `Bundle<'a>` and `&'a mut [u8]` it costs
/// a device nothing ([`BorrowedEngine`]); over an `Arc` of an `OwnedBundle` and a `Vec<u8>` it is `Send + 'static` and
/// fits in any struct or thread.
///
/// Push tokens with [`NativeEngine::push_tokens`] or, as text, through a [`Stream`](crate::stream::Stream);
/// [`NativeEngine::finish`] returns the scores. [`Engine::logits`] does both for a text whose tokens are known.
pub struct NativeEngine<M, S> {
    model: M,
    scratch: S,
    run: Run,
}

/// An engine that borrows both its model and its scratch memory.
pub type BorrowedEngine<'a> = NativeEngine<Bundle<'a>, &'a mut [u8]>;

impl<M: ReadBundle, S: Scratch> NativeEngine<M, S> {
    /// Creates an engine with the fastest backend of this processor and chunks of [`DEFAULT_CHUNK`] rows.
    ///
    /// `scratch`: at least [`scratch_bytes`]`(config, DEFAULT_CHUNK)` bytes with any content.
    ///
    /// # Errors
    /// If `scratch` is too small.
    pub fn new(model: M, scratch: S) -> Result<Self, Error> {
        Self::with_chunk(model, scratch, Backend::detect(), DEFAULT_CHUNK)
    }

    /// As [`NativeEngine::new`], on `backend`.
    ///
    /// # Errors
    /// If `scratch` is too small.
    pub fn with_backend(model: M, scratch: S, backend: Backend) -> Result<Self, Error> {
        Self::with_chunk(model, scratch, backend, DEFAULT_CHUNK)
    }

    /// As [`NativeEngine::with_backend`], with chunks of `chunk` rows: fewer need less memory and more time.
    ///
    /// # Errors
    /// If `scratch` is smaller than [`scratch_bytes`]`(config, chunk)`, or `chunk` is 0.
    pub fn with_chunk(model: M, mut scratch: S, backend: Backend, chunk: usize) -> Result<Self, Error> {
        let run = Run::new(model.config(), scratch.bytes_mut(), backend, chunk)?;
        Ok(NativeEngine { model, scratch, run })
    }

    /// Returns the model it runs.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the shape of the model.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Returns the backend it runs on.
    pub fn backend(&self) -> &Backend {
        &self.run.backend
    }

    /// Returns the rows of a chunk.
    pub fn chunk(&self) -> usize {
        self.run.chunk
    }

    /// Returns the number of tokens of the text so far.
    pub fn tokens(&self) -> u64 {
        self.run.tokens()
    }

    /// Discards the text so far.
    pub fn reset(&mut self) {
        self.run.reset(self.scratch.bytes_mut());
    }

    /// Returns whether the text so far has a [word](crate::tokenizer::Table::is_word): about another one the model cannot say a thing.
    pub fn is_known(&self) -> bool {
        self.run.is_known()
    }

    /// Pushes one more token.
    ///
    /// # Errors
    /// If the id is not in the vocabulary, or the text has more than [`MAX_TOKENS`]. The text cannot be scored then:
    /// every call returns this error until [`NativeEngine::reset`] or the next text.
    pub fn push_token(&mut self, id: u32) -> Result<(), Error> {
        self.run.push(&self.model, self.scratch.bytes_mut(), id)
    }

    /// Pushes more tokens. `ids`: any number.
    ///
    /// # Errors
    /// As [`NativeEngine::push_token`].
    pub fn push_tokens(&mut self, ids: &[u32]) -> Result<(), Error> {
        ids.iter().try_for_each(|&id| self.push_token(id))
    }

    /// Pushes the next bytes of a text through `encoder`; `None` ends the text for the encoder, not for the engine.
    ///
    /// # Errors
    /// As [`NativeEngine::push_token`], after the encoder has consumed all bytes.
    pub fn push_text(&mut self, encoder: &mut Encoder, text: Option<&[u8]>) -> Result<(), Error> {
        let NativeEngine { model, scratch, run } = self;
        let scratch = scratch.bytes_mut();
        let mut result = Ok(());
        let mut push = |id| {
            if result.is_ok() {
                result = run.push(model, scratch, id);
            }
        };
        match text {
            Some(text) => encoder.push(&model.tokenizer(), text, &mut push),
            None => encoder.finish(&model.tokenizer(), &mut push),
        }
        result
    }

    /// Scores the part of the text so far that later tokens cannot change.
    ///
    /// N-grams count up to the last token pushed.
    ///
    /// These are the positions whose neighbours have all been seen: those up to [`Config::look_ahead`] tokens before
    /// the last one pushed. Returns their number, or `None` before the first such position, in which case `out` is
    /// unchanged. Later tokens are scored as if there had been no snapshot.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// If `out` has the wrong length or the text cannot be scored.
    pub fn snapshot(&mut self, out: &mut [f32]) -> Result<Option<u32>, Error> {
        self.run.snapshot(&self.model, self.scratch.bytes_mut(), out)
    }

    /// Ends the text and scores it; the engine is then ready for the next text.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// If `out` has the wrong length (the text continues), no token was pushed, or the text cannot be scored.
    pub fn finish(&mut self, out: &mut [f32]) -> Result<(), Error> {
        self.run.finish(&self.model, self.scratch.bytes_mut(), out)
    }
}

impl<M: ReadBundle, S: Scratch> Engine for NativeEngine<M, S> {
    fn num_labels(&self) -> usize {
        self.config().num_labels
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS as usize
    }

    /// Discards what was pushed before.
    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), Error> {
        check_output(self.config(), out)?;
        self.reset();
        if let Err(error) = self.push_tokens(ids) {
            self.reset();
            return Err(error);
        }
        self.finish(out)
    }
}

impl<M: ReadBundle, S> core::fmt::Debug for NativeEngine<M, S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NativeEngine")
            .field("backend", &self.run.backend)
            .field("chunk", &self.run.chunk)
            .field("tokens", &self.run.tokens())
            .finish_non_exhaustive()
    }
}
