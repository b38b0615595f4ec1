//! Text in, labels out: tokenizer, engine and softmax behind one call.
//!
//! ```no_run
//! use kinglet::classifier::{self, Classifier};
//!
//! let model = classifier::builtin()?;
//! let mut classifier = Classifier::new(&model)?;
//! let best = classifier.classify("wake me at seven tomorrow", 1)?;
//! println!("{} {:.3}", best[0].label, best[0].score);
//! # Ok::<(), kinglet::classifier::ClassifierError>(())
//! ```

use core::fmt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::engine::tract::{ModelError, TractEngine, TractModel};
use crate::engine::{Engine, EngineError};
use crate::spec::files;
use crate::tokenizer::{END, Table, TableError};

/// The default model, as exported: 150 intents of everyday requests and out-of-scope.
static BUILTIN: &[u8] = include_bytes!("../../models/intents/model.int8.onnx");

/// Why a text cannot be classified.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The directory holds neither `model.int8.onnx` nor `model.onnx`.
    NoModel {
        /// The directory.
        directory: PathBuf,
    },
    /// The model cannot be used.
    Model {
        /// The file; `None` for the built-in model.
        path: Option<PathBuf>,
        /// Why.
        source: ModelError,
    },
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
    NotANumber,
}

impl fmt::Display for ClassifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClassifierError::NoModel { directory } => write!(
                f,
                "{} holds neither {} nor {}; give the directory that kinglet-export wrote, or a file",
                directory.display(),
                files::ONNX_INT8,
                files::ONNX
            ),
            // Names the file itself.
            ClassifierError::Model { source: source @ ModelError::Read { .. }, .. } => source.fmt(f),
            ClassifierError::Model { path: Some(path), source } => write!(f, "{}: {source}", path.display()),
            ClassifierError::Model { path: None, source } => write!(f, "the built-in model: {source}"),
            ClassifierError::Tokenizer(e) => write!(f, "the model's tokenizer: {e}"),
            ClassifierError::TooLong { tokens, max } => {
                write!(f, "the text has {tokens} tokens, this engine takes at most {max}")
            }
            ClassifierError::Engine(e) => e.fmt(f),
            ClassifierError::NotANumber => f.write_str("the model gave a score that is not a number; export it again"),
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

/// The file of a model: `path` itself when it is a file; of a directory `model.int8.onnx`, else `model.onnx`.
///
/// # Errors
/// When `path` cannot be read or is a directory that holds neither.
pub fn find(path: &Path) -> Result<PathBuf, ClassifierError> {
    let metadata = std::fs::metadata(path).map_err(|source| ClassifierError::Model {
        path: Some(path.to_path_buf()),
        source: ModelError::Read { path: path.to_path_buf(), source },
    })?;
    if !metadata.is_dir() {
        return Ok(path.to_path_buf());
    }
    [files::ONNX_INT8, files::ONNX]
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| ClassifierError::NoModel { directory: path.to_path_buf() })
}

/// Reads the model at `path`, a file or a directory as [`find`] takes it.
///
/// # Errors
/// As [`find`], and when the file is not a whole model that `kinglet-export` wrote.
pub fn open(path: &Path) -> Result<TractModel, ClassifierError> {
    let file = find(path)?;
    TractModel::open(&file).map_err(|source| ClassifierError::Model { path: Some(file), source })
}

/// The default model, which is part of the library.
///
/// # Errors
/// Never with an unchanged library.
pub fn builtin() -> Result<TractModel, ClassifierError> {
    TractModel::from_bytes(BUILTIN).map_err(|source| ClassifierError::Model { path: None, source })
}

/// Bytes of the default model's file.
pub fn builtin_bytes() -> usize {
    BUILTIN.len()
}

/// A label with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction<'m> {
    /// The class, an index into the model's labels.
    pub class: usize,
    /// The class's name.
    pub label: &'m str,
    /// Its probability by the model, 0 to 1; all classes together give 1.
    pub score: f32,
}

