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
use crate::tokenizer::{Blank, END, Encoder, Table, is_empty};

/// Scores texts with one engine, one after the other.
pub(super) struct Scorer<'m> {
    table: Table<'m>,
    engine: Runner<'m>,
    /// Of the last text, `[num_labels]`; zeros before the first.
    pub(super) scores: Vec<f32>,
    /// Tokens of the last text that were read.
    pub(super) tokens: usize,
    /// Whether the last text has more tokens than were read.
    pub(super) truncated: bool,
    /// Why the last text has no label, if that is so; empty before the first.
    pub(super) blank: Option<Blank>,
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
        Scorer { table, engine, scores: vec![0.0; num_labels], tokens: 0, truncated: false, blank: Some(Blank::Empty) }
    }

    /// Scores a text, of which it reads at most `truncate` tokens, at least 1: the rest is ignored, also by the tokenizer, and the
    /// last token read is the end of text. `None`: a text that is too long for the engine is an error.
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
                (self.tokens, self.truncated) = encode(&self.table, text, keep, |id| {
                    if result.is_ok() {
                        result = engine.push_token(id);
                    }
                });
                result?;
                self.blank = blank(text, engine.is_known());
                engine.finish(&mut self.scores)
            }
            Runner::Any { engine, ids } => {
                let max = engine.max_tokens();
                let keep = truncate.map_or(max, |most| most.clamp(1, max));
                ids.clear();
                (self.tokens, self.truncated) = encode(&self.table, text, keep, |id| ids.push(id));
                if self.truncated && truncate.is_none_or(|most| most > max) {
                    let mut tokens = 0;
                    self.table.encode_with(text.as_bytes(), &mut |_| tokens += 1);
                    return Err(Error::TooLong { tokens, max });
                }
                self.blank = blank(text, ids.iter().any(|&id| self.table.is_word(id)));
                engine.logits(ids, &mut self.scores)
            }
        }
    }
}

/// Returns why a text has no label. `known`: whether one of its tokens is a word.
fn blank(text: &str, known: bool) -> Option<Blank> {
    match known {
        true => None,
        false if is_empty(text.as_bytes()) => Some(Blank::Empty),
        false => Some(Blank::Unknown),
    }
}

/// Bytes after which the tokenizer is asked whether it has found enough tokens.
const PART: usize = 1 << 10;

/// Passes the first `keep` ids of a text to `sink`, the last of them [`END`] if there were more. Returns their number, and whether
/// there were more. What is far behind them is not read.
fn encode(table: &Table<'_>, text: &str, keep: usize, mut sink: impl FnMut(u32)) -> (usize, bool) {
    let (mut tokens, mut last) = (0, None);
    let mut take = |id| {
        tokens += 1;
        if tokens <= keep
            && let Some(before) = last.replace(id)
        {
            sink(before);
        }
        tokens > keep
    };
    let mut encoder = Encoder::new();
    let mut parts = text.as_bytes().chunks(PART);
    let full = loop {
        let mut full = false;
        let mut id = |id| full |= take(id);
        let Some(part) = parts.next() else {
            encoder.finish(table, &mut id);
            break full;
        };
        encoder.push(table, part, &mut id);
        if full {
            break true;
        }
    };
    if let Some(last) = last {
        sink(if full { END } else { last });
    }
    (tokens.min(keep), full)
}
