//! The extension module `kinglet_text._native`: Kinglet's native engine for Python.
//!
//! `python/kinglet_text/` is the package around it, `_native.pyi` its types. What Python sees is documented where it is
//! defined; the examples there are run as tests.

use kinglet::backend::Backend;
use numpy::PyArray1;
use pyo3::prelude::*;

mod answer;
mod batch;
mod classifier;
mod embedder;
mod errors;
mod model;
mod opened;
mod stream;
mod texts;

/// Returns the names of the backends that this processor can run, the fastest last. All return the same bits.
///
/// >>> kinglet_text.backends()[0]
/// 'scalar'
#[pyfunction]
fn backends() -> Vec<&'static str> {
    Backend::all().map(|backend| backend.name()).collect()
}

/// Kinglet's native engine; import `kinglet_text` instead.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // NumPy's C API is looked up now, where it can fail with an ImportError: with the first array, a signal that comes during the
    // look-up would be a panic.
    module.py().import("numpy")?;
    PyArray1::<f32>::from_vec(module.py(), Vec::new());
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BundleError", module.py().get_type::<errors::BundleError>())?;
    module.add_class::<answer::Answer>()?;
    module.add_class::<classifier::Classifier>()?;
    module.add_class::<embedder::Embedder>()?;
    module.add_class::<stream::TextStream>()?;
    module.add_function(wrap_pyfunction!(backends, module)?)
}
