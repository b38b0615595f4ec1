//! Whether stdout was there when the program began, seen before the standard library opens `/dev/null` in its place.
#![allow(unsafe_code)]

/// Returns whether the program was started without a stdout. Known on Linux and macOS; elsewhere `false`.
pub(crate) fn is_missing() -> bool {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    return unix::MISSING.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    false
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod unix {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) static MISSING: AtomicBool = AtomicBool::new(false);

    #[used]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        unsafe extern "C" {
            // <fcntl.h>
            fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
        }
        const STDOUT: c_int = 1;
        const F_GETFD: c_int = 1;
        // SAFETY: asks for the flags of a descriptor, which fails if there is none, and changes nothing. Nothing of the standard library is used
        // before it is ready.
        let missing = unsafe { fcntl(STDOUT, F_GETFD) } == -1;
        MISSING.store(missing, Ordering::Relaxed);
    }
}
