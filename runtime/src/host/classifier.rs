//! Text in, answer out: tokenizer, engine and [`Answer`] behind one call. See the example of [`Model`](super::model::Model).

use std::boxed::Box;
use std::string::String;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::file::BundleFile;
use super::scorer::{Runner, Scorer};
use crate::answer::Answer;
use crate::bundle::OwnedBundle;
use crate::calibration::Calibration;
use crate::engine::Engine;
use crate::error::Error;
use crate::pool::PooledEngine;
use crate::tokenizer::Table;

/// Classifies texts with one engine, one after the other.
pub struct Classifier<'m> {
    scorer: Scorer<'m>,
    labels: &'m [String],
    calibration: Option<Calibration>,
    probabilities: Vec<f32>,
    /// Maximum number of tokens to read, at least 1: the rest is ignored, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
    /// A probability must be greater for its label to be returned: 0 (unsure about blank texts alone) to 1 (always
    /// unsure). Initially the model's own, or 0 if it is not calibrated.
    pub threshold: f32,
}

impl<'m> Classifier<'m> {
    /// Creates a classifier for any engine. `labels`: `num_labels` of the engine; `calibration`: that of its scores.
    pub fn with_engine(
        table: Table<'m>,
        labels: &'m [String],
        calibration: Option<Calibration>,
        engine: Box<dyn Engine + Send + 'm>,
    ) -> Self {
        Self::new(table, labels, calibration, Runner::any(engine))
    }

    pub(crate) fn with_native(
        table: Table<'m>,
        labels: &'m [String],
        calibration: Option<Calibration>,
        engine: PooledEngine<Arc<OwnedBundle<BundleFile>>>,
    ) -> Self {
        Self::new(table, labels, calibration, Runner::Native(Box::new(engine)))
    }

    fn new(table: Table<'m>, labels: &'m [String], calibration: Option<Calibration>, engine: Runner<'m>) -> Self {
        Classifier {
            scorer: Scorer::new(table, labels.len(), engine),
            labels,
            calibration,
            probabilities: vec![0.0; labels.len()],
            truncate: None,
            threshold: calibration.map_or(0.0, |calibration| calibration.threshold),
        }
    }

    /// Returns the calibration, if the model has one.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Returns the model's labels, by class.
    pub fn labels(&self) -> &'m [String] {
        self.labels
    }

    /// Classifies a text. The answer to one without a letter, digit or symbol, or without one that the vocabulary has, is unsure,
    /// whatever the threshold.
    ///
    /// Memory is bounded for texts of any length: the native engine needs the same for every text, another one at most
    /// the ids of its longest text.
    ///
    /// # Errors
    /// If the text has too many tokens for the engine and [`Self::truncate`] does not cut it, if the engine fails, or
    /// if a score is not a number.
    pub fn classify(&mut self, text: &str) -> Result<Answer<'_>, Error> {
        self.scorer.score(text, self.truncate)?;
        let answer = Answer::from_logits(&self.scorer.scores, self.calibration.as_ref(), &mut self.probabilities)?;
        Ok(answer.with_threshold(self.threshold).with_blank(self.scorer.blank))
    }

    /// Returns the answer for the last text, or equal probabilities of 0 before the first.
    ///
    /// # Errors
    /// If the model has no classes.
    pub fn answer(&self) -> Result<Answer<'_>, Error> {
        let answer = Answer::from_probabilities(&self.probabilities, self.calibration.as_ref())?;
        Ok(answer.with_threshold(self.threshold).with_blank(self.scorer.blank))
    }

    /// Returns the scores before softmax of the last text, `[num_labels]`; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.scorer.scores
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
