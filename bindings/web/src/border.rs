//! Values on their way from and to JavaScript.

use js_sys::{Error, TypeError, Uint8Array};
use wasm_bindgen::prelude::*;

/// Labels in `top`, unless asked for.
const TOP: usize = 5;

/// What is thrown for an error of the runtime.
pub(crate) fn thrown(error: impl core::fmt::Display) -> JsValue {
    Error::new(&error.to_string()).into()
}

/// What is thrown for a value of the wrong type.
pub(crate) fn wrong_type(name: &str, wanted: &str, got: &JsValue) -> JsValue {
    let got = if got.is_null() { "null".into() } else { got.js_typeof().as_string().unwrap_or_default() };
    TypeError::new(&format!("{name} must be {wanted}, not {got}")).into()
}

/// Text from JavaScript: the bytes of a string as UTF-8 (half a surrogate pair is U+FFFD), or bytes as they are.
pub(crate) fn text(value: &JsValue) -> Result<Vec<u8>, JsValue> {
    if let Some(text) = value.as_string() {
        return Ok(text.into_bytes());
    }
    match value.dyn_ref::<Uint8Array>() {
        Some(bytes) => Ok(bytes.to_vec()),
        None => Err(wrong_type("the text", "a string or a Uint8Array", value)),
    }
}

/// The number of labels wanted: a whole number above 0, or nothing.
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
