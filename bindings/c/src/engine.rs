//! Engines: text in, in parts or at once, scores out. None of these functions allocates.

use core::ffi::{c_char, c_void};

use runtime::answer;
use runtime::bundle::{Bundle, ReadBundle};
use runtime::vector::normalize;

use crate::border::{self, border, one_a_label, one_a_value};
use crate::options::{self, EngineOptions, Options};
use crate::place::{self, Engine};
use crate::status::{Error, Status};

/// The answer for a text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The most likely label, from 0; the lowest one among ties.
    pub label: usize,
    /// Its probability, 0 to 1; calibrated if the model is.
    pub probability: f32,
    /// Whether the label is not the answer: 1 if it is not likely enough, or if the text has no letter, digit or symbol that
    /// the model knows; otherwise 0. Every label is likely enough if the model has one per text and is not calibrated. Of a
    /// model of which any number of labels may apply, 1 if none does: `kinglet_model_given` returns all that do.
    pub unsure: u32,
}

impl Answer {
    /// Creates the answer of an engine or a model.
    pub(crate) fn new(answer: &answer::Answer<'_>) -> Self {
        let best = answer.best();
        Answer { label: best.class, probability: best.probability, unsure: u32::from(answer.label().is_none()) }
    }
}

/// Returns the bytes of memory that `kinglet_engine_init` needs for this bundle, at any address. Only reads the
/// bundle's configuration; the engine checks the rest.
///
/// `chunk`: as in kinglet_options, 0 for the default. `bytes`: receives the number; SIZE_MAX if it exceeds the address
/// space.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_bytes(
    bundle: *const u8,
    bundle_bytes: usize,
    chunk: u32,
    bytes: *mut usize,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (bundle, to) = unsafe { (border::slice(bundle, bundle_bytes)?, border::place(bytes)?) };
        let Some(config) = Bundle::peek_config(bundle) else {
            // Reports what is wrong with it.
            Bundle::new_unverified(bundle)?;
            return Err(Status::BundleDamaged.into());
        };
        config.validate().map_err(|error| Error::new(Status::BundleDamaged, error))?;
        to.write(place::bytes(&config, options::chunk(chunk)?));
        Ok(())
    })
}

/// Creates an engine inside the caller's memory, for a bundle in memory or flash. Allocates nothing, and there is
/// nothing to free: when the engine is no longer used, the memory is the caller's again.
///
/// `memory`: `memory_bytes` bytes, at least as many as `kinglet_engine_bytes` returns, at a multiple of
/// KINGLET_ENGINE_ALIGN, with any content. They belong to the engine, and must not move, as long as it is in use.
/// `bundle`: the bytes of a model.kinglet file, at a multiple of 4 (preferably 64). They are checked completely and
/// read in place, and must not change as long as the engine is in use.
/// `options`: null for the defaults.
/// `engine`: receives the engine, or null on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_init(
    memory: *mut c_void,
    memory_bytes: usize,
    bundle: *const u8,
    bundle_bytes: usize,
    options: *const Options,
    engine: *mut *mut Engine,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers, and that bundle and memory outlive the engine's use.
        unsafe {
            let to = border::place(engine)?;
            to.write(core::ptr::null_mut());
            let options = EngineOptions::new(options)?;
            if bundle.is_null() {
                return Err(Status::NullPointer.into());
            }
            // As bytes they need no alignment; the bundle reports what it needs.
            let bytes = border::slice(bundle, bundle_bytes)?;
            let bundle = if options.verify { Bundle::new(bytes)? } else { Bundle::new_unverified(bytes)? };
            to.write(place::build(memory, memory_bytes, bundle, options)?);
        }
        Ok(())
    })
}

/// Returns the number of labels, the length of scores and probabilities; 0 for null and for a model that embeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_num_labels(engine: *const Engine) -> usize {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(engine) }.and_then(Engine::labels).unwrap_or(0)
}

/// Returns the number of values of a vector; 0 for null and for a model that classifies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_dimension(engine: *const Engine) -> usize {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(engine) }.and_then(Engine::dimension).unwrap_or(0)
}

/// Returns the name of a label, from the bundle: UTF-8 that is NOT zero-terminated. Print it with "%.*s".
///
/// `label`: from 0. `name`, `name_bytes`: receive its address, valid as long as the bundle is, and its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_label(
    engine: *const Engine,
    label: usize,
    name: *mut *const c_char,
    name_bytes: *mut usize,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (engine, to, bytes) = unsafe { (border::get(engine)?, border::place(name)?, border::place(name_bytes)?) };
        let labels = engine.labels()?;
        let found = engine.model().labels().get(label).ok_or_else(|| no_such(label, labels))?;
        to.write(found.as_ptr().cast());
        bytes.write(found.len());
        Ok(())
    })
}

