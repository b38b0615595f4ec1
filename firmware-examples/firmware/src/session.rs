//! Text in, a label and a fingerprint a line out.

use core::fmt;

use kinglet::Error;
use kinglet::answer::{self, best};
use kinglet::backend::Backend;
use kinglet::bundle::{Bundle, Labels};
use kinglet::engine::fingerprint;
use kinglet::engine::native::{BorrowedEngine, NativeEngine};
use kinglet::multi_label::Decision;
use kinglet::spec::Task;
use kinglet::stream::Stream;
use sha2::{Digest, Sha256};

use crate::{CONFIG, LABELS};

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The bytes in flash are no bundle, or a damaged one.
    Bundle(Error),
    /// The bundle is that of another model than the program was compiled for.
    Labels {
        /// Classes that the program has room for.
        need: usize,
        /// Classes of the bundle.
        got: usize,
    },
    /// The engine cannot be made.
    Engine(Error),
    /// The text cannot be scored.
    Text(Error),
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

/// A bit per label.
type Set = [u32; LABELS.div_ceil(32)];

/// What the model says about a text.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    names: Labels<'a>,
    given: Set,
    /// Checksum of the scores: see [`fingerprint`].
    pub fingerprint: u32,
    /// Tokens of the text.
    pub tokens: u32,
}

impl<'a> Answer<'a> {
    /// Returns the most likely label, or the labels that apply where any number may, by class.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> {
        let given = self.given;
        let is = move |class: usize| given.get(class / 32).is_some_and(|bits| bits >> (class % 32) & 1 == 1);
        self.names.iter().enumerate().filter_map(move |(class, name)| is(class).then_some(name))
    }
}

impl fmt::Display for Answer<'_> {
    /// Writes the line that `kinglet fingerprint` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.labels().enumerate() {
            write!(f, "{}{label}", if i == 0 { "" } else { "," })?;
        }
        write!(f, "\t{:08x}", self.fingerprint)
    }
}

/// Returns the labels of scores; those above their thresholds where any number may apply.
fn given(scores: &[f32; LABELS], decision: &Decision<'_>, blank: bool) -> Result<Set, Error> {
    let mut set = [0; LABELS.div_ceil(32)];
    let mut mark = |class: usize| {
        if let Some(bits) = set.get_mut(class / 32) {
            *bits |= 1 << (class % 32);
        }
    };
    // A constant, so that a program for one label has none of the other branch.
    if matches!(CONFIG.task, Task::MultiLabel) {
        let mut probabilities = [0.0; LABELS];
        let answer = answer::Answer::from_logits(scores, *decision, &mut probabilities)?;
        answer.labels().filter(|_| !blank).for_each(|one| mark(one.class));
    } else if let Some((class, _)) = best(scores) {
        mark(class);
    }
    Ok(set)
}

/// A hash of the scores of all texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct All([u8; 32]);

impl fmt::Display for All {
    /// Writes the last line that `kinglet fingerprint` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all\t")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Checks the whole bundle and creates its engine.
///
/// `arena`: [`crate::arena_bytes`]`(chunk, _)` bytes.
///
/// # Errors
/// If the bundle is damaged or the arena too small.
#[inline(never)] // what it puts on the stack is gone when the first text comes
pub fn engine<'a>(
    model: &'a [u8],
    arena: &'a mut [u8],
    backend: Backend,
    chunk: usize,
) -> Result<BorrowedEngine<'a>, Failure> {
    let bundle = Bundle::new(model).map_err(|error| Failure::Bundle(error.into()))?;
    let got = bundle.labels().len();
    if got != LABELS {
        return Err(Failure::Labels { need: LABELS, got });
    }
    NativeEngine::with_chunk(bundle, arena, backend, chunk).map_err(Failure::Engine)
}

/// Texts, one per line, through a [`Stream`] as their bytes arrive: no line is kept, so none is too long.
pub struct Session<'e, 'a> {
    stream: Stream<&'e mut BorrowedEngine<'a>>,
    all: Sha256,
    /// Whether the line has a byte yet.
    begun: bool,
}

impl<'e, 'a> Session<'e, 'a> {
    /// Begins the first text. What the engine was given before is forgotten.
    pub fn new(engine: &'e mut BorrowedEngine<'a>) -> Self {
        Session { stream: Stream::new(engine), all: Sha256::new(), begun: false }
    }

    /// Takes bytes out of `bytes`, up to the end of a line; returns the answer if the line has ended.
    ///
    /// # Errors
    /// If the line has too many tokens.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Answer<'a>>, Failure> {
        self.begun |= !bytes.is_empty();
        let mut parts = bytes.splitn(2, |&byte| byte == b'\n');
        let (text, rest) = (parts.next().unwrap_or_default(), parts.next());
        *bytes = rest.unwrap_or_default();
        self.stream.push(text).map_err(Failure::Text)?;
        if rest.is_some() { self.end() } else { Ok(None) }
    }

    /// Ends the line, for a last line without its end. `None` if it is empty.
    ///
    /// # Errors
    /// If the line has too many tokens.
    pub fn end(&mut self) -> Result<Option<Answer<'a>>, Failure> {
        if !core::mem::take(&mut self.begun) {
            return Ok(None);
        }
        let mut scores = [0.0; LABELS];
        let tokens = self.stream.finish(&mut scores).map_err(Failure::Text)? as u32;
        scores.iter().for_each(|score| self.all.update(score.to_le_bytes()));
        let blank = self.stream.blank().is_some();
        let model = self.stream.engine().model();
        let given = given(&scores, &model.decision(), blank).map_err(Failure::Text)?;
        Ok(Some(Answer { names: model.labels(), given, fingerprint: fingerprint(&scores), tokens }))
    }

    /// Returns the hash of the scores of all texts so far.
    pub fn all(self) -> All {
        All(self.all.finalize().into())
    }
}
