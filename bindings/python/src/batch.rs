//! Many texts on several threads, in slices, so that the caller can be asked in between whether to go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kinglet::packer::{Packer, Read};
use kinglet::pool::PooledEngine;
use kinglet::stream::Stream;
use kinglet::tokenizer::Blank;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::model::{Model, Shared, no_engine};

/// Texts that a thread takes at a time: short ones go through the model side by side, and a few long ones are still divided among threads.
const SLICE: usize = 16;
/// Bytes of text after which the caller is asked whether to go on: some ten milliseconds of work.
const PART: usize = 1 << 14;
/// Cost of a text in addition to its bytes, in bytes: its end goes through all layers.
const PER_TEXT: usize = 64;
/// How often the caller is asked while it waits for other threads.
const WAIT: Duration = Duration::from_millis(20);

/// Why a batch has no result.
#[derive(Debug)]
pub enum Failure {
    /// The caller said to stop, by this exception.
    Stopped(PyErr),
    /// A text cannot be scored.
    Text {
        /// The text, from 0.
        index: usize,
        /// Why.
        error: kinglet::Error,
    },
    /// There is no memory for a thread's engine.
    Engine(kinglet::Error),
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        match failure {
            Failure::Stopped(error) => error,
            Failure::Text { index, error } => PyValueError::new_err(format!("texts[{index}]: {error}")),
            Failure::Engine(error) => no_engine(error),
        }
    }
}

/// What is done with the scores of a text: they, why it has no label, and the text's part of the output.
pub type Each<'f, T> = dyn Fn(&[f32], Option<Blank>, &mut [T]) -> Result<(), kinglet::Error> + Sync + 'f;
/// Asks whether to go on; the exception says why not.
pub type GoOn<'f> = dyn FnMut() -> Result<(), PyErr> + 'f;

/// Passes each text's scores before softmax, `[num_labels]`, to `each` together with the text's part of `out`.
///
/// `out`: as many parts of `per` >= 1 elements as texts. `threads`: maximum number of threads, including this one;
/// never more than there are slices of texts. `go_on` is called on this thread alone, every now and then; its error
/// ends the batch.
///
/// # Errors
/// If a text cannot be scored, memory is exhausted, or `go_on` fails.
pub fn score<T: Send>(
    model: &Model,
    texts: &[impl AsRef<[u8]> + Sync],
    threads: usize,
    out: &mut [T],
    per: usize,
    each: &Each<'_, T>,
    go_on: &mut GoOn<'_>,
) -> Result<(), Failure> {
    let stop = AtomicBool::new(false);
    let slices = texts.chunks(SLICE).zip(out.chunks_mut(SLICE * per)).enumerate();
    let slices = Mutex::new(slices.map(|(i, (texts, out))| Slice { first: i * SLICE, texts, out }));
    let work = |go_on: &mut GoOn<'_>| {
        let next = || slices.lock().unwrap_or_else(PoisonError::into_inner).next();
        // One text has nothing beside it.
        let packer = (texts.len() > 1).then(|| model.engines().take_packer()).transpose();
        let scored = packer.and_then(|mut packer| {
            let result = model.engines().with(|engine| {
                let mut pace = Pace { done: 0, stop: &stop, go_on };
                let mut logits = vec![0.0; model.values()];
                while let Some(slice) = next() {
                    if !slice.score((engine, packer.as_mut()), &mut logits, per, each, &mut pace)? {
                        break;
                    }
                }
                Ok(())
            });
            packer.into_iter().for_each(|packer| model.engines().give_packer(packer));
            result
        });
        let result = scored.map_err(Failure::Engine).flatten();
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        result
    };
    thread::scope(|scope| {
        let (running, ended) = channel::<()>();
        let start = |running: Sender<()>| {
            scope.spawn(|| {
                // Dropped when the thread ends, however it ends.
                let _running = running;
                work(&mut || Ok(()))
            })
        };
        let others: Vec<_> = (1..threads.min(texts.len().div_ceil(SLICE))).map(|_| start(running.clone())).collect();
        drop(running);
        let mut result = work(go_on);
        while ended.recv_timeout(WAIT) == Err(RecvTimeoutError::Timeout) {
            if result.is_ok() {
                result = go_on().map_err(Failure::Stopped);
                stop.fetch_or(result.is_err(), Ordering::Relaxed);
            }
        }
        others.into_iter().fold(result, |result, other| {
            let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(other)
        })
    })
}

/// Adjacent texts and their part of the output.
struct Slice<'s, X, T> {
    /// The index of the first.
    first: usize,
    texts: &'s [X],
    out: &'s mut [T],
}

impl<X: AsRef<[u8]>, T> Slice<'_, X, T> {
    /// Gives false when it stopped because the batch is over.
    fn score(
        self,
        (engine, mut packer): (&mut PooledEngine<Shared>, Option<&mut Packer<Shared>>),
        logits: &mut [f32],
        per: usize,
        each: &Each<'_, T>,
        pace: &mut Pace<'_, '_>,
    ) -> Result<bool, Failure> {
        let (first, out) = (self.first, self.out);
        let mut failed = None;
        let mut take = |i: usize, blank: Option<Blank>, scores: &[f32]| {
            let place = out.get_mut(i * per..(i + 1) * per).unwrap_or_default();
            if let Err(error) = each(scores, blank, place) {
                failed.get_or_insert(Failure::Text { index: first + i, error });
            }
        };
        for (i, text) in self.texts.iter().enumerate() {
            let fail = |error| Failure::Text { index: first + i, error };
            let text = text.as_ref();
            let mut take_read = |i: usize, read: Read, scores: &[f32]| take(i, read.blank, scores);
            let taken = packer.as_mut().map(|packer| packer.add(i, text, None, &mut take_read));
            if taken.transpose().map_err(fail)?.unwrap_or(false) {
                if !pace.goes_on(text.len())? {
                    return Ok(false);
                }
            } else {
                let mut stream = Stream::new(&mut *engine);
                for part in text.chunks(PART) {
                    stream.push(part).map_err(fail)?;
                    if !pace.goes_on(part.len())? {
                        return Ok(false);
                    }
                }
                stream.finish(logits).map_err(fail)?;
                take(i, stream.blank(), logits);
            }
            if !pace.goes_on(PER_TEXT)? {
                return Ok(false);
            }
        }
        if let Some(packer) = packer {
            let flushed = packer.flush(&mut |i, read, scores| take(i, read.blank, scores));
            flushed.map_err(|error| Failure::Text { index: first, error })?;
        }
        failed.map_or(Ok(true), Err)
    }
}

/// When to ask whether to go on.
struct Pace<'p, 'f> {
    /// Bytes since it was asked last.
    done: usize,
    stop: &'p AtomicBool,
    go_on: &'p mut GoOn<'f>,
}

impl Pace<'_, '_> {
    /// After so many more bytes: false when another thread ended the batch.
    fn goes_on(&mut self, bytes: usize) -> Result<bool, Failure> {
        self.done += bytes;
        if self.done >= PART {
            self.done = 0;
            (self.go_on)().map_err(Failure::Stopped)?;
        }
        Ok(!self.stop.load(Ordering::Relaxed))
    }
}
