//! Models on the heap, shared by threads. Each thread that scores takes an engine from the model's pool.

use core::ffi::{CStr, c_char};
use std::boxed::Box;
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use runtime::answer;
use runtime::bundle::{BundleFile, OwnedBundle, ReadBundle};
use runtime::engine::native::{NativeEngine, scratch_bytes};
use runtime::pool::{EnginePool, PooledEngine};
use runtime::stream::Stream;
use runtime::tokenizer::Blank;
use runtime::vector;

use crate::border::{self, border};
use crate::engine::{Answer, mark, normalized};
use crate::options::{EngineOptions, Options};
use crate::place::{Engine, EngineBundle, Memory};
use crate::status::{Error, Status};

/// A model, ready to classify. Any number of threads may use it at the same time.
pub struct Model {
    pub(crate) engines: EnginePool<Arc<OwnedBundle<BundleFile>>>,
    pub(crate) labels: Vec<CString>,
    backend: CString,
    /// Rows of an engine's chunk.
    chunk: usize,
}

impl Model {
    fn new(file: BundleFile, options: EngineOptions) -> Result<Self, Error> {
        let EngineOptions { backend, chunk, verify } = options;
        let bundle = Arc::new(OwnedBundle::over(file, verify)?);
        let text = |text: &str| CString::new(text.replace('\0', "\u{FFFD}")).unwrap_or_default();
        let labels = bundle.labels().iter().map(text).collect();
        let engines = EnginePool::new(bundle).with_backend(backend).with_chunk(chunk);
        // There is memory for at least one engine.
        engines.give(engines.take()?);
        Ok(Model { engines, labels, backend: text(backend.name()), chunk })
    }

    /// Returns the number of labels, or an error if the model embeds.
    pub(crate) fn classes(&self) -> Result<usize, Error> {
        Ok(answer::classes(self.engines.model().config())?)
    }

    /// Returns the number of values of a vector, or an error if the model classifies.
    fn dimension(&self) -> Result<usize, Error> {
        Ok(vector::dimension(self.engines.model().config())?)
    }

    /// Scores one text. `scores`, `room`: `[num_labels]`; `room` gets the probabilities if an answer is asked for.
    pub(crate) fn text(
        &self,
        engine: &mut PooledEngine<Arc<OwnedBundle<BundleFile>>>,
        text: &[u8],
        scores: &mut [f32],
        room: &mut [f32],
        to: Option<&mut Answer>,
    ) -> Result<(), Error> {
        let blank = self.scores(engine, text, scores)?;
        if let Some(to) = to {
            let answer = answer::Answer::from_logits(scores, self.engines.model().decision(), room)?;
            *to = Answer::new(&answer.with_blank(blank));
        }
        Ok(())
    }

    /// Scores one text, `[num_labels]`; returns why it has no label, if that is so.
    pub(crate) fn scores(
        &self,
        engine: &mut PooledEngine<Arc<OwnedBundle<BundleFile>>>,
        text: &[u8],
        scores: &mut [f32],
    ) -> Result<Option<Blank>, Error> {
        let mut stream = Stream::new(engine);
        stream.push(text)?;
        stream.finish(scores)?;
        Ok(stream.blank())
    }
}

/// Opens a model.kinglet file: maps it into memory and checks all of it. The file must not be modified or truncated while the
/// model is in use, which would end the process with SIGBUS; replacing it by another file is safe. `kinglet_model_from_bytes` copies.
///
/// `path`: zero-terminated; on Windows UTF-8. `options`: null for the defaults.
/// `model`: receives the model, to be freed with `kinglet_model_free`, or null on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_open(
    path: *const c_char,
    options: *const Options,
    model: *mut *mut Model,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (to, path, options) = unsafe {
            let to = border::place(model)?;
            to.write(core::ptr::null_mut());
            (to, border::string(path)?, EngineOptions::new(options)?)
        };
        let path = file_name(path)?;
        let file = BundleFile::map(path)
            .map_err(|error| Error::new(Status::File, format_args!("cannot read {}: {error}", path.display())))?;
        let opened = Model::new(file, options)
            .map_err(|error| Error::new(error.status, format_args!("{}: {}", path.display(), error.message)))?;
        to.write(Box::into_raw(Box::new(opened)));
        Ok(())
    })
}

