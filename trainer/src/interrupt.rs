//! Ctrl-C, SIGTERM and SIGHUP: the first asks the training loop to save and stop, the second ends the program at once.
//!
//! A thread of its own takes them: a handler that ran in a thread which was in one of oneDNN's products damaged the heap in one of sixteen stops
//! (libtorch 2.11, x86-64).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::ffi::{block, is_ignored};

/// Flag that a signal has arrived.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Call it before threads are started that compute. Listens for SIGINT, SIGTERM and, unless it is ignored as under `nohup`, SIGHUP: the terminal has gone. A second signal ends the program with 128 + its number, as a shell reports it.
    ///
    /// # Errors
    /// If the operating system rejects the handler or the thread that takes the signals.
    pub fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let mut taken = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            taken.push(signal);
            // In this order: the first signal finds the flag unset, then sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        // It starts before the others are closed to signals, and lasts as long as the program.
        thread::Builder::new().name("signals".to_owned()).spawn(|| {
            loop {
                thread::park();
            }
        })?;
        block(&taken)?;
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
