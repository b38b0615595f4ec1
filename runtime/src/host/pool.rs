//! Engines of one model shared by threads, and batches with padding.

use core::fmt;
use core::ops::Range;
use std::boxed::Box;
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;
use std::vec::Vec;

use crate::backend::Backend;
use crate::bundle::{OwnedBundle, ReadBundle};
use crate::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use crate::error::Error;
use crate::packer::{Packer, Read};

/// An engine of an [`EnginePool`]: it owns its scratch memory, and `M`, usually an `Arc`, owns its model.
pub type PooledEngine<M = Arc<OwnedBundle>> = NativeEngine<M, Vec<u8>>;

/// Idle engines of one model, for any number of threads.
///
/// There are never more engines than were in use at the same time. A pool is `Sync`; share it by reference or in an
/// `Arc`.
pub struct EnginePool<M = Arc<OwnedBundle>> {
    model: M,
    backend: Backend,
    chunk: usize,
    /// Each at the beginning of a text.
    idle: Mutex<Vec<PooledEngine<M>>>,
    /// Each without texts.
    idle_packers: Mutex<Vec<Packer<M>>>,
}

impl<M: ReadBundle + Clone> EnginePool<M> {
    /// Creates a pool without engines. They will use the fastest backend of this processor and chunks of
    /// [`DEFAULT_CHUNK`] rows.
    pub fn new(model: M) -> Self {
        EnginePool {
            model,
            backend: Backend::detect(),
            chunk: DEFAULT_CHUNK,
            idle: Mutex::default(),
            idle_packers: Mutex::default(),
        }
    }

    /// Sets the backend of the engines.
    pub fn with_backend(self, backend: Backend) -> Self {
        EnginePool { backend, idle: Mutex::default(), idle_packers: Mutex::default(), ..self }
    }

    /// Sets the rows of a chunk: fewer need less memory and more time.
    pub fn with_chunk(self, chunk: usize) -> Self {
        EnginePool { chunk, idle: Mutex::default(), ..self }
    }

    /// Returns the model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the backend that the engines run on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Takes an engine at the beginning of a text, creating one if all are in use. For owners that outlive the pool;
    /// they may [`give`](EnginePool::give) it back.
    ///
    /// # Errors
    /// If there is no memory for one more, or a chunk has no rows.
    pub fn take(&self) -> Result<PooledEngine<M>, Error> {
        // Only a panic between taking and giving an engine poisons the lock, which leaves the list intact.
        if let Some(engine) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(engine);
        }
        let need = scratch_bytes(self.model.config(), self.chunk);
        let mut scratch = Vec::new();
        scratch.try_reserve_exact(need).map_err(|_| Error::Memory { need })?;
        scratch.resize(need, 0);
        NativeEngine::with_chunk(self.model.clone(), scratch, self.backend, self.chunk)
    }

    /// Returns an engine to the pool and discards its text.
    pub fn give(&self, mut engine: PooledEngine<M>) {
        engine.reset();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
    }

    /// Runs `f` with an engine at the beginning of a text, for exclusive use.
    ///
    /// # Errors
    /// As [`EnginePool::take`].
    pub fn with<R>(&self, f: impl FnOnce(&mut PooledEngine<M>) -> R) -> Result<R, Error> {
        let mut engine = self.take()?;
        let result = f(&mut engine);
        self.give(engine);
        Ok(result)
    }

    /// Takes a packer without texts, creating one if all are in use; they may be [given](EnginePool::give_packer) back.
    ///
    /// # Errors
    /// If there is no memory for one more.
    pub fn take_packer(&self) -> Result<Packer<M>, Error> {
        let idle = self.idle_packers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Packer::new(self.model.clone(), self.backend), Ok)
    }

    /// Returns a packer to the pool and discards its texts.
    pub fn give_packer(&self, mut packer: Packer<M>) {
        packer.clear();
        self.idle_packers.lock().unwrap_or_else(PoisonError::into_inner).push(packer);
    }

    /// Scores `batch` texts of at most `tokens` tokens.
    ///
    /// `ids`, `mask`: `[B, T]` row by row. The mask is 1 for a token and 0 for padding, which may be before the tokens,
    /// after them, or both; ids there are not read. `out`: `[B, num_labels]`, receives the scores before softmax,
    /// identical to those of [`NativeEngine`] for the tokens of each text. If a text cannot be scored, those before it
    /// are in `out`.
    ///
    /// # Errors
    /// If a length does not match the shape; if a text has no token, an unknown id or padding between tokens; if a mask
    /// has values other than 0 and 1; or if memory is exhausted.
    pub fn logits_batch(
        &self,
        ids: &[i64],
        mask: &[i64],
        (batch, tokens): (usize, usize),
        out: &mut [f32],
    ) -> Result<(), Error> {
        let labels = self.model.config().num_labels;
        length("ids", ids.len(), batch, tokens)?;
        length("values of the mask", mask.len(), batch, tokens)?;
        length("places for scores", out.len(), batch, labels)?;
        let mut packer = self.take_packer()?;
        let mut each = |row: usize, _: Read, scores: &[f32]| {
            if let Some(out) = out.get_mut(row * labels..(row + 1) * labels) {
                out.copy_from_slice(scores);
            }
        };
        let mut score = |packer: &mut Packer<M>, row: usize| {
            let of_row = row * tokens..(row + 1) * tokens;
            let (ids, mask) = (ids.get(of_row.clone()), mask.get(of_row));
            let range = text(row, mask.unwrap_or_default())?;
            let ids = ids.and_then(|ids| ids.get(range)).unwrap_or_default();
            // A value that does not fit in an id is in no vocabulary.
            let ids = || ids.iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX));
            let alone = || {
                let mut scores = vec![0.0; labels];
                self.with(|engine| {
                    ids().try_for_each(|id| engine.push_token(id)).and_then(|()| engine.finish(&mut scores))
                })
                .flatten()
                .map(|()| scores)
            };
            let scored = match packer.add_ids(row, ids(), &mut each) {
                Ok(false) => alone().map(|scores| each(row, Read::default(), &scores)),
                taken => taken.map(drop),
            };
            scored.map_err(|error| Error::Text { row, error: Box::new(error) })
        };
        let scored = (0..batch).try_for_each(|row| score(&mut packer, row));
        // Those before one that cannot be scored, too.
        let flushed = packer.flush(&mut each);
        self.give_packer(packer);
        scored.and(flushed)
    }
}

impl<M> fmt::Debug for EnginePool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnginePool").field("backend", &self.backend).field("chunk", &self.chunk).finish_non_exhaustive()
    }
}

fn length(values: &'static str, got: usize, rows: usize, columns: usize) -> Result<(), Error> {
    match rows.checked_mul(columns) {
        Some(need) if need == got => Ok(()),
        need => Err(Error::BatchShape { values, need: need.unwrap_or(usize::MAX), got }),
    }
}

/// Returns the positions of a text's tokens: where its mask is 1.
fn text(row: usize, mask: &[i64]) -> Result<Range<usize>, Error> {
    if let Some(position) = mask.iter().position(|&m| m != 0 && m != 1) {
        let got = mask.get(position).copied().unwrap_or_default();
        return Err(Error::MaskValue { row, position, got });
    }
    let begin = mask.iter().position(|&m| m == 1).unwrap_or(mask.len());
    let end = mask.iter().rposition(|&m| m == 1).map_or(begin, |last| last + 1);
    match mask.get(begin..end).unwrap_or_default().iter().position(|&m| m == 0) {
        Some(hole) => Err(Error::MaskHole { row, position: begin + hole }),
        None => Ok(begin..end),
    }
}
