//! Models on the heap, shared by threads. Each thread that scores takes an engine of the model's; engines that nobody uses wait
//! for the next call.

use core::ffi::{CStr, c_char};
use std::boxed::Box;
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;
use std::vec::Vec;

use runtime::bundle::{Bundle, BundleFile};

use crate::border::{self, border};
use crate::engine::{Answer, Engine, Options, answer, probabilities};
use crate::place::Plan;
use crate::status::{Error, Status};
use crate::worker::Worker;

/// A model, ready to classify. Any number of threads may use it at the same time.
pub struct Model(pub(crate) Arc<Shared>);

/// What a model and its engines hold together.
pub(crate) struct Shared {
    /// Engines that nobody uses now. Dropped before what they read.
    idle: Mutex<Vec<Worker>>,
    /// Reads the bytes of `file`.
    bundle: Bundle<'static>,
    plan: Plan,
    pub(crate) labels: Vec<CString>,
    backend: CString,
    /// Kept for its bytes; never changes, and its bytes never move.
    _file: BundleFile,
}

impl Shared {
    fn new(file: BundleFile, plan: Plan) -> Result<Self, Error> {
        let bytes = file.as_slice();
        // SAFETY: the bytes are mapped or on the heap, stay where they are when `file` is moved, and live as long as `file`,
        // which is dropped after everything that reads them: engines in other hands keep this value by an `Arc`.
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        let bundle = plan.read(bytes)?;
        let text = |text: &str| CString::new(text.replace('\0', "\u{FFFD}")).unwrap_or_default();
        let labels = bundle.labels().iter().map(text).collect();
        let backend = text(plan.backend.name());
        let shared = Shared { idle: Mutex::default(), bundle, plan, labels, backend, _file: file };
        // There is memory for at least one.
        let worker = shared.worker()?;
        shared.give_back(worker);
        Ok(shared)
    }

    /// An engine that nobody else uses.
    pub(crate) fn worker(&self) -> Result<Worker, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // SAFETY: a worker stays in this value, is dropped by the call that took it, or keeps this value by an `Arc`.
        idle.map_or_else(|| unsafe { Worker::new(&self.bundle, self.plan) }, Ok)
    }

    pub(crate) fn give_back(&self, worker: Worker) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
    }

    /// Scores one text. `scores`, `room`: `[num_labels]`; `room` gets the probabilities if an answer is asked for.
    pub(crate) fn text(
        &self,
        worker: &mut Worker,
        text: &[u8],
        scores: &mut [f32],
        room: &mut [f32],
        to: Option<&mut Answer>,
    ) -> Result<(), Error> {
        worker.engine().score(text, scores)?;
        if let Some(to) = to {
            probabilities(&self.bundle, scores, room)?;
            *to = answer(&self.bundle, room)?;
        }
        Ok(())
    }
}

/// Opens a file model.kinglet: maps it into memory and checks all of it. It must not be changed while the model is in use; a
/// file that replaces it does no harm.
///
/// `path`: ends with a zero byte; on Windows UTF-8. `options`: null for the defaults.
/// `model`: gets the model, to be freed with `kinglet_model_free`; null when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_open(
    path: *const c_char,
    options: *const Options,
    model: *mut *mut Model,
) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (to, path, plan) = unsafe {
            let to = border::place(model)?;
            to.write(core::ptr::null_mut());
            (to, border::string(path)?, Plan::new(options)?)
        };
        let path = file_name(path)?;
        let file = BundleFile::open(path)
            .map_err(|error| Error::new(Status::File, format_args!("cannot read {}: {error}", path.display())))?;
        let shared = Shared::new(file, plan)
            .map_err(|error| Error::new(error.status, format_args!("{}: {}", path.display(), error.message)))?;
        to.write(Box::into_raw(Box::new(Model(Arc::new(shared)))));
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
        let (to, bytes, plan) = unsafe {
            let to = border::place(model)?;
            to.write(core::ptr::null_mut());
            if bundle.is_null() {
                return Err(Status::NullPointer.into());
            }
            (to, border::slice(bundle, bundle_bytes)?, Plan::new(options)?)
        };
        let shared = Shared::new(BundleFile::from_bytes(bytes), plan)?;
        to.write(Box::into_raw(Box::new(Model(Arc::new(shared)))));
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

/// Number of labels; 0 of null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_num_labels(model: *const Model) -> usize {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.map_or(0, |model| model.0.labels.len())
}

/// The name of a label, from 0: UTF-8 with a zero byte behind, for as long as the model is there. Null when there is no such label.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_label(model: *const Model, label: usize) -> *const c_char {
    // SAFETY: the caller's promise about pointers.
    let model = unsafe { border::get(model) };
    let name = model.ok().and_then(|model| model.0.labels.get(label));
    name.map_or(core::ptr::null(), |name| name.as_ptr())
}

/// The name of the backend that runs, as in kinglet_options, for as long as the model is there; null of null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_backend(model: *const Model) -> *const c_char {
    // SAFETY: the caller's promise about pointers.
    unsafe { border::get(model) }.map_or(core::ptr::null(), |model| model.0.backend.as_ptr())
}

/// Classifies one text.
///
/// `text`: `text_bytes` bytes of UTF-8, invalid parts of which are read as U+FFFD. Null is fine where there are none.
/// `answer`: gets the answer.
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
        let shared = &*model.0;
        let labels = shared.labels.len();
        let (mut scores, mut room) = (vec![0.0; labels], vec![0.0; labels]);
        let mut worker = shared.worker()?;
        let mut found = Answer { label: 0, probability: 0.0, unsure: 1 };
        let result = shared.text(&mut worker, text, &mut scores, &mut room, Some(&mut found));
        shared.give_back(worker);
        result?;
        to.write(found);
        Ok(())
    })
}

/// Makes an engine of the model's, for a text that comes in parts. It is on the heap: free it with `kinglet_engine_free`, before the
/// model or after it.
///
/// `engine`: gets the engine; null when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_model_engine(model: *const Model, engine: *mut *mut Engine) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (to, model) = unsafe {
            let to = border::place(engine)?;
            to.write(core::ptr::null_mut());
            (to, border::get(model)?)
        };
        // SAFETY: the worker is handed out with an `Arc` of what its bundle belongs to.
        let worker = unsafe { Worker::new(&model.0.bundle, model.0.plan)? };
        to.write(worker.into_handle(Arc::clone(&model.0)));
        Ok(())
    })
}
