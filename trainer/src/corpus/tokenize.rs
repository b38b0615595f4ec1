//! Documents to token ids on all cores, with a cache of words.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kinglet::tokenizer::{END, Table};
use rayon::prelude::*;

/// Approximate size in bytes of the parts that documents are cut into, so that a long one keeps all cores busy.
const PART: usize = 64 << 10;
/// Number of words cached by one thread; the frequent ones come early.
const WORDS: usize = 1 << 17;
/// Longest cached word, in bytes.
const LONGEST: usize = 32;

/// Cache of the ids of words.
#[derive(Default)]
struct Memory {
    words: HashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

impl Memory {
    /// Appends the ids of `text`. The tokenizer treats each word, separated by white space, independently, so the ids
    /// of a text are those of its words.
    fn encode(&mut self, table: &Table<'_>, text: &str, out: &mut Vec<u32>) {
        for word in text.split_whitespace() {
            if let Some(&(start, end)) = self.words.get(word) {
                out.extend_from_slice(self.ids.get(start as usize..end as usize).unwrap_or_default());
                continue;
            }
            let start = out.len();
            table.encode_with(word.as_bytes(), &mut |id| out.push(id));
            debug_assert_eq!(out.last(), Some(&END));
            out.pop();
            if word.len() <= LONGEST && self.words.len() < WORDS {
                let place = self.ids.len() as u32;
                self.ids.extend_from_slice(&out[start..]);
                self.words.insert(word.into(), (place, self.ids.len() as u32));
            }
        }
    }
}

/// Encodes documents with one table.
pub struct WordTokenizer<'a> {
    table: Table<'a>,
    /// One per concurrent thread.
    memories: Mutex<Vec<Memory>>,
}

impl<'a> WordTokenizer<'a> {
    /// Creates a tokenizer with an empty cache.
    pub fn new(table: Table<'a>) -> Self {
        WordTokenizer { table, memories: Mutex::default() }
    }

    /// Returns the ids of each document in parts, without `</s>`; the joined parts are the result of [`Table::encode`].
    pub fn encode(&self, documents: &[String]) -> Vec<Vec<Vec<u32>>> {
        let parts: Vec<(usize, &str)> =
            documents.iter().enumerate().flat_map(|(i, text)| parts(text).map(move |part| (i, part))).collect();
        let encoded: Vec<Vec<u32>> = parts.par_iter().map(|(_, part)| self.part(part)).collect();
        let mut out = vec![Vec::new(); documents.len()];
        for ((document, _), ids) in parts.iter().zip(encoded) {
            out[*document].push(ids);
        }
        out
    }

    fn part(&self, text: &str) -> Vec<u32> {
        // A cache holds nothing half done, so one that a panic left behind may be used.
        let memories = || self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = memories().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 4);
        memory.encode(&self.table, text, &mut ids);
        memories().push(memory);
        ids
    }
}

/// Cuts `text` at white space into parts of about [`PART`] bytes.
fn parts(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let from = text.floor_char_boundary(PART);
        let end = text[from..].find(char::is_whitespace).map_or(text.len(), |at| from + at);
        let (part, rest) = text.split_at(end);
        text = rest.trim_start();
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet::tokenizer::Normalization;
    use proptest::prelude::*;

    fn table() -> Vec<u8> {
        let mut pieces: Vec<String> = ('!'..='~').map(String::from).collect();
        pieces.extend(["\u{2581}", "\u{2581}the", "th", "ing", "é", "\u{2581}a"].map(String::from));
        pieces.sort();
        let scored: Vec<(String, i16)> = pieces
            .into_iter()
            .map(|p| {
                let n = p.chars().count() as i16;
                (p, -3000 / n)
            })
            .collect();
        Table::write(&scored, Normalization::default()).unwrap()
    }

    fn joined(words: &WordTokenizer<'_>, documents: &[String]) -> Vec<Vec<u32>> {
        words.encode(documents).into_iter().map(|parts| parts.concat()).collect()
    }

    #[test]
    fn a_long_document_in_parts_has_the_ids_of_the_whole() {
        let bytes = table();
        let table = Table::new(&bytes).unwrap();
        let words = ["the ", "thing\n", "a é\u{3000}", "naïve ", "\u{2581}the\t", "  "];
        let text: String = (0..60_000).map(|i| words[i * 7 % 13 % words.len()]).collect();
        assert!(text.len() > 3 * PART);
        let mut whole = table.encode(&text);
        whole.pop();
        let words = WordTokenizer::new(Table::new(&bytes).unwrap());
        assert!(words.encode(std::slice::from_ref(&text))[0].len() > 3);
        // The second time from memory.
        for _ in 0..2 {
            assert_eq!(joined(&words, std::slice::from_ref(&text)), [&whole[..]]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn documents_have_the_ids_that_the_tokenizer_gives(texts: Vec<String>, spaced in "[a-e \u{a0}\u{2581}\u{3000}é\n]{0,400}") {
            let bytes = table();
            let table = Table::new(&bytes).unwrap();
            let words = WordTokenizer::new(Table::new(&bytes).unwrap());
            let documents = [texts, vec![spaced]].concat();
            let expected: Vec<Vec<u32>> = documents.iter().map(|text| { let mut ids = table.encode(text); ids.pop(); ids }).collect();
            prop_assert_eq!(joined(&words, &documents), expected);
        }
    }
}
