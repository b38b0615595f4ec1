//! A linear classifier of token counts: what the words of labelled texts say without their order.
//!
//! Fitted in seconds, it is hard to beat where labels are noisy or texts long. A network learns from it twice: what it says of texts that
//! it was not fitted to are soft labels ([`Linear::soft_labels`]), and its weights are rows of an embedding to start from
//! ([`token_weights`]).

pub mod counts;
pub mod svm;

use anyhow::{Context, Result, ensure};

use crate::interrupt::Interrupt;
use crate::random::{Purpose, SplitMix64, derive_seed};
use counts::Counts;
use svm::{Descent, Machine};

/// Values of `C` among which the held-out texts choose.
const STRENGTHS: [f32; 4] = [0.05, 0.15, 0.5, 1.5];
/// Parts of the texts, each of which is classified by what was fitted to the others.
const FOLDS: usize = 5;
/// Columns times classes above which pairs of neighbours are left out: 256 MB of weights.
const MOST_WEIGHTS: usize = 1 << 26;

/// What linear classifiers say of each text that they were not fitted to.
#[derive(Debug)]
pub struct Linear {
    classes: usize,
    /// Margins of each text by the machines of the other folds, `[N, K]` row by row.
    held_out: Vec<f32>,
    /// Factor of the margins under which the held-out probabilities are best.
    sharpness: f64,
    /// The chosen `C`.
    pub strength: f32,
    /// The best `C` if tokens alone are counted.
    pub strength_of_tokens: f32,
    /// Whether pairs of neighbouring tokens are counted.
    pub pairs: bool,
    /// Accuracy on held-out texts.
    pub accuracy: f64,
}

impl Linear {
    /// Fits a classifier to `texts`, token ids below `vocab_size` of one text or more per fold, whose classes are `labels`, below `classes`.
    /// `C`, and whether pairs of neighbours are counted, is what classifies a held-out fifth best; the strongest regularization of equals.
    /// Runs on all cores; the result depends on `seed` alone.
    ///
    /// # Errors
    /// If there are fewer texts than folds, or a signal asks for a stop.
    pub fn fit(
        texts: &[Vec<u32>],
        labels: &[usize],
        vocab_size: usize,
        classes: usize,
        seed: u64,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let all = texts.len();
        ensure!(all >= FOLDS, "{all} training texts are too few for {FOLDS} folds");
        let mut order: Vec<usize> = (0..all).collect();
        SplitMix64::new(derive_seed(seed, Purpose::Folds, 0)).shuffle(&mut order);
        let folds: Vec<Fold> = (0..FOLDS).map(|fold| Fold::new(&order, fold)).collect();

        let mut best: Option<(f64, f32, bool)> = None;
        let (mut chosen, mut of_tokens) = (None, STRENGTHS[0]);
        for pairs in [false, true] {
            let counts = Counts::new(texts, vocab_size, pairs);
            if counts.width() * classes > MOST_WEIGHTS {
                break;
            }
            let before = best;
            for strength in STRENGTHS {
                let machines = svm::fit(&counts, labels, &folds[0].rest, classes, &Descent::new(strength, seed));
                ensure!(!interrupt.requested(), "stopped by a signal while a linear classifier was fitted");
                let right = folds[0].out.iter().filter(|&&text| predict(&machines, &counts, text) == labels[text]);
                let accuracy = right.count() as f64 / folds[0].out.len() as f64;
                if best.is_none_or(|(most, ..)| accuracy > most) {
                    best = Some((accuracy, strength, pairs));
                }
            }
            if let Some((_, strength, _)) = best.filter(|_| best != before) {
                chosen = Some(counts);
                if !pairs {
                    of_tokens = strength;
                }
            }
        }
        let ((_, strength, pairs), counts) =
            best.zip(chosen).with_context(|| format!("{vocab_size} ids and {classes} classes are too many"))?;

        let mut held_out = vec![0.0; all * classes];
        for fold in &folds {
            let machines = svm::fit(&counts, labels, &fold.rest, classes, &Descent::new(strength, seed));
            ensure!(!interrupt.requested(), "stopped by a signal while a linear classifier was fitted");
            for &text in &fold.out {
                margins(&machines, &counts, text, &mut held_out[text * classes..(text + 1) * classes]);
            }
        }
        let rows = || held_out.chunks_exact(classes).zip(labels);
        let right = rows().filter(|&(margins, &label)| largest(margins) == label).count();
        let sharpness = sharpest(|factor| rows().map(|(margins, &label)| surprise(margins, label, factor)).sum());
        Ok(Linear {
            classes,
            held_out,
            sharpness,
            strength,
            strength_of_tokens: of_tokens,
            pairs,
            accuracy: right as f64 / all as f64,
        })
    }

