//! An engine inside memory that somebody else owns: its state first, the scratch behind.

use core::ffi::c_void;
use core::mem::size_of;
use core::slice;

use runtime::backend::Backend;
use runtime::bundle::Bundle;
use runtime::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use runtime::spec::Config;
use runtime::stream::Stream;
use runtime::tokenizer::Encoder;

use crate::border;
use crate::engine::{Engine, KINGLET_UNVERIFIED, Options};
use crate::status::{Error, Status};

/// What memory for an engine is aligned to.
pub const KINGLET_ENGINE_ALIGN: usize = 8;

/// Memory of as many bytes as `kinglet info` prints under "memory beyond the file" in the line "all", and of this many more, is
/// enough for an engine, on every processor. `kinglet_engine_bytes` gives the exact number.
pub const KINGLET_ENGINE_EXTRA: usize = 64;

// What `kinglet info` counts as engine and tokenizer.
const COUNTED: usize = size_of::<NativeEngine<'static>>() + size_of::<Encoder<'static>>();
const _: () = assert!(size_of::<Place>() <= COUNTED + KINGLET_ENGINE_EXTRA);
const _: () = assert!(align_of::<Place>() <= KINGLET_ENGINE_ALIGN);

/// The begin of the memory. The scratch follows.
#[repr(C)]
pub(crate) struct Place {
    /// First, so that the handle is the address of the memory. Holds the only reference to `native`.
    engine: Engine,
    native: NativeEngine<'static>,
}

/// Options, checked.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) backend: Backend,
    pub(crate) chunk: usize,
    pub(crate) verify: bool,
}

impl Plan {
    /// # Safety
    /// A pointer that is neither null nor misaligned points to options; their name is null or ends with a zero byte.
    pub(crate) unsafe fn new(options: *const Options) -> Result<Self, Error> {
        let mut plan = Plan { backend: Backend::detect(), chunk: DEFAULT_CHUNK, verify: true };
        if options.is_null() {
            return Ok(plan);
        }
        // SAFETY: the caller's promise.
        let options = unsafe { border::get(options)? };
        if options.flags & !KINGLET_UNVERIFIED != 0 {
            let flags = options.flags;
            return Err(Error::new(
                Status::InvalidArgument,
                format_args!("options: the flags are {flags:#x}, unknown"),
            ));
        }
        plan.verify = options.flags & KINGLET_UNVERIFIED == 0;
        plan.chunk = chunk(options.chunk)?;
        if !options.backend.is_null() {
            // SAFETY: the caller's promise.
            let name = unsafe { border::string(options.backend)? };
            let backend = name.to_str().ok().and_then(Backend::by_name);
            plan.backend = backend.ok_or_else(|| unknown(name))?;
        }
        Ok(plan)
    }

    /// Reads a bundle.
    pub(crate) fn read(self, bytes: &'static [u8]) -> Result<Bundle<'static>, Error> {
        Ok(if self.verify { Bundle::new(bytes)? } else { Bundle::new_unverified(bytes)? })
    }
}

/// Most tokens that go through the layers together: more need memory and gain nothing.
pub const KINGLET_MAX_CHUNK: u32 = 65536;

/// The chunk of an option, where 0 is the default.
pub(crate) fn chunk(option: u32) -> Result<usize, Error> {
    match option {
        0 => Ok(DEFAULT_CHUNK),
        1..=KINGLET_MAX_CHUNK => Ok(option as usize),
        _ => {
            let detail = format_args!("a chunk of {option} tokens, at most {KINGLET_MAX_CHUNK} are possible");
            Err(Error::new(Status::InvalidArgument, detail))
        }
    }
}

#[cfg(feature = "std")]
fn unknown(name: &core::ffi::CStr) -> Error {
    use std::string::String;
    let (name, mut known) = (name.to_string_lossy(), String::new());
    for backend in Backend::all() {
        known.push(' ');
        known.push_str(backend.name());
    }
    Error::new(Status::UnknownBackend, format_args!("there is no backend \"{name}\" here; there are:{known}"))
}

#[cfg(not(feature = "std"))]
fn unknown(_: &core::ffi::CStr) -> Error {
    Status::UnknownBackend.into()
}

/// Bytes that an engine needs; saturates.
pub(crate) const fn bytes(config: &Config, chunk: usize) -> usize {
    scratch_bytes(config, chunk).saturating_add(size_of::<Place>())
}

/// Makes an engine at the begin of `memory`. Nothing of it needs to be dropped but [`Engine::owner`].
///
/// # Safety
/// `memory`, unless null, points to `memory_bytes` bytes that nobody else uses as long as the engine is in use; the bytes of
/// `bundle` stay as they are as long.
pub(crate) unsafe fn build(
    memory: *mut c_void,
    memory_bytes: usize,
    bundle: Bundle<'static>,
    plan: Plan,
) -> Result<*mut Engine, Error> {
    if memory.is_null() {
        return Err(Status::NullPointer.into());
    }
    let address = memory.addr();
    if !address.is_multiple_of(KINGLET_ENGINE_ALIGN) {
        let detail = "the memory for the engine lies at an address that is no multiple of KINGLET_ENGINE_ALIGN";
        return Err(Error::new(Status::Misaligned, detail));
    }
    let scratch = scratch_bytes(bundle.config(), plan.chunk);
    let need = bytes(bundle.config(), plan.chunk);
    if memory_bytes < need {
        let detail = format_args!("the engine needs {need} bytes, its memory has {memory_bytes}");
        return Err(Error::new(Status::ArenaTooSmall, detail));
    }
    let place = memory.cast::<Place>();
    // SAFETY: `memory` has `need` bytes, the size of a `Place` and the scratch behind it, and nobody else uses them; what
    // is seen as a slice was written before. `need` is not saturated, as no memory has as many bytes.
    let scratch: &'static mut [u8] = unsafe {
        let begin = place.add(1).cast::<u8>();
        begin.write_bytes(0, scratch);
        slice::from_raw_parts_mut(begin, scratch)
    };
    let native = NativeEngine::with_chunk(bundle, scratch, plan.backend, plan.chunk)?;
    // SAFETY: `memory` is aligned to more than a `Place` asks for and large enough for it. The reference to `native` is the only one
    // ever made, and neither field is moved from here on.
    unsafe {
        (&raw mut (*place).native).write(native);
        let native: &'static mut NativeEngine<'static> = &mut (*place).native;
        (&raw mut (*place).engine).write(Engine::new(Stream::new(native)));
    }
    Ok(place.cast())
}