/// Classifies texts with one model, one after the other.
pub struct Classifier<'m> {
    table: Table<'m>,
    labels: &'m [String],
    engine: TractEngine,
    ids: Vec<u32>,
    scores: Vec<f32>,
    tokens: usize,
    /// Most tokens to read of a text, at least 1: what follows is left out, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
}

impl<'m> Classifier<'m> {
    /// A classifier for `model`. Prepares nothing for a length of text until a text of such a length comes.
    ///
    /// # Errors
    /// When the model's tokenizer table is broken.
    pub fn new(model: &'m TractModel) -> Result<Self, ClassifierError> {
        let table = Table::new(model.tokenizer_table()).map_err(ClassifierError::Tokenizer)?;
        let engine = model.engine();
        let scores = vec![0.0; engine.num_labels()];
        Ok(Classifier { table, labels: model.labels(), engine, ids: Vec::new(), scores, tokens: 0, truncate: None })
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

    /// The probability of each class, `[num_labels]`: the softmax of the logits, in f32.
    ///
    /// Memory for ids is bounded by what the engine takes, however long the text is.
    ///
    /// # Errors
    /// When the text has too many tokens for the engine and [`Self::truncate`] does not cut it, and when the engine fails.
    pub fn scores(&mut self, text: &str) -> Result<&[f32], ClassifierError> {
        let max = self.engine.max_tokens();
        let keep = self.truncate.map_or(max, |most| most.clamp(1, max));
        self.ids.clear();
        let (ids, mut tokens) = (&mut self.ids, 0);
        self.table.encode_with(text.as_bytes(), &mut |id| {
            tokens += 1;
            if ids.len() < keep {
                ids.push(id);
            }
        });
        self.tokens = tokens;
        if tokens > keep {
            if self.truncate.is_none_or(|most| most > max) {
                return Err(ClassifierError::TooLong { tokens, max });
            }
            if let Some(last) = self.ids.last_mut() {
                *last = END;
            }
        }
        self.engine.logits(&self.ids, &mut self.scores)?;
        softmax(&mut self.scores)?;
        Ok(&self.scores)
    }

    /// The `top` likeliest labels, likeliest first; of equal ones the lower class first. At most `num_labels`.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn classify(&mut self, text: &str, top: usize) -> Result<Vec<Prediction<'m>>, ClassifierError> {
        let labels = self.labels;
        let scores = self.scores(text)?;
        let mut all: Vec<Prediction<'m>> = labels
            .iter()
            .zip(scores)
            .enumerate()
            .map(|(class, (label, &score))| Prediction { class, label: label.as_str(), score })
            .collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)));
        all.truncate(top);
        Ok(all)
    }
}

/// `x[i] = exp(x[i] − max x) / Σ exp(x[j] − max x)`, in place.
fn softmax(x: &mut [f32]) -> Result<(), ClassifierError> {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    // An infinite or missing logit makes a NaN here; so does a model without classes.
    if !(sum.is_finite() && sum > 0.0) {
        return Err(ClassifierError::NotANumber);
    }
    x.iter_mut().for_each(|v| *v /= sum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_the_same_for_shifted_logits_and_never_overflows() {
        let mut a = [1.0, 2.0, 3.0];
        let mut b = [1001.0, 1002.0, 1003.0];
        softmax(&mut a).unwrap();
        softmax(&mut b).unwrap();
        assert_eq!(a, b);
        // numpy: exp([1, 2, 3]) / exp([1, 2, 3]).sum()
        for (got, want) in a.iter().zip([0.090_030_57, 0.244_728_47, 0.665_240_94]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn a_logit_that_is_no_number_is_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(matches!(softmax(&mut [0.0, bad]), Err(ClassifierError::NotANumber)), "{bad}");
        }
        assert!(softmax(&mut [0.0, f32::NEG_INFINITY]).is_ok());
    }
}
