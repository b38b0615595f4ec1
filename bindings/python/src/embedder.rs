//! `kinglet_text.Embedder`.

use kinglet::tokenizer::Blank;
use kinglet::vector::{dimension, normalize};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::opened::Opened;
use crate::texts;

/// Turns texts into sentence vectors: one model that embeds, opened and checked.
///
/// Args:
///     path: a `.kinglet` file of a model that embeds, or a directory with a `model.kinglet`; `bytes` are the content of such a
///         file. `kinglet-train distill` trains such models.
///     backend: the SIMD backend, one of `kinglet_text.backends()`; None is the fastest. All return the same bits.
///     threads: maximum number of threads for a batch. The GIL is released meanwhile.
///     verify: whether the file's checksums are compared. Without it, damage may cause wrong vectors, but nothing worse.
///
/// Raises:
///     OSError: the file cannot be opened.
///     BundleError: it is not a bundle, damaged, or of another version.
///     TypeError, ValueError: an argument has the wrong type, or is out of range; the model classifies.
///
/// A file is mapped, not read, so processes share its memory: replace it by renaming another file over it, never in
/// place. Any number of Python threads may use an embedder at a time. It pickles as a `Classifier` does.
///
/// >>> embedder = kinglet_text.Embedder("sentences.kinglet")      # doctest: +SKIP
/// >>> vectors = embedder.embed(["wake me at seven", "set an alarm for 7", "what is the weather like"])  # doctest: +SKIP
/// >>> (vectors @ embedder.embed("wake me up")).argsort()[::-1]      # nearest first  # doctest: +SKIP
/// array([0, 1, 2])
#[pyclass(frozen, module = "kinglet_text")]
pub struct Embedder {
    opened: Opened,
    dimension: usize,
}

/// Makes the vector of a text of its scores.
fn vector(scores: &[f32], _: Option<Blank>, out: &mut [f32]) -> Result<(), kinglet::Error> {
    out.copy_from_slice(scores);
    normalize(out)
}

#[pymethods]
impl Embedder {
    #[new]
    #[pyo3(signature = (path, *, backend=None, threads=1, verify=true))]
    fn new(path: &Bound<'_, PyAny>, backend: Option<String>, threads: i64, verify: bool) -> PyResult<Self> {
        if path.is_none() {
            return Err(PyTypeError::new_err("path is None, not str, os.PathLike or bytes"));
        }
        let opened = Opened::new(Some(path), backend, threads, verify)?;
        let dimension = dimension(opened.model.bundle().bundle().config())
            .map_err(|error| PyValueError::new_err(format!("{error}; kinglet_text.Classifier opens it")))?;
        Ok(Embedder { opened, dimension })
    }

    /// Returns the vector of one text, `[dimension]` float32, or those of an iterable of texts, `[len(texts), dimension]`.
    ///
    /// Vectors have length 1, so `a @ b` is the cosine of two; that of a text the model says nothing about is zeros. They are
    /// the same bits on every processor, for any number of threads.
    ///
    /// Args:
    ///     texts: a `str` or `bytes`, or any iterable of them (UTF-8; invalid parts are read as U+FFFD), of any length, including
    ///         empty ones.
    ///
    /// Raises:
    ///     TypeError: texts is neither, or contains something that is not a text; its index is named.
    ///     ValueError: a text contains a lone surrogate, or the model returns a value that is not a number.
    fn embed<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = texts.py();
        if texts.is_instance_of::<PyString>() || texts.is_instance_of::<PyBytes>() {
            return Ok(PyArray1::from_vec(py, self.opened.one(texts, &vector)?).into_any());
        }
        let texts = texts::all(texts, "convert it with bytes(texts)")?;
        let out = self.opened.batch(py, &texts, self.dimension, 0.0, &vector)?;
        Ok(PyArray1::from_vec(py, out).reshape([texts.len(), self.dimension])?.into_any())
    }

    /// Returns a hash of the exact vector of a text, 8 hexadecimal digits: the CRC-32C of its bytes, as printed by
    /// `kinglet fingerprint`, the same on every processor.
    fn fingerprint(&self, text: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(Opened::fingerprint(&self.opened.one(text, &vector)?))
    }

    /// Returns the number of values of a vector.
    #[getter]
    fn dimension(&self) -> usize {
        self.dimension
    }

    /// The shape of the model: the fields of a checkpoint's `config.json`.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.opened.config(py)
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

    /// Returns the bytes of working memory per thread, for texts of any length.
    #[getter]
    fn scratch_bytes(&self) -> usize {
        self.opened.model.scratch_bytes()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        self.opened.repr(py, "Embedder")
    }

    /// Returns the arguments that create the same embedder, also in another process.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        Ok((PyTuple::new(py, [self.opened.path(py)?])?, self.opened.named(py)?))
    }

    fn __getstate__(&self) -> u32 {
        self.opened.model.checksum()
    }

    fn __setstate__(&self, checksum: u32) -> PyResult<()> {
        self.opened.unpickled(checksum)
    }
}
