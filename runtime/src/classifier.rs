//! Text in, labels out: tokenizer, engine and calibrated probabilities behind one call.
//!
//! ```no_run
//! use kinglet::{classifier::Classifier, model};
//!
//! let model = model::builtin()?;
//! let mut classifier = Classifier::new(&model)?;
//! let best = classifier.classify("wake me at seven tomorrow", 1)?;
//! println!("{} {:.3}", best[0].label, best[0].score);
//! # Ok::<(), kinglet::classifier::ClassifierError>(())
//! ```

use core::fmt;
use std::boxed::Box;
use std::path::PathBuf;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::backend::Backend;
use crate::bundle::{Bundle, BundleError};
use crate::calibration::{self, Calibration, ConfidenceError};
use crate::engine::native::{DEFAULT_CHUNK, NativeEngine, NativeError, scratch_bytes};
use crate::engine::{Engine, EngineError};
use crate::model::Model;
use crate::spec::files;
use crate::tokenizer::{END, Table, TableError};

/// Why a text cannot be classified.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The directory holds none of `model.kinglet`, `model.int8.onnx` and `model.onnx`.
    NoModel {
        /// The directory.
        directory: PathBuf,
    },
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a bundle; ONNX files are for the crate `kinglet-onnx`.
    NotBundle {
        /// The file.
        path: PathBuf,
    },
    /// The bundle cannot be used.
    Bundle {
        /// The file; `None` for the built-in model, and for a file that was changed after it was opened.
        path: Option<PathBuf>,
        /// Why.
        source: BundleError,
    },
    /// The native engine cannot be made.
    Native(NativeError),
    /// The model's tokenizer table is broken.
    Tokenizer(TableError),
    /// The text has more tokens than the engine takes.
    TooLong {
        /// Tokens of the text, the end of text included.
        tokens: usize,
        /// Most tokens the engine takes.
        max: usize,
    },
    /// The engine failed.
    Engine(EngineError),
    /// The model gave a score that is no number: its weights are damaged.
    Confidence(ConfidenceError),
}

impl fmt::Display for ClassifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClassifierError::NoModel { directory } => write!(
                f,
                "{} holds none of {}, {} and {}; give the directory that kinglet-export wrote, or a file",
                directory.display(),
                files::BUNDLE,
                files::ONNX_INT8,
                files::ONNX
            ),
            ClassifierError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            ClassifierError::NotBundle { path } => {
                write!(f, "{} is not a {} file; ONNX files are opened by kinglet-onnx", path.display(), files::BUNDLE)
            }
            ClassifierError::Bundle { path: Some(path), source } => write!(f, "{}: {source}", path.display()),
            ClassifierError::Bundle { path: None, source } => write!(f, "the model in memory: {source}"),
            ClassifierError::Native(e) => e.fmt(f),
            ClassifierError::Tokenizer(e) => write!(f, "the model's tokenizer: {e}"),
            ClassifierError::TooLong { tokens, max } => {
                write!(f, "the text has {tokens} tokens, this engine takes at most {max}")
            }
            ClassifierError::Engine(e) => e.fmt(f),
            ClassifierError::Confidence(e) => e.fmt(f),
        }
    }
}

// What caused an error is part of its message, so `source` stays empty: a chain would say it twice.
impl core::error::Error for ClassifierError {}

impl From<EngineError> for ClassifierError {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::TooLong { tokens, max } => ClassifierError::TooLong { tokens, max },
            e => ClassifierError::Engine(e),
        }
    }
}

impl From<NativeError> for ClassifierError {
    fn from(e: NativeError) -> Self {
        ClassifierError::Native(e)
    }
}

impl From<ConfidenceError> for ClassifierError {
    fn from(e: ConfidenceError) -> Self {
        ClassifierError::Confidence(e)
    }
}

/// A label with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction<'m> {
    /// The class, an index into the model's labels.
    pub class: usize,
    /// The class's name.
    pub label: &'m str,
    /// Its probability, 0 to 1, calibrated if the model is; all classes together give 1.
    pub score: f32,
}

/// What is said about a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<'m> {
    /// The likeliest labels, likeliest first; of equal ones the lower class first.
    pub top: Vec<Prediction<'m>>,
    /// Whether no label is likely enough: the first of `top` is then only the likeliest, not the answer.
    pub unsure: bool,
    /// The labels among which the right one is to be expected, likeliest first ([`Calibration::set`]); `None` when the model is not
    /// calibrated.
    pub set: Option<Vec<&'m str>>,
}

impl<'m> Answer<'m> {
    /// The answer that the probabilities of all classes give, `[num_labels]`, with the `top` likeliest labels. `threshold`: as
    /// [`calibration::decide`] takes it.
    pub fn new(
        labels: &'m [String],
        probabilities: &[f32],
        calibration: Option<&Calibration>,
        threshold: f32,
        top: usize,
    ) -> Self {
        let mut all = likeliest(labels, probabilities, usize::MAX);
        let set = calibration.map(|calibration| {
            let inside: Vec<usize> = calibration.set(probabilities).collect();
            all.iter().filter(|p| inside.binary_search(&p.class).is_ok()).map(|p| p.label).collect()
        });
        let unsure = calibration::decide(probabilities, threshold) == calibration::Decision::Unsure;
        all.truncate(top);
        Answer { top: all, unsure, set }
    }
}

