//! Span corruption as in T5: `random_spans_noise_mask`, `random_spans_helper` and the two `…_to_unique_sentinel`
//! functions of `t5/data/preprocessors.py` (Raffel et al. 2020, section 3.3.4).
//!
//! A mask says which tokens of an example are noise. Each span of noise becomes one sentinel in the inputs; each span
//! between them becomes one sentinel in the targets; `</s>` ends both:
//!
//! ```text
//! tokens   Thank you for inviting me to your party last week
//! mask               ^^^ ^^^^^^^^               ^^^^
//! inputs   Thank you <S0> me to your party <S1> week </s>
//! targets  <S0> for inviting <S1> last <S2> </s>
//! ```
//!
//! The targets are the same transformation with the mask inverted: their `<S0>` stands for the tokens before the first
//! noise. There is no closing sentinel; here `<S2>` stands for "week".

use anyhow::{Result, ensure};
use kinglet::tokenizer::END;
use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;

/// The parameters of span corruption.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanCorruption {
    /// Share of the tokens that are masked, between 0 and 1.
    pub noise_density: f64,
    /// Mean number of tokens in a masked span, 1 or more.
    pub mean_span: f64,
    /// Whether the mask is rotated by a random number of tokens. Without rotation, the first token of an example is
    /// never masked and the last one always is, which matters for short texts.
    pub random_roll: bool,
}

impl Default for SpanCorruption {
    /// T5's defaults: 15% in spans of 3, not rotated.
    fn default() -> Self {
        SpanCorruption { noise_density: 0.15, mean_span: 3.0, random_roll: false }
    }
}

/// Lengths of examples before and after corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens of text in an example.
    pub tokens: usize,
    /// Ids in the targets, including sentinels and `</s>`.
    pub targets: usize,
}

/// Ids that stand for spans: `vocab_size − 1` for the first span, the id below for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentinels {
    vocab_size: u32,
    count: u32,
}

impl Sentinels {
    /// Creates the sentinels: the ids that a model of `vocab_size` ids has beyond its tokenizer's.
    ///
    /// # Errors
    /// If there are none, or ids do not fit in 32 bits.
    pub fn new(vocab_size: usize, tokenizer_vocab_size: usize) -> Result<Self> {
        ensure!(
            vocab_size > tokenizer_vocab_size,
            "the model has {vocab_size} ids and the tokenizer {tokenizer_vocab_size}: no id is left for sentinels"
        );
        let count = u32::try_from(vocab_size - tokenizer_vocab_size)?;
        Ok(Sentinels { vocab_size: u32::try_from(vocab_size)?, count })
    }

    /// Returns the number of examples.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the id of the span numbered `index` from 0, or `None` if there are fewer.
    pub fn id(&self, index: usize) -> Option<u32> {
        let index = u32::try_from(index).ok().filter(|&index| index < self.count)?;
        Some(self.vocab_size - 1 - index)
    }
}

/// Input and target of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Ids for the encoder, `</s>` last.
    pub inputs: Vec<u32>,
    /// Ids that the decoder must write, `</s>` last.
    pub targets: Vec<u32>,
}

/// Number of noise tokens and spans in a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    noise: usize,
    spans: usize,
}

impl SpanCorruption {
    /// Checks the parameters.
    ///
    /// # Errors
    /// If the density is not between 0 and 1, the mean span is below 1, or there would be more spans than tokens
    /// between them.
    pub fn validate(&self) -> Result<()> {
        let SpanCorruption { noise_density: density, mean_span: mean, .. } = *self;
        ensure!(density > 0.0 && density < 1.0, "noise_density is {density}, must be between 0 and 1");
        ensure!(mean >= 1.0 && mean.is_finite(), "mean_span is {mean}, must be 1 or more");
        ensure!(
            density / mean <= 1.0 - density,
            "noise_density {density} in spans of {mean} leaves fewer tokens than spans; lower noise_density or raise mean_span"
        );
        Ok(())
    }

    /// Returns how many tokens to take so that the corrupted inputs have at most `inputs` ids, and the number of ids in
    /// the targets.
    ///
    /// As T5's `random_spans_helper`: the largest `tokens` with `nonnoise + spans + 1 <= inputs`. With the default
    /// parameters, 512 inputs are 568 tokens and 114 targets. If the noise is so low that it rounds to no span (fewer
    /// than 10 tokens with the default parameters), the mask still has one span, and the inputs are one id longer, as
    /// in T5.
    ///
    /// Rounding is half to even, in f64. T5's special case applies: at density 0.5, the targets are not longer than the
    /// inputs.
    pub fn lengths(&self, inputs: usize) -> Lengths {
        let lengths = |tokens: usize| {
            let noise = (tokens as f64 * self.noise_density).round_ties_even() as usize;
            let spans = (noise as f64 / self.mean_span).round_ties_even() as usize;
            (tokens.saturating_sub(noise) + spans + 1, noise + spans + 1)
        };
        let mut tokens = inputs.saturating_sub(1);
        // Terminates: more tokens have fewer unmasked ones at most as `noise_density < 1` allows.
        while lengths(tokens + 1).0 <= inputs {
            tokens += 1;
        }
        let (inputs, mut targets) = lengths(tokens);
        if self.noise_density == 0.5 && targets > inputs {
            tokens -= 1;
            targets -= 1;
        }
        Lengths { tokens, targets }
    }

