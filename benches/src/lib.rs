//! Speed and memory of Kinglet, as ratios measured side by side.
//!
//! `tools/x bench peers` measures everything that docs/performance.md shows: [`models`] makes models with random weights,
//! [`worker`] runs an engine in a process of its own and [`peer`] asks it, [`pairs`] takes turns; [`speed`], [`memory`],
//! [`profile`], [`tokenizer`] and [`cold_start`] each measure one thing into [`results`], and [`report`] writes the tables
//! and, with [`plot`], the pictures. `tools/x bench training` does the same for docs/training-speed.md: [`training`] compares a
//! training step with PyTorch's, [`training_report`] writes the page and the paper's two figures. The criterion benches in
//! `benches/` are for comparing two states of the code.

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

/// A text of about `words` words, the same each time.
pub fn text(words: usize) -> String {
    const WORDS: [&str; 12] =
        ["please", "wake", "me", "at", "seven", "tomorrow", "and", "book", "a", "table", "for", "two"];
    let words: Vec<&str> = WORDS.iter().copied().cycle().take(words).collect();
    words.join(" ")
}
