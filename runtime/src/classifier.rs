//! Text in, labels out: tokenizer, engine and softmax behind one call.
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

use crate::bundle::{Bundle, BundleError};
use crate::engine::native::{DEFAULT_CHUNK, NativeEngine, NativeError, scratch_bytes};
use crate::engine::tract::{ModelError, TractEngine};
use crate::engine::{Engine, EngineError};
use crate::kernels::Kernels;
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
    /// The bundle cannot be used.
    Bundle {
        /// The file; `None` for the built-in model, and for a file that was changed after it was opened.
        path: Option<PathBuf>,
        /// Why.
        source: BundleError,
    },
    /// The native engine cannot be made.
    Native(NativeError),
    /// The ONNX file cannot be used.
    Model {
        /// The file.
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
                "{} holds none of {}, {} and {}; give the directory that kinglet-export wrote, or a file",
                directory.display(),
                files::BUNDLE,
                files::ONNX_INT8,
                files::ONNX
            ),
            // Names the file itself.
            ClassifierError::Model { source: source @ ModelError::Read { .. }, .. } => source.fmt(f),
            ClassifierError::Model { path: Some(path), source } => write!(f, "{}: {source}", path.display()),
            ClassifierError::Model { path: None, source } => source.fmt(f),
            ClassifierError::Bundle { path: Some(path), source } => write!(f, "{}: {source}", path.display()),
            ClassifierError::Bundle { path: None, source } => write!(f, "the model in memory: {source}"),
            ClassifierError::Native(e) => e.fmt(f),
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

impl From<NativeError> for ClassifierError {
    fn from(e: NativeError) -> Self {
        ClassifierError::Native(e)
    }
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
    runner: Runner<'m>,
    scores: Vec<f32>,
    tokens: usize,
    /// Most tokens to read of a text, at least 1: what follows is left out, and the last token read is the end of text.
    /// `None`: a text that is too long for the engine is an error.
    pub truncate: Option<usize>,
}

/// The engine behind.
enum Runner<'m> {
    /// Made anew for each text, which costs as much as making it forget the text before.
    Native { bundle: Box<Bundle<'m>>, scratch: Vec<u8>, kernels: Kernels },
    /// With the ids of a text.
    Tract { engine: TractEngine, ids: Vec<u32> },
}

impl<'m> Classifier<'m> {
    /// A classifier for `model`; of a bundle with the fastest kernels of this processor.
    ///
    /// # Errors
    /// When the model's tokenizer table is broken, or its file was changed after it was opened.
    pub fn new(model: &'m Model) -> Result<Self, ClassifierError> {
        Self::with_kernels(model, Kernels::detect())
    }

    /// As [`Self::new`], with these kernels. tract, which runs ONNX files, has its own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_kernels(model: &'m Model, kernels: Kernels) -> Result<Self, ClassifierError> {
        let (table, runner) = match model {
            Model::Bundle(model) => {
                let bundle = model.bundle().map_err(|source| ClassifierError::Bundle { path: None, source })?;
                let scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
                (bundle.tokenizer(), Runner::Native { bundle: Box::new(bundle), scratch, kernels })
            }
            // Prepares nothing for a length of text until a text of such a length comes.
            Model::Onnx(model) => {
                let table = Table::new(model.tokenizer_table()).map_err(ClassifierError::Tokenizer)?;
                (table, Runner::Tract { engine: model.engine(), ids: Vec::new() })
            }
        };
        let scores = vec![0.0; model.config().num_labels];
        Ok(Classifier { table, labels: model.labels(), runner, scores, tokens: 0, truncate: None })
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
    /// Memory is bounded, however long the text is: the native engine needs the same for every text, tract at most the ids of the
    /// longest that it takes.
    ///
    /// # Errors
    /// When the text has too many tokens for the engine and [`Self::truncate`] does not cut it, and when the engine fails.
    pub fn scores(&mut self, text: &str) -> Result<&[f32], ClassifierError> {
        match &mut self.runner {
            Runner::Native { bundle, scratch, kernels } => {
                let mut engine = NativeEngine::with_kernels(Bundle::clone(bundle), scratch, *kernels)?;
                let keep = self.truncate.map_or(usize::MAX, |most| most.max(1));
                let mut result = Ok(());
                self.tokens = encode(&self.table, text, keep, |id| {
                    if result.is_ok() {
                        result = engine.push_token(id);
                    }
                });
                result?;
                engine.finish(&mut self.scores)?;
            }
            Runner::Tract { engine, ids } => {
                let max = engine.max_tokens();
                let keep = self.truncate.map_or(max, |most| most.clamp(1, max));
                ids.clear();
                self.tokens = encode(&self.table, text, keep, |id| ids.push(id));
                if self.tokens > keep && self.truncate.is_none_or(|most| most > max) {
                    return Err(ClassifierError::TooLong { tokens: self.tokens, max });
                }
                engine.logits(ids, &mut self.scores)?;
            }
        }
        softmax(&mut self.scores)?;
        Ok(&self.scores)
    }

    /// The `top` likeliest labels, likeliest first; of equal ones the lower class first. At most `num_labels`.
    ///
    /// # Errors
    /// As [`Self::scores`].
    pub fn classify(&mut self, text: &str, top: usize) -> Result<Vec<Prediction<'m>>, ClassifierError> {
        let labels = self.labels;
        Ok(likeliest(labels, self.scores(text)?, top))
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

/// `x[i] = exp(x[i] − max x) / Σ exp(x[j] − max x)`, in place.
///
/// # Errors
/// When an element is no number or infinite.
pub fn softmax(x: &mut [f32]) -> Result<(), ClassifierError> {
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