/// Returns the error for a label that does not exist.
fn no_such(label: usize, labels: usize) -> Error {
    Error::new(Status::NoSuchLabel, format_args!("there is no label {label}: the model has {labels}, from 0"))
}

/// Returns whether the model is calibrated: 1 or 0, 0 for null. Otherwise probabilities are a plain softmax, no answer
/// is unsure and there are no label sets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_calibrated(engine: *const Engine) -> u32 {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(engine) }.map_or(0, |engine| u32::from(engine.model().decision().is_calibrated()))
}

/// Returns whether any number of labels may apply to a text: 1 or 0, 0 for null. Probabilities are then those of each label
/// for itself, and `kinglet_engine_given` says which labels are the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_multi_label(engine: *const Engine) -> u32 {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(engine) }.map_or(0, |engine| u32::from(engine.model().decision().is_multi_label()))
}

/// Returns the number of final tokens of the text so far; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_tokens(engine: *const Engine) -> u64 {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(engine) }.map_or(0, |engine| engine.0.tokens())
}

/// Writes the name of the backend in use, as in kinglet_options, to `name`: zero-terminated, truncated to fit.
///
/// `room`: bytes of `name`, at least 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_backend(engine: *const Engine, name: *mut c_char, room: usize) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (engine, out) = unsafe { (border::get(engine)?, border::slice_mut(name.cast::<u8>(), room)?) };
        // The rest of `out` is already zero.
        let Some((_, out)) = out.split_last_mut() else { return Err(Status::WrongLength.into()) };
        out.iter_mut().zip(engine.0.engine().backend().name().bytes()).for_each(|(to, from)| *to = from);
        Ok(())
    })
}

/// Pushes the next bytes of the text. The text may be cut anywhere, even inside a character; the scores are, bit for
/// bit, those of the text at once. Invalid UTF-8 is read as U+FFFD.
///
/// After a failure the text cannot be scored, and every call reports it until `kinglet_engine_reset`.
///
/// `text`: `text_bytes` bytes of UTF-8; zero bytes are part of the text. Null is allowed if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_push(engine: *mut Engine, text: *const c_char, text_bytes: usize) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (engine, text) = unsafe { (border::get_mut(engine)?, border::slice(text.cast::<u8>(), text_bytes)?) };
        Ok(engine.0.push(text)?)
    })
}

/// Returns the scores of the text so far, over the tokens whose neighbours have all been seen. Later text is scored as
/// if there had been no snapshot.
///
/// `scores`: room for `count` floats, the number of labels; receives the scores before softmax.
/// `tokens`: receives the number of tokens they cover; 0 if there is none yet, in which case the scores are zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_snapshot(
    engine: *mut Engine,
    scores: *mut f32,
    count: usize,
    tokens: *mut u32,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (engine, to) = unsafe { (border::get_mut(engine)?, border::place(tokens)?) };
        to.write(0);
        one_a_label(count, engine.labels()?)?;
        // SAFETY: as above.
        let scores = unsafe { border::slice_mut(scores, count)? };
        to.write(engine.0.snapshot(scores)?.unwrap_or(0));
        Ok(())
    })
}

/// Ends the text and returns its scores; the engine is then at the beginning of the next text. An empty text has scores
/// too.
///
/// `scores`: room for `count` floats, the number of labels; receives the scores before softmax. If `scores` is null or
/// `count` wrong, the text continues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_finish(engine: *mut Engine, scores: *mut f32, count: usize) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let engine = unsafe { border::get_mut(engine)? };
        one_a_label(count, engine.labels()?)?;
        // SAFETY: as above.
        let scores = unsafe { border::slice_mut(scores, count)? };
        engine.0.finish(scores)?;
        Ok(())
    })
}

/// Ends the text and returns its vector, of length 1, or of zeros if the model says nothing about the text. The sum of the
/// products of two vectors is their cosine. The engine is then at the beginning of the next text. Fails if the model
/// classifies.
///
/// `vector`: room for `count` floats, `kinglet_engine_dimension` of them. If `vector` is null or `count` wrong, the text
/// continues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_embed(engine: *mut Engine, vector: *mut f32, count: usize) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let engine = unsafe { border::get_mut(engine)? };
        one_a_value(count, engine.dimension()?)?;
        // SAFETY: as above.
        let vector = unsafe { border::slice_mut(vector, count)? };
        engine.0.finish(vector)?;
        normalized(vector)
    })
}