    /// Returns the probabilities of the classes for each text by the machines that were not fitted to it, `[N, K]` row by row. A text of a
    /// class with fewer texts than folds is of its class `labels[text]` for sure: the machines hardly know it.
    pub fn soft_labels(&self, labels: &[usize]) -> Vec<f32> {
        let mut texts = vec![0; self.classes];
        labels.iter().for_each(|&label| texts[label] += 1);
        let mut out = Vec::with_capacity(self.held_out.len());
        for (margins, &label) in self.held_out.chunks_exact(self.classes).zip(labels) {
            if texts[label] < FOLDS {
                out.extend((0..self.classes).map(|class| f32::from(u8::from(class == label))));
                continue;
            }
            let total = log_sum(margins, self.sharpness);
            out.extend(margins.iter().map(|&margin| (self.sharpness * f64::from(margin) - total).exp() as f32));
        }
        out
    }
}

/// The texts of a fold, and the others.
struct Fold {
    out: Vec<usize>,
    rest: Vec<usize>,
}

impl Fold {
    fn new(order: &[usize], fold: usize) -> Self {
        let (out, rest): (Vec<_>, Vec<_>) = order.iter().enumerate().partition(|(place, _)| place % FOLDS == fold);
        let texts = |part: Vec<(usize, &usize)>| part.into_iter().map(|(_, &text)| text).collect();
        Fold { out: texts(out), rest: texts(rest) }
    }
}

/// Returns what each token says for the classes, `[V, K]` row by row: its weight in machines fitted to single tokens of all texts, times its
/// inverse document frequency, less the mean over the classes. For two classes one column, of class 1.
pub fn token_weights(
    texts: &[Vec<u32>],
    labels: &[usize],
    vocab_size: usize,
    classes: usize,
    strength: f32,
    seed: u64,
) -> Vec<f32> {
    let counts = Counts::new(texts, vocab_size, false);
    let rows: Vec<usize> = (0..texts.len()).collect();
    let machines = svm::fit(&counts, labels, &rows, classes, &Descent::new(strength, seed));
    let mut out = Vec::with_capacity(vocab_size * machines.len());
    for id in 0..vocab_size {
        let mean = if machines.len() == 1 {
            0.0
        } else {
            machines.iter().map(|m| m.weights[id]).sum::<f32>() / machines.len() as f32
        };
        out.extend(machines.iter().map(|machine| (machine.weights[id] - mean) * counts.idf(id)));
    }
    out
}

/// Writes the margins of all classes.
fn margins(machines: &[Machine], counts: &Counts, text: usize, out: &mut [f32]) {
    match machines {
        [one] => {
            let margin = one.margin(counts, text);
            out.copy_from_slice(&[-margin, margin]);
        }
        _ => machines.iter().zip(out).for_each(|(machine, out)| *out = machine.margin(counts, text)),
    }
}

fn predict(machines: &[Machine], counts: &Counts, text: usize) -> usize {
    let mut all = vec![0.0; machines.len().max(2)];
    margins(machines, counts, text, &mut all);
    largest(&all)
}

/// Returns the place of the largest value, the first of equals.
fn largest(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, value)| if *value > values[best] { i } else { best })
}

/// Returns `ln Σ exp(factor·x)`.
fn log_sum(values: &[f32], factor: f64) -> f64 {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    factor * f64::from(most) + values.iter().map(|&x| (factor * f64::from(x - most)).exp()).sum::<f64>().ln()
}

/// Returns the cross entropy of a text of class `label`, in nats.
fn surprise(margins: &[f32], label: usize, factor: f64) -> f64 {
    log_sum(margins, factor) - factor * f64::from(margins[label])
}

