//! Many texts, distributed over threads.

use core::ffi::c_char;
use core::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::vec;
use std::vec::Vec;

use runtime::answer;
use runtime::bundle::ReadBundle;
use runtime::tokenizer::Blank;

use crate::border::{self, border};
use crate::engine::Answer;
use crate::model::Model;
use crate::status::{Error, Status};

/// One text and the place of its results.
struct Job<'a> {
    row: usize,
    text: &'a [u8],
    scores: Option<&'a mut [f32]>,
    answer: Option<&'a mut Answer>,
}

/// Texts that a thread takes at a time, and their bytes that are enough: many short ones go through the model side by side, long ones are
/// divided among the threads one by one.
const GROUP: usize = 64;
const GROUP_BYTES: usize = 1 << 12;

fn of_text(row: usize, error: Error) -> Error {
    Error::new(error.status, format_args!("text {row} of the batch: {}", error.message))
}

/// State shared by the threads of a batch.
struct Batch<'a> {
    model: &'a Model,
    /// In order, so that every text before a taken one is taken too.
    jobs: Mutex<vec::IntoIter<Job<'a>>>,
    /// The first text that failed.
    failed: Mutex<Option<(usize, Error)>>,
}

impl Batch<'_> {
    /// Takes texts until none is left.
    fn run(&self) -> Result<(), Error> {
        let mut engine = self.model.engines.take()?;
        let mut packer = self.model.engines.take_packer()?;
        let labels = self.model.labels.len();
        let (mut own, mut room) = (vec![0.0; labels], vec![0.0; labels]);
        loop {
            let mut jobs = self.next();
            if jobs.is_empty() {
                break;
            }
            let texts: Vec<(usize, &[u8])> = jobs.iter().map(|job| (job.row, job.text)).collect();
            let mut take = |i: usize, blank: Option<Blank>, scores: &[f32]| {
                let Some(job) = jobs.get_mut(i) else { return };
                if let Some(to) = &mut job.scores {
                    to.copy_from_slice(scores);
                }
                if let Some(to) = &mut job.answer {
                    match answer::Answer::from_logits(scores, self.model.engines.model().decision(), &mut room) {
                        Ok(answer) => **to = Answer::new(&answer.with_blank(blank)),
                        Err(error) => self.fails(job.row, error.into()),
                    }
                }
            };
            for (i, &(row, text)) in texts.iter().enumerate() {
                let scored = match packer.add(i, text, None, &mut |i, read, scores| take(i, read.blank, scores)) {
                    Ok(false) => self.model.scores(&mut engine, text, &mut own).map(|blank| take(i, blank, &own)),
                    taken => taken.map(drop).map_err(Error::from),
                };
                if let Err(error) = scored {
                    self.fails(row, error);
                }
            }
            if let (Err(error), Some(&(row, _))) =
                (packer.flush(&mut |i, read, scores| take(i, read.blank, scores)), texts.first())
            {
                self.fails(row, error.into());
            }
        }
        self.model.engines.give(engine);
        self.model.engines.give_packer(packer);
        Ok(())
    }

    /// Takes the next texts; none if none is left.
    fn next(&self) -> Vec<Job<'_>> {
        let mut left = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < GROUP && bytes < GROUP_BYTES {
            let Some(job) = left.next() else { break };
            bytes += job.text.len();
            jobs.push(job);
        }
        jobs
    }

    /// Notes that a text failed: no more are taken, and of those that fail meanwhile, the first counts.
    fn fails(&self, row: usize, error: Error) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.as_ref().is_none_or(|&(first, _)| row < first) {
            *failed = Some((row, error));
        }
    }
}

fn batch(model: &Model, jobs: Vec<Job<'_>>, threads: usize) -> Result<(), Error> {
    let threads = if threads == 0 { thread::available_parallelism().map_or(1, NonZero::get) } else { threads };
    let others = threads.min(jobs.len()).saturating_sub(1);
    let batch = Batch { model, jobs: Mutex::new(jobs.into_iter()), failed: Mutex::new(None) };
    thread::scope(|scope| {
        let mut started = Vec::new();
        for _ in 0..others {
            // A thread that cannot be started, or has no memory for an engine, is one fewer.
            let Ok(thread) = thread::Builder::new().spawn_scoped(scope, || batch.run()) else { break };
            started.push(thread);
        }
        let result = batch.run();
        // Joined, so that nothing of a thread is left when the call returns: a scope alone waits for their work only.
        for thread in started {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        result
    })?;
    match batch.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((row, error)) => Err(of_text(row, error)),
        None => Ok(()),
    }
}

/// Classifies many texts on several threads. The results are those of one text after the other, for any number of
/// threads. If a text fails, the status and the message are those of the first one that does; results of the others may
/// be there or not.
///
/// `texts`, `text_bytes`: `count` pointers and lengths, each as in `kinglet_model_classify`.
/// `threads`: maximum number of threads; 0: as many as the machine has processors. If threads cannot be started, there
/// are fewer.
/// `scores`: room for `scores_count` floats, texts times labels; receives the scores before softmax, text after text.
/// Null, with a `scores_count` of 0, if they are not wanted.
/// `answers`: room for `count` answers; null if they are not wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_batch(
    model: *const Model,
    texts: *const *const c_char,
    text_bytes: *const usize,
    count: usize,
    threads: usize,
    scores: *mut f32,
    scores_count: usize,
    answers: *mut Answer,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (model, texts, lengths) =
            unsafe { (border::get(model)?, border::slice(texts, count)?, border::slice(text_bytes, count)?) };
        let labels = model.classes()?;
        let need = count.saturating_mul(labels);
        if (!scores.is_null() || scores_count != 0) && scores_count != need {
            let detail =
                format_args!("{count} texts and {labels} labels make {need} scores, room for {scores_count} was given");
            return Err(Error::new(Status::WrongLength, detail));
        }
        // SAFETY: as above.
        let (scores, answers) = unsafe {
            let answers_count = if answers.is_null() { 0 } else { count };
            (border::slice_mut(scores, scores_count)?, border::slice_mut(answers, answers_count)?)
        };
        let (mut scores, mut answers) = (scores.chunks_exact_mut(labels), answers.iter_mut());
        let mut jobs = Vec::new();
        if jobs.try_reserve_exact(count).is_err() {
            return Err(Error::new(Status::OutOfMemory, format_args!("not enough memory for {count} texts")));
        }
        for (row, (&text, &bytes)) in texts.iter().zip(lengths).enumerate() {
            // SAFETY: as above.
            let text = unsafe { border::slice(text.cast::<u8>(), bytes) }.map_err(|error| of_text(row, error))?;
            jobs.push(Job { row, text, scores: scores.next(), answer: answers.next() });
        }
        batch(model, jobs, threads)
    })
}
