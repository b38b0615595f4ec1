//! Several threads on one text: each computes a range of positions, with as many tokens to either side as its outputs
//! depend on, and the pooled sums are merged. They are exact (64-bit fixed point, or maxima), so the scores are those of
//! one thread, bit for bit, whatever the number of threads.

use core::ops::Range;
use std::thread;
use std::vec::Vec;

use super::{DEFAULT_CHUNK, NativeEngine, NativeError};
use crate::backend::Backend;
use crate::bundle::Bundle;
use crate::engine::{Engine, EngineError};
use crate::spec::Config;

/// Fewest tokens that are worth a thread of their own, next to those that it computes only for its neighbours' sake.
const LEAST_TOKENS: usize = 256;

/// Bytes of scratch for `threads` engines with chunks of `chunk` rows; saturates.
pub const fn scratch_bytes(config: &Config, chunk: usize, threads: usize) -> usize {
    super::scratch_bytes(config, chunk).saturating_mul(threads)
}

/// As many engines as threads, each with its own part of the scratch. Short texts are scored by the first alone.
///
/// Scoring allocates nothing but what starting threads takes.
#[derive(Debug)]
pub struct ParallelEngine<'a> {
    /// Never empty.
    engines: Vec<NativeEngine<'a>>,
    least_tokens: usize,
}

impl<'a> ParallelEngine<'a> {
    /// `scratch`: at least [`scratch_bytes`]`(config, DEFAULT_CHUNK, threads)` bytes. Allocates room for the engines.
    ///
    /// # Errors
    /// When `threads` is 0 or `scratch` is too small.
    pub fn new(
        bundle: &Bundle<'a>,
        scratch: &'a mut [u8],
        backend: Backend,
        threads: usize,
    ) -> Result<Self, NativeError> {
        Self::with_chunk(bundle, scratch, backend, threads, DEFAULT_CHUNK)
    }

    /// As [`ParallelEngine::new`], with chunks of `chunk` rows.
    ///
    /// # Errors
    /// When `threads` or `chunk` is 0 or `scratch` is smaller than [`scratch_bytes`]`(config, chunk, threads)`.
    pub fn with_chunk(
        bundle: &Bundle<'a>,
        scratch: &'a mut [u8],
        backend: Backend,
        threads: usize,
        chunk: usize,
    ) -> Result<Self, NativeError> {
        if threads == 0 {
            return Err(NativeError::NoThreads);
        }
        let each = super::scratch_bytes(bundle.config(), chunk);
        let (need, got) = (scratch_bytes(bundle.config(), chunk, threads), scratch.len());
        if got < need {
            return Err(NativeError::ScratchTooSmall { need, got });
        }
        let engines = scratch
            .chunks_exact_mut(each)
            .take(threads)
            .map(|scratch| NativeEngine::with_chunk(bundle.clone(), scratch, backend, chunk))
            .collect::<Result<_, _>>()?;
        Ok(ParallelEngine { engines, least_tokens: LEAST_TOKENS })
    }

    /// Gives a thread its own range from this many tokens on, at least 1. It changes how long a text takes, not its scores.
    pub fn least_tokens(mut self, tokens: usize) -> Self {
        self.least_tokens = tokens.max(1);
        self
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.engines.len()
    }

    /// The engine of the first thread, for texts that come in parts.
    pub fn first(&mut self) -> Option<&mut NativeEngine<'a>> {
        self.engines.first_mut()
    }
}

impl NativeEngine<'_> {
    /// Pools the positions `range` of a text: computes them from the tokens that they depend on.
    fn pool_range(&mut self, ids: &[u32], range: Range<usize>) -> Result<(), EngineError> {
        let (back, ahead) = (self.config().look_back().unwrap_or(0), self.look_ahead);
        let from = range.start.saturating_sub(back);
        let to = range.end.saturating_add(ahead).min(ids.len());
        self.reset();
        self.pooled = ((range.start - from) as u64, (range.end - from) as u64);
        let pushed = self.push_tokens(ids.get(from..to).unwrap_or_default());
        let result = pushed.and_then(|()| self.pool_rest().map(|_| ()));
        self.pooled = (0, u64::MAX);
        result
    }
}

impl Engine for ParallelEngine<'_> {
    fn num_labels(&self) -> usize {
        self.engines.first().map_or(0, Engine::num_labels)
    }

    fn max_tokens(&self) -> usize {
        self.engines.first().map_or(0, Engine::max_tokens)
    }

    fn logits(&mut self, ids: &[u32], out: &mut [f32]) -> Result<(), EngineError> {
        let threads = self.engines.len().min(ids.len() / self.least_tokens).max(1);
        let Some((first, others)) = self.engines.split_first_mut() else { return Err(EngineError::NoTokens) };
        let others = others.get_mut(..threads - 1).unwrap_or_default();
        if others.is_empty() || ids.len() > first.max_tokens() {
            return first.logits(ids, out);
        }
        first.check_output(out)?;
        let range = |i: usize| share(ids.len(), i, threads)..share(ids.len(), i + 1, threads);
        let result = thread::scope(|scope| {
            let handles: Vec<_> = others
                .iter_mut()
                .enumerate()
                .map(|(i, engine)| scope.spawn(move || engine.pool_range(ids, range(i + 1))))
                .collect();
            let result = first.pool_range(ids, range(0));
            handles.into_iter().fold(result, |result, handle| {
                let other = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(other)
            })
        });
        if result.is_ok() {
            for other in others.iter() {
                first.buffers.pool.merge(&first.backend, &other.buffers.pool);
            }
            first.head(ids.len() as u64, out);
        }
        self.engines.iter_mut().for_each(NativeEngine::reset);
        result
    }
}

/// Where the part of thread `i` begins when `tokens` are shared among `threads`.
fn share(tokens: usize, i: usize, threads: usize) -> usize {
    (tokens as u128 * i as u128 / threads as u128) as usize
}
