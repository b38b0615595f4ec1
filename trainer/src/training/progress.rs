//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Minimum time between two plain lines about training loss.
const QUIET: Duration = Duration::from_secs(10);

/// Progress of training.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    last: Option<Instant>,
}

impl Progress {
    /// Starts at `step` of `total` steps.
    pub fn new(step: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(step);
            let template = "{bar:32} {pos}/{len} steps  {elapsed} of {duration}  {msg}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            bar
        });
        Progress { bar, total, last: None }
    }

    /// Advances to a step.
    pub fn step(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Shows the recent training loss with more information: the bar's message, or a line unless one was written
    /// seconds ago.
    pub fn loss(&mut self, step: u64, loss: f64, lr: f64, more: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("loss {loss:.4}  {more}")),
            None if self.last.is_none_or(|at| at.elapsed() >= QUIET) => {
                eprintln!("step {step}/{}  loss {loss:.4}  lr {lr:.2e}  {more}", self.total);
                self.last = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Prints a permanent line.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress without a known end.
#[derive(Debug)]
pub struct Counter {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Default for Counter {
    fn default() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {elapsed}  {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        Counter { bar, last: Instant::now() }
    }
}

impl Counter {
    /// Shows the work done so far: the bar's message, or a line unless one was written seconds ago.
    pub fn show(&mut self, done: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(done.to_owned());
                bar.tick();
            }
            None if self.last.elapsed() >= QUIET => {
                eprintln!("{done}");
                self.last = Instant::now();
            }
            None => {}
        }
    }

    /// Shows all of the work as a permanent line.
    pub fn end(self, done: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{done}")),
            None => eprintln!("{done}"),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
