//! Engines: in memory that somebody else owns, state first and scratch after it, or on the heap.

use core::ffi::c_void;
use core::mem::size_of;
use core::slice;
#[cfg(feature = "std")]
use std::{sync::Arc, vec::Vec};

use runtime::answer::classes;
use runtime::bundle::{Bundle, Index, ReadBundle};
#[cfg(feature = "std")]
use runtime::bundle::{BundleFile, OwnedBundle};
use runtime::engine::native::{BorrowedEngine, NativeEngine, Scratch, scratch_bytes};
use runtime::spec::Config;
use runtime::stream::Stream;
use runtime::tokenizer::Encoder;
use runtime::vector::dimension;

use crate::options::EngineOptions;
use crate::status::{Error, Status};

/// Required alignment of memory for an engine.
pub const KINGLET_ENGINE_ALIGN: usize = 8;

/// The bytes that `kinglet info` prints under "memory beyond the file" in the line "all", plus this many, are enough
/// memory for an engine on every processor. `kinglet_engine_bytes` returns the exact number.
pub const KINGLET_ENGINE_EXTRA: usize = 64;

// What `kinglet info` counts as engine and tokenizer.
const COUNTED: usize = size_of::<BorrowedEngine<'static>>() + size_of::<Encoder>();
const _: () = assert!(size_of::<Engine>() <= COUNTED + KINGLET_ENGINE_EXTRA);
const _: () = assert!(align_of::<Engine>() <= KINGLET_ENGINE_ALIGN);

/// Runs a model on one text after the other. One thread at a time may use it.
pub struct Engine(pub(crate) Stream<NativeEngine<EngineBundle, Memory>>);

/// The bundle that an engine runs.
#[allow(clippy::large_enum_variant)] // there is nowhere to put a box without a heap
pub(crate) enum EngineBundle {
    /// The caller keeps its bytes in place.
    Borrowed(Bundle<'static>),
    /// The engine belongs to a model and keeps the bytes alive.
    #[cfg(feature = "std")]
    Shared(Arc<OwnedBundle<BundleFile>>),
}

impl ReadBundle for EngineBundle {
    fn index(&self) -> &Index {
        match self {
            EngineBundle::Borrowed(bundle) => bundle.index(),
            #[cfg(feature = "std")]
            EngineBundle::Shared(bundle) => bundle.index(),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            EngineBundle::Borrowed(bundle) => bundle.as_bytes(),
            #[cfg(feature = "std")]
            EngineBundle::Shared(bundle) => ReadBundle::as_bytes(bundle),
        }
    }
}

/// The scratch memory of an engine.
pub(crate) enum Memory {
    /// The caller's, after the engine.
    Given(&'static mut [u8]),
    /// The engine's own.
    #[cfg(feature = "std")]
    Owned(Vec<u8>),
}

impl Scratch for Memory {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Given(bytes) => bytes,
            #[cfg(feature = "std")]
            Memory::Owned(bytes) => bytes,
        }
    }
}

impl Engine {
    pub(crate) fn model(&self) -> &EngineBundle {
        self.0.engine().model()
    }

    /// Returns the number of labels, or an error if the model embeds.
    pub(crate) fn labels(&self) -> Result<usize, Error> {
        Ok(classes(self.model().config())?)
    }

    /// Returns the number of values of a vector, or an error if the model classifies.
    pub(crate) fn dimension(&self) -> Result<usize, Error> {
        Ok(dimension(self.model().config())?)
    }
}

/// Returns the bytes that an engine needs; saturates.
pub(crate) const fn bytes(config: &Config, chunk: usize) -> usize {
    scratch_bytes(config, chunk).saturating_add(size_of::<Engine>())
}

/// Creates an engine at the start of `memory`. Nothing in it needs to be dropped.
///
/// # Safety
/// `memory`, unless null, points to `memory_bytes` bytes that nobody else uses as long as the engine is in use; the
/// bytes of `bundle` stay unchanged as long.
pub(crate) unsafe fn build(
    memory: *mut c_void,
    memory_bytes: usize,
    bundle: Bundle<'static>,
    options: EngineOptions,
) -> Result<*mut Engine, Error> {
    if memory.is_null() {
        return Err(Status::NullPointer.into());
    }
    let address = memory.addr();
    if !address.is_multiple_of(KINGLET_ENGINE_ALIGN) {
        let detail = "the memory for the engine starts at an address that is not a multiple of KINGLET_ENGINE_ALIGN";
        return Err(Error::new(Status::Misaligned, detail));
    }
    let scratch = scratch_bytes(bundle.config(), options.chunk);
    let need = bytes(bundle.config(), options.chunk);
    if memory_bytes < need {
        let detail = format_args!("the engine needs {need} bytes, its memory has {memory_bytes}");
        return Err(Error::new(Status::ArenaTooSmall, detail));
    }
    let place = memory.cast::<Engine>();
    // SAFETY: `memory` has `need` bytes, the size of an `Engine` and the scratch behind it, and nobody else uses them; what
    // is seen as a slice was written before. `need` is not saturated, as no memory has as many bytes.
    let scratch: &'static mut [u8] = unsafe {
        let begin = place.add(1).cast::<u8>();
        begin.write_bytes(0, scratch);
        slice::from_raw_parts_mut(begin, scratch)
    };
    let (model, memory) = (EngineBundle::Borrowed(bundle), Memory::Given(scratch));
    let engine = Engine(Stream::new(NativeEngine::with_chunk(model, memory, options.backend, options.chunk)?));
    // SAFETY: the place is aligned to more than an `Engine` asks for and large enough for it.
    unsafe { place.write(engine) };
    Ok(place)
}