    /// Returns the largest number of spans, and therefore sentinels, that [`SpanCorruption::corrupt`] needs for up to
    /// `length` tokens.
    ///
    /// A rotation can cut one span in two, and the targets have one sentinel per stretch between spans.
    pub fn most_spans(&self, length: usize) -> usize {
        self.counts(length.max(2)).spans + usize::from(self.random_roll)
    }

    /// Returns the numbers of noise tokens and spans in `length` tokens, 2 or more.
    ///
    /// `noise = clamp(round(length·density), 1, length − 1)`, `spans = max(round(noise / mean), 1)`, computed in f32 as
    /// in T5, which for some lengths (190 · 0.15) rounds up where f64 finds a tie. T5 fails if there are more spans
    /// than tokens between them; here their number is limited.
    fn counts(&self, length: usize) -> Counts {
        let noise = (length as f32 * self.noise_density as f32).round_ties_even() as usize;
        let noise = noise.clamp(1, length - 1);
        let spans = (noise as f32 / self.mean_span as f32).round_ties_even() as usize;
        Counts { noise, spans: spans.clamp(1, noise.min(length - noise)) }
    }

    /// Returns a mask of `length` tokens: `true` for noise.
    pub fn mask(&self, length: usize, random: &mut SplitMix64) -> Vec<bool> {
        let offset = if self.random_roll { random.below(length.max(2) as u64) as usize } else { 0 };
        self.mask_with(length, |bits| random.shuffle(bits), offset)
    }

    /// [`SpanCorruption::mask`] with its random parts passed in: `shuffle` orders the segment starts, first of noise,
    /// then of the rest; the mask is rotated to the right by `offset` tokens.
    pub fn mask_with(&self, length: usize, mut shuffle: impl FnMut(&mut [bool]), offset: usize) -> Vec<bool> {
        let whole = length.max(2);
        let Counts { noise, spans } = self.counts(whole);
        let noise_spans = segments(noise, spans, &mut shuffle);
        let other_spans = segments(whole - noise, spans, &mut shuffle);
        let mut mask = Vec::with_capacity(whole);
        for (other, noise) in other_spans.into_iter().zip(noise_spans) {
            mask.resize(mask.len() + other, false);
            mask.resize(mask.len() + noise, true);
        }
        mask.truncate(length);
        if length > 0 {
            mask.rotate_right(offset % length);
        }
        mask
    }

    /// Returns inputs and targets of an example's `tokens`, which have no `</s>`.
    ///
    /// # Errors
    /// If there are more spans than sentinels: see [`SpanCorruption::most_spans`].
    pub fn corrupt(&self, tokens: &[u32], random: &mut SplitMix64, sentinels: &Sentinels) -> Result<Example> {
        Self::apply(tokens, &self.mask(tokens.len(), random), sentinels)
    }

    /// Returns inputs and targets of `tokens` under a `mask` of the same length.
    ///
    /// # Errors
    /// If the mask has more spans, or stretches between spans, than there are sentinels.
    pub fn apply(tokens: &[u32], mask: &[bool], sentinels: &Sentinels) -> Result<Example> {
        Ok(Example {
            inputs: spans_to_sentinels(tokens, mask, true, sentinels)?,
            targets: spans_to_sentinels(tokens, mask, false, sentinels)?,
        })
    }
}

/// Returns the lengths of `segments` random segments, each 1 or more, of `items` items (T5's `_random_segmentation`): a
/// segment begins at the first item and at each of the shuffled `segments − 1` marks among the other items.
fn segments(items: usize, segments: usize, shuffle: &mut impl FnMut(&mut [bool])) -> Vec<usize> {
    let mut begins: Vec<bool> = (0..items - 1).map(|i| i < segments - 1).collect();
    shuffle(&mut begins);
    let mut lengths = vec![1];
    for begin in begins {
        match lengths.last_mut() {
            Some(last) if !begin => *last += 1,
            _ => lengths.push(1),
        }
    }
    lengths
}

/// Replaces each span where the mask is `noise` by one sentinel and appends `</s>` (T5's
/// `noise_span_to_unique_sentinel`; with `noise = false`, its `nonnoise_span_to_unique_sentinel`).
fn spans_to_sentinels(tokens: &[u32], mask: &[bool], noise: bool, sentinels: &Sentinels) -> Result<Vec<u32>> {
    let mut out = Vec::with_capacity(tokens.len() + 1);
    let (mut spans, mut before) = (0, false);
    for (&token, &masked) in tokens.iter().zip(mask) {
        let masked = masked == noise;
        if !masked {
            out.push(token);
        } else if !before {
            let id = sentinels.id(spans);
            ensure!(id.is_some(), "an example has more spans than the {} sentinels", sentinels.count());
            out.extend(id);
            spans += 1;
        }
        before = masked;
    }
    out.push(END);
    Ok(out)
}
