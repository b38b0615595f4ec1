//! Kinglet's classifiers for JavaScript: a bundle's bytes in, labels out, in any engine that runs WebAssembly.
//!
//! Nothing here computes: the native engine does, with the kernels that the module was compiled for, so that scores are those
//! of every other target, bit for bit. What JavaScript gives is checked before it is used, and what cannot be done is thrown
//! as an `Error` (a `TypeError` for a value of the wrong type) whose message says why.
//!
//! The types that a program sees are in `js/kinglet.d.ts`; it loads the module through `js/kinglet.js`.

use std::rc::Rc;

use js_sys::{Error, TypeError, Uint8Array};
use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, OwnedBundle};
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::engine::{Engine, fingerprint};
use wasm_bindgen::prelude::*;

mod answer;
mod stream;

pub use stream::Stream;

/// Labels in `top`, unless asked for.
const TOP: usize = 5;

/// What is thrown for an error of the runtime.
fn thrown(error: impl core::fmt::Display) -> JsValue {
    Error::new(&error.to_string()).into()
}

/// What is thrown for a value of the wrong type.
fn wrong_type(name: &str, wanted: &str, got: &JsValue) -> JsValue {
    let got = if got.is_null() { "null".into() } else { got.js_typeof().as_string().unwrap_or_default() };
    TypeError::new(&format!("{name} must be {wanted}, not {got}")).into()
}

/// Text from JavaScript: the bytes of a string as UTF-8 (half a surrogate pair is U+FFFD), or bytes as they are.
fn text(value: &JsValue) -> Result<Vec<u8>, JsValue> {
    if let Some(text) = value.as_string() {
        return Ok(text.into_bytes());
    }
    match value.dyn_ref::<Uint8Array>() {
        Some(bytes) => Ok(bytes.to_vec()),
        None => Err(wrong_type("the text", "a string or a Uint8Array", value)),
    }
}

/// The number of labels wanted: a whole number above 0, or nothing.
fn top(value: &JsValue) -> Result<usize, JsValue> {
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

/// Scratch memory for an engine of this bundle.
fn scratch(bundle: &Bundle<'_>) -> Result<Vec<u8>, JsValue> {
    let need = scratch_bytes(bundle.config(), DEFAULT_CHUNK);
    let mut scratch = Vec::new();
    scratch.try_reserve_exact(need).map_err(|_| thrown(format!("there is no memory for {need} bytes of scratch")))?;
    scratch.resize(need, 0);
    Ok(scratch)
}

/// A model, ready to classify texts one after the other.
#[wasm_bindgen(skip_typescript)]
pub struct Classifier {
    bundle: Rc<OwnedBundle>,
    scratch: Vec<u8>,
    scores: Vec<f32>,
}

#[wasm_bindgen]
impl Classifier {
    /// Checks the bytes of a bundle completely and copies them.
    ///
    /// # Errors
    /// When `bytes` is no `Uint8Array` or `ArrayBuffer`, or no whole bundle, and when there is no memory for the engine.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &JsValue) -> Result<Classifier, JsValue> {
        let bytes = match (bytes.dyn_ref::<Uint8Array>(), bytes.dyn_ref::<js_sys::ArrayBuffer>()) {
            (Some(bytes), _) => bytes.to_vec(),
            (_, Some(buffer)) => Uint8Array::new(buffer).to_vec(),
            _ => return Err(wrong_type("the model", "a Uint8Array or an ArrayBuffer", bytes)),
        };
        let owned = OwnedBundle::new(&bytes).map_err(thrown)?;
        drop(bytes);
        let bundle = owned.bundle().map_err(thrown)?;
        let (mut scratch, scores) = (scratch(&bundle)?, vec![0.0; bundle.labels().len()]);
        // An engine that cannot be made is known now, not with the first text.
        NativeEngine::new(bundle, &mut scratch).map_err(thrown)?;
        Ok(Classifier { bundle: Rc::new(owned), scratch, scores })
    }

    /// Computes the scores of a text; gives the number of its tokens.
    fn run(&mut self, value: &JsValue) -> Result<f64, JsValue> {
        let text = text(value)?;
        let bundle = self.bundle.bundle().map_err(thrown)?;
        let mut engine = NativeEngine::new(bundle, &mut self.scratch).map_err(thrown)?;
        debug_assert_eq!(engine.num_labels(), self.scores.len());
        let mut stream = engine.stream();
        stream.push(&text).map_err(thrown)?;
        // White space changes nothing but that the last word counts; the end of the text is one more token.
        stream.push(" ").map_err(thrown)?;
        let tokens = stream.tokens() + 1;
        stream.finish(&mut self.scores).map_err(thrown)?;
        Ok(tokens as f64)
    }

    /// The answer for a text: a string, or bytes of UTF-8; with the `top` likeliest labels.
    ///
    /// # Errors
    /// When an argument has the wrong type or the text has too many tokens.
    pub fn classify(&mut self, text: &JsValue, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = self::top(top)?;
        let tokens = self.run(text)?;
        answer::answer(&self.bundle.bundle().map_err(thrown)?, &self.scores, tokens, top)
    }

    /// The scores of a text before softmax, one a label.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn scores(&mut self, text: &JsValue) -> Result<Vec<f32>, JsValue> {
        self.run(text)?;
        Ok(self.scores.clone())
    }

    /// The fingerprint of a text's scores: 8 hexadecimal digits, the same on every target.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn fingerprint(&mut self, text: &JsValue) -> Result<String, JsValue> {
        self.run(text)?;
        Ok(format!("{:08x}", fingerprint(&self.scores)))
    }

    /// A text of any length that comes in parts. Any number of them may be open.
    ///
    /// # Errors
    /// When there is no memory for one more engine.
    pub fn stream(&self) -> Result<Stream, JsValue> {
        Stream::new(self.bundle.clone())
    }

    /// The names of all labels.
    #[wasm_bindgen(getter)]
    pub fn labels(&self) -> Result<Vec<String>, JsValue> {
        Ok(self.bundle.bundle().map_err(thrown)?.labels().iter().map(String::from).collect())
    }

    /// Whether scores are calibrated probabilities.
    #[wasm_bindgen(getter)]
    pub fn calibrated(&self) -> Result<bool, JsValue> {
        Ok(self.bundle.bundle().map_err(thrown)?.calibration().is_some())
    }

    /// Bytes of the bundle.
    #[wasm_bindgen(getter, js_name = modelBytes)]
    pub fn model_bytes(&self) -> usize {
        self.bundle.as_bytes().len()
    }

    /// Bytes of an engine's memory, whatever the length of a text.
    #[wasm_bindgen(getter, js_name = arenaBytes)]
    pub fn arena_bytes(&self) -> usize {
        self.scratch.len()
    }
}

/// The name of the kernels that the module was compiled for.
#[wasm_bindgen(skip_typescript)]
pub fn backend() -> String {
    Backend::detect().name().into()
}
