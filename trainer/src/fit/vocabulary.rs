//! The vocabulary of the training texts.
//!
//! Long pieces make texts short, and each says much; yet where rows are few, or a language writes many words as one, most of them are rare, and
//! the same word falls into other pieces beside other words. Short pieces occur often, and pairs of neighbours say what long ones would: of Thai
//! intents (2,156 rows), a support vector machine of pieces and pairs classifies 95.5% with 1,000 ids of pieces up to 16 characters, and 97.5%
//! with 1,200 of pieces up to 4; of the sentiments of Arabic tweets, 65.1% and 67.7%.

use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::files;
use kinglet_data::dataset::{Dataset, PerText, ReadOptions};
use kinglet_data::files::write_atomically;
use kinglet_data::survey::grouped;

use crate::interrupt::Interrupt;
use crate::linear::counts::Labelled;
use crate::tokenizer::files::TokenizerFiles;
use crate::tokenizer::{TokenizerPlan, train as learn_vocabulary};
use crate::training::progress::say;

/// Mean length of the words of texts without spaces, in characters, and the characters of such texts that a vocabulary is learnt from.
const LONG_WORDS: usize = 12;
const ENOUGH: usize = 400_000;
/// Most ids of a vocabulary of the training texts, and of one of short pieces.
const MOST_IDS: usize = 16_384;
const FEW_IDS: usize = 4096;
/// Characters of the longest piece, of long ones and of short ones.
const LONG: usize = 16;
const SHORT: usize = 4;
/// Characters of texts above which long pieces are not rare, and are not compared with short ones.
const MANY: usize = 3_000_000;

/// What a vocabulary consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Most ids.
    ids: usize,
    /// Characters of the longest piece.
    longest: usize,
}

impl Pieces {
    /// Returns what suits the texts for all that can be told beforehand: short pieces where no spaces divide words.
    pub(super) fn usual(data: &Dataset, ids: usize) -> Self {
        match has_spaces(data) {
            true => Pieces { ids, longest: LONG },
            false => Pieces::short(ids),
        }
    }

    fn short(ids: usize) -> Self {
        Pieces { ids: ids.min(FEW_IDS), longest: SHORT }
    }
}

fn characters(data: &Dataset) -> usize {
    data.texts.iter().map(|text| text.chars().count()).sum()
}

fn has_spaces(data: &Dataset) -> bool {
    let words: usize = data.texts.iter().map(|text| text.split_whitespace().count()).sum();
    characters(data) <= LONG_WORDS * words
}

/// Returns the most ids that the texts are enough for: a piece should occur often enough to learn its vector.
pub(super) fn most_ids(data: &Dataset) -> usize {
    (characters(data) / 60).clamp(1024, MOST_IDS)
}