/// Returns the factor with the least loss, which is convex in it, between 0.1 and 100: by golden-section search over its logarithm.
fn sharpest(loss: impl Fn(f64) -> f64) -> f64 {
    const STEPS: usize = 24;
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (0.1f64.ln(), 100f64.ln());
    for _ in 0..STEPS {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        if loss(left.exp()) < loss(right.exp()) { high = right } else { low = left }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of two classes that say their class in one token of three, and of a third class with two texts.
    fn texts() -> (Vec<Vec<u32>>, Vec<usize>) {
        let mut random = SplitMix64::new(7);
        let mut noise = || 4 + (random.next_u64() % 20) as u32;
        let mut texts: Vec<Vec<u32>> = (0..100).map(|i| vec![noise(), i % 2 + 1, noise()]).collect();
        let mut labels: Vec<usize> = (0..100).map(|i| i % 2).collect();
        texts.extend([vec![3, 3], vec![3, 5]]);
        labels.extend([2, 2]);
        (texts, labels)
    }

    #[test]
    fn held_out_texts_are_classified_and_their_probabilities_are_sharp() {
        let (texts, labels) = texts();
        let linear = Linear::fit(&texts, &labels, 24, 3, 1, &Interrupt::default()).unwrap();
        assert!(linear.accuracy > 0.97, "{}", linear.accuracy);
        let soft = linear.soft_labels(&labels);
        for ((row, &label), text) in soft.chunks_exact(3).zip(&labels).zip(&texts) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            assert!(row[label] > 0.7, "{text:?}: {row:?}");
        }
        // The class that the folds can hardly know is as its label says.
        assert_eq!(soft[300..], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        let weights = token_weights(&texts, &labels, 24, 3, linear.strength_of_tokens, 1);
        let of = |id: usize| &weights[3 * id..3 * id + 3];
        assert!(of(1)[0] > 1.0 && of(2)[1] > 1.0 && of(3)[2] > 1.0 && *of(0) == [0.0; 3], "{:?}", &weights[..12]);
        let again = Linear::fit(&texts, &labels, 24, 3, 1, &Interrupt::default()).unwrap();
        assert_eq!(again.soft_labels(&labels), soft);
    }

    #[test]
    fn pairs_are_counted_where_they_say_more_and_two_classes_have_one_machine() {
        // Which of two tokens comes first says the class.
        let texts: Vec<Vec<u32>> = (0..60).map(|i| if i % 2 == 0 { vec![1, 2] } else { vec![2, 1] }).collect();
        let labels: Vec<usize> = (0..60).map(|i| i % 2).collect();
        let linear = Linear::fit(&texts, &labels, 3, 2, 1, &Interrupt::default()).unwrap();
        assert!(linear.pairs && linear.accuracy == 1.0, "{linear:?}");
        assert_eq!(linear.soft_labels(&labels).len(), 120);
        assert_eq!(token_weights(&texts, &labels, 3, 2, linear.strength_of_tokens, 1).len(), 3);
    }

    #[test]
    fn few_texts_are_refused_and_a_signal_stops() {
        let interrupt = Interrupt::default();
        let said = Linear::fit(&[vec![1], vec![2]], &[0, 1], 3, 2, 1, &interrupt).unwrap_err().to_string();
        assert!(said.contains("2 training texts are too few"), "{said}");
        interrupt.request();
        let (texts, labels) = texts();
        let said = Linear::fit(&texts, &labels, 24, 3, 1, &interrupt).unwrap_err().to_string();
        assert!(said.contains("stopped by a signal"), "{said}");
    }

    #[test]
    fn the_sharpest_factor_has_the_least_loss() {
        // Right three times of four with a margin of 1 on either side: the odds are 3 = exp(2·factor).
        let rows = [([-1.0f32, 1.0], 1), ([-1.0, 1.0], 1), ([-1.0, 1.0], 1), ([-1.0, 1.0], 0)];
        let factor = sharpest(|factor| rows.iter().map(|(margins, label)| surprise(margins, *label, factor)).sum());
        assert!((factor - 3f64.ln() / 2.0).abs() < 1e-3, "{factor}");
    }
}
