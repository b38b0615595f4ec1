//! Ctrl-C, SIGTERM and SIGHUP: the first asks the training loop to save and stop, the second ends the program at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::ffi::is_ignored;

/// Flag that a signal has arrived.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and, unless it is ignored as under `nohup`, SIGHUP: the terminal has gone. A second signal ends the program with 128 + its number, as a shell reports it.
    ///
    /// # Errors
    /// If the operating system rejects the handler.
    pub fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            // In this order: the first signal finds the flag unset, then sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Interrupt(asked))
    }

    /// Asks for a stop, as a signal does.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether training should stop after the current step.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
