//! `kinglet_text.Stream`.

use std::sync::{Arc, Mutex, TryLockError};

use kinglet::pool::PooledEngine;
use kinglet::stream::Stream;
use kinglet::tokenizer::Blank;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::answer::Answer;
use crate::model::{Model, Shared, no_engine};
use crate::texts::Text;

/// Bytes of text after which signals are looked at.
const PART: usize = 1 << 14;

/// A stream that owns its engine.
type Live = Stream<PooledEngine<Shared>>;

impl Drop for TextStream {
    fn drop(&mut self) {
        self.close();
    }
}

/// A text that arrives in parts, cut anywhere: within a word, and as `bytes` within a character. The scores are, bit
/// for bit, those of the text at once, and memory does not grow with the text.
///
/// Created by `Classifier.stream()`. As a context manager it frees its memory at the end. One thread at a time may use
/// it.
///
/// >>> with kinglet_text.Classifier().stream() as stream:
/// ...     stream.push("wake me at se")
/// ...     stream.push(b"ven")
/// ...     stream.push(" tomorrow")
/// ...     stream.finish()
/// kinglet_text.Answer('alarm', probability=0.72)
#[pyclass(frozen, name = "Stream", module = "kinglet_text")]
pub struct TextStream {
    model: Arc<Model>,
    /// `None` when closed.
    live: Mutex<Option<Live>>,
    names: Arc<[Py<PyString>]>,
    threshold: Option<f32>,
}

impl TextStream {
    /// Creates a stream at the beginning of a text.
    ///
    /// # Errors
    /// `MemoryError` if there is no memory for the scratch.
    pub fn new(model: Arc<Model>, names: Arc<[Py<PyString>]>, threshold: Option<f32>) -> PyResult<Self> {
        let live = Stream::new(model.engines().take().map_err(no_engine)?);
        Ok(TextStream { model, live: Mutex::new(Some(live)), names, threshold })
    }

    fn close(&self) {
        if let Ok(mut live) = self.live.try_lock()
            && let Some(live) = live.take()
        {
            self.model.engines().give(live.into_engine());
        }
    }

    /// Runs `f` with the stream.
    fn with<R>(&self, f: impl FnOnce(&mut Live) -> PyResult<R>) -> PyResult<R> {
        let mut live = self.live.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => PyRuntimeError::new_err("another thread uses the stream"),
            TryLockError::Poisoned(_) => PyRuntimeError::new_err("the stream failed before"),
        })?;
        f(live.as_mut().ok_or_else(|| PyValueError::new_err("the stream is closed"))?)
    }

    fn answer(&self, py: Python<'_>, logits: Vec<f32>, blank: Option<Blank>) -> PyResult<Answer> {
        Answer::new(py, &self.model, &self.names, self.threshold, logits, blank)
    }
}

#[pymethods]
impl TextStream {
    /// Pushes the next part of the text, `str` or `bytes`. The GIL is released meanwhile. If a signal's exception
    /// (Ctrl-C) interrupts a long part, it is unknown how much of it was consumed; call `reset`.
    ///
    /// Raises:
    ///     TypeError: it is neither.
    ///     ValueError: it contains a lone surrogate, the text has more than 4,294,967,295 tokens, or the stream is closed.
    fn push(&self, py: Python<'_>, part: &Bound<'_, PyAny>) -> PyResult<()> {
        let part = Text::new(part, || "part".to_string())?;
        self.with(|stream| {
            py.detach(|| {
                let mut parts = part.as_ref().chunks(PART).peekable();
                while let Some(part) = parts.next() {
                    stream.push(part).map_err(wrong)?;
                    if parts.peek().is_some() {
                        Python::attach(|py| py.check_signals())?;
                    }
                }
                Ok(())
            })
        })
    }

    /// Returns the answer for the text so far, except for the last words, whose neighbours to the right are not known
    /// yet; None before there is one. Later text is scored as if there had been no snapshot.
    ///
    /// >>> with kinglet_text.Classifier().stream() as stream:
    /// ...     stream.push("set an alarm ")
    /// ...     print(stream.snapshot())
    /// ...     stream.push("for seven " * 10)
    /// ...     print(stream.snapshot().likeliest)
    /// None
    /// alarm
    fn snapshot(&self, py: Python<'_>) -> PyResult<Option<Answer>> {
        self.with(|stream| {
            let mut logits = vec![0.0; self.model.values()];
            match stream.snapshot(&mut logits).map_err(wrong)? {
                Some(_) => self.answer(py, logits, stream.blank()).map(Some),
                None => Ok(None),
            }
        })
    }

    /// Ends the text and returns its answer; the stream is then at the beginning of the next text.
    fn finish(&self, py: Python<'_>) -> PyResult<Answer> {
        self.with(|stream| {
            let mut logits = vec![0.0; self.model.values()];
            stream.finish(&mut logits).map_err(wrong)?;
            self.answer(py, logits, stream.blank())
        })
    }

    /// Discards the text so far.
    fn reset(&self) -> PyResult<()> {
        self.with(|stream| {
            stream.reset();
            Ok(())
        })
    }

    /// Returns the number of final tokens of the text; those of a word are final once it has ended.
    #[getter]
    fn tokens(&self) -> PyResult<u64> {
        self.with(|stream| Ok(stream.tokens()))
    }

    fn __enter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        this.get().with(|_| Ok(()))?;
        Ok(this)
    }

    /// Closes the stream: it frees its memory and accepts no more text. An unfinished text is discarded.
    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> bool {
        self.close();
        false
    }
}

fn wrong(error: kinglet::Error) -> PyErr {
    PyValueError::new_err(format!("the text cannot be scored: {error}"))
}
