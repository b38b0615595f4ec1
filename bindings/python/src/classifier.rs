//! `kinglet_text.Classifier`.

use std::path::PathBuf;
use std::sync::Arc;

use kinglet::answer;
use kinglet::backend::Backend;
use kinglet::bundle::ReadBundle;
use kinglet::calibration::Calibration;
use kinglet::engine::fingerprint;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::answer::Answer;
use crate::batch::{self, Each};
use crate::errors;
use crate::model::{Model, NoMemory};
use crate::stream::TextStream;
use crate::texts::{self, Text};

/// Most threads of one classifier.
const MOST_THREADS: usize = 1024;

/// Where the model came from, as far as another process needs to know.
enum Source {
    Builtin,
    /// An absolute path.
    Path(PathBuf),
    /// The bytes are in the model.
    Bytes,
}

/// A text classifier: one model, opened and checked.
///
/// Args:
///     path: a `.kinglet` file, or a directory with a `model.kinglet`; `bytes` are the content of such a file. None is the built-in
///         model: 150 everyday intents, and `oos` for anything else.
///     backend: the SIMD backend, one of `kinglet_text.backends()`; None is the fastest. All return the same bits.
///     threads: maximum number of threads for a batch. The GIL is released meanwhile.
///     threshold: a probability must be greater for its label to be returned, 0 (always sure) to 1 (never). None is the model's own;
///         0 for a model that is not calibrated.
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
    model: Arc<Model>,
    source: Source,
    names: Arc<[Py<PyString>]>,
    /// What was asked for, for pickling.
    backend: Option<String>,
    threads: usize,
    threshold: f32,
    explicit_threshold: Option<f32>,
    verify: bool,
}

impl Classifier {
    fn batch<T: Clone + Send>(
        &self,
        py: Python<'_>,
        texts: &[Text],
        per: usize,
        empty: T,
        each: &Each<'_, T>,
    ) -> PyResult<Vec<T>> {
        let len = texts.len().checked_mul(per).ok_or(NoMemory { need: usize::MAX })?;
        let mut out = Vec::new();
        let need = len.saturating_mul(size_of::<T>());
        out.try_reserve_exact(len).map_err(|_| NoMemory { need })?;
        py.detach(|| {
            out.resize(len, empty);
            let mut go_on = || Python::attach(|py| py.check_signals());
            batch::score(&self.model, texts, self.threads, &mut out, per, each, &mut go_on)
        })?;
        Ok(out)
    }

