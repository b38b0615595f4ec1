//! `kinglet_text.Answer`.

use kinglet::answer::{self, Prediction};
use kinglet::tokenizer::Blank;
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::model::Model;

/// Answer for a text.
///
/// >>> answer = kinglet_text.Classifier().classify("how do i say good night in french")
/// >>> answer
/// kinglet_text.Answer('translate', probability=1.00)
/// >>> [label for label, probability in answer.top(2)]
/// ['translate', 'change_language']
#[pyclass(frozen, module = "kinglet_text")]
pub struct Answer {
    /// The label, the most likely one of several; None if the model is unsure, the text empty or unknown, or no label applies.
    #[pyo3(get)]
    label: Option<Py<PyString>>,
    /// The labels, most likely first: of a model of which any number may apply, all of them; of another one, at most one.
    #[pyo3(get)]
    labels: Vec<Py<PyString>>,
    /// The most likely label, whether the model is sure or not.
    #[pyo3(get)]
    likeliest: Py<PyString>,
    /// Whether the text has no letter, digit or symbol.
    #[pyo3(get)]
    empty: bool,
    /// Whether the text has letters, digits or symbols, but none that the model knows.
    #[pyo3(get)]
    unknown: bool,
    /// The probability of the most likely label, 0 to 1, calibrated if the model is.
    #[pyo3(get)]
    probability: f32,
    /// The labels expected to include the correct one, most likely first; None if the model is not calibrated.
    #[pyo3(get)]
    set: Option<Vec<Py<PyString>>>,
    /// The probability of each label, `[len(labels)]` float32.
    #[pyo3(get)]
    probabilities: Py<PyArray1<f32>>,
    /// The scores before softmax, `[len(labels)]` float32.
    #[pyo3(get)]
    scores: Py<PyArray1<f32>>,
    /// Whether any number of labels may apply.
    several: bool,
    /// Names and probabilities, most likely first.
    ranking: Vec<(Py<PyString>, f32)>,
}

impl Answer {
    /// Creates the answer from scores. `names`: of the labels, by class; `blank`: why the text has none, if that is so.
    ///
    /// # Errors
    /// `ValueError` if a score is not a number.
    pub fn new(
        py: Python<'_>,
        model: &Model,
        names: &[Py<PyString>],
        threshold: Option<f32>,
        logits: Vec<f32>,
        blank: Option<Blank>,
    ) -> PyResult<Self> {
        let mut probabilities = vec![0.0; logits.len()];
        let answer = answer::Answer::from_logits(&logits, model.decision(), &mut probabilities)
            .map_err(|error| PyValueError::new_err(format!("text: {error}")))?;
        let answer = threshold.map_or(answer, |threshold| answer.with_threshold(threshold)).with_blank(blank);
        let name = |one: Prediction| names.get(one.class).map(|name| name.clone_ref(py));
        let set = answer.set().map(|set| set.filter_map(name).collect());
        let ranking = answer.likeliest().filter_map(|one| Some((name(one)?, one.probability))).collect();
        let likeliest = name(answer.best()).ok_or_else(|| PyValueError::new_err("the model has no labels"))?;
        let (label, probability) = (answer.label().and_then(name), answer.best().probability);
        let labels = answer.labels().filter_map(name).collect();
        Ok(Answer {
            label,
            labels,
            several: answer.is_multi_label(),
            likeliest,
            empty: blank == Some(Blank::Empty),
            unknown: blank == Some(Blank::Unknown),
            probability,
            set,
            probabilities: PyArray1::from_vec(py, probabilities).unbind(),
            scores: PyArray1::from_vec(py, logits).unbind(),
            ranking,
        })
    }
}

#[pymethods]
impl Answer {
    /// Returns the k most likely labels with their probabilities, most likely first; all if there are fewer.
    #[pyo3(signature = (k=5))]
    fn top(&self, py: Python<'_>, k: usize) -> Vec<(Py<PyString>, f32)> {
        self.ranking.iter().take(k).map(|(name, p)| (name.clone_ref(py), *p)).collect()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        if self.several {
            let labels = PyList::new(py, &self.labels)?.repr()?;
            return Ok(format!("kinglet_text.Answer({labels}, probability={:.2})", self.probability));
        }
        let label = match &self.label {
            Some(label) => label.bind(py).repr()?.to_string(),
            None => format!("None, likeliest={}", self.likeliest.bind(py).repr()?),
        };
        Ok(format!("kinglet_text.Answer({label}, probability={:.2})", self.probability))
    }
}
