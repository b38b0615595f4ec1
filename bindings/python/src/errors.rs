//! The exception of the package.

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;

create_exception!(
    kinglet_text,
    BundleError,
    PyValueError,
    "The bytes are no bundle that this version can run: damaged, cut off, of another format or version, or not the model that \
     was pickled. The message says what is wrong and where.\n\n\
     >>> kinglet_text.Classifier(b\"something else\")\n\
     Traceback (most recent call last):\n\
     ...\n\
     kinglet_text.BundleError: the model in memory: ...\n"
);
