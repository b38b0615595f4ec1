//! Sentence vectors.

use std::rc::Rc;

use kinglet::bundle::{OwnedBundle, ReadBundle};
use kinglet::engine::fingerprint;
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet::vector::{dimension, normalize};
use wasm_bindgen::prelude::*;

use crate::border::{bundle, thrown};
use crate::stream::Stream;

/// A model that embeds, for texts one after the other.
#[wasm_bindgen(skip_typescript)]
pub struct Embedder {
    bundle: Rc<OwnedBundle>,
    stream: Stream,
}

#[wasm_bindgen]
impl Embedder {
    /// Checks the bytes of a bundle completely and copies them.
    ///
    /// # Errors
    /// If `bytes` is not a `Uint8Array` or `ArrayBuffer`, or not an intact bundle; if the model classifies; or if there is no
    /// memory for the engine.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &JsValue) -> Result<Embedder, JsValue> {
        let bundle = bundle(bytes)?;
        dimension(bundle.config()).map_err(|error| thrown(format!("{error}; Classifier opens it")))?;
        Ok(Embedder { stream: Stream::new(bundle.clone())?, bundle })
    }

    /// Returns the vector of a text: a string, or bytes of UTF-8. Its length is 1, or 0 if the model says nothing about the text.
    ///
    /// # Errors
    /// If the text has the wrong type or too many tokens, or a value is not a number.
    pub fn embed(&mut self, text: &JsValue) -> Result<Vec<f32>, JsValue> {
        self.stream.reset();
        self.stream.push(text)?;
        self.stream.end()?;
        let mut vector = self.stream.scores().to_vec();
        normalize(&mut vector).map_err(thrown)?;
        Ok(vector)
    }

    /// Returns the fingerprint of a text's vector: 8 hexadecimal digits, the same on every target.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn fingerprint(&mut self, text: &JsValue) -> Result<String, JsValue> {
        Ok(format!("{:08x}", fingerprint(&self.embed(text)?)))
    }

    /// Returns the number of values of a vector.
    #[wasm_bindgen(getter)]
    pub fn dimension(&self) -> usize {
        self.bundle.config().num_labels
    }

    /// Returns the bytes of the bundle.
    #[wasm_bindgen(getter, js_name = modelBytes)]
    pub fn model_bytes(&self) -> usize {
        self.bundle.as_bytes().len()
    }

    /// Returns the bytes of the engine's memory, for texts of any length.
    #[wasm_bindgen(getter, js_name = arenaBytes)]
    pub fn arena_bytes(&self) -> usize {
        scratch_bytes(self.bundle.config(), DEFAULT_CHUNK)
    }
}
