//! Scores as an object of JavaScript.

use js_sys::{Array, Object, Reflect};
use kinglet::bundle::Bundle;
use kinglet::calibration::{self, Decision};
use kinglet::engine::fingerprint;
use wasm_bindgen::prelude::*;

use crate::thrown;

/// An object with these properties.
fn object<const N: usize>(properties: [(&str, JsValue); N]) -> Result<JsValue, JsValue> {
    let object = Object::new();
    for (name, value) in properties {
        Reflect::set(&object, &name.into(), &value)?;
    }
    Ok(object.into())
}

/// The `Answer` of `js/kinglet.d.ts`. `scores`: `[num_labels]`, before softmax; `tokens` of the text that they are of.
pub(crate) fn answer(bundle: &Bundle<'_>, scores: &[f32], tokens: f64, top: usize) -> Result<JsValue, JsValue> {
    let (labels, calibration) = (bundle.labels(), bundle.calibration());
    let label = |class: usize| JsValue::from(labels.get(class).unwrap_or_default());
    let mut probabilities = vec![0.0; scores.len()];
    let temperature = calibration.map_or(1.0, |calibration| calibration.temperature);
    calibration::softmax(scores, temperature, &mut probabilities).map_err(thrown)?;

    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    // Stable: of equal ones the lowest class first.
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let likeliest = Array::new();
    for &class in order.iter().take(top) {
        likeliest.push(&object([("label", label(class)), ("score", probabilities[class].into())])?);
    }
    let decision = match calibration {
        Some(calibration) => calibration.decide(&probabilities),
        None => calibration::decide(&probabilities, 0.0),
    };
    let (named, unsure) = match decision {
        Decision::Label { class, .. } => (label(class), false),
        Decision::Unsure => (JsValue::NULL, true),
    };
    let set = match calibration {
        Some(calibration) => {
            let set: Vec<usize> = calibration.set(&probabilities).collect();
            order.iter().filter(|class| set.contains(class)).map(|&class| label(class)).collect::<Array>().into()
        }
        None => JsValue::NULL,
    };
    object([
        ("label", named),
        ("score", calibration::best(&probabilities).map_or(0.0, |(_, score)| score).into()),
        ("unsure", unsure.into()),
        ("calibrated", calibration.is_some().into()),
        ("top", likeliest.into()),
        ("set", set),
        ("tokens", tokens.into()),
        ("fingerprint", format!("{:08x}", fingerprint(scores)).into()),
    ])
}
