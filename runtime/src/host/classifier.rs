//! Text in, answer out: tokenizer, engine and [`Answer`] behind one call. See the example of [`Model`](super::model::Model).

use std::boxed::Box;
use std::string::String;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::file::BundleFile;
use crate::answer::Answer;
use crate::bundle::OwnedBundle;
use crate::calibration::Calibration;
use crate::engine::Engine;
use crate::error::Error;
use crate::pool::PooledEngine;
use crate::tokenizer::{END, Table};

/// Classifies texts with one engine, one after the other.
pub struct Classifier<'m> {
    table: Table<'m>,
    labels: &'m [String],
    engine: Runner<'m>,
    calibration: Option<Calibration>,
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    tokens: usize,
    /// Maximum number of tokens to read, at least 1: the rest is ignored, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
    /// A probability must be greater for its label to be returned: 0 (never unsure) to 1 (always unsure). Initially the
    /// model's own, or 0 if it is not calibrated.
    pub threshold: f32,
}

/// The engine of a classifier.
enum Runner<'m> {
    /// Takes the tokens of a text one by one.
    Native(Box<PooledEngine<Arc<OwnedBundle<BundleFile>>>>),
    /// Takes all ids of a text at once.
    Any { engine: Box<dyn Engine + Send + 'm>, ids: Vec<u32> },
}

impl<'m> Classifier<'m> {
    /// Creates a classifier for any engine. `labels`: `num_labels` of the engine; `calibration`: that of its scores.
    pub fn with_engine(
        table: Table<'m>,
        labels: &'m [String],
        calibration: Option<Calibration>,
        engine: Box<dyn Engine + Send + 'm>,
    ) -> Self {
        Self::new(table, labels, calibration, Runner::Any { engine, ids: Vec::new() })
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
            table,
            labels,
            engine,
            calibration,
            logits: vec![0.0; labels.len()],
            probabilities: vec![0.0; labels.len()],
            tokens: 0,
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

    /// Classifies a text.
    ///
    /// Memory is bounded for texts of any length: the native engine needs the same for every text, another one at most
    /// the ids of its longest text.
    ///
    /// # Errors
    /// If the text has too many tokens for the engine and [`Self::truncate`] does not cut it, if the engine fails, or
    /// if a score is not a number.
    pub fn classify(&mut self, text: &str) -> Result<Answer<'_>, Error> {
        match &mut self.engine {
            Runner::Native(engine) => {
                engine.reset();
                let keep = self.truncate.map_or(usize::MAX, |most| most.max(1));
                let mut result = Ok(());
                self.tokens = encode(&self.table, text, keep, |id| {
                    if result.is_ok() {
                        result = engine.push_token(id);
                    }
                });
                result?;
                engine.finish(&mut self.logits)?;
            }
            Runner::Any { engine, ids } => {
                let max = engine.max_tokens();
                let keep = self.truncate.map_or(max, |most| most.clamp(1, max));
                ids.clear();
                self.tokens = encode(&self.table, text, keep, |id| ids.push(id));
                if self.tokens > keep && self.truncate.is_none_or(|most| most > max) {
                    return Err(Error::TooLong { tokens: self.tokens, max });
                }
                engine.logits(ids, &mut self.logits)?;
            }
        }
        let answer = Answer::from_logits(&self.logits, self.calibration.as_ref(), &mut self.probabilities)?;
        Ok(answer.with_threshold(self.threshold))
    }

    /// Returns the answer for the last text, or equal probabilities of 0 before the first.
    ///
    /// # Errors
    /// If the model has no classes.
    pub fn answer(&self) -> Result<Answer<'_>, Error> {
        let answer = Answer::from_probabilities(&self.probabilities, self.calibration.as_ref())?;
        Ok(answer.with_threshold(self.threshold))
    }

    /// Returns the scores before softmax of the last text, `[num_labels]`; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Returns the number of tokens of the last text, including those that [`Self::truncate`] ignored.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns whether tokens of the last text were ignored.
    pub fn truncated(&self) -> bool {
        self.truncate.is_some_and(|most| self.tokens > most.max(1))
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
