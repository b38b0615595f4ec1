//! Speed and memory of Kinglet, measured as ratios side by side.
//!
//! `tools/x bench peers` measures everything in docs/performance.md: [`models`] creates models with random weights,
//! [`worker`] runs an engine in a process of its own and [`peer`] sends it requests, [`pairs`] takes turns; [`speed`],
//! [`memory`], [`profile`], [`tokenizer`] and [`cold_start`] each write one part of [`results`], and [`report`] writes
//! the tables and, with [`plot`], the figures. `tools/x bench training` does the same for docs/training-speed.md:
//! [`training`] compares a training step with PyTorch's, [`training_report`] writes the page and the paper's two
//! figures. The criterion benches in `benches/` compare two states of the code.

pub mod cold_start;
pub mod machine;
pub mod memory;
pub mod models;
pub mod pairs;
pub mod peer;
pub mod peers;
pub mod plot;
pub mod profile;
pub mod report;
pub mod results;
pub mod speed;
pub mod tokenizer;
pub mod training;
pub mod training_report;
pub mod worker;

/// Returns a text of about `words` words, always the same.
pub fn text(words: usize) -> String {
    const WORDS: [&str; 12] =
        ["please", "wake", "me", "at", "seven", "tomorrow", "and", "book", "a", "table", "for", "two"];
    let words: Vec<&str> = WORDS.iter().copied().cycle().take(words).collect();
    words.join(" ")
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
