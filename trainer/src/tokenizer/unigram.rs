//! Learning of the pieces: Hugging Face's unigram trainer, made independent of the number of threads, and extended.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, ensure};
use kinglet::tokenizer::{FIRST_PIECE, METASPACE, SCORE_UNIT};
use tokenizers::{
    Model,
    models::unigram::{Unigram, UnigramTrainerBuilder},
};

use super::plan::{TokenizerPlan, is_special, required};

/// Returns the characters that become pieces: the required ones, and the most frequent up to the coverage or the size.
pub(super) fn kept_characters(chunks: &[(String, u64)], plan: &TokenizerPlan) -> BTreeSet<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (chunk, count) in chunks {
        for c in chunk.chars() {
            *counts.entry(c).or_default() += count;
        }
    }
    let all: u64 = counts.values().sum();
    let mut kept: BTreeSet<char> = required(plan.lowercase).collect();
    let mut covered = 0;
    let mut by_count: Vec<(char, u64)> = counts.into_iter().collect();
    by_count.sort_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
    for (c, count) in by_count {
        let full = FIRST_PIECE as usize + kept.len() >= plan.vocab_size;
        if covered as f64 >= plan.character_coverage * all as f64 || (full && !kept.contains(&c)) {
            break;
        }
        covered += count;
        kept.insert(c);
    }
    kept
}

/// Trains the unigram model; returns pieces sorted by their bytes, with scores in units of [`SCORE_UNIT`].
pub(super) fn learn(
    chunks: &[(String, u64)],
    kept: &BTreeSet<char>,
    plan: &TokenizerPlan,
) -> Result<Vec<(String, i16)>> {
    // A rare character splits its word.
    let mut sentences: BTreeMap<&str, u64> = BTreeMap::new();
    for (chunk, count) in chunks {
        for part in chunk.split(|c| !kept.contains(&c)).filter(|part| !part.is_empty()) {
            *sentences.entry(part).or_default() += count;
        }
    }
    // The trainer starts from substrings that occur twice in its list with different continuations, whatever their
    // counts. A word that occurs twice in the texts is therefore listed twice, once followed by some character;
    // otherwise it could not become a piece.
    let tails: Vec<char> = required(plan.lowercase).filter(|&c| c != METASPACE).collect();
    let words = sentences;
    let sentences: Vec<(String, u32)> = words
        .iter()
        .zip(tails.iter().cycle())
        .flat_map(|((&s, &count), tail)| {
            let twin = (count > 1).then(|| (format!("{s}{tail}"), 1));
            let rest = if count > 1 { count - 1 } else { 1 };
            std::iter::once((s.to_owned(), rest.min(1 << 31) as u32)).chain(twin)
        })
        .collect();
    let seen: BTreeSet<char> = sentences.iter().flat_map(|(s, _)| s.chars()).collect();
    let unseen = kept.difference(&seen).count();
    let size = plan.vocab_size - FIRST_PIECE as usize;
    ensure!(!sentences.is_empty(), "the texts have no character that the vocabulary keeps");
    let fit = |size: usize| -> Result<Unigram> {
        let trainer = UnigramTrainerBuilder::default()
            .show_progress(false)
            .vocab_size(u32::try_from(size)?)
            .max_piece_length(plan.max_piece_length)
            .build()?;
        // The sums of the trainer's threads depend on their number; with one thread they are the same everywhere.
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        let mut model = Unigram::default();
        threads.install(|| trainer.do_train(sentences.clone(), &mut model)).map_err(|e| anyhow!(e))?;
        Ok(model)
    };
    // The trainer drops pieces by their value until 1.1 times the size is left, then keeps the first of them. If there
    // is nothing to drop, these are the substrings of the most words, however rare; then request all of them and keep
    // the most probable below, as SentencePiece does.
    let mut model = fit(MOST_SEEDS)?;
    if model.get_vocab_size() > (size - unseen) * 11 / 10 {
        model = fit(size - unseen)?;
    }

    let mut scores: BTreeMap<String, f64> = model.iter().filter(|(_, s)| !s.is_nan()).cloned().collect();
    let least = scores.values().copied().fold(0.0, f64::min);
    // The trainer spreads pruned characters over steps of 1e-4 in the order of a hash map.
    let spread = least + 1e-4 * kept.len() as f64;
    for &c in kept {
        let score = scores.entry(c.into()).or_insert(least);
        if *score <= spread {
            *score = least;
        }
    }
    scores.retain(|piece, _| !is_special(piece));
    if scores.len() > size {
        let mut longer: Vec<(f64, String)> =
            scores.iter().filter(|(p, _)| p.chars().count() > 1).map(|(p, s)| (*s, p.clone())).collect();
        longer.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        for (_, piece) in longer.into_iter().take(scores.len() - size) {
            scores.remove(&piece);
        }
    }
    add_words(&mut scores, &words, size, plan.max_piece_length);
    // Bytes of UTF-8 sort as strings do. Casts saturate; logarithms of probabilities are far above −32.
    Ok(scores.into_iter().map(|(piece, score)| (piece, (score / SCORE_UNIT).round() as i16)).collect())
}

/// Adds frequent `words` to a vocabulary with fewer than `size` pieces: the most frequent ones that are not pieces
/// become pieces, and none is less probable than its count says.
///
/// The trainer's first estimate counts a character as often as it occurs in the texts, but a longer piece once per word
/// of its list; its two steps of expectation maximization do not correct this for words of one character (a bracket
/// between spaces), however frequent.
fn add_words(scores: &mut BTreeMap<String, f64>, words: &BTreeMap<&str, u64>, size: usize, max_length: usize) {
    let mut room = size.saturating_sub(scores.len());
    if room == 0 {
        return;
    }
    let all: u64 = words.values().sum();
    let mut by_count: Vec<(&str, u64)> = words
        .iter()
        .map(|(&word, &count)| (word, count))
        .filter(|&(word, count)| count > 1 && word.chars().count() <= max_length && !is_special(word))
        .collect();
    by_count.sort_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
    for (word, count) in by_count {
        let least = (count as f64 / all as f64).ln();
        if let Some(score) = scores.get_mut(word) {
            *score = score.max(least);
        } else if room > 0 {
            scores.insert(word.to_owned(), least);
            room -= 1;
        }
    }
}

/// More pieces than the trainer starts with: its 1,000,000 substrings and all characters.
const MOST_SEEDS: usize = 1_000_000 + 0x11_0000;
