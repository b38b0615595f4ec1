//! Text in, scores out: tokenizer and engine behind one call.

use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::file::BundleFile;
use crate::bundle::OwnedBundle;
use crate::engine::Engine;
use crate::error::Error;
use crate::pool::PooledEngine;
use crate::tokenizer::{END, Table};

/// Scores texts with one engine, one after the other.
pub(super) struct Scorer<'m> {
    table: Table<'m>,
    engine: Runner<'m>,
    /// Of the last text, `[num_labels]`; zeros before the first.
    pub(super) scores: Vec<f32>,
    /// Tokens of the last text, including those that were not read.
    pub(super) tokens: usize,
}

/// The engine of a scorer.
pub(super) enum Runner<'m> {
    /// Takes the tokens of a text one by one.
    Native(Box<PooledEngine<Arc<OwnedBundle<BundleFile>>>>),
    /// Takes all ids of a text at once.
    Any { engine: Box<dyn Engine + Send + 'm>, ids: Vec<u32> },
}

impl<'m> Runner<'m> {
    /// Returns the runner of any engine.
    pub(super) fn any(engine: Box<dyn Engine + Send + 'm>) -> Self {
        Runner::Any { engine, ids: Vec::new() }
    }
}

impl<'m> Scorer<'m> {
    /// Creates a scorer. `num_labels`: that of the engine.
    pub(super) fn new(table: Table<'m>, num_labels: usize, engine: Runner<'m>) -> Self {
        Scorer { table, engine, scores: vec![0.0; num_labels], tokens: 0 }
    }

    /// Scores a text, of which it reads at most `truncate` tokens, at least 1: the rest is ignored, and the last token read
    /// is the end of text. `None`: a text that is too long for the engine is an error.
    ///
    /// Memory is bounded for texts of any length: the native engine needs the same for every text, another one at most
    /// the ids of its longest text.
    ///
    /// # Errors
    /// If the text has too many tokens for the engine and `truncate` does not cut it, or if the engine fails.
    pub(super) fn score(&mut self, text: &str, truncate: Option<usize>) -> Result<(), Error> {
        match &mut self.engine {
            Runner::Native(engine) => {
                engine.reset();
                let keep = truncate.map_or(usize::MAX, |most| most.max(1));
                let mut result = Ok(());
                self.tokens = encode(&self.table, text, keep, |id| {
                    if result.is_ok() {
                        result = engine.push_token(id);
                    }
                });
                result?;
                engine.finish(&mut self.scores)
            }
            Runner::Any { engine, ids } => {
                let max = engine.max_tokens();
                let keep = truncate.map_or(max, |most| most.clamp(1, max));
                ids.clear();
                self.tokens = encode(&self.table, text, keep, |id| ids.push(id));
                if self.tokens > keep && truncate.is_none_or(|most| most > max) {
                    return Err(Error::TooLong { tokens: self.tokens, max });
                }
                engine.logits(ids, &mut self.scores)
            }
        }
    }

    /// Returns whether tokens of the last text were ignored.
    pub(super) fn truncated(&self, truncate: Option<usize>) -> bool {
        truncate.is_some_and(|most| self.tokens > most.max(1))
    }
}

/// Passes the first `keep` ids of a text to `sink`, the last of them [`END`] if there were more. Returns the total
/// number.
fn encode(table: &Table<'_>, text: &str, keep: usize, mut sink: impl FnMut(u32)) -> usize {
    let (mut tokens, mut last) = (0, None);
    table.encode_with(text.as_bytes(), &mut |id| {
        tokens += 1;
        if tokens <= keep
            && let Some(before) = last.replace(id)
        {
            sink(before);
        }
    });
    if let Some(last) = last {
        sink(if tokens > keep { END } else { last });
    }
    tokens
}
