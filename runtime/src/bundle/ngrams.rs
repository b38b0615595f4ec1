//! The n-grams section: scores of tokens and pairs of neighbours, read in place.

use core::fmt;

use super::config::word;
use super::{BundleError, NGramsFault};
use crate::spec::Config;

/// Numbers of 16 or 32 bits.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    Short(&'a [[u8; 2]]),
    Long(&'a [[u8; 4]]),
}

impl<'a> Numbers<'a> {
    /// Cuts `count` numbers below or equal to `most` from the beginning of `bytes`; missing ones are missing.
    fn cut(bytes: &'a [u8], count: usize, most: usize) -> (Self, &'a [u8]) {
        let (part, rest) = bytes.split_at_checked(count.saturating_mul(width(most))).unwrap_or_default();
        let numbers =
            if width(most) == 2 { Numbers::Short(part.as_chunks().0) } else { Numbers::Long(part.as_chunks().0) };
        (numbers, rest)
    }

    fn get(&self, at: usize) -> Option<usize> {
        match self {
            Numbers::Short(all) => Some(u16::from_le_bytes(*all.get(at)?).into()),
            Numbers::Long(all) => Some(u32::from_le_bytes(*all.get(at)?) as usize),
        }
    }
}

/// Returns the bytes of a number that is at most `most`.
const fn width(most: usize) -> usize {
    if most <= u16::MAX as usize { 2 } else { 4 }
}

/// The scores of the n-grams of a model: [the formula](crate::spec#the-n-grams), in integers but for one division at the end.
///
/// # Format
/// Little endian; `G` is the number of n-grams, `V` is `vocab_size` and `N` is `num_labels`. A number that is at most 65,535 in every model of the
/// same `V` and `G` has 2 bytes, another one 4.
///
/// | bytes | field |
/// |---|---|
/// | 4 | `G`, u32, 1 to 1,048,576 |
/// | (V + 2) · 2 or 4 | beginnings, at most `G`: the pairs whose first token is `t` are n-grams `begin[t]` to `begin[t + 1]`; those of `t = V` are single tokens; the first is 0, none is less than the one before, the last is `G` |
/// | N · 4 | scale of each label, f32: that of its values, divided by the root of the scale of the norms |
/// | G · 2 or 4 | the second token of each pair, or the single token, below `V`; ascending among those of one first token |
/// | G | norms, u8, 1 to 255 |
/// | G · N | values, i8, −127 to 127, n-gram by n-gram |
#[derive(Clone, Copy)]
pub struct NGrams<'a> {
    vocab_size: usize,
    labels: usize,
    begins: Numbers<'a>,
    scales: &'a [[u8; 4]],
    seconds: Numbers<'a>,
    norms: &'a [u8],
    values: &'a [u8],
}

/// Returns the bytes of the section of a valid configuration that has n-grams.
fn bytes_of(config: &Config) -> u64 {
    let count = config.ngrams;
    let (vocab, labels, count64) = (config.vocab_size as u64, config.num_labels as u64, count as u64);
    // The configuration was validated, and the count has 32 bits: nothing overflows.
    let begins = (vocab + 2) * width(count) as u64;
    4 + begins + 4 * labels + count64 * (width(config.vocab_size) as u64 + 1 + labels)
}

impl<'a> NGrams<'a> {
    /// Returns the number of n-grams that a section says it has.
    pub(super) const fn count(bytes: &[u8]) -> Option<usize> {
        match word(bytes, 0) {
            Some(count) => Some(count as usize),
            None => None,
        }
    }

    /// Returns the bytes that the n-grams of a valid configuration take; 0 for none.
    pub fn bytes(config: &Config) -> u64 {
        if config.ngrams > 0 { bytes_of(config) } else { 0 }
    }

