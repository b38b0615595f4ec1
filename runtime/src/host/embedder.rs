//! Text in, sentence vector out. See [`Model::embed`](super::model::Model::embed).

use std::boxed::Box;
use std::sync::Arc;

use super::file::BundleFile;
use super::scorer::{Runner, Scorer};
use crate::bundle::OwnedBundle;
use crate::engine::Engine;
use crate::error::Error;
use crate::pool::PooledEngine;
use crate::tokenizer::Table;
use crate::vector::normalize;

/// Turns texts into vectors of length 1 with one engine, one after the other.
pub struct Embedder<'m> {
    scorer: Scorer<'m>,
    /// Maximum number of tokens to read, at least 1: the rest is ignored, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
}

impl<'m> Embedder<'m> {
    /// Creates an embedder for any engine of a model that embeds. `dimension`: `num_labels` of the engine.
    pub fn with_engine(table: Table<'m>, dimension: usize, engine: Box<dyn Engine + Send + 'm>) -> Self {
        Embedder { scorer: Scorer::new(table, dimension, Runner::any(engine)), truncate: None }
    }

    pub(crate) fn with_native(
        table: Table<'m>,
        dimension: usize,
        engine: PooledEngine<Arc<OwnedBundle<BundleFile>>>,
    ) -> Self {
        Embedder { scorer: Scorer::new(table, dimension, Runner::native(engine)), truncate: None }
    }

    /// Embeds a text. Returns its vector, `[D]`, of length 1, or of zeros if the model says nothing about the text.
    ///
    /// With the native engine the bits are the same on every processor. Does not allocate with it.
    ///
    /// # Errors
    /// If the text has too many tokens for the engine and [`Self::truncate`] does not cut it, if the engine fails, or
    /// if a value is not a number.
    pub fn embed(&mut self, text: &str) -> Result<&[f32], Error> {
        self.scorer.score(text, self.truncate)?;
        normalize(&mut self.scorer.scores)?;
        Ok(&self.scorer.scores)
    }

    /// Returns the number of values of a vector, `D`.
    pub fn dimension(&self) -> usize {
        self.scorer.scores.len()
    }

    /// Returns the number of tokens of the last text that were read: at most [`Self::truncate`].
    pub fn tokens(&self) -> usize {
        self.scorer.tokens
    }

    /// Returns whether the last text has more tokens than [`Self::truncate`], so that its rest was ignored.
    pub fn truncated(&self) -> bool {
        self.scorer.truncated
    }
}
