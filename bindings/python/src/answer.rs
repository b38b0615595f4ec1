//! `kinglet_text.Answer`.

use kinglet::calibration;
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::classifier::set;
use crate::model::Model;

/// What the model says about a text.
///
/// >>> answer = kinglet_text.Classifier().classify("how do i say good night in french")
/// >>> answer
/// kinglet_text.Answer('translate', probability=0.98)
/// >>> [label for label, probability in answer.top(2)]
/// ['translate', 'change_language']
#[pyclass(frozen, module = "kinglet_text")]
pub struct Answer {
    /// The label; None when the model is not sure.
    #[pyo3(get)]
    label: Option<Py<PyString>>,
    /// The likeliest label, whether the model is sure or not.
    #[pyo3(get)]
    likeliest: Py<PyString>,
    /// The probability of the likeliest label, 0 to 1, calibrated if the model is.
    #[pyo3(get)]
    probability: f32,
    /// The labels among which the right one is to be expected, likeliest first; None when the model is not calibrated.
    #[pyo3(get)]
    set: Option<Vec<Py<PyString>>>,
    /// The probability of each label, `[len(labels)]` float32.
    #[pyo3(get)]
    probabilities: Py<PyArray1<f32>>,
    /// The scores before softmax, `[len(labels)]` float32.
    #[pyo3(get)]
    scores: Py<PyArray1<f32>>,
    /// Names and probabilities, likeliest first.
    ranking: Vec<(Py<PyString>, f32)>,
}

impl Answer {
    /// The answer that scores give. `names`: of the labels, by class.
    ///
    /// # Errors
    /// `ValueError` when a score is no number.
    pub fn new(
        py: Python<'_>,
        model: &Model,
        names: &[Py<PyString>],
        threshold: f32,
        logits: Vec<f32>,
    ) -> PyResult<Self> {
        let mut probabilities = vec![0.0; logits.len()];
        let wrong = |error| PyValueError::new_err(format!("text: {error}"));
        calibration::softmax(&logits, model.temperature(), &mut probabilities).map_err(wrong)?;
        let set = model.calibration().map(|calibration| {
            let classes = set(&calibration, &probabilities);
            classes.into_iter().filter_map(|class| names.get(class)).map(|name| name.clone_ref(py)).collect()
        });
        let mut ranking: Vec<_> = names.iter().zip(&probabilities).map(|(name, &p)| (name.clone_ref(py), p)).collect();
        // Stable: of equal ones the lower class first.
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (likeliest, probability) = match ranking.first() {
            Some((name, probability)) => (name.clone_ref(py), *probability),
            None => return Err(PyValueError::new_err("the model has no labels")),
        };
        Ok(Answer {
            label: (probability > threshold).then(|| likeliest.clone_ref(py)),
            likeliest,
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
    /// The k likeliest labels with their probabilities, likeliest first; all where there are fewer.
    #[pyo3(signature = (k=5))]
    fn top(&self, py: Python<'_>, k: usize) -> Vec<(Py<PyString>, f32)> {
        self.ranking.iter().take(k).map(|(name, p)| (name.clone_ref(py), *p)).collect()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let label = match &self.label {
            Some(label) => label.bind(py).repr()?.to_string(),
            None => format!("None, likeliest={}", self.likeliest.bind(py).repr()?),
        };
        Ok(format!("kinglet_text.Answer({label}, probability={:.2})", self.probability))
    }
}
