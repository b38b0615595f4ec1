//! The texts of a distillation as token ids, and which of them are held out.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kinglet::tokenizer::Table;
use kinglet_data::dataset::ReadOptions;
use sha2::{Digest, Sha256};

use crate::interrupt::Interrupt;
use crate::targets::texts::{TextDigest, TextFile, texts};
use crate::tokenizer::files::encode;

/// Hashed before each text: files whose lines are in the order of their plain SHA-256, or the head of such a file, are split like
/// any other.
const SALT: &str = "kinglet distill\0";
/// Texts between two looks at [`Interrupt`].
const INTERVAL: usize = 4096;

/// All texts as token ids, in memory: 4 bytes per token, 12 per text.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    ids: Vec<u32>,
    /// Where each text ends in `ids`.
    ends: Vec<u64>,
    /// Texts to train on, in the order of the files.
    pub train: Vec<u32>,
    /// Texts to evaluate on, each once however often it occurs, in the order of their hashes.
    pub held_out: Vec<u32>,
    /// Texts truncated to the maximum length.
    pub cut: usize,
    /// Texts that are not valid UTF-8; what is not is read as U+FFFD.
    pub replaced: u64,
    /// The files they come from.
    pub files: Vec<TextFile>,
}

/// How texts are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// How the files are read.
    pub read: &'a ReadOptions,
    /// Maximum number of tokens of a text, including `</s>`; 0 for no limit.
    pub max_length: usize,
    /// Share of the texts that is held out: those whose hash is in the lowest part of its range, so that equal texts are
    /// on the same side in every run.
    pub held_out: f64,
    /// Maximum number of held-out texts; 0 for all. None of the others is trained on.
    pub eval_texts: usize,
}

impl Texts {
    /// Reads `files` once and tokenizes them.
    ///
    /// # Errors
    /// If a file cannot be read or has no text, no text is left for training or fewer than two for evaluation, there are
    /// 2³² texts or more, or `interrupt` was requested.
    pub fn read(files: &[PathBuf], table: &Table<'_>, reading: Reading<'_>, interrupt: &Interrupt) -> Result<Self> {
        let mut out = Texts::default();
        let mut held_out: Vec<(u64, u32)> = Vec::new();
        let mut seen = HashSet::new();
        let limit = (reading.held_out * 2f64.powi(64)) as u64;
        for path in files {
            let (before, mut digest) = (out.len(), TextDigest::default());
            let mut texts = texts(path, reading.read)?;
            for text in texts.by_ref() {
                let text = text?;
                digest.push(&text);
                let number = u32::try_from(out.ends.len()).context("more texts than 32 bits can count")?;
                let hash = hash(&text);
                if hash >= limit {
                    out.train.push(number);
                } else if seen.insert(hash) {
                    held_out.push((hash, number));
                }
                out.ids.extend(encode(table, &text, reading.max_length, &mut out.cut));
                out.ends.push(out.ids.len() as u64);
                let stop = out.len().is_multiple_of(INTERVAL) && interrupt.requested();
                ensure!(!stop, "stopped by a signal while reading {}", path.display());
            }
            ensure!(out.len() > before, "{} has no texts; leave it out", path.display());
            out.replaced += texts.replaced();
            out.files.push(digest.finish(path));
        }
        held_out.sort_unstable();
        if reading.eval_texts > 0 {
            held_out.truncate(reading.eval_texts);
        }
        out.held_out = held_out.into_iter().map(|(_, number)| number).collect();
        ensure!(
            out.held_out.len() > 1 && !out.train.is_empty(),
            "of {} texts, {} are for training and {} different ones for evaluation (train.held_out = {}, by their hash): give more \
             texts, or another share",
            out.len(),
            out.train.len(),
            out.held_out.len(),
            reading.held_out
        );
        Ok(out)
    }

    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the token ids of text `number`, `</s>` last; none past the last text.
    pub fn ids(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or_default());
        let end = self.ends.get(number).copied().unwrap_or_default();
        self.ids.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Returns how often each of `vocab_size` ids occurs in the training texts.
    pub fn counts(&self, vocab_size: usize) -> Vec<u64> {
        let mut counts = vec![0; vocab_size];
        for &id in self.train.iter().flat_map(|&number| self.ids(number)) {
            if let Some(count) = counts.get_mut(id as usize) {
                *count += 1;
            }
        }
        counts
    }
}

