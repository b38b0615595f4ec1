//! Texts of known lengths for the benches.

/// A text of about `words` words, the same each time.
pub fn text(words: usize) -> String {
    const WORDS: [&str; 12] =
        ["please", "wake", "me", "at", "seven", "tomorrow", "and", "book", "a", "table", "for", "two"];
    let words: Vec<&str> = WORDS.iter().copied().cycle().take(words).collect();
    words.join(" ")
}
