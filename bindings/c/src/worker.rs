//! Engines on the heap: the memory of [`crate::place`], allocated.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use runtime::bundle::Bundle;

use crate::engine::Engine;
use crate::model::Shared;
use crate::place::{self, Plan};
use crate::status::{Error, Status};

/// Memory for engines begins with a cache line.
const ALIGN: usize = 64;
const _: () = assert!(ALIGN.is_multiple_of(place::KINGLET_ENGINE_ALIGN));

/// What an engine on the heap knows of its memory.
pub(crate) struct Owner {
    layout: Layout,
    /// Keeps the bundle's bytes for as long as an engine is in somebody's hands; `None` in the model's own pool, which the model
    /// outlives anyway.
    model: Option<Arc<Shared>>,
}

/// An engine with its memory, freed when dropped.
pub(crate) struct Worker(NonNull<Engine>);

// SAFETY: an engine holds references to its own memory and to bytes that nobody changes, tables of functions, and with them an
// `Arc` of what may be shared between threads.
unsafe impl Send for Worker {}

impl Worker {
    /// Allocates an engine.
    ///
    /// # Safety
    /// The bytes of the bundle outlive the worker.
    pub(crate) unsafe fn new(bundle: &Bundle<'static>, plan: Plan) -> Result<Self, Error> {
        let bytes = place::bytes(bundle.config(), plan.chunk);
        let memory =
            || Error::new(Status::OutOfMemory, format_args!("there is no memory for an engine of {bytes} bytes"));
        let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| memory())?;
        // SAFETY: an engine has a size above 0.
        let place = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(memory)?;
        // SAFETY: the memory is new, has `bytes` bytes, and is the worker's alone; the bundle's bytes are the caller's promise.
        let built = unsafe { place::build(place.as_ptr().cast(), bytes, bundle.clone(), plan) };
        let engine = match built {
            Ok(engine) => engine,
            Err(error) => {
                // SAFETY: allocated above with this layout; there is no engine in it.
                unsafe { dealloc(place.as_ptr(), layout) };
                return Err(error);
            }
        };
        // SAFETY: the engine was just made; nobody else has its address.
        unsafe { (*engine).owner = Some(Owner { layout, model: None }) };
        Ok(Worker(place.cast()))
    }

    pub(crate) fn engine(&mut self) -> &mut Engine {
        // SAFETY: the engine was made by `new`, lives until `drop`, and is the worker's alone.
        unsafe { self.0.as_mut() }
    }

    /// Hands the engine out; `model` is what its bundle belongs to.
    pub(crate) fn into_handle(mut self, model: Arc<Shared>) -> *mut Engine {
        if let Some(owner) = &mut self.engine().owner {
            owner.model = Some(model);
        }
        let engine = self.0.as_ptr();
        core::mem::forget(self);
        engine
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The bundle's bytes may go with the last `Arc`: only when nothing reads them any more.
        let Some(Owner { layout, model }) = self.engine().owner.take() else { return };
        // SAFETY: `new` allocated the memory with this layout, and the address of an engine is that of its memory. What else is in it
        // needs no dropping.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
        drop(model);
    }
}

/// Frees an engine that `kinglet_model_engine` made; its text is forgotten. Does nothing with null, nor with an engine in
/// the caller's own memory, which has nothing to free. Afterwards the handle is no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_engine_free(engine: *mut Engine) {
    crate::border::border(|| {
        let Some(engine) = NonNull::new(engine) else { return Ok(()) };
        // SAFETY: the caller's promise: an engine, used by nobody else.
        if unsafe { engine.as_ref() }.owner.is_some() {
            drop(Worker(engine));
        }
        Ok(())
    });
}
