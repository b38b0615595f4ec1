//! Span corruption as T5 trains with it: `random_spans_noise_mask`, `random_spans_helper` and the two
//! `…_to_unique_sentinel` functions of `t5/data/preprocessors.py` (Raffel et al. 2020, section 3.3.4).
//!
//! A mask says which tokens of an example are noise. Each span of noise becomes one sentinel in the inputs; each span between
//! them becomes one sentinel in the targets; `</s>` ends both:
//!
//! ```text
//! tokens   Thank you for inviting me to your party last week
//! mask               ^^^ ^^^^^^^^               ^^^^
//! inputs   Thank you <S0> me to your party <S1> week </s>
//! targets  <S0> for inviting <S1> last <S2> </s>
//! ```
//!
//! The targets are the same transformation with the mask inverted: their `<S0>` stands for the tokens before the first noise.
//! There is no closing sentinel; here `<S2>` stands for "week".

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
    /// Whether the mask is rotated by a random number of tokens. Without it the first token of an example is never masked and the
    /// last always is, which matters for short texts.
    pub random_roll: bool,
}

impl Default for SpanCorruption {
    /// T5's: 15 % in spans of 3, not rotated.
    fn default() -> Self {
        SpanCorruption { noise_density: 0.15, mean_span: 3.0, random_roll: false }
    }
}

/// How long examples are before and after corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens of text in an example.
    pub tokens: usize,
    /// Ids in its targets, sentinels and `</s>` included.
    pub targets: usize,
}

/// The ids that stand for spans: the first span's is `vocab_size − 1`, the next one's the id below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentinels {
    vocab_size: u32,
    count: u32,
}

impl Sentinels {
    /// The ids that a model of `vocab_size` ids has beyond its tokenizer's.
    ///
    /// # Errors
    /// When there are none, or ids do not fit 32 bits.
    pub fn new(vocab_size: usize, tokenizer_vocab_size: usize) -> Result<Self> {
        ensure!(
            vocab_size > tokenizer_vocab_size,
            "the model has {vocab_size} ids and the tokenizer {tokenizer_vocab_size}: no id is left for sentinels"
        );
        let count = u32::try_from(vocab_size - tokenizer_vocab_size)?;
        Ok(Sentinels { vocab_size: u32::try_from(vocab_size)?, count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Id of the span numbered `index` from 0; `None` when there are not so many.
    pub fn id(&self, index: usize) -> Option<u32> {
        let index = u32::try_from(index).ok().filter(|&index| index < self.count)?;
        Some(self.vocab_size - 1 - index)
    }
}

/// What the model reads and what it must write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Ids for the encoder, `</s>` last.
    pub inputs: Vec<u32>,
    /// Ids the decoder must give, `</s>` last.
    pub targets: Vec<u32>,
}

/// Noise tokens and spans of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    noise: usize,
    spans: usize,
}

impl SpanCorruption {
    /// Checks the parameters.
    ///
    /// # Errors
    /// When the density is not between 0 and 1, the mean span is below 1, or the spans would be more than the tokens between
    /// them.
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

    /// How many tokens to cut from the text so that the corrupted inputs have at most `inputs` ids, and how many ids the targets
    /// then have (T5's `random_spans_helper`): the largest `tokens` with `nonnoise + spans + 1 <= inputs`. 512 inputs with
    /// the default parameters: 568 tokens, 114 targets. So little noise that it rounds to no span is one span in the mask all the same
    /// (fewer than 10 tokens with the default parameters): the inputs are then one id longer, as in T5.
    ///
    /// Rounding is half to even, in f64. T5's special case is here too: of density 0.5 the targets are not longer than the inputs.
    pub fn lengths(&self, inputs: usize) -> Lengths {
        let lengths = |tokens: usize| {
            let noise = (tokens as f64 * self.noise_density).round_ties_even() as usize;
            let spans = (noise as f64 / self.mean_span).round_ties_even() as usize;
            (tokens.saturating_sub(noise) + spans + 1, noise + spans + 1)
        };
        let mut tokens = inputs.saturating_sub(1);
        // Ends: more tokens have at most as many fewer unmasked ones as `noise_density < 1` allows.
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

    /// Most spans that [`SpanCorruption::corrupt`] can make of up to `length` tokens; so many sentinels are needed.
    ///
    /// A rotation can cut one span in two, and the targets have one sentinel for each stretch between spans.
    pub fn most_spans(&self, length: usize) -> usize {
        self.counts(length.max(2)).spans + usize::from(self.random_roll)
    }

    /// The numbers of noise tokens and spans in `length` tokens, 2 or more.
    ///
    /// `noise = clamp(round(length·density), 1, length − 1)`, `spans = max(round(noise / mean), 1)`, computed in f32 as T5
    /// does, which for some lengths (190 · 0.15) rounds up where f64 finds a tie. T5 fails where the spans are more than the
    /// tokens between them; here they are as many at most.
    fn counts(&self, length: usize) -> Counts {
        let noise = (length as f32 * self.noise_density as f32).round_ties_even() as usize;
        let noise = noise.clamp(1, length - 1);
        let spans = (noise as f32 / self.mean_span as f32).round_ties_even() as usize;
        Counts { noise, spans: spans.clamp(1, noise.min(length - noise)) }
    }

    /// Which of `length` tokens are noise: `true` for noise.
    pub fn mask(&self, length: usize, random: &mut SplitMix64) -> Vec<bool> {
        let offset = if self.random_roll { random.below(length.max(2) as u64) as usize } else { 0 };
        self.mask_with(length, |bits| random.shuffle(bits), offset)
    }

    /// [`SpanCorruption::mask`] with its random parts from outside: `shuffle` orders the segment begins, first those of noise, then
    /// those of the rest; the mask is rotated to the right by `offset` tokens.
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

    /// Inputs and targets of an example's `tokens`, which have no `</s>`.
    ///
    /// # Errors
    /// When there are more spans than sentinels: see [`SpanCorruption::most_spans`].
    pub fn corrupt(&self, tokens: &[u32], random: &mut SplitMix64, sentinels: &Sentinels) -> Result<Example> {
        Self::apply(tokens, &self.mask(tokens.len(), random), sentinels)
    }

    /// Inputs and targets of `tokens` under a `mask` of the same length.
    ///
    /// # Errors
    /// When the mask has more spans, or spans between them, than there are sentinels.
    pub fn apply(tokens: &[u32], mask: &[bool], sentinels: &Sentinels) -> Result<Example> {
        Ok(Example {
            inputs: spans_to_sentinels(tokens, mask, true, sentinels)?,
            targets: spans_to_sentinels(tokens, mask, false, sentinels)?,
        })
    }
}

/// Lengths of `segments` random segments, each 1 or more, that `items` items are cut into (T5's `_random_segmentation`): a
/// segment begins at the first item and where the shuffled `segments − 1` ones lie among the other items.
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

/// `tokens` with each span where the mask is `noise` made one sentinel, and `</s>` (T5's `noise_span_to_unique_sentinel`,
/// with `noise = false` its `nonnoise_span_to_unique_sentinel`).
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
