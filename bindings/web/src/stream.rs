//! A text that comes in parts.

use std::rc::Rc;

use kinglet::bundle::OwnedBundle;
use kinglet::engine::native::NativeEngine;
use kinglet::tokenizer::Encoder;
use self_cell::{MutBorrow, self_cell};
use wasm_bindgen::prelude::*;

use crate::{answer, scratch, text, thrown, top};

/// What an engine borrows.
struct Room {
    bundle: Rc<OwnedBundle>,
    scratch: MutBorrow<Vec<u8>>,
}

/// What is between two calls.
struct Reader<'a> {
    encoder: Encoder<'a>,
    engine: NativeEngine<'a>,
}

impl<'a> Reader<'a> {
    /// Goes on with the text.
    fn with<T>(&mut self, f: impl FnOnce(&mut kinglet::stream::Stream<'_, 'a>) -> T) -> T {
        let mut stream = kinglet::stream::Stream::resume(&mut self.engine, self.encoder.clone());
        let result = f(&mut stream);
        self.encoder = stream.suspend();
        result
    }
}

self_cell! {
    struct Open {
        owner: Room,

        #[not_covariant]
        dependent: Reader,
    }
}

/// One text after another, each in parts that may be cut anywhere. The answer at the end is that of the text at once; memory
/// does not grow with it.
#[wasm_bindgen(skip_typescript)]
pub struct Stream {
    open: Open,
    scores: Vec<f32>,
}

impl Stream {
    /// A stream at the beginning of a text.
    pub(crate) fn new(bundle: Rc<OwnedBundle>) -> Result<Stream, JsValue> {
        let (scratch, labels) = {
            let bundle = bundle.bundle().map_err(thrown)?;
            (scratch(&bundle)?, bundle.labels().len())
        };
        let room = Room { bundle, scratch: MutBorrow::new(scratch) };
        let open = Open::try_new(room, |room| {
            let bundle = room.bundle.bundle().map_err(thrown)?;
            let encoder = Encoder::new(bundle.tokenizer());
            let engine = NativeEngine::new(bundle, room.scratch.borrow_mut()).map_err(thrown)?;
            Ok::<_, JsValue>(Reader { encoder, engine })
        })?;
        Ok(Stream { open, scores: vec![0.0; labels] })
    }
}

#[wasm_bindgen]
impl Stream {
    /// Takes the next part: a string, or bytes of UTF-8 that may be cut within a character.
    ///
    /// # Errors
    /// When it is neither, and when the text has too many tokens.
    pub fn push(&mut self, part: &JsValue) -> Result<(), JsValue> {
        let part = text(part)?;
        self.open.with_dependent_mut(|_, reader| reader.with(|stream| stream.push(&part))).map_err(thrown)
    }

    /// The answer for the text so far, but for its last words, which wait for those that follow; `undefined` before there is
    /// one. What is pushed later is answered as if this had not been asked.
    ///
    /// # Errors
    /// When `top` has the wrong type or the text has too many tokens.
    pub fn snapshot(&mut self, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = self::top(top)?;
        let Stream { open, scores } = self;
        open.with_dependent_mut(|_, reader| match reader.engine.snapshot(scores).map_err(thrown)? {
            Some(tokens) => answer::answer(reader.engine.bundle(), scores, f64::from(tokens), top),
            None => Ok(JsValue::UNDEFINED),
        })
    }

    /// Ends the text and gives its answer; the stream is then at the beginning of the next text.
    ///
    /// # Errors
    /// As [`Stream::snapshot`]. A text with too many tokens is over all the same.
    pub fn finish(&mut self, top: &JsValue) -> Result<JsValue, JsValue> {
        let top = self::top(top)?;
        let Stream { open, scores } = self;
        open.with_dependent_mut(|_, reader| {
            let finished = reader.with(|stream| {
                // White space changes nothing but that the last word counts; the end of the text is one more token.
                let ended = stream.push(" ");
                let tokens = stream.tokens() + 1;
                stream.finish(scores).and(ended).map(|()| tokens)
            });
            let tokens = finished.map_err(thrown)?;
            answer::answer(reader.engine.bundle(), scores, tokens as f64, top)
        })
    }

    /// Forgets the text so far.
    pub fn reset(&mut self) {
        self.open.with_dependent_mut(|_, reader| reader.with(|stream| stream.reset()));
    }

    /// Tokens of the text that are certain by now.
    #[wasm_bindgen(getter)]
    pub fn tokens(&self) -> f64 {
        self.open.with_dependent(|_, reader| reader.engine.tokens() as f64)
    }
}
