//! Text that arrives in parts: bytes in, running scores out.

use crate::bundle::ReadBundle;
use crate::engine::native::{NativeEngine, Scratch};
use crate::error::Error;
use crate::tokenizer::{Blank, Content, Encoder};

/// A native engine, or a borrow of one, in a [`Stream`].
pub trait HoldEngine {
    /// The engine's model.
    type Model: ReadBundle;
    /// The engine's memory.
    type Scratch: Scratch;

    /// Returns the engine.
    fn engine(&self) -> &NativeEngine<Self::Model, Self::Scratch>;

    /// Returns the engine for use.
    fn engine_mut(&mut self) -> &mut NativeEngine<Self::Model, Self::Scratch>;
}

impl<M: ReadBundle, S: Scratch> HoldEngine for NativeEngine<M, S> {
    type Model = M;
    type Scratch = S;

    fn engine(&self) -> &Self {
        self
    }

    fn engine_mut(&mut self) -> &mut Self {
        self
    }
}

impl<E: HoldEngine> HoldEngine for &mut E {
    type Model = E::Model;
    type Scratch = E::Scratch;

    fn engine(&self) -> &NativeEngine<E::Model, E::Scratch> {
        (**self).engine()
    }

    fn engine_mut(&mut self) -> &mut NativeEngine<E::Model, E::Scratch> {
        (**self).engine_mut()
    }
}

/// One text after another through the tokenizer and the native engine, in parts that may be cut anywhere: within a word, a
/// character or a token. The scores are, bit for bit, those of the text at once.
///
/// `E` is a [`NativeEngine`] or `&mut` of one. Memory does not grow with the text: the engine's scratch memory and about 1.3 KiB
/// here. Nothing allocates or panics.
///
/// ```
/// use std::sync::Arc;
/// use kinglet::bundle::OwnedBundle;
/// use kinglet::pool::{EnginePool, PooledEngine};
/// use kinglet::stream::Stream;
///
/// /// Owns all that it needs, so it goes into any struct and any thread.
/// struct Conversation {
///     stream: Stream<PooledEngine>,
///     scores: Vec<f32>,
/// }
///
/// let file = std::fs::read("../models/intents/model.kinglet")?;
/// let engines = EnginePool::new(Arc::new(OwnedBundle::new(&file)?));
/// let mut conversation = Conversation { stream: Stream::new(engines.take()?), scores: vec![0.0; 151] };
/// conversation.stream.push("wake me at seven tomorrow, and the day after, and every day from then on until I tell you to stop")?;
/// let seen = conversation.stream.snapshot(&mut conversation.scores)?; // while the text still comes
/// assert!(seen.is_some_and(|tokens| u64::from(tokens) < conversation.stream.tokens()));
/// conversation.stream.finish(&mut conversation.scores)?;
/// engines.give(conversation.stream.into_engine());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Stream<E> {
    encoder: Encoder,
    engine: E,
    content: Content,
    /// Whether `content` and `known` are those of a text that has ended.
    ended: bool,
    /// Whether the text that has ended has a word.
    known: bool,
}

impl<E: HoldEngine> Stream<E> {
    /// Creates a stream at the beginning of a text. Discards what the engine was given before.
    pub fn new(mut engine: E) -> Self {
        engine.engine_mut().reset();
        Stream { encoder: Encoder::new(), engine, content: Content::new(), ended: false, known: false }
    }

    /// Returns the engine.
    pub fn engine(&self) -> &NativeEngine<E::Model, E::Scratch> {
        self.engine.engine()
    }

    /// Returns the engine; its next use discards the text so far.
    pub fn into_engine(self) -> E {
        self.engine
    }

    /// Returns the number of final tokens of the text. Those of a word are final once it has ended.
    pub fn tokens(&self) -> u64 {
        self.engine().tokens()
    }

    /// Pushes the next bytes of the text, cut anywhere. Invalid UTF-8 is read as U+FFFD, as documented in the
    /// tokenizer.
    ///
    /// # Errors
    /// If the text has more than [`MAX_TOKENS`](crate::engine::native::MAX_TOKENS) tokens; it cannot be scored then,
    /// and every call returns the error until [`Stream::reset`].
    pub fn push(&mut self, text: impl AsRef<[u8]>) -> Result<(), Error> {
        self.begin();
        self.content.push(text.as_ref());
        let Stream { encoder, engine, .. } = self;
        engine.engine_mut().push_text(encoder, Some(text.as_ref()))
    }

    /// Scores the part of the text so far that cannot change any more; see [`NativeEngine::snapshot`].
    ///
    /// Returns the number of its tokens, or `None` before the first: a model that looks 18 tokens ahead has a result
    /// from the 19th token on. What is pushed later is scored as if there had been no snapshot.
    ///
    /// `out`: `[num_labels]`, scores before softmax.
    ///
    /// # Errors
    /// As [`NativeEngine::snapshot`].
    pub fn snapshot(&mut self, out: &mut [f32]) -> Result<Option<u32>, Error> {
        self.engine.engine_mut().snapshot(out)
    }

    /// Ends the text and scores it; the stream is then at the beginning of the next text. Returns the number of its
    /// tokens.
    ///
    /// `out`: `[num_labels]`, scores before softmax, or a vector before [`normalize`](crate::vector::normalize).
    ///
    /// # Errors
    /// If `out` has the wrong length or the text has too many tokens. In either case the text is over.
    pub fn finish(&mut self, out: &mut [f32]) -> Result<u64, Error> {
        self.begin();
        self.ended = true;
        let Stream { encoder, engine, .. } = self;
        let engine = engine.engine_mut();
        let pushed = engine.push_text(encoder, None);
        let tokens = engine.tokens();
        self.known = engine.is_known();
        let result = pushed.and_then(|()| engine.finish(out));
        engine.reset();
        result.map(|()| tokens)
    }

    /// Begins a text after one that has ended.
    fn begin(&mut self) {
        if self.ended {
            (self.content, self.ended) = (Content::new(), false);
        }
    }

    /// Returns why the text so far, or the last one if none has begun since [`Stream::finish`], has no label, if that is so:
    /// [`Answer::with_blank`](crate::answer::Answer::with_blank) takes it. Of a text so far, its final tokens count.
    pub fn blank(&self) -> Option<Blank> {
        let known = if self.ended { self.known } else { self.engine().is_known() };
        match (self.content.is_empty(), known) {
            (true, _) => Some(Blank::Empty),
            (false, false) => Some(Blank::Unknown),
            (false, true) => None,
        }
    }

    /// Discards the text so far.
    pub fn reset(&mut self) {
        self.encoder.reset();
        self.engine.engine_mut().reset();
        (self.content, self.ended) = (Content::new(), false);
    }
}
