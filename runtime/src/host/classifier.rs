//! Text in, answer out: tokenizer, engine and [`Answer`] behind one call. See the example of [`Model`](super::model::Model).

use std::boxed::Box;
use std::string::String;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use super::file::BundleFile;
use super::packer::Read;
use super::scorer::{Runner, Scorer};
use crate::answer::Answer;
use crate::bundle::OwnedBundle;
use crate::engine::Engine;
use crate::error::Error;
use crate::multi_label::Decision;
use crate::pool::PooledEngine;
use crate::tokenizer::{Blank, Table};

/// Classifies texts with one engine, one after the other.
pub struct Classifier<'m> {
    scorer: Scorer<'m>,
    labels: &'m [String],
    decision: Decision<'m>,
    probabilities: Vec<f32>,
    /// Maximum number of tokens to read, at least 1: the rest is ignored, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
    /// A probability must be greater for its label to be returned: 0 (unsure about blank texts alone; every label) to 1 (always
    /// unsure; no label). Initially `None`: what the model says, which is 0 if it has one label per text and is not calibrated.
    pub threshold: Option<f32>,
}

impl<'m> Classifier<'m> {
    /// Creates a classifier for any engine. `labels`: `num_labels` of the engine; `decision`: what turns its scores into an answer, such as a
    /// calibration.
    pub fn with_engine(
        table: Table<'m>,
        labels: &'m [String],
        decision: impl Into<Decision<'m>>,
        engine: Box<dyn Engine + Send + 'm>,
    ) -> Self {
        Self::new(table, labels, decision.into(), Runner::any(engine))
    }

    pub(crate) fn with_native(
        table: Table<'m>,
        labels: &'m [String],
        decision: Decision<'m>,
        engine: PooledEngine<Arc<OwnedBundle<BundleFile>>>,
    ) -> Self {
        Self::new(table, labels, decision, Runner::native(engine))
    }

    fn new(table: Table<'m>, labels: &'m [String], decision: Decision<'m>, engine: Runner<'m>) -> Self {
        Classifier {
            scorer: Scorer::new(table, labels.len(), engine),
            labels,
            decision,
            probabilities: vec![0.0; labels.len()],
            truncate: None,
            threshold: None,
        }
    }

    /// Returns what turns the model's scores into an answer.
    pub fn decision(&self) -> Decision<'m> {
        self.decision
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
        let answer = Answer::from_logits(&self.scorer.scores, self.decision, &mut self.probabilities)?;
        Ok(judged(answer, self.threshold, self.scorer.blank))
    }

    /// Classifies many texts: calls `each` with the number of each text, from 0 and in order, its answer as of [`Classifier::classify`], and
    /// what was read of it.
    ///
    /// With the native engine, short texts go through the model side by side, which is faster and changes no bit of an answer; it takes
    /// memory of its own, the same for any number of texts. Another engine may sum floats of several texts in another order
    /// ([`Engine::logits_all`](crate::engine::Engine::logits_all)). Afterwards, [`Classifier::answer`], [`Classifier::logits`] and others are of
    /// the last text.
    ///
    /// ```
    /// # std::env::set_current_dir("..").unwrap();
    /// let model = kinglet::model::open("models/intents".as_ref(), true)?;
    /// let mut labels = Vec::new();
    /// model.classifier()?.classify_all(["wake me at seven tomorrow", "play some jazz"], |_, answer, _| {
    ///     labels.push(answer.map(|answer| answer.label().map(|sure| model.labels()[sure.class].as_str())));
    /// });
    /// assert_eq!(labels[0], Ok(Some("alarm")));
    /// # Ok::<(), kinglet::Error>(())
    /// ```
    pub fn classify_all<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
        mut each: impl FnMut(usize, Result<Answer<'_>, Error>, Read),
    ) {
        let Classifier { scorer, decision, probabilities, truncate, threshold, .. } = self;
        scorer.score_all(texts, *truncate, |number, scored, scorer| {
            let read = Read { tokens: scorer.tokens, truncated: scorer.truncated, blank: scorer.blank };
            let answer = scored
                .and_then(|()| Answer::from_logits(&scorer.scores, *decision, probabilities))
                .map(|answer| judged(answer, *threshold, read.blank));
            each(number, answer, read);
        });
    }

    /// Returns the answer for the last text, or equal probabilities of 0 before the first.
    ///
    /// # Errors
    /// If the model has no classes.
    pub fn answer(&self) -> Result<Answer<'_>, Error> {
        let answer = Answer::from_probabilities(&self.probabilities, self.decision)?;
        Ok(judged(answer, self.threshold, self.scorer.blank))
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

fn judged(answer: Answer<'_>, threshold: Option<f32>, blank: Option<Blank>) -> Answer<'_> {
    threshold.map_or(answer, |threshold| answer.with_threshold(threshold)).with_blank(blank)
}