/// Makes the length of a vector 1; a vector with a value that is not a number becomes zeros.
pub(crate) fn normalized(vector: &mut [f32]) -> Result<(), Error> {
    Ok(normalize(vector).inspect_err(|_| vector.fill(0.0))?)
}

/// Discards the text so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_reset(engine: *mut Engine) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        unsafe { border::get_mut(engine)? }.0.reset();
        Ok(())
    })
}

/// Computes the probability of each label: softmax of the scores, with the model's temperature if it is calibrated; the
/// logistic function of each score if any number of labels may apply.
///
/// `scores`: `count` floats, the number of labels, from `kinglet_engine_finish` or `kinglet_engine_snapshot`.
/// `probabilities`: room for as many; must not overlap `scores`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_probabilities(
    engine: *const Engine,
    scores: *const f32,
    count: usize,
    probabilities: *mut f32,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let engine = unsafe { border::get(engine)? };
        one_a_label(count, engine.labels()?)?;
        border::apart(scores, probabilities, count)?;
        // SAFETY: as above; the two do not overlap.
        let (scores, out) = unsafe { (border::slice(scores, count)?, border::slice_mut(probabilities, count)?) };
        answer::Answer::from_logits(scores, engine.model().decision(), out)?;
        Ok(())
    })
}

/// Computes the answer from probabilities: the most likely label, and whether it is likely enough. The answer is for the
/// engine's current text, or for its last one: it is unsure if that has no letter, digit or symbol that the model knows.
///
/// `probabilities`: `count` floats, the number of labels, from `kinglet_engine_probabilities`. `answer`: receives the
/// answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_answer(
    engine: *const Engine,
    probabilities: *const f32,
    count: usize,
    answer: *mut Answer,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (engine, to) = unsafe { (border::get(engine)?, border::place(answer)?) };
        one_a_label(count, engine.labels()?)?;
        // SAFETY: as above.
        let probabilities = unsafe { border::slice(probabilities, count)? };
        let answer = answer::Answer::from_probabilities(probabilities, engine.model().decision())?;
        to.write(Answer::new(&answer.with_blank(engine.0.blank())));
        Ok(())
    })
}

/// Returns the labels that are the answer: of a model of which any number may apply, each whose probability exceeds its
/// threshold; of another one, the most likely one unless the answer is unsure. As `kinglet_engine_answer` it is for the
/// engine's current text, or for its last one.
///
/// `probabilities`: `count` floats, the number of labels, from `kinglet_engine_probabilities`.
/// `members`: room for `count` bytes; receives 1 for each label that is given and 0 for the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_given(
    engine: *const Engine,
    probabilities: *const f32,
    count: usize,
    members: *mut u8,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let engine = unsafe { border::get(engine)? };
        one_a_label(count, engine.labels()?)?;
        // SAFETY: as above.
        let (probabilities, members) =
            unsafe { (border::slice(probabilities, count)?, border::slice_mut(members, count)?) };
        let answer = answer::Answer::from_probabilities(probabilities, engine.model().decision())?;
        mark(answer.with_blank(engine.0.blank()).labels(), members);
        Ok(())
    })
}

/// Sets the bytes of labels to 1.
pub(crate) fn mark(labels: impl Iterator<Item = answer::Prediction>, members: &mut [u8]) {
    for label in labels {
        if let Some(member) = members.get_mut(label.class) {
            *member = 1;
        }
    }
}

/// Returns the labels expected to include the correct one (a conformal set), or of a model of which any number may apply, a
/// share of a text's labels on average. Fails if the model is not calibrated.
///
/// `probabilities`: `count` floats, the number of labels, from `kinglet_engine_probabilities`.
/// `members`: room for `count` bytes; receives 1 for each label of the set and 0 for the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_set(
    engine: *const Engine,
    probabilities: *const f32,
    count: usize,
    members: *mut u8,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let engine = unsafe { border::get(engine)? };
        one_a_label(count, engine.labels()?)?;
        // SAFETY: as above.
        let (probabilities, members) =
            unsafe { (border::slice(probabilities, count)?, border::slice_mut(members, count)?) };
        let decision = engine.model().decision();
        if !decision.is_calibrated() {
            return Err(Status::NotCalibrated.into());
        }
        let answer = answer::Answer::from_probabilities(probabilities, decision)?;
        mark(answer.set().into_iter().flatten(), members);
        Ok(())
    })
}
