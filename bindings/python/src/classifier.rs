//! `kinglet_text.Classifier`.

use std::sync::Arc;

use kinglet::answer::{self, classes};
use kinglet::bundle::ReadBundle;
use kinglet::multi_label::Decision;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::answer::Answer;
use crate::batch::Each;
use crate::opened::{Opened, from_json};
use crate::stream::TextStream;
use crate::texts::{self, Text};

/// What to do with a single text.
const SINGLE: &str = "call classify(text)";

/// A text classifier: one model, opened and checked.
///
/// Args:
///     path: a `.kinglet` file, or a directory with a `model.kinglet`; `bytes` are the content of such a file. None is the built-in
///         model: 150 everyday intents, and `oos` for anything else.
///     backend: the SIMD backend, one of `kinglet_text.backends()`; None is the fastest. All return the same bits.
///     threads: maximum number of threads for a batch. The GIL is released meanwhile.
///     threshold: a probability must be greater for its label to be returned, 0 (always sure) to 1 (never). None is the model's own;
///         0 for a model that is not calibrated, and one per label where any number of labels may apply.
///     verify: whether the file's checksums are compared. Without it, damage may cause wrong answers, but nothing worse.
///
/// Raises:
///     OSError: the file cannot be opened.
///     BundleError: it is not a bundle, damaged, or of another version.
///     TypeError, ValueError: an argument has the wrong type, or is out of range.
///
/// A file is mapped, not read, so processes share its memory: replace it by renaming another file over it, never in
/// place. Any number of Python threads may use a classifier at a time. Pickling keeps the path (or the bytes, if it was
/// created from bytes) and a checksum: unpickling elsewhere opens the file there, and rejects another model.
///
/// >>> classifier = kinglet_text.Classifier()
/// >>> classifier.predict(["wake me at seven tomorrow", "how do i say good night in french"])
/// ['alarm', 'translate']
/// >>> classifier.predict_proba(["wake me at seven tomorrow"]).shape
/// (1, 151)
#[pyclass(frozen, module = "kinglet_text")]
pub struct Classifier {
    opened: Opened,
    names: Arc<[Py<PyString>]>,
    /// What was asked for in place of the model's own.
    threshold: Option<f32>,
}

impl Classifier {
    fn rows<'py>(&self, texts: &Bound<'py, PyAny>, each: &Each<'_, f32>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (py, labels) = (texts.py(), self.opened.model.values());
        let texts = texts::all(texts, SINGLE)?;
        let out = self.opened.batch(py, &texts, labels, 0.0, each)?;
        PyArray1::from_vec(py, out).reshape([texts.len(), labels])
    }

    fn calibrated(&self) -> PyResult<Decision<'_>> {
        Some(self.opened.model.decision()).filter(Decision::is_calibrated).ok_or_else(|| {
            PyValueError::new_err("the model is not calibrated, so there are no sets of labels; export it again")
        })
    }

    /// Returns the classes of each text's labels, most likely first.
    fn classes(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<usize>>> {
        let (texts_, py) = (texts::all(texts, SINGLE)?, texts.py());
        let (decision, threshold) = (self.opened.model.decision(), self.threshold);
        self.opened.batch(py, &texts_, 1, Vec::new(), &|logits, blank, out| {
            let mut probabilities = vec![0.0; logits.len()];
            let answer = answer::Answer::from_logits(logits, decision, &mut probabilities)?;
            let answer = threshold.map_or(answer, |threshold| answer.with_threshold(threshold));
            out.fill(answer.with_blank(blank).labels().map(|one| one.class).collect());
            Ok(())
        })
    }

    fn one(&self, text: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
        self.opened.one(text, &|logits, _, out| {
            out.copy_from_slice(logits);
            Ok(())
        })
    }
}