/// Returns the first 8 bytes of the SHA-256 of [`SALT`] and a text.
fn hash(text: &str) -> u64 {
    let digest = Sha256::new_with_prefix(SALT).chain_update(text).finalize();
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet::tokenizer::Normalization;

    fn table() -> Vec<u8> {
        // Every table has the printable ASCII characters.
        let ascii = ('!'..='~').filter(|c| !c.is_ascii_uppercase()).map(String::from);
        let pieces: Vec<(String, i16)> = ascii.chain(["▁".to_owned()]).map(|p| (p, 0)).collect();
        Table::write(&pieces, Normalization::LOWERCASE).unwrap()
    }

    fn read(contents: &[&str], held_out: f64) -> Result<Texts> {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..contents.len()).map(|i| folder.path().join(format!("{i}.txt"))).collect();
        for (file, content) in files.iter().zip(contents) {
            std::fs::write(file, content).unwrap();
        }
        let bytes = table();
        let reading = Reading { read: &ReadOptions::default(), max_length: 4, held_out, eval_texts: 0 };
        Texts::read(&files, &Table::new(&bytes).unwrap(), reading, &Interrupt::default())
    }

    fn lines(numbers: std::ops::Range<usize>) -> String {
        numbers.map(|n| format!("text {n}\n")).collect()
    }

    #[test]
    fn equal_texts_are_on_the_same_side_and_evaluated_once() {
        let (a, b) = (lines(0..300), lines(150..450));
        let texts = read(&[&a, &b], 0.25).unwrap();
        assert_eq!((texts.len(), texts.files.len(), texts.cut), (600, 2, 600));
        let number_of = |index: u32| if index < 300 { index } else { index - 150 };
        let train: HashSet<u32> = texts.train.iter().map(|&i| number_of(i)).collect();
        let held_out: HashSet<u32> = texts.held_out.iter().map(|&i| number_of(i)).collect();
        assert!(train.is_disjoint(&held_out));
        assert_eq!((train.len() + held_out.len(), held_out.len()), (450, texts.held_out.len()));
        // A quarter of 450, give or take four standard deviations.
        assert!((75..150).contains(&held_out.len()), "{}", held_out.len());

        // The side does not depend on what other texts there are.
        let alone = read(&[&a], 0.25).unwrap();
        assert!(alone.train.iter().all(|i| train.contains(i)));
    }

    #[test]
    fn texts_that_were_chosen_by_their_plain_hash_are_on_both_sides() {
        let plain = |text: &str| Sha256::digest(text)[0];
        let lines: Vec<String> = (0..2000).map(|n| format!("text {n}")).filter(|text| plain(text) < 16).collect();
        let texts = read(&[&lines.join("\n")], 0.25).unwrap();
        assert!(texts.train.len() > lines.len() / 2, "{} of {}", texts.train.len(), lines.len());
    }

    #[test]
    fn ids_are_those_of_the_tokenizer_truncated() {
        let content = "a\n\nbc\ndefghi\n".to_owned() + &lines(0..20);
        let texts = read(&[&content], 0.5).unwrap();
        let bytes = table();
        let encode = |text| Table::new(&bytes).unwrap().encode(text);
        assert_eq!(texts.ids(0), encode("a"));
        assert_eq!(texts.ids(1), encode("bc"));
        assert_eq!(texts.ids(2), [&encode("de")[..3], &[1]].concat());
        assert!(texts.ids(23).is_empty());
    }

    #[test]
    fn files_and_sides_without_texts_are_refused() {
        let said = read(&[&lines(0..50), " \n"], 0.5).unwrap_err().to_string();
        assert!(said.ends_with("1.txt has no texts; leave it out"), "{said}");
        let said = read(&[&lines(0..50)], 1e-9).unwrap_err().to_string();
        assert!(said.contains("of 50 texts, 50 are for training and 0 different ones for evaluation"), "{said}");
    }
}
