//! What commands share: how they end, what they say on stderr, and numbers.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use kinglet::tokenizer::{Blank, is_empty};
use serde_json::Value;

/// Result of a command that could run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything succeeded: exit code 0.
    Done,
    /// Some input could not be classified: exit code 1.
    Partly,
}

/// What there is to note about a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether bytes were replaced.
    pub replaced: bool,
    /// Why it has no label, as far as that is known.
    pub blank: Option<Blank>,
}

impl Seen {
    /// Looks at a text. `replaced`: whether bytes of it were.
    pub fn of(text: &str, replaced: bool) -> Self {
        Seen { replaced, blank: is_empty(text.as_bytes()).then_some(Blank::Empty) }
    }
}

/// Writes a line to stderr, ignoring a closed stderr.
pub fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Tells how a file is read where its user may not expect it.
pub fn warn(path: &Path, warnings: &[String]) {
    warnings.iter().for_each(|warning| report(&format!("note: {}: {warning}", path.display())));
}

/// Parses a probability between 0 and 1.
pub fn probability(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("must be a probability between 0 and 1".to_string()),
    }
}

/// Returns a score with the shortest digits that identify it as f32, not those of its expansion to f64.
pub fn number(score: f32) -> Value {
    score.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Exits as clap does on a usage error of the command `name`: message, usage, exit code 2.
pub fn usage<A: clap::Args>(name: &'static str, kind: ErrorKind, message: &str) -> ! {
    let command = clap::Command::new(name).bin_name(format!("kinglet {name}"));
    A::augment_args(command).error(kind, message).exit()
}

/// Notes that are shown once, however many lines they apply to.
pub struct Notes {
    /// What the result for a blank text means.
    of_blank: &'static str,
    replaced: bool,
    /// Whether a text of each kind was noted.
    blank: [bool; 2],
}

impl Notes {
    pub fn new(of_blank: &'static str) -> Self {
        Notes { of_blank, replaced: false, blank: [false; 2] }
    }

    /// Shows what there is to note about a text, of line `line` if it is one.
    pub fn tell(&mut self, seen: Seen, line: Option<u64>) {
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        if seen.replaced && !self.replaced {
            self.replaced = true;
            report(&format!("warning: {place}invalid UTF-8 was replaced by U+FFFD (shown once)"));
        }
        let (noted, what) = match seen.blank {
            None => return,
            Some(Blank::Empty) => (&mut self.blank[0], "empty input"),
            Some(Blank::Unknown) => (&mut self.blank[1], "no letter, digit or symbol that the model knows"),
        };
        if !std::mem::replace(noted, true) {
            report(&format!("note: {place}{what}; {} (shown once)", self.of_blank));
        }
    }
}

/// A counter of rows on stderr, shown only on a terminal.
pub struct Progress {
    of: Option<usize>,
    shown: bool,
    last: Instant,
}

impl Progress {
    /// Creates a counter; `of`: the number of rows, if it is known.
    pub fn new(of: Option<usize>) -> Self {
        Progress { of, shown: io::stderr().is_terminal(), last: Instant::now() }
    }

    /// Shows the number of rows so far, now and then.
    pub fn tell(&mut self, done: u64) {
        if self.shown && self.last.elapsed() > Duration::from_millis(200) {
            self.last = Instant::now();
            let of = self.of.map_or(String::new(), |of| format!(" of {of}"));
            let _ = write!(io::stderr(), "\r{done}{of} rows");
        }
    }

    /// Removes the counter.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Adds advice to an error of a text or a model.
pub fn explain(error: kinglet::Error) -> anyhow::Error {
    match error {
        kinglet::Error::Embeds { dimension } => anyhow::anyhow!(
            "this model embeds text into vectors of {dimension} values and has no labels; use `kinglet embed`, or a model that \
             classifies"
        ),
        kinglet::Error::Classifies { labels } => anyhow::anyhow!(
            "this model classifies text into {labels} labels and has no sentence vectors; use `kinglet classify`, or pass --model \
             with a model that embeds (kinglet-train distill makes one)"
        ),
        kinglet::Error::TooLong { max, .. } => {
            anyhow::anyhow!("{error}; use --truncate {max} to read only the first {max} tokens")
        }
        error => error.into(),
    }
}