#[cfg(unix)]
fn file_name(path: &CStr) -> Result<&Path, Error> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())))
}

#[cfg(not(unix))]
fn file_name(path: &CStr) -> Result<&Path, Error> {
    let path = path.to_str().map_err(|_| Error::new(Status::InvalidArgument, "the path is not UTF-8"))?;
    Ok(Path::new(path))
}

/// Makes a model of the bytes of a file model.kinglet, which are copied and checked completely.
///
/// `bundle`: `bundle_bytes` bytes at any address, free to go when the call returns. `options`: null for the defaults.
/// `model`: gets the model, to be freed with `kinglet_model_free`; null when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_from_bytes(
    bundle: *const u8,
    bundle_bytes: usize,
    options: *const Options,
    model: *mut *mut Model,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (to, bytes, options) = unsafe {
            let to = border::place(model)?;
            to.write(core::ptr::null_mut());
            if bundle.is_null() {
                return Err(Status::NullPointer.into());
            }
            (to, border::slice(bundle, bundle_bytes)?, EngineOptions::new(options)?)
        };
        let model = Model::new(BundleFile::from_bytes(bytes), options)?;
        to.write(Box::into_raw(Box::new(model)));
        Ok(())
    })
}

/// Frees a model. Engines that it made go on working until they are freed themselves. Does nothing with null. Afterwards the
/// handle is no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_free(model: *mut Model) {
    border(|| {
        if !model.is_null() {
            // SAFETY: the caller's promise: made by this library with `Box::into_raw`, not freed, used by nobody else.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// Returns the number of labels; 0 for null and for a model that embeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_num_labels(model: *const Model) -> usize {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.map_or(0, |model| model.labels.len())
}

/// Returns the number of values of a vector; 0 for null and for a model that classifies.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_dimension(model: *const Model) -> usize {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.and_then(Model::dimension).unwrap_or(0)
}

/// Returns the name of a label, from 0: zero-terminated UTF-8, valid as long as the model is. Null if there is no such
/// label.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_label(model: *const Model, label: usize) -> *const c_char {
    // SAFETY: the caller's promise about pointers.
    let model = unsafe { border::get(model) };
    let name = model.ok().and_then(|model| model.labels.get(label));
    name.map_or(core::ptr::null(), |name| name.as_ptr())
}

/// Returns the name of the backend in use, as in kinglet_options, valid as long as the model is; null for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_backend(model: *const Model) -> *const c_char {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.map_or(core::ptr::null(), |model| model.backend.as_ptr())
}

/// Classifies one text.
///
/// `text`: `text_bytes` bytes of UTF-8; invalid parts are read as U+FFFD. Null is allowed if there are none.
/// `answer`: receives the answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_classify(
    model: *const Model,
    text: *const c_char,
    text_bytes: usize,
    answer: *mut Answer,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (model, text, to) =
            unsafe { (border::get(model)?, border::slice(text.cast::<u8>(), text_bytes)?, border::place(answer)?) };
        let labels = model.classes()?;
        let (mut scores, mut room) = (vec![0.0; labels], vec![0.0; labels]);
        let mut found = Answer { label: 0, probability: 0.0, unsure: 1 };
        model.engines.with(|engine| model.text(engine, text, &mut scores, &mut room, Some(&mut found)))??;
        to.write(found);
        Ok(())
    })
}

