//! Scores as an object of JavaScript.

use js_sys::{Array, Object, Reflect};
use kinglet::answer::Answer;
use kinglet::bundle::ReadBundle;
use kinglet::engine::fingerprint;
use kinglet::tokenizer::Blank;
use wasm_bindgen::prelude::*;

use crate::border::thrown;

/// Returns an object with these properties.
fn object<const N: usize>(properties: [(&str, JsValue); N]) -> Result<JsValue, JsValue> {
    let object = Object::new();
    for (name, value) in properties {
        Reflect::set(&object, &name.into(), &value)?;
    }
    Ok(object.into())
}

/// Returns the `Answer` of `js/kinglet.d.ts`. `scores`: `[num_labels]`, before softmax; `tokens`, `blank`: of the scored text.
pub(crate) fn answer(
    bundle: &impl ReadBundle,
    scores: &[f32],
    tokens: u64,
    blank: Option<Blank>,
    top: usize,
) -> Result<JsValue, JsValue> {
    let (labels, decision) = (bundle.labels(), bundle.decision());
    let label = |class: usize| JsValue::from(labels.get(class).unwrap_or_default());
    let mut probabilities = vec![0.0; scores.len()];
    let answer = Answer::from_logits(scores, decision, &mut probabilities).map_err(thrown)?.with_blank(blank);
    let likeliest = Array::new();
    for one in answer.likeliest().take(top) {
        likeliest.push(&object([("label", label(one.class)), ("score", one.probability.into())])?);
    }
    let given = answer.labels().map(|one| label(one.class)).collect::<Array>();
    let set = answer.set().map(|set| set.map(|one| label(one.class)).collect::<Array>());
    object([
        ("label", answer.label().map_or(JsValue::NULL, |one| label(one.class))),
        ("labels", given.into()),
        ("score", answer.best().probability.into()),
        ("unsure", answer.is_unsure().into()),
        ("empty", (blank == Some(Blank::Empty)).into()),
        ("unknown", (blank == Some(Blank::Unknown)).into()),
        ("calibrated", decision.is_calibrated().into()),
        ("top", likeliest.into()),
        ("set", set.map_or(JsValue::NULL, JsValue::from)),
        ("tokens", (tokens as f64).into()),
        ("fingerprint", format!("{:08x}", fingerprint(scores)).into()),
    ])
}
