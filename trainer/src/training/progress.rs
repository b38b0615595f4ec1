//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
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
    /// What a training is called that is a part of longer work: it then has no lines of its own.
    label: Option<String>,
    began: (Instant, u64),
}

impl Progress {
    /// Starts at `step` of `total` steps; `label`: the name of a training that is a part of longer work.
    pub fn new(step: u64, total: u64, label: Option<&str>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(step);
            let name = label.map_or_else(String::new, |label| format!("{label}  "));
            let template = format!("{name}{{bar:32}} {{pos}}/{{len}} steps  {{elapsed}} of {{duration}}  {{msg}}");
            let template = template.as_str();
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            bar
        });
        Progress { bar, total, last: None, label: label.map(str::to_owned), began: (Instant::now(), step) }
    }

    /// Returns the time left, at the speed so far.
    fn left(&self, step: u64) -> String {
        let (began, first) = self.began;
        let seconds =
            began.elapsed().as_secs_f64() * (self.total - step.min(self.total)) as f64 / (step - first).max(1) as f64;
        match seconds {
            0.0..90.0 => format!("{seconds:.0} s left"),
            90.0..5400.0 => format!("{:.0} min left", seconds / 60.0),
            _ => format!("{:.1} h left", seconds / 3600.0),
        }
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
                let name = self.label.as_ref().map_or_else(String::new, |label| format!("{label}  "));
                say(&format!(
                    "{name}step {step}/{}  loss {loss:.4}  lr {lr:.2e}  {more}  {}",
                    self.total,
                    self.left(step)
                ));
                self.last = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Prints a permanent line.
    pub fn line(&self, text: &str) {
        match &self.bar {
            _ if self.label.is_some() => {}
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line to stderr. Nobody may read it: that must not stop the work.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
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
                say(done);
                self.last = Instant::now();
            }
            None => {}
        }
    }

    /// Shows all of the work as a permanent line.
    pub fn end(self, done: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(done)),
            None => say(done),
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
