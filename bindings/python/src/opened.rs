//! A model as Python opened it: where it came from, with how many threads it runs, and how it travels to other processes.

use std::path::PathBuf;
use std::sync::Arc;

use kinglet::backend::Backend;
use kinglet::bundle::ReadBundle;
use kinglet::engine::fingerprint;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::batch::{self, Each};
use crate::errors;
use crate::model::{Model, NoMemory};
use crate::texts::{self, Text};

/// Most threads of one model.
const MOST_THREADS: usize = 1024;

/// Where the model came from, as far as another process needs to know.
enum Source {
    Builtin,
    /// An absolute path.
    Path(PathBuf),
    /// The bytes are in the model.
    Bytes,
}

/// A model with what was asked for when it was opened.
pub struct Opened {
    pub model: Arc<Model>,
    pub threads: usize,
    source: Source,
    /// What was asked for, for pickling.
    backend: Option<String>,
    verify: bool,
}

impl Opened {
    /// Opens the model at `path`, which is a path or `bytes`, or the built-in one.
    ///
    /// # Errors
    /// `OSError` if the file cannot be opened, `BundleError` if it is no bundle, `TypeError` and `ValueError` for arguments.
    pub fn new(path: Option<&Bound<'_, PyAny>>, backend: Option<String>, threads: i64, verify: bool) -> PyResult<Self> {
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
        Ok(Opened { model: Arc::new(model), threads, source, backend, verify })
    }

    /// Passes the scores of each text to `each` together with the text's part of the result, `per` elements that begin as
    /// `empty`.
    ///
    /// # Errors
    /// As [`batch::score`].
    pub fn batch<T: Clone + Send>(
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

    /// Returns what `each` makes of the scores of one text, as many values.
    ///
    /// # Errors
    /// As [`Opened::batch`], and if it is no text.
    pub fn one(&self, text: &Bound<'_, PyAny>, each: &Each<'_, f32>) -> PyResult<Vec<f32>> {
        let texts = [Text::new(text, || "text".to_string())?];
        self.batch(text.py(), &texts, self.model.values(), 0.0, each)
    }

    /// Returns the fingerprint of numbers, as `kinglet fingerprint` prints it.
    pub fn fingerprint(values: &[f32]) -> String {
        format!("{:08x}", fingerprint(values))
    }

    /// Returns the shape of the model as a `dict`.
    ///
    /// # Errors
    /// `ValueError` never, of a model that was opened.
    pub fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &serde_json::to_string(self.model.bundle().config()))
    }

    /// Returns the path as an argument of the constructor: nothing for the built-in model.
    ///
    /// # Errors
    /// If Python has no memory for it.
    pub fn path<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match &self.source {
            Source::Builtin => None,
            Source::Path(path) => Some(path.as_os_str().into_pyobject(py)?.into_any()),
            Source::Bytes => Some(PyBytes::new(py, ReadBundle::as_bytes(self.model.bundle())).into_any()),
        })
    }

    /// Returns the named arguments of the constructor that create the same, in another process too.
    ///
    /// # Errors
    /// If Python has no memory for them.
    pub fn named<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let named = PyDict::new(py);
        named.set_item("backend", self.backend.as_deref())?;
        named.set_item("threads", self.threads)?;
        named.set_item("verify", self.verify)?;
        Ok(named)
    }

    /// Returns how an object of the class `name` is shown.
    ///
    /// # Errors
    /// If the path cannot be shown.
    pub fn repr(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let path = match &self.source {
            Source::Builtin => String::new(),
            Source::Path(path) => format!("{}, ", path.as_os_str().into_pyobject(py)?.repr()?),
            Source::Bytes => format!("<{} bytes>, ", ReadBundle::as_bytes(self.model.bundle()).len()),
        };
        let backend = self.model.engines().backend().name();
        Ok(format!("kinglet_text.{name}({path}backend='{backend}', threads={})", self.threads))
    }

    /// Checks that the model is the one that was pickled.
    ///
    /// # Errors
    /// `BundleError` if it is another one.
    pub fn unpickled(&self, checksum: u32) -> PyResult<()> {
        let got = self.model.checksum();
        if checksum == got {
            return Ok(());
        }
        let place = match &self.source {
            Source::Builtin => "the built-in model of this installation".to_string(),
            Source::Path(path) => path.display().to_string(),
            Source::Bytes => "the model in memory".to_string(),
        };
        Err(errors::BundleError::new_err(format!(
            "{place} is not the model that was pickled: its checksum is {got:08x}, it should be {checksum:08x}"
        )))
    }
}

/// Parses JSON with Python's own module.
///
/// # Errors
/// `ValueError` if there is none.
pub fn from_json<'py>(py: Python<'py>, json: &serde_json::Result<String>) -> PyResult<Bound<'py, PyAny>> {
    let json = json.as_ref().map_err(|error| PyValueError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}