/// Learns a vocabulary of the training texts into `folder`: of long or of short pieces, whichever lets a linear classifier of pieces and pairs
/// of neighbours classify the dev texts better.
///
/// # Errors
/// If the dev file cannot be read or the vocabulary not be written, or a signal asks for a stop.
pub(super) fn choose(
    folder: &Path,
    (train, dev): (&Path, &Path),
    data: &Dataset,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<()> {
    let usual = Pieces::usual(data, most_ids(data));
    let short = Pieces::short(usual.ids);
    if usual == short || characters(data) > MANY {
        return learn(folder, train, data, usual);
    }
    let per_text = if data.labels.is_multi_label() { PerText::Any } else { PerText::One };
    let dev = Dataset::read(dev, &ReadOptions { per_text, ..ReadOptions::default() }, Some(&data.names))?;
    let mut tried = Vec::new();
    for (name, pieces) in [("long", usual), ("short", short)] {
        let place = folder.with_extension(name);
        if !place.join(files::TOKENIZER_TABLE).exists() {
            learn(&place, train, data, pieces)?;
        }
        tried.push((judged(&place, data, &dev, seed, interrupt)?, name, place));
    }
    let says =
        |score: &Option<f64>| score.map_or("too many to compare".to_owned(), |score| format!("{:.2}%", 100.0 * score));
    // The first of equals: long pieces make texts shorter.
    let best = if tried[1].0 > tried[0].0 { 1 } else { 0 };
    say(&format!(
        "pieces of up to {LONG} and of up to {SHORT} characters: a linear classifier has dev {} {} and {}; the {} ones are taken",
        if data.labels.is_multi_label() { "micro F1" } else { "accuracy" },
        says(&tried[0].0),
        says(&tried[1].0),
        tried[best].1
    ));
    let (_, _, other) = tried.swap_remove(1 - best);
    let (_, _, taken) = tried.swap_remove(0);
    std::fs::rename(&taken, folder)
        .with_context(|| format!("cannot rename {} to {}", taken.display(), folder.display()))?;
    std::fs::remove_dir_all(&other).with_context(|| format!("cannot remove {}", other.display()))
}

/// Returns how well pieces and pairs of neighbours classify the dev texts; `None` if they are too many for a quick answer.
fn judged(folder: &Path, data: &Dataset, dev: &Dataset, seed: u64, interrupt: &Interrupt) -> Result<Option<f64>> {
    let tokenizer = TokenizerFiles::read(folder)?.composing_for(&data.texts)?;
    let table = tokenizer.table()?;
    let mut labels = data.labels.clone();
    labels.extend(dev.labels.clone());
    let ids: Vec<Vec<u32>> = data.texts.iter().chain(&dev.texts).map(|text| table.encode(text)).collect();
    let (vocab_size, learnt, classes) = (table.vocab_size(), data.texts.len(), data.names.len());
    Labelled { texts: &[], learnt, ids: &ids, labels: &labels, vocab_size, classes }.pairs(seed, interrupt)
}

/// Learns the vocabulary of the training texts.
pub(super) fn learn(folder: &Path, train: &Path, data: &Dataset, pieces: Pieces) -> Result<()> {
    let mut input = train.to_path_buf();
    let sample = sample(data);
    if sample.len() < data.texts.len() {
        input = folder.with_extension("jsonl");
        write_atomically(&input, data.json_lines(&sample).as_bytes())
            .with_context(|| format!("cannot write {}", input.display()))?;
    }
    let Pieces { ids, longest } = pieces;
    say(&format!("learning a vocabulary of at most {} ids, pieces of at most {longest} characters", grouped(ids)));
    let plan = TokenizerPlan {
        inputs: vec![input.clone()],
        read: ReadOptions::default(),
        vocab_size: ids,
        lowercase: true,
        nfc: None,
        max_piece_length: longest,
        character_coverage: 0.9995,
        out: folder.to_path_buf(),
    };
    learn_vocabulary(&plan)?;
    if input != train {
        std::fs::remove_file(&input).with_context(|| format!("cannot remove {}", input.display()))?;
    }
    Ok(())
}

/// Returns the rows that the vocabulary is learnt from: all, unless the texts have no spaces. Then there are no words that repeat, and learning
/// takes minutes for a million characters; a part, spread over the file, knows the frequent pieces as well.
fn sample(data: &Dataset) -> Vec<usize> {
    let step = if has_spaces(data) { 1 } else { characters(data).div_ceil(ENOUGH).max(1) };
    (0..data.texts.len()).step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(folder: &Path, texts: &[String]) -> (std::path::PathBuf, Dataset) {
        let path = folder.join(format!("rows-{}.jsonl", texts.len()));
        let line = |(row, text): (usize, &String)| format!("{{\"text\":\"{text}\",\"label\":\"{}\"}}\n", row % 2);
        std::fs::write(&path, texts.iter().enumerate().map(line).collect::<String>()).unwrap();
        let data = Dataset::read(&path, &ReadOptions::default(), None).unwrap();
        (path, data)
    }

    #[test]
    fn a_vocabulary_of_texts_without_spaces_is_learnt_from_a_part_of_them_and_has_short_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str, rows: usize| data(folder.path(), &vec![text.to_owned(); rows]).1;
        let spaced = of(&"word ".repeat(100), 2000);
        assert_eq!((sample(&spaced).len(), Pieces::usual(&spaced, 9000)), (2000, Pieces { ids: 9000, longest: LONG }));
        let without = of(&"中文没有空格".repeat(50), 2000);
        let part = sample(&without);
        assert_eq!((part.len(), part[..3].to_vec()), (1000, vec![0, 2, 4]));
        assert_eq!(Pieces::usual(&without, 9000), Pieces { ids: FEW_IDS, longest: SHORT });
        assert_eq!(Pieces::usual(&without, 1500), Pieces { ids: 1500, longest: SHORT });
        assert_eq!(sample(&of(&"中文没有空格".repeat(50), 20)).len(), 20);
    }

    #[test]
    fn the_pieces_that_tell_the_labels_are_taken() {
        // Words of two parts, of which the second says the label: as long pieces they are all rare.
        let parts = ["kamo", "lifu", "teno", "zuri", "paxi", "wedo", "guna", "boli", "seky", "hatu", "vomi", "jape"];
        let text = |i: usize| {
            let stem = |k: usize| {
                format!("{}{}{}", parts[(i / 2 + k) % 12], parts[(i / 24 + k) % 11], parts[(i / 7 + k) % 12])
            };
            format!("{}{} {}{}", stem(0), ["rax", "qin"][i % 2], stem(5), ["qin", "rax"][i % 2])
        };
        let folder = tempfile::tempdir().unwrap();
        let (train, rows) = data(folder.path(), &(0..240).map(text).collect::<Vec<_>>());
        let (dev, _) = data(folder.path(), &(1000..1101).map(text).collect::<Vec<_>>());
        let vocabulary = folder.path().join("vocabulary");
        choose(&vocabulary, (&train, &dev), &rows, 1, &Interrupt::default()).unwrap();
        let tokenizer = TokenizerFiles::read(&vocabulary).unwrap();
        let ids = tokenizer.table().unwrap().encode("kamolifurax");
        assert!(ids.len() >= 3, "{ids:?}");
        assert!(!vocabulary.with_extension("long").exists() && !vocabulary.with_extension("short").exists());
    }
}
