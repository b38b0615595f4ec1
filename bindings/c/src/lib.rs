//! Kinglet's C interface; `include/kinglet.h` is made from the documentation and signatures here.
//!
//! Two layers. `engine` runs a model inside memory of the caller's: no heap, no std, no panic that can be reached. Under the
//! feature `std`, `model` holds models on the heap and shares them between threads; its engines are those of the first layer.
//!
//! | file | what |
//! |---|---|
//! | `status` | what every function answers |
//! | `border` | pointers from outside, panics, the last error |
//! | `options` | how a model is run |
//! | `engine` | the functions of an engine |
//! | `place` | what an engine is, and one inside given memory |
//! | `model`, `batch` | the functions of a model; many texts on several threads |
#![no_std]
#![allow(clippy::missing_safety_doc)] // what a caller must keep to is said once, at the head of the header
#![allow(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

// In the order of the header, which is made by it.
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

/// Version of this interface. It grows when something that a compiled program relies on changes: compare it with
/// `kinglet_abi_version()`, which is the library's.
pub const KINGLET_ABI_VERSION: u32 = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// KINGLET_ABI_VERSION of the library that runs.
#[unsafe(no_mangle)]
pub extern "C" fn kinglet_abi_version() -> u32 {
    KINGLET_ABI_VERSION
}

/// The library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn kinglet_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The fingerprint of scores: the CRC-32C of their bytes, each a little-endian 32-bit float. Equal scores have equal
/// fingerprints on every processor; `kinglet fingerprint` prints them.
///
/// `scores`: `count` floats, as an engine gave them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kinglet_fingerprint(scores: *const f32, count: usize, fingerprint: *mut u32) -> Status {
    border(|| {
        // SAFETY: the caller's promise about pointers.
        let (scores, to) = unsafe { (border::slice(scores, count)?, border::place(fingerprint)?) };
        to.write(runtime::engine::fingerprint(scores));
        Ok(())
    })
}

/// Without std something must stand here; nothing calls it, as no panic can be reached.
#[cfg(not(feature = "std"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
