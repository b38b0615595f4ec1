//! Subword regularization (Kudo 2018, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
//! Candidates"): words cut into other pieces than the best ones, so that a model learns what the parts of a word mean.

use std::collections::HashMap;

use kinglet::tokenizer::{FIRST_PIECE, METASPACE, SCORE_UNIT, Table, Token};

use crate::random::SplitMix64;

/// Draws segmentations of words from `P(x)^α / Σ P(x)^α` over all sequences `x` of pieces that spell a word, where `P` is the
/// unigram model's probability: forward filtering, backward sampling.
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Id and α·log P of each piece.
    pieces: HashMap<Box<str>, (u32, f64)>,
    /// Bytes of the longest piece.
    longest: usize,
    /// Share of the words that are drawn.
    share: f64,
}

impl Sampler {
    /// Creates the sampler of a vocabulary. A share `share` of the words is drawn anew, with the exponent `alpha`: 0 makes all
    /// segmentations equally likely, large values leave the best one.
    pub fn new(table: &Table<'_>, share: f64, alpha: f64) -> Self {
        let mut pieces: HashMap<Box<str>, (u32, f64)> = HashMap::new();
        for id in FIRST_PIECE..table.vocab_size() as u32 {
            if let (Some(Token::Piece(piece)), Some(score)) = (table.token(id), table.score(id)) {
                pieces.insert(Box::from(piece), (id, alpha * f64::from(score) * SCORE_UNIT));
            }
        }
        let longest = pieces.keys().map(|piece| piece.len()).max().unwrap_or(0);
        Sampler { pieces, longest, share }
    }

    /// Returns the ids of a text, of which `table` made `ids`, with some words cut into other pieces. What is no piece (bytes, the
    /// end) stays, and every text spells the same as before.
    pub fn sample(&self, table: &Table<'_>, ids: &[u32], rng: &mut SplitMix64) -> Vec<u32> {
        let piece = |id: u32| match table.token(id) {
            Some(Token::Piece(piece)) => Some(piece),
            _ => None,
        };
        let (mut out, mut word, mut at) = (Vec::with_capacity(ids.len() + 8), String::new(), 0);
        while at < ids.len() {
            word.clear();
            let start = at;
            while let Some(next) = ids.get(at).and_then(|&id| piece(id)) {
                if at > start && next.starts_with(METASPACE) {
                    break;
                }
                word.push_str(next);
                at += 1;
            }
            if at == start {
                // Not a piece: a byte, or the end of the text.
                out.push(ids[at]);
                at += 1;
            } else if rng.unit() >= self.share || !self.draw(&word, rng, &mut out) {
                out.extend_from_slice(&ids[start..at]);
            }
        }
        out
    }

    /// Appends the ids of a random segmentation of `word` to `out`; returns `false` if pieces cannot spell it.
    fn draw(&self, word: &str, rng: &mut SplitMix64, out: &mut Vec<u32>) -> bool {
        let n = word.len();
        // sums[i]: log of the summed weights of all segmentations of the first i bytes.
        let mut sums = vec![f64::NEG_INFINITY; n + 1];
        sums[0] = 0.0;
        let last = |end: usize, sums: &[f64]| -> Vec<(usize, u32, f64)> {
            let starts = (end.saturating_sub(self.longest)..end).filter(|&start| sums[start] > f64::NEG_INFINITY);
            let found = starts.filter_map(|start| {
                let (id, score) = self.pieces.get(word.get(start..end)?)?;
                Some((start, *id, sums[start] + score))
            });
            found.collect()
        };
        for end in 1..=n {
            let found = last(end, &sums);
            let most = found.iter().map(|&(_, _, score)| score).fold(f64::NEG_INFINITY, f64::max);
            if most > f64::NEG_INFINITY {
                sums[end] = most + found.iter().map(|&(_, _, score)| (score - most).exp()).sum::<f64>().ln();
            }
        }
        if sums[n] == f64::NEG_INFINITY {
            return false;
        }
        let (first, mut end) = (out.len(), n);
        while end > 0 {
            let found = last(end, &sums);
            let mut left = rng.unit();
            let drawn = found.iter().find(|&&(_, _, score)| {
                left -= (score - sums[end]).exp();
                left < 0.0
            });
            // Rounding may leave a little of the unit interval; the last candidate takes it.
            let Some(&(start, id, _)) = drawn.or(found.last()) else { break };
            out.push(id);
            end = start;
        }
        out[first..].reverse();
        true
    }
}

