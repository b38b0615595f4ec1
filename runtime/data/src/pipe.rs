//! A reader that has gone, as in `program | head -1`, is no error of the program that writes; a program without a stdout has nowhere to answer.

use std::any::Any;
use std::io::{self, BufWriter, StdoutLock};
use std::panic;

use crate::closed::is_missing;

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
    if is_missing() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "it is closed, so that the answers would be lost"));
    }
    Ok(BufWriter::new(io::stdout().lock()))
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
