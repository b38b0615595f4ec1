//! A bundle in a place that Python can own, shared by a classifier, its threads and its streams.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kinglet::backend::Backend;
use kinglet::bundle::{Aligned, Bundle, BundleError, BundleFile, crc32c};
use kinglet::calibration::Calibration;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, NativeError, scratch_bytes};
use kinglet::spec::files;
use pyo3::exceptions::{PyMemoryError, PyOSError};
use pyo3::prelude::*;
use self_cell::self_cell;

use crate::errors;

/// The default model: 150 intents of everyday requests and out-of-scope.
static BUILTIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../model.kinglet"));

self_cell!(
    /// A bundle beside the bytes that it borrows.
    struct BundleCell {
        owner: BundleFile,
        #[covariant]
        dependent: Bundle,
    }
);

/// A bundle that was checked once, with the backend that runs it.
pub struct Model {
    bundle: BundleCell,
    backend: Backend,
    /// Scratch that nobody uses now, each of [`Model::scratch_bytes`].
    arenas: Mutex<Vec<Vec<u8>>>,
}

impl Model {
    /// The model that is part of the library.
    ///
    /// # Errors
    /// With `verify`, when the library is damaged.
    pub fn builtin(backend: Backend, verify: bool) -> PyResult<Self> {
        Self::new(BundleFile::from_static(&BUILTIN.0), backend, verify)
            .map_err(|error| bundle_error("the built-in model", error))
    }

    /// A copy of the bytes of a bundle.
    ///
    /// # Errors
    /// When they are no bundle.
    pub fn from_bytes(bytes: &[u8], backend: Backend, verify: bool) -> PyResult<Self> {
        Self::new(BundleFile::from_bytes(bytes), backend, verify)
            .map_err(|error| bundle_error("the model in memory", error))
    }

    /// Maps the file of a bundle, or the `model.kinglet` of a directory.
    ///
    /// # Errors
    /// `OSError` when the file cannot be opened, `BundleError` when it is no bundle.
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
        let bundle = BundleCell::try_new(file, |file| file.bundle(verify))?;
        Ok(Model { bundle, backend, arenas: Mutex::default() })
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle<'_> {
        self.bundle.borrow_dependent()
    }

    /// The bytes of the bundle's file.
    pub fn as_bytes(&self) -> &[u8] {
        self.bundle().as_bytes()
    }

    /// The backend that runs it.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.bundle().config().num_labels
    }

    /// What was fitted to make the model's confidence honest, if anything was.
    pub fn calibration(&self) -> Option<Calibration> {
        self.bundle().calibration()
    }

    /// What logits are divided by before softmax.
    pub fn temperature(&self) -> f32 {
        self.calibration().map_or(1.0, |calibration| calibration.temperature)
    }

    /// Bytes of scratch that one thread needs.
    pub fn scratch_bytes(&self) -> usize {
        scratch_bytes(self.bundle().config(), DEFAULT_CHUNK)
    }

    /// What tells the model from others: the CRC-32C of its sections' checksums.
    pub fn checksum(&self) -> u32 {
        crc32c(&self.bundle().sections().flat_map(|section| section.checksum.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Scratch for an engine; to be given back by [`Self::give`].
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn take(&self) -> Result<Vec<u8>, NoMemory> {
        // A lock is poisoned only by a panic between taking and giving, which leaves the list whole.
        if let Some(arena) = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(arena);
        }
        let need = self.scratch_bytes();
        let mut arena = Vec::new();
        arena.try_reserve_exact(need).map_err(|_| NoMemory { need })?;
        arena.resize(need, 0);
        Ok(arena)
    }

    /// Keeps scratch for the next engine.
    pub fn give(&self, arena: Vec<u8>) {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    }

    /// An engine in scratch that [`Self::take`] gave.
    ///
    /// # Errors
    /// When `arena` is smaller.
    pub fn engine<'a>(&'a self, arena: &'a mut [u8]) -> Result<NativeEngine<'a>, NativeError> {
        NativeEngine::with_backend(self.bundle().clone(), arena, self.backend)
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
        PyMemoryError::new_err(format!("there is no memory for {need} bytes"))
    }
}

/// What the system says about an error, without the number that Rust adds and Python shows anyway.
fn words(error: &std::io::Error) -> String {
    let all = error.to_string();
    all.split(" (os error").next().unwrap_or_default().to_string()
}

fn bundle_error(name: &str, error: BundleError) -> PyErr {
    errors::BundleError::new_err(format!("{name}: {error}"))
}
