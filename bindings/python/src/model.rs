//! A bundle in a place that Python can own, shared by a classifier, its threads and its streams.

use std::path::Path;
use std::sync::Arc;

use kinglet::backend::Backend;
use kinglet::bundle::{Aligned, BundleError, BundleFile, OwnedBundle, ReadBundle, crc32c};
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet::multi_label::Decision;
use kinglet::pool::EnginePool;
use kinglet::spec::files;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use crate::errors;

/// The default model: 150 intents of everyday requests and out-of-scope.
static BUILTIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../model.kinglet"));

/// The bundle of a model, shared by its engines.
pub type Shared = Arc<OwnedBundle<BundleFile>>;

/// A bundle that was checked once, with the engines that run it.
pub struct Model(EnginePool<Shared>);

impl Model {
    /// Returns the model that is part of the library.
    ///
    /// # Errors
    /// With `verify`, if the library is damaged.
    pub fn builtin(backend: Backend, verify: bool) -> PyResult<Self> {
        Self::new(BundleFile::from_static(&BUILTIN.0), backend, verify)
            .map_err(|error| bundle_error("the built-in model", error))
    }

    /// Copies the bytes of a bundle.
    ///
    /// # Errors
    /// If they are not a bundle.
    pub fn from_bytes(bytes: &[u8], backend: Backend, verify: bool) -> PyResult<Self> {
        Self::new(BundleFile::from_bytes(bytes), backend, verify)
            .map_err(|error| bundle_error("the model in memory", error))
    }

    /// Maps the file of a bundle, or the `model.kinglet` of a directory.
    ///
    /// # Errors
    /// `OSError` if the file cannot be opened, `BundleError` if it is not a bundle.
    pub fn open(path: &Path, backend: Backend, verify: bool) -> PyResult<Self> {
        let file = if path.is_dir() { path.join(files::BUNDLE) } else { path.to_path_buf() };
        let bytes = BundleFile::open(&file).map_err(|error| match error.raw_os_error() {
            // Python makes FileNotFoundError, PermissionError and so on of the number.
            Some(code) => PyOSError::new_err((code, words(&error), file.clone())),
            None => PyOSError::new_err(format!("{}: {error}", file.display())),
        })?;
        Self::new(bytes, backend, verify).map_err(|error| bundle_error(&file.display().to_string(), error))
    }

    fn new(file: BundleFile, backend: Backend, verify: bool) -> Result<Self, BundleError> {
        let bundle = Arc::new(OwnedBundle::over(file, verify)?);
        Ok(Model(EnginePool::new(bundle).with_backend(backend)))
    }

    /// Returns the engines that run it.
    pub fn engines(&self) -> &EnginePool<Shared> {
        &self.0
    }

    /// Returns the bundle.
    pub fn bundle(&self) -> &Shared {
        self.0.model()
    }

    /// Returns the number of scores of a text: one per label, or the values of a vector.
    pub fn values(&self) -> usize {
        self.bundle().config().num_labels
    }

    /// Returns what turns the model's scores into an answer.
    pub fn decision(&self) -> Decision<'_> {
        self.bundle().decision()
    }

    /// Returns the bytes of scratch that one thread needs.
    pub fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.bundle().config(), DEFAULT_CHUNK)
    }

    /// Returns a checksum that identifies the model: the CRC-32C of its sections' checksums.
    pub fn checksum(&self) -> u32 {
        crc32c(
            &self.bundle().bundle().sections().flat_map(|section| section.checksum.to_le_bytes()).collect::<Vec<_>>(),
        )
    }
}

/// There is no memory for this many bytes.
#[derive(Clone, Copy, Debug)]
pub struct NoMemory {
    /// The bytes.
    pub need: usize,
}

impl From<NoMemory> for PyErr {
    fn from(NoMemory { need }: NoMemory) -> PyErr {
        PyMemoryError::new_err(format!("not enough memory for {need} bytes"))
    }
}

/// Returns the system's message for an error, without the number that Rust adds and Python shows anyway.
fn words(error: &std::io::Error) -> String {
    let all = error.to_string();
    all.split(" (os error").next().unwrap_or_default().to_string()
}

fn bundle_error(name: &str, error: BundleError) -> PyErr {
    errors::BundleError::new_err(format!("{name}: {error}"))
}

/// Returns the exception for an engine that cannot be created.
pub fn no_engine(error: kinglet::Error) -> PyErr {
    match error {
        kinglet::Error::Memory { need } => NoMemory { need }.into(),
        error => PyRuntimeError::new_err(error.to_string()),
    }
}
