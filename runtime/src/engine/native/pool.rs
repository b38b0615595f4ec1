//! A bundle with all that it needs to run, shared by threads: for places that want a model as one value, such as an
//! operator inside another engine.

use core::fmt;
use core::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use super::{DEFAULT_CHUNK, NativeEngine, NativeError, scratch_bytes};
use crate::backend::Backend;
use crate::bundle::{Bundle, BundleError, OwnedBundle};
use crate::engine::EngineError;

/// Why a [`SharedEngine`] cannot be made or cannot score a batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SharedError {
    /// The bytes are no bundle.
    Bundle(BundleError),
    /// There can be no engine for the bundle.
    Native(NativeError),
    /// There is no memory for the scratch of one more thread.
    Memory {
        /// Bytes of scratch: [`scratch_bytes`].
        need: usize,
    },
    /// The values of a batch are not as many as its shape says.
    Shape {
        /// What they are.
        values: &'static str,
        /// Their number by the shape; `usize::MAX` when it is larger.
        need: usize,
        /// The number found.
        got: usize,
    },
    /// A text cannot be scored.
    Text {
        /// The text, from 0.
        row: usize,
        /// Why.
        error: EngineError,
    },
    /// A mask says neither token nor padding.
    MaskValue {
        /// The text, from 0.
        row: usize,
        /// The position, from 0.
        position: usize,
        /// The value there.
        got: i64,
    },
    /// A mask has padding between tokens.
    MaskHole {
        /// The text, from 0.
        row: usize,
        /// The first position of the padding.
        position: usize,
    },
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SharedError::Bundle(error) => error.fmt(f),
            SharedError::Native(error) => error.fmt(f),
            SharedError::Memory { need } => write!(f, "there is no memory for {need} bytes of scratch"),
            SharedError::Shape { values, need, got } => write!(f, "the batch needs {need} {values}, got {got}"),
            SharedError::Text { row, error } => write!(f, "text {row} of the batch: {error}"),
            SharedError::MaskValue { row, position, got } => {
                write!(
                    f,
                    "text {row} of the batch: its mask is {got} at position {position}, not 1 (token) or 0 (padding)"
                )
            }
            SharedError::MaskHole { row, position } => write!(
                f,
                "text {row} of the batch: its mask has padding between tokens, from position {position}; \
                 it may stand before or behind them"
            ),
        }
    }
}

impl core::error::Error for SharedError {}

impl From<BundleError> for SharedError {
    fn from(error: BundleError) -> Self {
        SharedError::Bundle(error)
    }
}

impl From<NativeError> for SharedError {
    fn from(error: NativeError) -> Self {
        SharedError::Native(error)
    }
}

/// Scores batches of padded texts with one bundle, from any number of threads.
///
/// Holds as many scratch arenas as threads ever scored at the same time; the first is allocated when the engine is made, so
/// that scoring by one thread at a time allocates nothing.
pub struct SharedEngine {
    bundle: OwnedBundle,
    backend: Backend,
    /// Scratch that nobody uses now, each of [`scratch_bytes`].
    arenas: Mutex<Vec<Vec<u8>>>,
}

