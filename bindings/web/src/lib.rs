//! Kinglet's models for JavaScript: a bundle's bytes in, labels or vectors out, in any engine that runs WebAssembly.
//!
//! All computation is the native engine's, with the backend that the module was compiled for, so scores are those of
//! every other target, bit for bit. Values from JavaScript are checked before use; failures are thrown as an `Error` (a
//! `TypeError` for a value of the wrong type) whose message names the reason.
//!
//! The types visible to programs are in `js/kinglet.d.ts`; they load the module through `js/kinglet.js`.

use std::rc::Rc;

use kinglet::answer::classes;
use kinglet::backend::Backend;
use kinglet::bundle::{OwnedBundle, ReadBundle};
use kinglet::engine::fingerprint;
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use wasm_bindgen::prelude::*;

mod answer;
mod border;
mod embedder;
mod stream;

use border::thrown;
pub use embedder::Embedder;
pub use stream::Stream;

/// A model, ready to classify texts one after the other.
#[wasm_bindgen(skip_typescript)]
pub struct Classifier {
    bundle: Rc<OwnedBundle>,
    stream: Stream,
}

#[wasm_bindgen]
impl Classifier {
    /// Checks the bytes of a bundle completely and copies them.
    ///
    /// # Errors
    /// If `bytes` is not a `Uint8Array` or `ArrayBuffer`, or not an intact bundle; if the model embeds; or if there is no
    /// memory for the engine.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &JsValue) -> Result<Classifier, JsValue> {
        let bundle = border::bundle(bytes)?;
        classes(bundle.config()).map_err(|error| thrown(format!("{error}; Embedder opens it")))?;
        Ok(Classifier { stream: Stream::new(bundle.clone())?, bundle })
    }

    /// Scores a whole text; returns the number of its tokens.
    fn run(&mut self, text: &JsValue) -> Result<u64, JsValue> {
        self.stream.reset();
        self.stream.push(text)?;
        self.stream.end()
    }

    /// Returns the answer for a text: a string, or bytes of UTF-8; with the `top` most likely labels.
    ///
    /// # Errors
    /// If an argument has the wrong type or the text has too many tokens.
    pub fn classify(&mut self, text: &JsValue, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = border::top(top)?;
        let tokens = self.run(text)?;
        answer::answer(&*self.bundle, self.stream.scores(), tokens, self.stream.blank(), top)
    }

    /// Returns the scores of a text before softmax, one per label.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn scores(&mut self, text: &JsValue) -> Result<Vec<f32>, JsValue> {
        self.run(text)?;
        Ok(self.stream.scores().to_vec())
    }

    /// Returns the fingerprint of a text's scores: 8 hexadecimal digits, the same on every target.
    ///
    /// # Errors
    /// As [`Classifier::classify`].
    pub fn fingerprint(&mut self, text: &JsValue) -> Result<String, JsValue> {
        self.run(text)?;
        Ok(format!("{:08x}", fingerprint(self.stream.scores())))
    }

    /// Opens a stream for a text of any length that arrives in parts. Any number of them may be open.
    ///
    /// # Errors
    /// If there is no memory for one more engine.
    pub fn stream(&self) -> Result<Stream, JsValue> {
        Stream::new(self.bundle.clone())
    }

    /// Returns the names of all labels.
    #[wasm_bindgen(getter)]
    pub fn labels(&self) -> Vec<String> {
        self.bundle.labels().iter().map(String::from).collect()
    }

    /// Returns whether scores are calibrated probabilities.
    #[wasm_bindgen(getter)]
    pub fn calibrated(&self) -> bool {
        self.bundle.decision().is_calibrated()
    }

    /// Returns whether any number of labels may apply to a text.
    #[wasm_bindgen(getter, js_name = multiLabel)]
    pub fn multi_label(&self) -> bool {
        self.bundle.decision().is_multi_label()
    }

    /// Returns the bytes of the bundle.
    #[wasm_bindgen(getter, js_name = modelBytes)]
    pub fn model_bytes(&self) -> usize {
        self.bundle.as_bytes().len()
    }

    /// Returns the bytes of an engine's memory, for texts of any length.
    #[wasm_bindgen(getter, js_name = arenaBytes)]
    pub fn arena_bytes(&self) -> usize {
        scratch_bytes(self.bundle.config(), DEFAULT_CHUNK)
    }
}

/// Returns the name of the backend that the module was compiled for.
#[wasm_bindgen(skip_typescript)]
pub fn backend() -> String {
    Backend::detect().name().into()
}
