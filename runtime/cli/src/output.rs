//! What commands share: how they end, what they say on stderr, and numbers.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// Result of a command that could run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything succeeded: exit code 0.
    Done,
    /// Some input could not be classified: exit code 1.
    Partly,
}

/// Writes a line to stderr, ignoring a closed stderr.
pub fn report(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Returns whether stderr is a terminal, so that progress is worth showing.
pub fn shows_progress() -> bool {
    io::stderr().is_terminal()
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

/// Adds advice to an error of a text.
pub fn explain(error: kinglet::Error) -> anyhow::Error {
    match error {
        kinglet::Error::TooLong { max, .. } => {
            anyhow::anyhow!("{error}; use --truncate {max} to read only the first {max} tokens")
        }
        error => error.into(),
    }
}