/// Classifies texts with one model, one after the other.
pub struct Classifier<'m> {
    table: Table<'m>,
    labels: &'m [String],
    runner: Runner<'m>,
    calibration: Option<Calibration>,
    logits: Vec<f32>,
    scores: Vec<f32>,
    tokens: usize,
    /// Most tokens to read of a text, at least 1: what follows is left out, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
    /// A probability must be greater for its label to be given: 0 (never unsure) to 1 (always unsure). The model's own at first;
    /// 0 when it is not calibrated.
    pub threshold: f32,
}

/// The engine behind.
enum Runner<'m> {
    /// Made anew for each text, which costs as much as making it forget the text before.
    Native { bundle: Box<Bundle<'m>>, scratch: Vec<u8>, backend: Backend },
    /// With the ids of a text.
    Any { engine: Box<dyn Engine + Send + 'm>, ids: Vec<u32> },
}

impl<'m> Classifier<'m> {
    /// A classifier for `model`; of a bundle with the fastest backend of this processor.
    ///
    /// # Errors
    /// When the model's tokenizer table is broken, or its file was changed after it was opened.
    pub fn new(model: &'m Model) -> Result<Self, ClassifierError> {
        Self::with_backend(model, Backend::detect())
    }

    /// As [`Self::new`], with this backend.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_backend(model: &'m Model, backend: Backend) -> Result<Self, ClassifierError> {
        let bundle = model.bundle().map_err(|source| ClassifierError::Bundle { path: None, source })?;
        let scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
        let (table, calibration) = (bundle.tokenizer(), bundle.calibration());
        let runner = Runner::Native { bundle: Box::new(bundle), scratch, backend };
        Ok(Self::of(table, model.labels(), calibration, runner))
    }

    /// A classifier that scores with any engine. `labels`: `num_labels` of the engine; `calibration`: that of its scores.
    pub fn with_engine(
        table: Table<'m>,
        labels: &'m [String],
        calibration: Option<Calibration>,
        engine: Box<dyn Engine + Send + 'm>,
    ) -> Self {
        Self::of(table, labels, calibration, Runner::Any { engine, ids: Vec::new() })
    }

    fn of(table: Table<'m>, labels: &'m [String], calibration: Option<Calibration>, runner: Runner<'m>) -> Self {
        Classifier {
            table,
            labels,
            runner,
            calibration,
            logits: vec![0.0; labels.len()],
            scores: vec![0.0; labels.len()],
            tokens: 0,
            truncate: None,
            threshold: calibration.map_or(0.0, |calibration| calibration.threshold),
        }
    }

    /// What was fitted to make the model's confidence honest, if anything was.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The model's labels, by class.
    pub fn labels(&self) -> &'m [String] {
        self.labels
    }

    /// Tokens of the text scored last, those that [`Self::truncate`] left out included.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether tokens of the text scored last were left out.
    pub fn truncated(&self) -> bool {
        self.truncate.is_some_and(|most| self.tokens > most.max(1))
    }

    /// The probability of each class, `[num_labels]`: [`calibration::softmax`] of the logits with the model's temperature, 1 when
    /// it is not calibrated.
    ///
    /// Memory is bounded, however long the text is: the native engine needs the same for every text, another one at most the ids of
    /// the longest that it takes.
    ///
    /// # Errors
    /// When the text has too many tokens for the engine and [`Self::truncate`] does not cut it, and when the engine fails.
    pub fn scores(&mut self, text: &str) -> Result<&[f32], ClassifierError> {
        match &mut self.runner {
            Runner::Native { bundle, scratch, backend } => {
                let mut engine = NativeEngine::with_backend(Bundle::clone(bundle), scratch, *backend)?;
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
                    return Err(ClassifierError::TooLong { tokens: self.tokens, max });
                }
                engine.logits(ids, &mut self.logits)?;
            }
        }
        let temperature = self.calibration.map_or(1.0, |calibration| calibration.temperature);
        calibration::softmax(&self.logits, temperature, &mut self.scores)?;
        Ok(&self.scores)
    }

    /// What [`Self::scores`] gave for the text scored last; zeros before the first.
    pub fn last_scores(&self) -> &[f32] {
        &self.scores
    }

    /// The scores before softmax of the text scored last, `[num_labels]`; zeros before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The `top` likeliest labels, likeliest first; of equal ones the lower class first. At most `num_labels`.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn classify(&mut self, text: &str, top: usize) -> Result<Vec<Prediction<'m>>, ClassifierError> {
        let labels = self.labels;
        Ok(likeliest(labels, self.scores(text)?, top))
    }

    /// What is said about a text, with the `top` likeliest labels.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn answer(&mut self, text: &str, top: usize) -> Result<Answer<'m>, ClassifierError> {
        self.scores(text)?;
        Ok(Answer::new(self.labels, &self.scores, self.calibration.as_ref(), self.threshold, top))
    }
}

/// Gives the first `keep` ids of a text to `sink`, the last of them [`END`] where there were more. Gives the number of all.
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

/// The `top` likeliest labels, likeliest first; of equal ones the lower class first. `scores`: the probability of each.
pub fn likeliest<'m>(labels: &'m [String], scores: &[f32], top: usize) -> Vec<Prediction<'m>> {
    let mut all: Vec<Prediction<'m>> = labels
        .iter()
        .zip(scores)
        .enumerate()
        .map(|(class, (label, &score))| Prediction { class, label: label.as_str(), score })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)));
    all.truncate(top);
    all
}
