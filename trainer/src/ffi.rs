//! The border to the dynamic linker: opens libtorch's CUDA half.
//!
//! The program is linked to libtorch's CPU half only, so that one binary serves both. libtorch registers CUDA when
//! `libtorch_cuda.so` is loaded, and remembers the first answer to "is there CUDA": [`open_cuda`] must run before any tensor
//! is made.
#![allow(unsafe_code)]

use std::sync::OnceLock;

static CUDA: OnceLock<Result<(), String>> = OnceLock::new();

/// Loads `libtorch_cuda.so` with all its symbols (`RTLD_NOW | RTLD_GLOBAL`); the first statement of `main`.
///
/// # Errors
/// The dynamic linker's words where the library or one of its dependencies is not there. Later calls return the first
/// call's result.
pub fn open_cuda() -> &'static Result<(), String> {
    CUDA.get_or_init(open)
}

#[cfg(target_os = "linux")]
fn open() -> Result<(), String> {
    use std::ffi::{CStr, c_char, c_int, c_void};

    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }
    // <dlfcn.h> of Linux, all architectures that libtorch is built for.
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;

    // SAFETY: the file name ends with NUL and outlives the call; the library's initialisers are libtorch's own and may run
    // here, as no other thread exists at the start of `main`.
    let handle = unsafe { dlopen(c"libtorch_cuda.so".as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: takes nothing; the result is null or a NUL-terminated string that lives until this thread's next `dl` call,
    // and is copied before that.
    let message = unsafe {
        let text = dlerror();
        if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
    };
    Err(message.unwrap_or_else(|| "the dynamic linker gave no reason".to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn open() -> Result<(), String> {
    Err("CUDA is supported on Linux only".to_owned())
}