    /// Checks a section; with `verify` also its values. `config` is valid and has the section's number of n-grams.
    pub(super) fn check(bytes: &'a [u8], config: &Config, verify: bool) -> Result<(), BundleError> {
        use NGramsFault as F;
        let need = bytes_of(config);
        if bytes.len() as u64 != need {
            return Err(BundleError::NGrams(F::Length { need, got: bytes.len() as u64 }));
        }
        let grams = NGrams::cut(bytes, config);
        let mut end = 0;
        for first in 0..=config.vocab_size {
            let (begin, next) = (grams.begins.get(first), grams.begins.get(first + 1));
            let (Some(begin), Some(next)) = (begin, next) else { return Err(BundleError::NGrams(F::Begins { first })) };
            let last = first == config.vocab_size;
            if begin != end || next < begin || next > config.ngrams || (last && next != config.ngrams) {
                return Err(BundleError::NGrams(F::Begins { first }));
            }
            let mut before = None;
            for at in begin..next {
                let second = grams.seconds.get(at);
                if second.is_none_or(|second| second >= config.vocab_size) || second <= before {
                    return Err(BundleError::NGrams(F::Order { at }));
                }
                before = second;
            }
            end = next;
        }
        let bad = |scale: &[u8; 4]| {
            let scale = f32::from_le_bytes(*scale);
            !scale.is_finite() || scale < 0.0
        };
        if let Some(label) = grams.scales.iter().position(bad) {
            return Err(BundleError::NGrams(F::Scale { label }));
        }
        if let Some(at) = grams.norms.iter().position(|&norm| norm == 0) {
            return Err(BundleError::NGrams(F::Norm { at }));
        }
        match grams.values.iter().position(|&value| verify && value == 128) {
            Some(at) => Err(BundleError::NGrams(F::Value { at })),
            None => Ok(()),
        }
    }

    /// Cuts a checked section.
    pub(super) fn cut(bytes: &'a [u8], config: &Config) -> Self {
        let (vocab_size, labels, count) = (config.vocab_size, config.num_labels, config.ngrams);
        let (_, rest) = bytes.split_at_checked(4).unwrap_or_default();
        let (begins, rest) = Numbers::cut(rest, vocab_size + 2, count);
        let (scales, rest) = rest.split_at_checked(labels * 4).unwrap_or_default();
        let (seconds, rest) = Numbers::cut(rest, count, vocab_size);
        let (norms, values) = rest.split_at_checked(count).unwrap_or_default();
        NGrams { vocab_size, labels, begins, scales: scales.as_chunks().0, seconds, norms, values }
    }

    /// Returns the number of n-grams, `G`.
    pub fn len(&self) -> usize {
        self.norms.len()
    }

    /// Returns whether there are none, which no model has.
    pub fn is_empty(&self) -> bool {
        self.norms.is_empty()
    }

    /// Returns the n-gram of a token: a pair with the one before it, or without one the token alone.
    pub fn find(&self, before: Option<u32>, token: u32) -> Option<usize> {
        let first = match before {
            Some(before) if (before as usize) < self.vocab_size => before as usize,
            Some(_) => return None,
            None => self.vocab_size,
        };
        let (mut low, mut high) = (self.begins.get(first)?, self.begins.get(first.saturating_add(1))?);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.seconds.get(middle)?.cmp(&(token as usize)) {
                core::cmp::Ordering::Equal => return Some(middle),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Returns the norm of an n-gram; 0 of one that there is not.
    pub fn norm(&self, at: usize) -> u8 {
        self.norms.get(at).copied().unwrap_or(0)
    }

    /// Returns the values of an n-gram, `[num_labels]`.
    pub fn values(&self, at: usize) -> impl Iterator<Item = i8> + use<'a> {
        let values = self.values.get(at.saturating_mul(self.labels)..).unwrap_or_default();
        values.iter().take(self.labels).map(|&value| value as i8)
    }

    /// Returns the scales, `[num_labels]`.
    pub fn scales(&self) -> impl Iterator<Item = f32> + use<'a> {
        self.scales.iter().map(|scale| f32::from_le_bytes(*scale))
    }
}