impl fmt::Debug for SharedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEngine")
            .field("bundle", &self.bundle)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl SharedEngine {
    /// An engine for the bytes of a bundle, which are copied and checked completely, with the fastest backend of this processor.
    ///
    /// # Errors
    /// When the bytes are no bundle or memory lacks.
    pub fn new(bundle: &[u8]) -> Result<Self, SharedError> {
        Self::with_backend(OwnedBundle::new(bundle)?, Backend::detect())
    }

    /// As [`SharedEngine::new`], for a bundle that was read and with these kernels.
    ///
    /// # Errors
    /// When memory lacks.
    pub fn with_backend(bundle: OwnedBundle, backend: Backend) -> Result<Self, SharedError> {
        let engine = SharedEngine { bundle, backend, arenas: Mutex::new(Vec::new()) };
        engine.with(|_| ())?;
        Ok(engine)
    }

    /// The bundle it runs.
    pub fn bundle(&self) -> &OwnedBundle {
        &self.bundle
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Scores `batch` texts of at most `tokens` tokens.
    ///
    /// `ids`, `mask`: `[B, T]` row by row. The mask is 1 for a token and 0 for padding, which stands before the tokens, behind
    /// them, or both; ids there are not read. `out`: `[B, num_labels]`, gets the scores before softmax, for each text those
    /// that [`NativeEngine`] gives for its tokens. When a text cannot be scored, those before it are in `out`.
    ///
    /// # Errors
    /// When a length is not that of the shape; when a text has no token, an unknown id or padding between tokens; when a
    /// mask has other values than 0 and 1; when memory lacks.
    pub fn logits_batch(
        &self,
        ids: &[i64],
        mask: &[i64],
        (batch, tokens): (usize, usize),
        out: &mut [f32],
    ) -> Result<(), SharedError> {
        self.with(|engine| {
            let labels = engine.config().num_labels;
            length("ids", ids.len(), batch, tokens)?;
            length("values of the mask", mask.len(), batch, tokens)?;
            length("places for scores", out.len(), batch, labels)?;
            for (row, out) in out.chunks_exact_mut(labels).enumerate() {
                let of_row = row * tokens..(row + 1) * tokens;
                let (ids, mask) = (ids.get(of_row.clone()), mask.get(of_row));
                let range = text(row, mask.unwrap_or_default())?;
                let ids = ids.and_then(|ids| ids.get(range)).unwrap_or_default();
                // What does not fit into an id is in no vocabulary.
                let mut ids = ids.iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX));
                let pushed = ids.try_for_each(|id| engine.push_token(id));
                pushed.and_then(|()| engine.finish(out)).map_err(|error| SharedError::Text { row, error })?;
            }
            Ok(())
        })?
    }

    /// Runs `f` with an engine that nobody else uses meanwhile.
    ///
    /// # Errors
    /// When more threads than ever before score at the same time, and there is no memory for their scratch.
    pub fn with<R>(&self, f: impl FnOnce(&mut NativeEngine<'_>) -> R) -> Result<R, SharedError> {
        let bundle = self.bundle.bundle()?;
        let mut arena = self.arena(&bundle)?;
        let result = f(&mut NativeEngine::with_backend(bundle, &mut arena, self.backend)?);
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        Ok(result)
    }

    fn arena(&self, bundle: &Bundle<'_>) -> Result<Vec<u8>, SharedError> {
        // A lock is poisoned only by a panic between taking and giving an arena, which leaves the list whole.
        if let Some(arena) = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(arena);
        }
        let need = scratch_bytes(bundle.config(), DEFAULT_CHUNK);
        let mut arena = Vec::new();
        arena.try_reserve_exact(need).map_err(|_| SharedError::Memory { need })?;
        arena.resize(need, 0);
        Ok(arena)
    }
}

fn length(values: &'static str, got: usize, rows: usize, columns: usize) -> Result<(), SharedError> {
    match rows.checked_mul(columns) {
        Some(need) if need == got => Ok(()),
        need => Err(SharedError::Shape { values, need: need.unwrap_or(usize::MAX), got }),
    }
}

/// The positions of a text's tokens: where its mask is 1.
fn text(row: usize, mask: &[i64]) -> Result<Range<usize>, SharedError> {
    if let Some(position) = mask.iter().position(|&m| m != 0 && m != 1) {
        let got = mask.get(position).copied().unwrap_or_default();
        return Err(SharedError::MaskValue { row, position, got });
    }
    let begin = mask.iter().position(|&m| m == 1).unwrap_or(mask.len());
    let end = mask.iter().rposition(|&m| m == 1).map_or(begin, |last| last + 1);
    match mask.get(begin..end).unwrap_or_default().iter().position(|&m| m == 0) {
        Some(hole) => Err(SharedError::MaskHole { row, position: begin + hole }),
        None => Ok(begin..end),
    }
}