    fn rows<'py>(&self, texts: &Bound<'py, PyAny>, each: &Each<'_, f32>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (py, labels) = (texts.py(), self.model.labels());
        let texts = texts::all(texts)?;
        let out = self.batch(py, &texts, labels, 0.0, each)?;
        PyArray1::from_vec(py, out).reshape([texts.len(), labels])
    }

    fn calibrated(&self) -> PyResult<Calibration> {
        self.model.calibration().ok_or_else(|| {
            PyValueError::new_err("the model is not calibrated, so there are no sets of labels; export it again")
        })
    }

    fn one(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
        let text = [Text::new(text, || "text".to_string())?];
        self.batch(py, &text, self.model.labels(), 0.0, &|logits, out| {
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
        let chosen = match &backend {
            None => Backend::detect(),
            Some(name) => Backend::by_name(name).ok_or_else(|| {
                let all: Vec<_> = Backend::all().map(|backend| backend.name()).collect();
                PyValueError::new_err(format!("backend is {name:?}; this machine has {}", all.join(", ")))
            })?,
        };
        let threads = usize::try_from(threads)
            .ok()
            .filter(|n| (1..=MOST_THREADS).contains(n))
            .ok_or_else(|| PyValueError::new_err(format!("threads is {threads}, must be 1 to {MOST_THREADS}")))?;
        if let Some(threshold) = threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
            return Err(PyValueError::new_err(format!("threshold is {threshold}, must be a probability, 0 to 1")));
        }
        let (model, source) = match path {
            None => (Model::builtin(chosen, verify)?, Source::Builtin),
            Some(bytes) if bytes.is_instance_of::<PyBytes>() => {
                let bytes = bytes.cast::<PyBytes>()?.as_bytes();
                (Model::from_bytes(bytes, chosen, verify)?, Source::Bytes)
            }
            Some(path) => {
                let path: PathBuf = path.extract().map_err(|_| {
                    PyTypeError::new_err(format!("path is {}, not None, str, os.PathLike or bytes", texts::kind(path)))
                })?;
                if path.as_os_str().as_encoded_bytes().contains(&0) {
                    return Err(PyValueError::new_err("path holds a NUL, as no file's name does"));
                }
                let path = std::path::absolute(&path)?;
                (Model::open(&path, chosen, verify)?, Source::Path(path))
            }
        };
        let names = model.bundle().labels().iter().map(|name| PyString::new(py, name).unbind()).collect();
        let explicit_threshold = threshold;
        let threshold = threshold.or(model.calibration().map(|c| c.threshold)).unwrap_or_default();
        Ok(Classifier {
            model: Arc::new(model),
            source,
            names,
            backend,
            threads,
            threshold,
            explicit_threshold,
            verify,
        })
    }

    /// Returns the label of each text, or None if the model is unsure: no label is more probable than the threshold.
    ///
    /// Args:
    ///     texts: any iterable of `str` or `bytes` (UTF-8; invalid parts are read as U+FFFD), of any length, including empty ones.
    ///
    /// Raises:
    ///     TypeError: texts is a single text, or contains something that is not a text; its index is named.
    ///     ValueError: a text contains a lone surrogate, or the model returns a score that is not a number.
    ///
    /// >>> kinglet_text.Classifier().predict(["what is the tax rate", "colourless green ideas"])
    /// ['taxes', None]
    /// >>> kinglet_text.Classifier(threshold=0).predict(["colourless green ideas"])
    /// ['oos']
    fn predict(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Py<PyString>>>> {
        let py = texts.py();
        let texts = texts::all(texts)?;
        let (calibration, threshold) = (self.model.calibration(), self.threshold);
        let classes = self.batch(py, &texts, 1, None, &|logits, out| {
            let mut probabilities = vec![0.0; logits.len()];
            let answer = answer::Answer::from_logits(logits, calibration.as_ref(), &mut probabilities)?;
            out.fill(answer.with_threshold(threshold).label().map(|one| one.class));
            Ok(())
        })?;
        let name = |class: Option<usize>| class.and_then(|class| self.names.get(class)).map(|name| name.clone_ref(py));
        Ok(classes.into_iter().map(name).collect())
    }

    /// Returns the probability of each label, `[len(texts), len(labels)]` float32: calibrated if the model is. Rows sum
    /// to 1.
    ///
    /// Arguments and exceptions as for `predict`.
    ///
    /// >>> classifier = kinglet_text.Classifier()
    /// >>> p = classifier.predict_proba(["wake me at seven tomorrow"])
    /// >>> classifier.labels[p[0].argmax()], round(float(p[0].max()), 2)
    /// ('alarm', 0.91)
    fn predict_proba<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let calibration = self.model.calibration();
        self.rows(texts, &|logits, out| answer::Answer::from_logits(logits, calibration.as_ref(), out).map(|_| ()))
    }

    /// Returns the scores before softmax, `[len(texts), len(labels)]` float32: the same bits on every processor.
    ///
    /// Arguments and exceptions as for `predict`.
    ///
    /// >>> kinglet_text.Classifier().scores([]).shape
    /// (0, 151)
    fn scores<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.rows(texts, &|logits, out| {
            out.copy_from_slice(logits);
            Ok(())
        })
    }

    /// Returns for each text the labels expected to include the correct one, most likely first; never empty. Over many
    /// texts like those that the model was calibrated on, the share of sets that include it is at least
    /// `calibration["coverage"]`.
    ///
    /// Arguments as for `predict`; also raises:
    ///     ValueError: the model is not calibrated.
    ///
    /// >>> kinglet_text.Classifier().predict_set(["what do you call yourself"])
    /// [['what_is_your_name']]
    fn predict_set(&self, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<Py<PyString>>>> {
        let py = texts.py();
        let calibration = self.calibrated()?;
        let texts = texts::all(texts)?;
        let sets = self.batch(py, &texts, 1, Vec::new(), &|logits, out| {
            let mut probabilities = vec![0.0; logits.len()];
            let answer = answer::Answer::from_logits(logits, Some(&calibration), &mut probabilities)?;
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
    /// ('alarm', 0.91)
    fn classify(&self, text: &Bound<'_, PyAny>) -> PyResult<Answer> {
        let logits = self.one(text.py(), text)?;
        Answer::new(text.py(), &self.model, &self.names, self.threshold, logits)
    }

    /// Returns a hash of the exact scores of a text, 8 hexadecimal digits: the CRC-32C of their bytes, as printed by
    /// `kinglet fingerprint`, the same on every processor.
    ///
    /// >>> kinglet_text.Classifier().fingerprint("wake me at seven tomorrow")
    /// '2233c537'
    fn fingerprint(&self, text: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(format!("{:08x}", fingerprint(&self.one(text.py(), text)?)))
    }

    /// Opens a stream for a text that arrives in parts; see `Stream`.
    ///
    /// >>> with kinglet_text.Classifier().stream() as stream:
    /// ...     for part in ["wake me ", "at sev", "en tomorrow"]:
    /// ...         stream.push(part)
    /// ...     print(stream.finish().label)
    /// alarm
    fn stream(&self) -> PyResult<TextStream> {
        TextStream::new(Arc::clone(&self.model), Arc::clone(&self.names), self.threshold)
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
        from_json(py, &serde_json::to_string(self.model.bundle().config()))
    }

    /// Returns the calibration: temperature, threshold and the share of wrong answers it was chosen for, set threshold
    /// and coverage, and the number of rows. None if the model is not calibrated.
    #[getter]
    fn calibration<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.model.calibration().map(|calibration| from_json(py, &serde_json::to_string(&calibration))).transpose()
    }

    /// Returns the name of the backend in use.
    #[getter]
    fn backend(&self) -> &'static str {
        self.model.engines().backend().name()
    }

    /// Maximum number of threads for a batch.
    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    /// Returns the probability that a label must exceed to be returned.
    #[getter]
    fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Returns the bytes of working memory per thread and stream, for texts of any length.
    #[getter]
    fn scratch_bytes(&self) -> usize {
        self.model.scratch_bytes()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = match &self.source {
            Source::Builtin => String::new(),
            Source::Path(path) => format!("{}, ", path.as_os_str().into_pyobject(py)?.repr()?),
            Source::Bytes => format!("<{} bytes>, ", ReadBundle::as_bytes(self.model.bundle()).len()),
        };
        Ok(format!("kinglet_text.Classifier({path}backend='{}', threads={})", self.backend(), self.threads))
    }

    /// Returns the arguments that create the same classifier, also in another process.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let path = match &self.source {
            Source::Builtin => py.None().into_bound(py),
            Source::Path(path) => path.as_os_str().into_pyobject(py)?.into_any(),
            Source::Bytes => PyBytes::new(py, ReadBundle::as_bytes(self.model.bundle())).into_any(),
        };
        let named = PyDict::new(py);
        named.set_item("backend", self.backend.as_deref())?;
        named.set_item("threads", self.threads)?;
        named.set_item("threshold", self.explicit_threshold)?;
        named.set_item("verify", self.verify)?;
        Ok((PyTuple::new(py, [path])?, named))
    }

    fn __getstate__(&self) -> u32 {
        self.model.checksum()
    }

    fn __setstate__(&self, checksum: u32) -> PyResult<()> {
        if checksum == self.model.checksum() {
            return Ok(());
        }
        let place = match &self.source {
            Source::Builtin => "the built-in model of this installation".to_string(),
            Source::Path(path) => path.display().to_string(),
            Source::Bytes => "the model in memory".to_string(),
        };
        let got = self.model.checksum();
        Err(errors::BundleError::new_err(format!(
            "{place} is not the model that was pickled: its checksum is {got:08x}, it should be {checksum:08x}"
        )))
    }
}

impl Classifier {
    /// Returns the names of classes.
    fn names_of(&self, py: Python<'_>, classes: Vec<usize>) -> Vec<Py<PyString>> {
        classes.into_iter().filter_map(|class| self.names.get(class)).map(|name| name.clone_ref(py)).collect()
    }
}

fn from_json<'py>(py: Python<'py>, json: &serde_json::Result<String>) -> PyResult<Bound<'py, PyAny>> {
    let json = json.as_ref().map_err(|error| PyValueError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}
