//! The extension module `kinglet._native`: Kinglet's native engine for Python.
//!
//! `python/kinglet/` is the package around it, `_native.pyi` its types. What Python sees is documented where it is defined; the
//! examples there are run as tests.

use kinglet::kernels::Kernels;
use pyo3::prelude::*;

mod answer;
mod batch;
mod classifier;
mod errors;
mod model;
mod stream;
mod texts;

/// The names of the inner loops that this processor can run, the fastest last. All give the same bits.
///
/// >>> kinglet.kernels()[0]
/// 'scalar'
#[pyfunction]
fn kernels() -> Vec<&'static str> {
    Kernels::all().map(|kernels| kernels.name()).collect()
}

/// Kinglet's native engine; import `kinglet` instead.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BundleError", module.py().get_type::<errors::BundleError>())?;
    module.add_class::<answer::Answer>()?;
    module.add_class::<classifier::Classifier>()?;
    module.add_class::<stream::TextStream>()?;
    module.add_function(wrap_pyfunction!(kernels, module)?)
}