#[cfg(test)]
mod tests {
    use kinglet::tokenizer::Normalization;
    use std::collections::BTreeMap;

    use super::*;

    /// A vocabulary over two letters; scores are log probabilities in units of 1/1024.
    fn table() -> Vec<u8> {
        let pieces = [("a", -2.0), ("ab", -1.5), ("b", -2.5), ("ba", -3.0), ("▁", -1.0), ("▁a", -2.2), ("▁ab", -3.5)];
        let known = |letter: &String| pieces.iter().any(|(piece, _)| piece == letter);
        let letters =
            ('!'..='~').filter(|c| !c.is_ascii_uppercase()).map(String::from).filter(|c| !known(c)).map(|c| (c, -10.0));
        let named = pieces.iter().map(|&(piece, score)| (piece.to_owned(), score));
        let mut pieces: Vec<(String, i16)> =
            named.chain(letters).map(|(piece, score)| (piece, (score / SCORE_UNIT) as i16)).collect();
        pieces.sort_unstable();
        Table::write(&pieces, Normalization::LOWERCASE).unwrap()
    }

    /// Every way to spell `word`, with its weight under the exponent `alpha`.
    fn all(table: &Table<'_>, word: &str, alpha: f64) -> Vec<(Vec<u32>, f64)> {
        if word.is_empty() {
            return vec![(Vec::new(), 1.0)];
        }
        let mut out = Vec::new();
        for id in FIRST_PIECE..table.vocab_size() as u32 {
            let Some(Token::Piece(piece)) = table.token(id) else { continue };
            let Some(rest) = word.strip_prefix(piece) else { continue };
            let weight = (alpha * f64::from(table.score(id).unwrap()) * SCORE_UNIT).exp();
            for (mut ids, others) in all(table, rest, alpha) {
                ids.insert(0, id);
                out.push((ids, others * weight));
            }
        }
        out
    }

    #[test]
    fn segmentations_are_drawn_with_their_probabilities() {
        let bytes = table();
        let table = Table::new(&bytes).unwrap();
        for alpha in [0.0, 0.5, 1.0] {
            let ways = all(&table, "▁abab", alpha);
            let total: f64 = ways.iter().map(|(_, weight)| weight).sum();
            assert!(ways.len() > 8);
            let sampler = Sampler::new(&table, 1.0, alpha);
            let (mut rng, mut counts, draws) = (SplitMix64::new(7), BTreeMap::<Vec<u32>, u32>::new(), 20_000);
            for _ in 0..draws {
                *counts.entry(sampler.sample(&table, &table.encode("abab"), &mut rng)).or_default() += 1;
            }
            assert_eq!(counts.len(), ways.len());
            for (mut ids, weight) in ways {
                ids.push(kinglet::tokenizer::END);
                let (share, expected) = (f64::from(counts[&ids]) / f64::from(draws), weight / total);
                // Five standard deviations.
                let bound = 5.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
                assert!((share - expected).abs() < bound, "{ids:?}: {share} instead of {expected}");
            }
        }
    }

    #[test]
    fn texts_spell_the_same_and_other_tokens_stay() {
        let bytes = table();
        let table = Table::new(&bytes).unwrap();
        let (sampler, mut rng) = (Sampler::new(&table, 0.5, 0.2), SplitMix64::new(1));
        let ids = table.encode("abba c ba aé abab");
        assert!(ids.iter().any(|&id| id < FIRST_PIECE));
        let mut different = 0;
        for _ in 0..50 {
            let drawn = sampler.sample(&table, &ids, &mut rng);
            assert_eq!(table.decode(&drawn), table.decode(&ids));
            let others = |ids: &[u32]| ids.iter().copied().filter(|&id| id < FIRST_PIECE).collect::<Vec<_>>();
            assert_eq!(others(&drawn), others(&ids));
            different += usize::from(drawn != ids);
        }
        assert!(different > 20, "{different}");
        assert_eq!(Sampler::new(&table, 0.0, 0.2).sample(&table, &ids, &mut rng), ids);
        // A large exponent leaves the best segmentation.
        assert_eq!(Sampler::new(&table, 1.0, 50.0).sample(&table, &ids, &mut rng), ids);
    }
}
