//! Texts as Python has them: `str` and `bytes`, held without a copy while other threads run.

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyString};

/// One text; keeps its Python object alive.
pub enum Text {
    /// Of a `str`.
    Str(PyBackedStr),
    /// Of a `bytes`, UTF-8 or not.
    Bytes(PyBackedBytes),
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        match self {
            Text::Str(text) => text.as_bytes(),
            Text::Bytes(text) => text,
        }
    }
}

impl Text {
    /// Creates the text of a Python object; `name` is its name in messages.
    ///
    /// # Errors
    /// `TypeError` if it is neither `str` nor `bytes`, `ValueError` if it contains a lone surrogate.
    pub fn new(object: &Bound<'_, PyAny>, name: impl FnOnce() -> String) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return match PyBackedStr::try_from(text.clone()) {
                Ok(text) => Ok(Text::Str(text)),
                Err(error) => Err(no_utf8(object.py(), error, &name())),
            };
        }
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(Text::Bytes(PyBackedBytes::from(bytes.clone()))),
            Err(_) if is_missing(object) => {
                let what = format!("{} is {}, a missing value; drop such rows or fill them with \"\"", name(), object);
                Err(PyTypeError::new_err(what))
            }
            Err(_) => Err(PyTypeError::new_err(format!("{} is {}, not str or bytes", name(), kind(object)))),
        }
    }
}

/// Returns the texts of an iterable; `or`: what to do with a single text.
///
/// # Errors
/// `TypeError` if it is not an iterable of texts: a single text, a table, a mapping, or with an element that is not a text,
/// whose index is named; `ValueError` if a text contains a lone surrogate.
pub fn all(texts: &Bound<'_, PyAny>, or: &str) -> PyResult<Vec<Text>> {
    let single = texts.is_instance_of::<PyString>()
        || texts.is_instance_of::<PyBytes>()
        || texts.is_instance_of::<PyByteArray>();
    if single {
        return Err(PyTypeError::new_err(format!("texts is a single {}; give a list of texts, or {or}", kind(texts))));
    }
    let no_texts = || PyTypeError::new_err(format!("texts is {}, not an iterable of str or bytes", kind(texts)));
    if texts.is_instance_of::<PyDict>() {
        return Err(no_texts());
    }
    if let Some(column) = first_column(texts) {
        let what = format!("texts is a table, {}; pass a column, such as texts[{column}]", kind(texts));
        return Err(PyTypeError::new_err(what));
    }
    // Arrow's columns hold scalars of their own.
    let column = if texts.hasattr("to_pylist")? { texts.call_method0("to_pylist")? } else { texts.clone() };
    let texts = column.try_iter().map_err(|_| no_texts())?;
    texts.enumerate().map(|(i, text)| Text::new(&text?, || format!("texts[{i}]"))).collect()
}

/// Returns the name of a column of a table, of pandas, polars, Arrow or datasets, as Python writes it: that of the text, if one is called so.
fn first_column(table: &Bound<'_, PyAny>) -> Option<String> {
    let columns = ["columns", "column_names"].into_iter().find_map(|name| table.getattr(name).ok())?;
    let names: Vec<Bound<'_, PyAny>> = columns.try_iter().ok()?.collect::<PyResult<_>>().ok()?;
    let text = names.iter().find(|name| name.extract::<&str>().is_ok_and(|name| name.eq_ignore_ascii_case("text")));
    let column = text.or(names.first())?;
    column.repr().ok().map(|name| name.to_string())
}

/// Returns whether an object stands for a value that is not there: None, a NaN, or pandas' NA.
fn is_missing(object: &Bound<'_, PyAny>) -> bool {
    let is_nan = || object.extract::<f64>().is_ok_and(f64::is_nan);
    object.is_none() || is_nan() || object.get_type().name().is_ok_and(|name| name == "NAType")
}

/// Returns the type of an object, with its module unless that is `builtins`.
pub fn kind(object: &Bound<'_, PyAny>) -> String {
    object.get_type().fully_qualified_name().map_or_else(|_| "something".to_string(), |name| name.to_string())
}

fn no_utf8(py: Python<'_>, error: PyErr, name: &str) -> PyErr {
    if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return error;
    }
    let position = error.value(py).getattr("start").and_then(|at| at.extract::<usize>()).unwrap_or_default();
    let wrapped = PyValueError::new_err(format!(
        "{name} holds a lone surrogate at position {position}, which is no character; \
         text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') replaces it by U+FFFD"
    ));
    wrapped.set_cause(py, Some(error));
    wrapped
}
