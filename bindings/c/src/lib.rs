//! Kinglet's C interface; `include/kinglet.h` is generated from the documentation and signatures here.
//!
//! Two layers. `engine` runs a model in the caller's memory: no heap, no std, no reachable panic. With the feature
//! `std`, `model` holds models on the heap and shares them between threads; its engines are those of the first layer.
//!
//! | file | content |
//! |---|---|
//! | `status` | the result of every function |
//! | `border` | pointers from outside, panics, the last error |
//! | `options` | options of an engine |
//! | `engine` | the functions of an engine |
//! | `place` | an engine, in given memory or on the heap |
//! | `model`, `batch` | the functions of a model; many texts on several threads |
#![no_std]
#![allow(clippy::missing_safety_doc)] // what a caller must keep to is said once, at the head of the header
#![allow(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

// In the order of the header, which is generated from it.
mod status;

mod border;

mod options;

mod engine;
mod place;

#[cfg(feature = "std")]
mod model;

#[cfg(feature = "std")]
mod batch;

use core::ffi::{CStr, c_char};

use border::border;
use status::Status;

/// Version of this interface. It grows when something changes that compiled programs rely on: compare it with
/// `kinglet_abi_version()`, which is that of the library.
pub const KINGLET_ABI_VERSION: u32 = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Returns the KINGLET_ABI_VERSION of the running library.
#[unsafe(no_mangle)]
pub extern "C" fn kinglet_abi_version() -> u32 {
    KINGLET_ABI_VERSION
}

/// Returns the library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn kinglet_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Computes the fingerprint of scores: the CRC-32C of their bytes, each a little-endian 32-bit float. Equal scores have
/// equal fingerprints on every processor; `kinglet fingerprint` prints them.
///
/// `scores`: `count` floats from an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_fingerprint(scores: *const f32, count: usize, fingerprint: *mut u32) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (scores, to) = unsafe { (border::slice(scores, count)?, border::place(fingerprint)?) };
        to.write(runtime::engine::fingerprint(scores));
        Ok(())
    })
}

/// Required without std; never called, since no panic is reachable.
#[cfg(not(feature = "std"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
