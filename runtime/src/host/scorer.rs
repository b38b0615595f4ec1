//! Text in, scores out: tokenizer and engine behind one call.

use std::boxed::Box;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::file::BundleFile;
use super::packer::{Packer, Read, blank, encode};
use crate::bundle::OwnedBundle;
use crate::engine::Engine;
use crate::error::Error;
use crate::pool::PooledEngine;
use crate::tokenizer::{Blank, Table};

/// Texts that [`Scorer::score_all`] hands to an engine together.
const TOGETHER: usize = 64;
/// Longer texts go alone: they keep an engine busy by themselves.
const SHORT: usize = 64;
/// Bytes per token beyond which a text is not read twice to learn whether it is short.
const MOST_BYTES: usize = 16;

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

type Shared = Arc<OwnedBundle<BundleFile>>;

/// The engine of a scorer.
pub(super) enum Runner<'m> {
    /// Takes the tokens of a text one by one; many short texts side by side.
    Native { engine: Box<PooledEngine<Shared>>, packer: Option<Box<Packer<Shared>>> },
    /// Takes all ids of a text at once, and those of several texts.
    Any { engine: Box<dyn Engine + Send + 'm>, ids: Vec<u32> },
}

impl<'m> Runner<'m> {
    /// Returns the runner of a native engine.
    pub(super) fn native(engine: PooledEngine<Shared>) -> Self {
        Runner::Native { engine: Box::new(engine), packer: None }
    }

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
            Runner::Native { engine, .. } => {
                engine.reset();
                let keep = truncate.map_or(usize::MAX, |most| most.max(1));
                let mut result = Ok(());
                (self.tokens, self.truncated) = encode(&self.table, text.as_bytes(), keep, |id| {
                    if result.is_ok() {
                        result = engine.push_token(id);
                    }
                });
                result?;
                self.blank = blank(text.as_bytes(), engine.is_known());
                engine.finish(&mut self.scores)
            }
            Runner::Any { engine, ids } => {
                let read = read_into(ids, &self.table, text, truncate, engine.max_tokens())?;
                (self.tokens, self.truncated, self.blank) = (read.tokens, read.truncated, read.blank);
                engine.logits(ids, &mut self.scores)
            }
        }
    }

    /// Scores texts as [`Scorer::score`] does each, and calls `each` with each text's number, in order, and with this scorer as it is after
    /// that text.
    pub(super) fn score_all<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        truncate: Option<usize>,
        mut each: impl FnMut(usize, Result<(), Error>, &mut Self),
    ) {
        if matches!(self.engine, Runner::Any { .. }) {
            return self.score_together(texts, truncate, each);
        }
        let mut texts = texts.into_iter().enumerate().peekable();
        let first = texts.next();
        let mut packer = match &mut self.engine {
            // One text has nothing beside it.
            Runner::Native { engine, packer } if texts.peek().is_some() => {
                let new = || Packer::new(engine.model().clone(), *engine.backend()).ok().map(Box::new);
                // Without memory for it, texts go one by one.
                packer.take().or_else(new)
            }
            Runner::Native { packer, .. } => packer.take(),
            Runner::Any { .. } => None,
        };
        let alone = texts.peek().is_none();
        for (number, text) in first.into_iter().chain(texts) {
            let taken = match &mut packer {
                Some(packer) if !alone => packer.add(number, text.as_bytes(), truncate, &mut |number, read, scores| {
                    self.seen(read, scores);
                    each(number, Ok(()), self);
                }),
                _ => Ok(false),
            };
            match taken {
                Ok(true) => {}
                Ok(false) => {
                    let scored = self.score(text, truncate);
                    each(number, scored, self);
                }
                Err(error) => each(number, Err(error), self),
            }
        }
        if let Some(waiting) = &mut packer {
            // A pack that was taken has room for its scores.
            let _ = waiting.flush(&mut |number, read, scores| {
                self.seen(read, scores);
                each(number, Ok(()), self);
            });
        }
        if let Runner::Native { packer: place, .. } = &mut self.engine {
            *place = packer;
        }
    }

    /// As [`Scorer::score_all`], for an engine that takes the ids of several texts.
    fn score_together<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        truncate: Option<usize>,
        mut each: impl FnMut(usize, Result<(), Error>, &mut Self),
    ) {
        let mut texts = texts.into_iter().enumerate();
        let (mut group, mut of_group, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            group.clear();
            of_group.clear();
            group.extend(texts.by_ref().take(TOGETHER));
            if group.is_empty() {
                return;
            }
            let Runner::Any { engine, .. } = &mut self.engine else { return };
            let (max, labels) = (engine.max_tokens(), self.scores.len());
            // A text that is long, or cannot be read, is left to `score`.
            of_group.extend(group.iter().map(|(_, text)| {
                let mut ids = Vec::new();
                let read = (text.len() <= SHORT * MOST_BYTES)
                    .then(|| read_into(&mut ids, &self.table, text, truncate, max).ok())
                    .flatten();
                read.filter(|read| read.tokens <= SHORT).map(|read| (ids, read))
            }));
            let short: Vec<&[u32]> = of_group.iter().flatten().map(|(ids, _)| ids.as_slice()).collect();
            scores.clear();
            scores.resize(short.len() * labels, 0.0);
            let together = short.len() > 1 && engine.logits_all(&short, &mut scores).is_ok();
            let mut scored = scores.chunks_exact(labels.max(1));
            for (&(number, text), one) in group.iter().zip(&of_group) {
                match one {
                    Some((_, read)) if together => {
                        self.seen(*read, scored.next().unwrap_or_default());
                        each(number, Ok(()), self);
                    }
                    _ => {
                        let scored = self.score(text, truncate);
                        each(number, scored, self);
                    }
                }
            }
        }
    }

    fn seen(&mut self, read: Read, scores: &[f32]) {
        (self.tokens, self.truncated, self.blank) = (read.tokens, read.truncated, read.blank);
        self.scores.copy_from_slice(scores);
    }
}

/// Reads the ids of a text into `ids`: at most `truncate` of them and `max`, the most that the engine takes.
///
/// # Errors
/// If the text has more than `max` tokens and `truncate` does not cut it.
fn read_into(
    ids: &mut Vec<u32>,
    table: &Table<'_>,
    text: &str,
    truncate: Option<usize>,
    max: usize,
) -> Result<Read, Error> {
    let keep = truncate.map_or(max, |most| most.clamp(1, max));
    ids.clear();
    let (tokens, truncated) = encode(table, text.as_bytes(), keep, |id| ids.push(id));
    if truncated && truncate.is_none_or(|most| most > max) {
        let mut tokens = 0;
        table.encode_with(text.as_bytes(), &mut |_| tokens += 1);
        return Err(Error::TooLong { tokens, max });
    }
    Ok(Read { tokens, truncated, blank: blank(text.as_bytes(), ids.iter().any(|&id| table.is_word(id))) })
}
