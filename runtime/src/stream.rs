//! Text that comes in parts: bytes in, running scores out.

use crate::engine::EngineError;
use crate::engine::native::NativeEngine;
use crate::tokenizer::Encoder;

/// One text after another through the tokenizer and the native engine, in parts that may be cut anywhere: within a word, a
/// character or a token. The scores are, bit for bit, those of the text at once.
///
/// Memory does not grow with the text: the engine's scratch arena and about 1.6 KiB here. Nothing allocates or panics.
#[derive(Debug)]
pub struct Stream<'e, 'a> {
    encoder: Encoder<'a>,
    engine: &'e mut NativeEngine<'a>,
}

impl<'e, 'a> Stream<'e, 'a> {
    /// A stream at the beginning of a text. What the engine was given before is forgotten.
    pub fn new(engine: &'e mut NativeEngine<'a>) -> Self {
        engine.reset();
        Stream { encoder: Encoder::new(engine.bundle().tokenizer()), engine }
    }

    /// A stream in the middle of a text: where [`Stream::suspend`] left `engine` and `encoder`. For owners that cannot keep a stream
    /// beside the engine that it borrows.
    pub fn resume(engine: &'e mut NativeEngine<'a>, encoder: Encoder<'a>) -> Self {
        Stream { encoder, engine }
    }

    /// What [`Stream::resume`] needs beside the engine to go on with the text.
    pub fn suspend(self) -> Encoder<'a> {
        self.encoder
    }

    /// The engine behind.
    pub fn engine(&self) -> &NativeEngine<'a> {
        self.engine
    }

    /// Tokens of the text that are certain by now. A word's are once it has ended.
    pub fn tokens(&self) -> u64 {
        self.engine.tokens()
    }

    /// Takes the next bytes of the text, cut anywhere. Invalid UTF-8 is read as U+FFFD, as the tokenizer says.
    ///
    /// # Errors
    /// When the text has more than [`MAX_TOKENS`](crate::engine::native::MAX_TOKENS) tokens; it cannot be scored then, and every call
    /// says so until [`Stream::reset`].
    pub fn push(&mut self, text: impl AsRef<[u8]>) -> Result<(), EngineError> {
        let Stream { encoder, engine } = self;
        let mut result = Ok(());
        encoder.push(text.as_ref(), &mut |id| keep_first(&mut result, engine.push_token(id)));
        result
    }

    /// Scores of the text so far, over the positions whose whole receptive field has been seen; see
    /// [`NativeEngine::snapshot`]. Gives their number, or `None` before the first: a model that looks 18 tokens ahead has
    /// something to say from the 19th token on. What is pushed later is scored as if there had been no snapshot.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// As [`NativeEngine::snapshot`].
    pub fn snapshot(&mut self, out: &mut [f32]) -> Result<Option<u32>, EngineError> {
        self.engine.snapshot(out)
    }

    /// Ends the text and gives its scores; the stream is then at the beginning of the next text.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// When `out` has the wrong length or the text has too many tokens. Either way the text is over.
    pub fn finish(&mut self, out: &mut [f32]) -> Result<(), EngineError> {
        let Stream { encoder, engine } = self;
        let mut result = Ok(());
        encoder.finish(&mut |id| keep_first(&mut result, engine.push_token(id)));
        let result = result.and_then(|()| engine.finish(out));
        engine.reset();
        result
    }

    /// Forgets the text so far.
    pub fn reset(&mut self) {
        self.encoder = Encoder::new(self.engine.bundle().tokenizer());
        self.engine.reset();
    }
}

fn keep_first(result: &mut Result<(), EngineError>, next: Result<(), EngineError>) {
    if result.is_ok() {
        *result = next;
    }
}