impl fmt::Debug for NGrams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NGrams").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The n-grams of a model that is written, quantized.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NGramTable {
    /// The ids of each n-gram, −1 and the token for a single one; in the order of [`files::NGRAMS`](crate::spec::files::NGRAMS).
    pub tokens: alloc::vec::Vec<[i32; 2]>,
    /// Values `[G, num_labels]`, −127 to 127.
    pub values: alloc::vec::Vec<i8>,
    /// Scale of each label.
    pub scales: alloc::vec::Vec<f32>,
    /// Norms, 1 to 255.
    pub norms: alloc::vec::Vec<u8>,
}

#[cfg(feature = "alloc")]
impl NGramTable {
    /// Quantizes scores. `weight`: `[G, num_labels]`; `norm`: `[G]`, above 0.
    ///
    /// ```text
    /// norms[g] = max(1, round_half_even(norm[g] · 255 / max norm))
    /// values[g, k] = round_half_even(weight[g, k] · 127 / max_g |weight[g, k]|)
    /// scales[k] = max_g |weight[g, k]| / 127 / √(max norm / 255)
    /// ```
    #[cfg(feature = "std")]
    pub fn quantize(tokens: &[[i32; 2]], weight: &[f32], norm: &[f32], labels: usize) -> Self {
        let labels = labels.max(1);
        let most_norm = norm.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let mut most = alloc::vec![0f32; labels];
        for row in weight.chunks_exact(labels) {
            most.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
        }
        let root = (f64::from(most_norm) / 255.0).sqrt();
        let rounded = |value: f32, most: f32, steps: f64| {
            if most > 0.0 { (f64::from(value) * steps / f64::from(most)).round_ties_even() } else { 0.0 }
        };
        NGramTable {
            tokens: tokens.to_vec(),
            values: weight
                .chunks_exact(labels)
                .flat_map(|row| row.iter().zip(&most).map(|(&value, &most)| rounded(value, most, 127.0) as i8))
                .collect(),
            scales: most.iter().map(|&most| (f64::from(most) / 127.0 / root) as f32).collect(),
            norms: norm.iter().map(|&value| rounded(value, most_norm, 255.0).max(1.0) as u8).collect(),
        }
    }

    /// Writes the section.
    pub(super) fn section(&self, config: &Config) -> Result<alloc::vec::Vec<u8>, BundleError> {
        let (vocab, count) = (config.vocab_size, self.tokens.len());
        let lengths = [
            (config.ngrams, count),
            (count, self.norms.len()),
            (count.saturating_mul(config.num_labels), self.values.len()),
            (config.num_labels, self.scales.len()),
        ];
        if let Some(&(expected, got)) = lengths.iter().find(|(expected, got)| expected != got) {
            return Err(BundleError::NGrams(NGramsFault::Count { expected, got }));
        }
        let mut begins = alloc::vec![0usize; vocab + 2];
        for (at, [first, _]) in self.tokens.iter().enumerate() {
            let first = if *first < 0 { vocab } else { *first as usize };
            match begins.get_mut(first + 1) {
                Some(count) => *count += 1,
                None => return Err(BundleError::NGrams(NGramsFault::Order { at })),
            }
        }
        let mut sum = 0;
        begins.iter_mut().for_each(|begin| {
            sum += *begin;
            *begin = sum;
        });
        let mut out = alloc::vec::Vec::new();
        let push = |out: &mut alloc::vec::Vec<u8>, value: usize, most| {
            out.extend((value as u32).to_le_bytes().into_iter().take(width(most)));
        };
        out.extend((count as u32).to_le_bytes());
        begins.iter().for_each(|&begin| push(&mut out, begin, count));
        self.scales.iter().for_each(|scale| out.extend(scale.to_le_bytes()));
        self.tokens.iter().for_each(|&[_, second]| push(&mut out, second as u32 as usize, vocab));
        out.extend(&self.norms);
        out.extend(self.values.iter().map(|&value| value as u8));
        Ok(out)
    }
}
