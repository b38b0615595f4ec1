//! A text that arrives in parts.

use std::rc::Rc;

use kinglet::bundle::{OwnedBundle, ReadBundle};
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::tokenizer::Blank;
use wasm_bindgen::prelude::*;

use crate::answer::answer;
use crate::border::{text, thrown, top};

/// One text after another, each in parts that may be cut anywhere. The answer at the end is that of the text at once;
/// memory does not grow with it.
#[wasm_bindgen(skip_typescript)]
pub struct Stream {
    stream: kinglet::stream::Stream<NativeEngine<Rc<OwnedBundle>, Vec<u8>>>,
    scores: Vec<f32>,
}

impl Stream {
    /// Creates a stream at the beginning of a text.
    pub(crate) fn new(bundle: Rc<OwnedBundle>) -> Result<Stream, JsValue> {
        let scores = vec![0.0; bundle.config().num_labels];
        let need = scratch_bytes(bundle.config(), DEFAULT_CHUNK);
        let mut scratch = Vec::new();
        scratch.try_reserve_exact(need).map_err(|_| thrown(kinglet::Error::Memory { need }))?;
        scratch.resize(need, 0);
        let engine = NativeEngine::new(bundle, scratch).map_err(thrown)?;
        Ok(Stream { stream: kinglet::stream::Stream::new(engine), scores })
    }

    /// Ends the text, whose scores [`Stream::scores`] then returns; returns the number of its tokens.
    pub(crate) fn end(&mut self) -> Result<u64, JsValue> {
        self.stream.finish(&mut self.scores).map_err(thrown)
    }

    /// Returns why the text, or the last one after its end, has no label, if that is so.
    pub(crate) fn blank(&self) -> Option<Blank> {
        self.stream.blank()
    }

    /// Returns the scores before softmax that were computed last, `[num_labels]`.
    pub(crate) fn scores(&self) -> &[f32] {
        &self.scores
    }
}

#[wasm_bindgen]
impl Stream {
    /// Pushes the next part: a string, or bytes of UTF-8 that may be cut within a character.
    ///
    /// # Errors
    /// If it is neither, or the text has too many tokens.
    pub fn push(&mut self, part: &JsValue) -> Result<(), JsValue> {
        self.stream.push(text(part)?).map_err(thrown)
    }

    /// Returns the answer for the text so far, except for its last words, which wait for those that follow; `undefined`
    /// before there is an answer. Later text is scored as if there had been no snapshot.
    ///
    /// # Errors
    /// If `top` has the wrong type or the text has too many tokens.
    pub fn snapshot(&mut self, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = self::top(top)?;
        match self.stream.snapshot(&mut self.scores).map_err(thrown)? {
            Some(tokens) => {
                let blank = self.stream.blank();
                answer(self.stream.engine().model(), &self.scores, u64::from(tokens), blank, top)
            }
            None => Ok(JsValue::UNDEFINED),
        }
    }

    /// Ends the text and returns its answer; the stream is then at the beginning of the next text.
    ///
    /// # Errors
    /// As [`Stream::snapshot`]. A text with too many tokens ends as well.
    pub fn finish(&mut self, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = self::top(top)?;
        let tokens = self.end()?;
        answer(self.stream.engine().model(), &self.scores, tokens, self.stream.blank(), top)
    }

    /// Discards the text so far.
    pub fn reset(&mut self) {
        self.stream.reset();
    }

    /// Returns the number of final tokens of the text.
    #[wasm_bindgen(getter)]
    pub fn tokens(&self) -> f64 {
        self.stream.tokens() as f64
    }
}
