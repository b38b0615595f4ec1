//! Conversions of values from and to JavaScript.

use std::rc::Rc;

use js_sys::{ArrayBuffer, Error, TypeError, Uint8Array};
use kinglet::bundle::OwnedBundle;
use wasm_bindgen::prelude::*;

/// Default number of labels in `top`.
const TOP: usize = 5;

/// Converts an error of the runtime into an exception.
pub(crate) fn thrown(error: impl core::fmt::Display) -> JsValue {
    Error::new(&error.to_string()).into()
}

/// Returns the exception for a value of the wrong type.
pub(crate) fn wrong_type(name: &str, wanted: &str, got: &JsValue) -> JsValue {
    let got = if got.is_null() { "null".into() } else { got.js_typeof().as_string().unwrap_or_default() };
    TypeError::new(&format!("{name} must be {wanted}, not {got}")).into()
}

/// Returns text from JavaScript: the bytes of a string as UTF-8 (half a surrogate pair is U+FFFD), or bytes unchanged.
pub(crate) fn text(value: &JsValue) -> Result<Vec<u8>, JsValue> {
    if let Some(text) = value.as_string() {
        return Ok(text.into_bytes());
    }
    match value.dyn_ref::<Uint8Array>() {
        Some(bytes) => Ok(bytes.to_vec()),
        None => Err(wrong_type("the text", "a string or a Uint8Array", value)),
    }
}

/// Returns the bundle of bytes from JavaScript, checked completely: a copy of a `Uint8Array` or an `ArrayBuffer`.
pub(crate) fn bundle(bytes: &JsValue) -> Result<Rc<OwnedBundle>, JsValue> {
    let bytes = match (bytes.dyn_ref::<Uint8Array>(), bytes.dyn_ref::<ArrayBuffer>()) {
        (Some(bytes), _) => bytes.to_vec(),
        (_, Some(buffer)) => Uint8Array::new(buffer).to_vec(),
        _ => return Err(wrong_type("the model", "a Uint8Array or an ArrayBuffer", bytes)),
    };
    OwnedBundle::new(&bytes).map(Rc::new).map_err(thrown)
}

/// Returns the requested number of labels: a whole number above 0, or nothing.
pub(crate) fn top(value: &JsValue) -> Result<usize, JsValue> {
    if value.is_undefined() {
        return Ok(TOP);
    }
    match value.as_f64() {
        // The cast saturates: more than the model has is all that it has.
        Some(n) if n >= 1.0 && n.trunc() == n => Ok(n as usize),
        Some(n) => Err(js_sys::RangeError::new(&format!("top must be a whole number above 0, not {n}")).into()),
        None => Err(wrong_type("top", "a number", value)),
    }
}
