//! A reader that has gone, as in `program | head -1`, is no error of the program that writes; a program without a stdout has nowhere to answer.

use std::any::Any;
use std::io::{self, BufWriter, StdoutLock};
use std::panic;

/// Makes [`print!`] and its like end the program without a message if nobody reads; other panics are reported as before.
///
/// Use it with [`panic::catch_unwind`] and [`is_closed`].
pub fn quiet() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !is_closed(info.payload()) {
            usual(info);
        }
    }));
}

/// Returns whether a panic is that of writing to stdout or stderr when nobody reads.
pub fn is_closed(payload: &(dyn Any + Send)) -> bool {
    let words = payload.downcast_ref::<String>().map(String::as_str);
    words.is_some_and(|words| words.starts_with("failed printing to std") && words.contains("Broken pipe"))
}

/// Returns stdout for answers.
///
/// # Errors
/// If the program was started without one (`program >&-`): the standard library then writes to nowhere, and says that all went well. Known on
/// Linux and macOS.
pub fn stdout() -> io::Result<BufWriter<StdoutLock<'static>>> {
    if closed::stdout() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "it is closed, so that the answers would be lost"));
    }
    Ok(BufWriter::new(io::stdout().lock()))
}

/// Whether stdout was there when the program began, seen before the standard library opens `/dev/null` in its place.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[allow(unsafe_code)]
mod closed {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicBool, Ordering};

    static CLOSED: AtomicBool = AtomicBool::new(false);

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
        let closed = unsafe { fcntl(STDOUT, F_GETFD) } == -1;
        CLOSED.store(closed, Ordering::Relaxed);
    }

    pub(super) fn stdout() -> bool {
        CLOSED.load(Ordering::Relaxed)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod closed {
    pub(super) fn stdout() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_of_a_closed_pipe_is_known_by_its_words() {
        let panic = |words: &str| -> Box<dyn Any + Send> { Box::new(words.to_string()) };
        assert!(is_closed(panic("failed printing to stdout: Broken pipe (os error 32)").as_ref()));
        assert!(!is_closed(panic("failed printing to stdout: No space left on device (os error 28)").as_ref()));
        assert!(!is_closed(panic("Broken pipe").as_ref()));
        let number: Box<dyn Any + Send> = Box::new(1);
        assert!(!is_closed(number.as_ref()));
    }
}