#[pymethods]
impl Classifier {
    #[new]
    #[pyo3(signature = (path=None, *, backend=None, threads=1, threshold=None, verify=true))]
    fn new(
        py: Python<'_>,
        path: Option<&Bound<'_, PyAny>>,
        backend: Option<String>,
        threads: i64,
        threshold: Option<f32>,
        verify: bool,
    ) -> PyResult<Self> {
        if let Some(threshold) = threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
            return Err(PyValueError::new_err(format!("threshold is {threshold}, must be a probability, 0 to 1")));
        }
        let opened = Opened::new(path, backend, threads, verify)?;
        let model = &opened.model;
        classes(model.bundle().bundle().config())
            .map_err(|error| PyValueError::new_err(format!("{error}; kinglet_text.Embedder opens it")))?;
        let names = model.bundle().labels().iter().map(|name| PyString::new(py, name).unbind()).collect();
        Ok(Classifier { opened, names, threshold })
    }

    /// Returns the label of each text, or None if the model is unsure: no label is more probable than the threshold, or the text
    /// has no letter, digit or symbol, or none that the model knows.
    ///
    /// Args:
    ///     texts: any iterable of `str` or `bytes` (UTF-8; invalid parts are read as U+FFFD), of any length, including empty ones: a
    ///         list, a column of pandas, polars or Arrow, a generator.
    ///
    /// Raises:
    ///     TypeError: texts is a single text or a table, or contains something that is not a text or missing; its index is named.
    ///     ValueError: a text contains a lone surrogate, the model returns a score that is not a number, or any number of labels
    ///         may apply to a text: `predict_labels` returns them.
    ///
    /// >>> kinglet_text.Classifier().predict(["what is the tax rate", "colourless green ideas sleep furiously"])
    /// ['taxes', None]
    /// >>> kinglet_text.Classifier(threshold=0).predict(["colourless green ideas sleep furiously"])
    /// ['oos']
    fn predict(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Py<PyString>>>> {
        if self.multi_label() {
            return Err(PyValueError::new_err(
                "any number of labels may apply to a text of this model; call predict_labels(texts)",
            ));
        }
        let py = texts.py();
        let name = |classes: Vec<usize>| self.names_of(py, classes).pop();
        Ok(self.classes(texts)?.into_iter().map(name).collect())
    }

    /// Returns the labels of each text, most likely first: each whose probability exceeds its threshold, perhaps none. Of a
    /// model of one label per text, that one, or none if the model is unsure.
    ///
    /// Arguments and exceptions as for `predict`.
    ///
    /// >>> kinglet_text.Classifier().predict_labels(["what is the tax rate", "colourless green ideas sleep furiously"])
    /// [['taxes'], []]
    fn predict_labels(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<Py<PyString>>>> {
        let py = texts.py();
        Ok(self.classes(texts)?.into_iter().map(|classes| self.names_of(py, classes)).collect())
    }

    /// Returns the probability of each label, `[len(texts), len(labels)]` float32: calibrated if the model is. Rows sum
    /// to 1, unless any number of labels may apply.
    ///
    /// Arguments and exceptions as for `predict`.
    ///
    /// >>> classifier = kinglet_text.Classifier()
    /// >>> p = classifier.predict_proba(["wake me at seven tomorrow"])
    /// >>> classifier.labels[p[0].argmax()], round(float(p[0].max()), 2)
    /// ('alarm', 0.72)
    fn predict_proba<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let decision = self.opened.model.decision();
        self.rows(texts, &|logits, _, out| answer::Answer::from_logits(logits, decision, out).map(|_| ()))
    }

    /// Returns the scores before softmax, `[len(texts), len(labels)]` float32: the same bits on every processor.
    ///
    /// Arguments and exceptions as for `predict`.
    ///
    /// >>> kinglet_text.Classifier().scores([]).shape
    /// (0, 151)
    fn scores<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.rows(texts, &|logits, _, out| {
            out.copy_from_slice(logits);
            Ok(())
        })
    }

    /// Returns for each text the labels expected to include the correct one, most likely first; never empty. Over many
    /// texts like those that the model was calibrated on, the share of sets that include it is at least
    /// `calibration["coverage"]`. Of a model of which any number of labels may apply, a set holds at least that share of a text's
    /// labels on average, and may be empty.
    ///
    /// Arguments as for `predict`; also raises:
    ///     ValueError: the model is not calibrated.
    ///
    /// >>> kinglet_text.Classifier().predict_set(["what do you call yourself"])
    /// [['what_is_your_name']]
    fn predict_set(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<Py<PyString>>>> {
        let py = texts.py();
        let decision = self.calibrated()?;
        let texts = texts::all(texts, SINGLE)?;
        let sets = self.opened.batch(py, &texts, 1, Vec::new(), &|logits, _, out| {
            let mut probabilities = vec![0.0; logits.len()];
            let answer = answer::Answer::from_logits(logits, decision, &mut probabilities)?;
            out.fill(answer.set().into_iter().flatten().map(|one| one.class).collect());
            Ok(())
        })?;
        Ok(sets.into_iter().map(|set| self.names_of(py, set)).collect())
    }

    /// Returns the complete answer for one text, `str` or `bytes`.
    ///
    /// Exceptions as for `predict`.
    ///
    /// >>> answer = kinglet_text.Classifier().classify("wake me at seven tomorrow")
    /// >>> answer.label, round(answer.probability, 2)
    /// ('alarm', 0.72)
    fn classify(&self, text: &Bound<'_, PyAny>) -> PyResult<Answer> {
        let (py, texts) = (text.py(), [Text::new(text, || "text".to_string())?]);
        let mut scored = self.opened.batch(py, &texts, 1, (Vec::new(), None), &|logits, blank, out| {
            out.fill((logits.to_vec(), blank));
            Ok(())
        })?;
        let (logits, blank) = scored.pop().unwrap_or_default();
        Answer::new(py, &self.opened.model, &self.names, self.threshold, logits, blank)
    }

    /// Returns a hash of the exact scores of a text, 8 hexadecimal digits: the CRC-32C of their bytes, as printed by
    /// `kinglet fingerprint`, the same on every processor.
    ///
    /// >>> kinglet_text.Classifier().fingerprint("wake me at seven tomorrow")
    /// '26488d38'
    fn fingerprint(&self, text: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(Opened::fingerprint(&self.one(text)?))
    }

    /// Opens a stream for a text that arrives in parts; see `Stream`.
    ///
    /// >>> with kinglet_text.Classifier().stream() as stream:
    /// ...     for part in ["wake me ", "at sev", "en tomorrow"]:
    /// ...         stream.push(part)
    /// ...     print(stream.finish().label)
    /// alarm
    fn stream(&self) -> PyResult<TextStream> {
        TextStream::new(Arc::clone(&self.opened.model), Arc::clone(&self.names), self.threshold)
    }

    /// Returns the names of the labels, in the order of the columns of `predict_proba`.
    #[getter]
    fn labels(&self, py: Python<'_>) -> Vec<Py<PyString>> {
        self.names.iter().map(|name| name.clone_ref(py)).collect()
    }

    /// The shape of the model: the fields of a checkpoint's `config.json`.
    ///
    /// >>> kinglet_text.Classifier().config["mixer"]
    /// 'dilated'
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.opened.config(py)
    }

    /// Returns the calibration: temperature, threshold and the share of wrong answers it was chosen for, set threshold
    /// and coverage, and the number of rows. None if the model is not calibrated. Of a model of which any number of labels may
    /// apply there is no threshold here: `thresholds` has one per label.
    #[getter]
    fn calibration<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let json = match self.opened.model.decision() {
            Decision::One(calibration) => calibration.map(|calibration| serde_json::to_string(&calibration)),
            Decision::Any(labels) => labels.calibration.map(|calibration| serde_json::to_string(&calibration)),
        };
        json.map(|json| from_json(py, &json)).transpose()
    }

    /// Returns whether any number of labels may apply to a text.
    ///
    /// >>> kinglet_text.Classifier().multi_label
    /// False
    #[getter]
    fn multi_label(&self) -> bool {
        self.opened.model.decision().is_multi_label()
    }

    /// Returns the probability that each label must exceed to be given, by name; None if a text has one label.
    #[getter]
    fn thresholds<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Decision::Any(labels) = self.opened.model.decision() else { return Ok(None) };
        let thresholds = PyDict::new(py);
        for (name, threshold) in self.names.iter().zip(labels.thresholds) {
            thresholds.set_item(name, self.threshold.unwrap_or(*threshold))?;
        }
        Ok(Some(thresholds))
    }

    /// Returns the name of the backend in use.
    #[getter]
    fn backend(&self) -> &'static str {
        self.opened.model.engines().backend().name()
    }

    /// Maximum number of threads for a batch.
    #[getter]
    fn threads(&self) -> usize {
        self.opened.threads
    }

    /// Returns the probability that a label must exceed to be returned; None if each label has its own, `thresholds`.
    #[getter]
    fn threshold(&self) -> Option<f32> {
        self.threshold.or(match self.opened.model.decision() {
            Decision::One(calibration) => Some(calibration.map_or(0.0, |calibration| calibration.threshold)),
            Decision::Any(_) => None,
        })
    }

    /// Returns the bytes of working memory per thread and stream, for texts of any length.
    #[getter]
    fn scratch_bytes(&self) -> usize {
        self.opened.model.scratch_bytes()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.opened.repr(py, "Classifier")
    }

    /// Returns the arguments that create the same classifier, also in another process.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let named = self.opened.named(py)?;
        named.set_item("threshold", self.threshold)?;
        let path = self.opened.path(py)?;
        Ok((PyTuple::new(py, [path])?, named))
    }

    fn __getstate__(&self) -> u32 {
        self.opened.model.checksum()
    }

    fn __setstate__(&self, checksum: u32) -> PyResult<()> {
        self.opened.unpickled(checksum)
    }
}

impl Classifier {
    /// Returns the names of classes.
    fn names_of(&self, py: Python<'_>, classes: Vec<usize>) -> Vec<Py<PyString>> {
        classes.into_iter().filter_map(|class| self.names.get(class)).map(|name| name.clone_ref(py)).collect()
    }
}
