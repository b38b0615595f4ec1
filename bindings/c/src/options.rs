//! Options of an engine, as C callers pass them.

use core::ffi::c_char;

use runtime::backend::Backend;
use runtime::engine::native::DEFAULT_CHUNK;

use crate::border;
use crate::status::{Error, Status};

/// Option: trust the checksums of the bundle instead of computing them, for a model that was checked before, such as
/// one in the firmware's own flash. Damage may then cause wrong scores, but never a read outside the bundle.
pub const KINGLET_UNVERIFIED: u32 = 1;

/// Options of an engine. All zeros are the defaults; so is a null pointer instead of options.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Name of the backend: "scalar", "x86-avx2", "x86-avx512vnni", "aarch64-neon", "aarch64-dotprod". Null: the
    /// fastest of this processor. Zero-terminated; only read during the call.
    pub backend: *const c_char,
    /// Number of tokens processed together: fewer need less memory and more time; the scores are the same. At most
    /// KINGLET_MAX_CHUNK; 0: 48.
    pub chunk: u32,
    /// 0 or KINGLET_UNVERIFIED.
    pub flags: u32,
}

/// Checked options.
#[derive(Clone, Copy)]
pub(crate) struct EngineOptions {
    pub(crate) backend: Backend,
    pub(crate) chunk: usize,
    pub(crate) verify: bool,
}

impl EngineOptions {
    /// # Safety
    /// A pointer that is neither null nor misaligned points to options; their name is null or ends with a zero byte.
    pub(crate) unsafe fn new(options: *const Options) -> Result<Self, Error> {
        let mut checked = EngineOptions { backend: Backend::detect(), chunk: DEFAULT_CHUNK, verify: true };
        if options.is_null() {
            return Ok(checked);
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
        checked.verify = options.flags & KINGLET_UNVERIFIED == 0;
        checked.chunk = chunk(options.chunk)?;
        if !options.backend.is_null() {
            // SAFETY: the caller's promise.
            let name = unsafe { border::string(options.backend)? };
            let backend = name.to_str().ok().and_then(Backend::by_name);
            checked.backend = backend.ok_or_else(|| unknown(name))?;
        }
        Ok(checked)
    }
}

/// Maximum chunk: larger ones need memory and gain nothing.
pub const KINGLET_MAX_CHUNK: u32 = 65536;

/// Returns the chunk of an option, where 0 is the default.
pub(crate) fn chunk(option: u32) -> Result<usize, Error> {
    match option {
        0 => Ok(DEFAULT_CHUNK),
        1..=KINGLET_MAX_CHUNK => Ok(option as usize),
        _ => {
            let detail = format_args!("a chunk has {option} tokens, must have at most {KINGLET_MAX_CHUNK}");
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
