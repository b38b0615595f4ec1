//! Many texts, the short ones side by side.

use core::fmt;
use std::vec::Vec;

use crate::backend::Backend;
use crate::bundle::ReadBundle;
use crate::engine::native::{DEFAULT_PACK, PackedEngine, packed_scratch_bytes};
use crate::error::Error;
use crate::tokenizer::{Blank, END, Encoder, Table, is_empty};

/// What was read of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Tokens that were read.
    pub tokens: usize,
    /// Whether the text has more of them.
    pub truncated: bool,
    /// Why the text has no label, if that is so.
    pub blank: Option<Blank>,
}

/// Scores many texts with one model: short ones go through it side by side, faster than one after the other and with the same bits
/// ([`PackedEngine`]). A longer one is for an engine, which takes texts of any length.
///
/// ```
/// # std::env::set_current_dir("..").unwrap();
/// let model = kinglet::model::open("models/intents".as_ref(), true)?;
/// let texts = ["wake me at seven tomorrow", "play some jazz"];
/// let mut packer = model.engines().take_packer()?;
/// let mut each = |text: usize, scores: &[f32]| {
///     let (class, _) = kinglet::answer::best(scores).unwrap();
///     println!("{}: {}", texts[text], model.labels()[class]);
/// };
/// for (i, text) in texts.iter().enumerate() {
///     let taken = packer.add(i, text.as_bytes(), None, &mut |i, _, scores| each(i, scores))?;
///     assert!(taken, "a longer text is for an engine");
/// }
/// packer.flush(&mut |i, _, scores| each(i, scores))?;
/// # Ok::<(), kinglet::Error>(())
/// ```
pub struct Packer<M> {
    engine: PackedEngine<M, Vec<u8>>,
    /// Of the text that is read.
    ids: Vec<u32>,
    /// Of each text that waits: its number, and what was read.
    waiting: Vec<(usize, Read)>,
    /// Of the texts that wait, `[texts, num_labels]`.
    scores: Vec<f32>,
}

/// What is done with the scores of a text: its number, what was read of it, and they, `[num_labels]`, before softmax.
pub type Each<'f> = dyn FnMut(usize, Read, &[f32]) + 'f;

impl<M: ReadBundle> Packer<M> {
    /// Creates a packer that runs on `backend`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(model: M, backend: Backend) -> Result<Self, Error> {
        let need = packed_scratch_bytes(model.config(), DEFAULT_PACK);
        let mut scratch = Vec::new();
        scratch.try_reserve_exact(need).map_err(|_| Error::Memory { need })?;
        scratch.resize(need, 0);
        let engine = PackedEngine::with_rows(model, scratch, backend, DEFAULT_PACK)?;
        Ok(Packer { engine, ids: Vec::new(), waiting: Vec::new(), scores: Vec::new() })
    }

    /// Adds text number `text`, and passes to `each` the texts that have no room beside it. Returns whether it was taken: if not, it has
    /// more tokens than fit, and no text waits any more, so that its scores may follow theirs.
    ///
    /// `truncate`: maximum number of tokens to read, at least 1; the last one read is the end of text.
    ///
    /// # Errors
    /// If the text cannot be scored; no text waits then.
    pub fn add(
        &mut self,
        number: usize,
        text: &[u8],
        truncate: Option<usize>,
        each: &mut Each<'_>,
    ) -> Result<bool, Error> {
        let rows = self.engine.rows();
        let most = truncate.map_or(usize::MAX, |most| most.max(1));
        let (ids, table) = (&mut self.ids, self.engine.model().tokenizer());
        ids.clear();
        let (tokens, truncated) = encode(&table, text, most.min(rows), |id| ids.push(id));
        if truncated && most > rows {
            self.flush(each)?;
            return Ok(false);
        }
        let known = self.ids.iter().any(|&id| table.is_word(id));
        let read = Read { tokens, truncated, blank: blank(text, known) };
        self.push(number, read, each)
    }

    /// Adds a text whose ids are known, as [`Packer::add`] does; its [`Read`] says nothing of blanks.
    ///
    /// # Errors
    /// If the text cannot be scored; no text waits then.
    pub fn add_ids(
        &mut self,
        number: usize,
        ids: impl Iterator<Item = u32>,
        each: &mut Each<'_>,
    ) -> Result<bool, Error> {
        let rows = self.engine.rows();
        self.ids.clear();
        self.ids.extend(ids.take(rows + 1));
        if self.ids.len() > rows {
            self.flush(each)?;
            return Ok(false);
        }
        let read = Read { tokens: self.ids.len(), truncated: false, blank: None };
        self.push(number, read, each)
    }

    /// Adds the text of the ids, which fit into an engine without texts.
    fn push(&mut self, number: usize, read: Read, each: &mut Each<'_>) -> Result<bool, Error> {
        let pushed = match self.engine.push(&self.ids) {
            Ok(false) => {
                self.flush(each)?;
                self.engine.push(&self.ids)
            }
            pushed => pushed,
        };
        match pushed {
            Ok(taken) => {
                if taken {
                    self.waiting.push((number, read));
                }
                Ok(taken)
            }
            Err(error) => {
                self.flush(each)?;
                Err(error)
            }
        }
    }

    /// Passes the texts that wait to `each`, in the order of their coming.
    ///
    /// # Errors
    /// If they cannot be scored.
    pub fn flush(&mut self, each: &mut Each<'_>) -> Result<(), Error> {
        let labels = self.engine.model().config().num_labels;
        self.scores.resize(self.waiting.len() * labels, 0.0);
        self.engine.scores(&mut self.scores)?;
        for ((number, read), scores) in self.waiting.drain(..).zip(self.scores.chunks_exact(labels.max(1))) {
            each(number, read, scores);
        }
        Ok(())
    }

    /// Discards the texts that wait.
    pub fn clear(&mut self) {
        self.engine.clear();
        self.waiting.clear();
    }
}

impl<M: ReadBundle> fmt::Debug for Packer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Returns why a text has no label. `known`: whether one of its tokens is a word.
pub(super) fn blank(text: &[u8], known: bool) -> Option<Blank> {
    match known {
        true => None,
        false if is_empty(text) => Some(Blank::Empty),
        false => Some(Blank::Unknown),
    }
}

/// Bytes after which the tokenizer is asked whether it has found enough tokens.
const PART: usize = 1 << 10;

/// Passes the first `keep` ids of a text to `sink`, the last of them [`END`] if there were more. Returns their number, and whether
/// there were more. What is far behind them is not read.
pub(super) fn encode(table: &Table<'_>, text: &[u8], keep: usize, mut sink: impl FnMut(u32)) -> (usize, bool) {
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
    let mut parts = text.chunks(PART);
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
