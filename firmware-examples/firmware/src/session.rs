//! Text in, a label and a fingerprint a line out.

use core::fmt;

use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, BundleError};
use kinglet::calibration;
use kinglet::engine::native::{NativeEngine, NativeError};
use kinglet::engine::{EngineError, fingerprint};
use kinglet::tokenizer::Encoder;
use sha2::{Digest, Sha256};

use crate::LABELS;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The bytes in flash are no bundle, or a damaged one.
    Bundle(BundleError),
    /// The bundle is that of another model than the program was compiled for.
    Labels {
        /// Classes that the program has room for.
        need: usize,
        /// Classes of the bundle.
        got: usize,
    },
    /// The engine cannot be made.
    Engine(NativeError),
    /// The text cannot be scored.
    Text(EngineError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Bundle(error) => write!(f, "the model in flash cannot be used: {error}"),
            Failure::Labels { need, got } => write!(f, "the model in flash has {got} classes, the program {need}"),
            Failure::Engine(error) => write!(f, "the engine cannot start: {error}"),
            Failure::Text(error) => error.fmt(f),
        }
    }
}

/// What the model says about a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The likeliest label.
    pub label: &'a str,
    /// Checksum of the scores: see [`fingerprint`].
    pub fingerprint: u32,
    /// Tokens of the text.
    pub tokens: u32,
}

impl fmt::Display for Answer<'_> {
    /// The line that `kinglet fingerprint` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{:08x}", self.label, self.fingerprint)
    }
}

/// A hash of the scores of all texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct All([u8; 32]);

impl fmt::Display for All {
    /// The last line that `kinglet fingerprint` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all\t")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Checks the whole bundle and makes its engine.
///
/// `arena`: [`crate::arena_bytes`]`(chunk, _)` bytes.
///
/// # Errors
/// When the bundle is damaged or the arena too small.
#[inline(never)] // what it puts on the stack is gone when the first text comes
pub fn engine<'a>(
    model: &'a [u8],
    arena: &'a mut [u8],
    backend: Backend,
    chunk: usize,
) -> Result<NativeEngine<'a>, Failure> {
    let bundle = Bundle::new(model).map_err(Failure::Bundle)?;
    let got = bundle.labels().len();
    if got != LABELS {
        return Err(Failure::Labels { need: LABELS, got });
    }
    NativeEngine::with_chunk(bundle, arena, backend, chunk).map_err(Failure::Engine)
}

/// Texts, one a line, through tokenizer and engine as their bytes come in: no line is kept, so none is too long.
pub struct Session<'e, 'a> {
    encoder: Encoder<'a>,
    engine: &'e mut NativeEngine<'a>,
    all: Sha256,
    /// Whether the line has a byte yet.
    begun: bool,
}

impl<'e, 'a> Session<'e, 'a> {
    /// Begins the first text. What the engine was given before is forgotten.
    pub fn new(engine: &'e mut NativeEngine<'a>) -> Self {
        engine.reset();
        Session { encoder: Encoder::new(engine.bundle().tokenizer()), engine, all: Sha256::new(), begun: false }
    }

    /// The next bytes of a line.
    fn push(&mut self, text: &[u8]) -> Result<(), Failure> {
        let Session { encoder, engine, .. } = self;
        let mut result = Ok(());
        encoder.push(text, &mut |id| keep_first(&mut result, engine.push_token(id)));
        result.map_err(Failure::Text)
    }

    /// Takes bytes out of `bytes`, up to the end of a line, and gives the answer if the line has ended.
    ///
    /// # Errors
    /// When the line has too many tokens.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Answer<'a>>, Failure> {
        self.begun |= !bytes.is_empty();
        let mut parts = bytes.splitn(2, |&byte| byte == b'\n');
        let (text, rest) = (parts.next().unwrap_or_default(), parts.next());
        *bytes = rest.unwrap_or_default();
        self.push(text)?;
        if rest.is_some() { self.end() } else { Ok(None) }
    }

    /// Ends the line: for a last one that lacks its end. `None` when it has no byte.
    ///
    /// # Errors
    /// When the line has too many tokens.
    pub fn end(&mut self) -> Result<Option<Answer<'a>>, Failure> {
        if !core::mem::take(&mut self.begun) {
            return Ok(None);
        }
        let Session { encoder, engine, .. } = self;
        let mut result = Ok(());
        encoder.finish(&mut |id| keep_first(&mut result, engine.push_token(id)));
        result.map_err(Failure::Text)?;
        let tokens = engine.tokens() as u32;
        let mut scores = [0.0; LABELS];
        engine.finish(&mut scores).map_err(Failure::Text)?;
        scores.iter().for_each(|score| self.all.update(score.to_le_bytes()));
        let best = calibration::best(&scores).and_then(|(class, _)| self.engine.bundle().labels().get(class));
        Ok(Some(Answer { label: best.unwrap_or_default(), fingerprint: fingerprint(&scores), tokens }))
    }

    /// The hash of the scores of all texts so far.
    pub fn all(self) -> All {
        All(self.all.finalize().into())
    }
}

fn keep_first(result: &mut Result<(), EngineError>, next: Result<(), EngineError>) {
    if result.is_ok() {
        *result = next;
    }
}