/// Returns the labels of one text: of a model of which any number may apply, each whose probability exceeds its threshold;
/// of another one, the most likely one unless the answer is unsure.
///
/// `text`: `text_bytes` bytes of UTF-8; invalid parts are read as U+FFFD. Null is allowed if there are none.
/// `members`: room for `count` bytes, the number of labels; receives 1 for each label that is given and 0 for the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_given(
    model: *const Model,
    text: *const c_char,
    text_bytes: usize,
    members: *mut u8,
    count: usize,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (model, text) = unsafe { (border::get(model)?, border::slice(text.cast::<u8>(), text_bytes)?) };
        let labels = model.classes()?;
        border::one_a_label(count, labels)?;
        // SAFETY: as above.
        let members = unsafe { border::slice_mut(members, count)? };
        let (mut scores, mut room) = (vec![0.0; labels], vec![0.0; labels]);
        let blank = model.engines.with(|engine| {
            let mut stream = Stream::new(engine);
            stream.push(text)?;
            stream.finish(&mut scores)?;
            Ok::<_, Error>(stream.blank())
        })??;
        let answer = answer::Answer::from_logits(&scores, model.engines.model().decision(), &mut room)?;
        mark(answer.with_blank(blank).labels(), members);
        Ok(())
    })
}

/// Returns whether any number of labels may apply to a text: 1 or 0, 0 for null. `kinglet_model_given` returns those that do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_multi_label(model: *const Model) -> u32 {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.map_or(0, |model| u32::from(model.engines.model().decision().is_multi_label()))
}

/// Embeds one text: returns its vector, of length 1, or of zeros if the model says nothing about the text. The sum of the
/// products of two vectors is their cosine. Fails if the model classifies.
///
/// `text`: `text_bytes` bytes of UTF-8; invalid parts are read as U+FFFD. Null is allowed if there are none.
/// `vector`: room for `count` floats, `kinglet_model_dimension` of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_embed(
    model: *const Model,
    text: *const c_char,
    text_bytes: usize,
    vector: *mut f32,
    count: usize,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (model, text) = unsafe { (border::get(model)?, border::slice(text.cast::<u8>(), text_bytes)?) };
        border::one_a_value(count, model.dimension()?)?;
        // SAFETY: as above.
        let vector = unsafe { border::slice_mut(vector, count)? };
        model.engines.with(|engine| model.text(engine, text, vector, &mut [], None))??;
        normalized(vector)
    })
}

/// Creates an engine of the model, for a text that arrives in parts. It is on the heap: free it with
/// `kinglet_engine_free`, before or after the model.
///
/// `engine`: receives the engine, or null on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_engine(model: *const Model, engine: *mut *mut Engine) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (to, model) = unsafe {
            let to = border::place(engine)?;
            to.write(core::ptr::null_mut());
            (to, border::get(model)?)
        };
        let bundle = Arc::clone(model.engines.model());
        let need = scratch_bytes(bundle.config(), model.chunk);
        let mut scratch = Vec::new();
        if scratch.try_reserve_exact(need).is_err() {
            let detail = format_args!("not enough memory for an engine of {need} bytes");
            return Err(Error::new(Status::OutOfMemory, detail));
        }
        scratch.resize(need, 0);
        let (bundle, memory) = (EngineBundle::Shared(bundle), Memory::Owned(scratch));
        let engine = NativeEngine::with_chunk(bundle, memory, *model.engines.backend(), model.chunk)?;
        to.write(Box::into_raw(Box::new(Engine(Stream::new(engine)))));
        Ok(())
    })
}

/// Frees an engine created by `kinglet_model_engine` and discards its text. Does nothing with null, or with an engine
/// in the caller's own memory, which has nothing to free. The handle is invalid afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_free(engine: *mut Engine) {
    border(|| {
        if engine.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise: an engine of this library, not freed, used by nobody else. Those that share a model were made
        // with `Box::into_raw`.
        unsafe {
            if matches!(border::get(engine)?.model(), EngineBundle::Shared(_)) {
                drop(Box::from_raw(engine));
            }
        }
        Ok(())
    });
}
