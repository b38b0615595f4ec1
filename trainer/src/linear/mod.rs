//! A linear classifier of token counts: what the words of labelled texts say without their order.
//!
//! Fitted in seconds, it is hard to beat where labels are noisy or texts long. A network learns from it twice: what it says of texts that
//! it was not fitted to are soft labels ([`Linear::soft_labels`]), and its weights are rows of an embedding to start from
//! ([`TokenWeights`]).

pub mod counts;
mod groups;
pub mod ngrams;
mod several;
pub mod svm;

use std::fmt;
use std::rc::Rc;

use anyhow::{Result, ensure};
use kinglet_data::dataset::Labels;

use crate::interrupt::Interrupt;
use crate::random::{Purpose, SplitMix64, derive_seed};
use counts::{Counts, Labelled};
use groups::groups;
use svm::{Descent, Machine};

/// Values of `C` among which the texts choose that are not learnt, ascending.
const STRENGTHS: [f32; 5] = [0.05, 0.15, 0.5, 1.5, 5.0];
/// Powers of the log-count ratios among which they choose for n-grams.
const RATIO_POWERS: [f32; 3] = [0.0, 0.5, 1.0];
/// Parts of the texts, each of which is classified by what was fitted to the others.
const FOLDS: usize = 5;
/// Groups of texts of which fewer say nothing.
const FEWEST: usize = 50;
/// Columns times classes above which more columns are left out: 256 MB of weights.
const MOST_WEIGHTS: usize = 1 << 26;
/// Bytes of the texts times machines above which words and groups of characters are left out: about half a minute of one core.
const MOST_BYTES: usize = 5_000_000;
/// Tokens of the texts times machines above which vocabularies are not compared.
const MOST_COMPARED: usize = 20_000_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Tokens.
    Tokens,
    /// Tokens and pairs of neighbours.
    Pairs,
    /// Words, pairs of neighbours, and groups of characters.
    Grams,
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Columns::Tokens => "tokens",
            Columns::Pairs => "tokens and pairs of them",
            Columns::Grams => "words, pairs of them and groups of characters",
        })
    }
}

impl Labelled<'_> {
    fn machines(&self) -> usize {
        svm::machines(self.labels, self.classes)
    }

    /// Returns how well machines classify the texts that are not learnt, as they are seen in `seen`: accuracy, or micro F1.
    fn score(&self, machines: &[Machine], seen: &Counts) -> f64 {
        let others = self.learnt..self.ids.len();
        match self.labels {
            Labels::One(labels) => {
                let right = others.clone().filter(|&text| predict(machines, seen, text) == labels[text]).count();
                right as f64 / others.len().max(1) as f64
            }
            Labels::Any(labels) => {
                let mut all = vec![0.0; self.classes];
                let of = |text: usize| {
                    margins(machines, seen, text, &mut all);
                    several::with_labels(&all, &labels[text]).collect::<Vec<_>>()
                };
                several::best_f1(others.flat_map(of))
            }
        }
    }

    /// Returns the counts, unless they are too many.
    fn counts(&self, columns: Columns) -> Option<Counts> {
        let bytes = || self.texts.iter().map(String::len).sum::<usize>();
        if columns == Columns::Grams && bytes() * self.machines() > MOST_BYTES {
            return None;
        }
        let counts = match columns {
            Columns::Tokens => Counts::of_tokens(self, false),
            Columns::Pairs => Counts::of_tokens(self, true),
            Columns::Grams => Counts::of_grams(self),
        };
        (counts.width() * self.machines() <= MOST_WEIGHTS).then_some(counts)
    }

    /// Returns how well machines of tokens and pairs of neighbours classify the texts that are not learnt; `None` if they would take long.
    ///
    /// # Errors
    /// If a signal asks for a stop.
    pub fn pairs(&self, seed: u64, interrupt: &Interrupt) -> Result<Option<f64>> {
        let tokens: usize = self.ids.iter().map(Vec::len).sum();
        if self.learnt == 0 || tokens.saturating_mul(self.machines()) > MOST_COMPARED {
            return Ok(None);
        }
        let Some(counts) = self.counts(Columns::Pairs) else { return Ok(None) };
        let [chosen] = self.strongest(&counts, [&counts], &[0.0], seed, interrupt)?;
        Ok(Some(chosen.accuracy))
    }

    /// Returns the parts of the learnt texts, groups of which are in one part, so that what is said of a text is learnt elsewhere.
    fn folds(&self, groups: &[usize], seed: u64) -> Vec<Fold> {
        let mut texts = vec![Vec::new(); groups.iter().max().map_or(0, |last| last + 1)];
        groups.iter().enumerate().for_each(|(text, &group)| texts[group].push(text));
        SplitMix64::new(derive_seed(seed, Purpose::Folds, 0)).shuffle(&mut texts);
        // The largest first, each to the smallest part.
        texts.sort_by_key(|group| std::cmp::Reverse(group.len()));
        let mut out = vec![Vec::new(); FOLDS];
        for group in texts {
            let least = (0..FOLDS).min_by_key(|&fold| out[fold].len()).expect("there are folds");
            out[least].extend(group);
        }
        let rest = |fold| out.iter().enumerate().filter(move |(i, _)| *i != fold).flat_map(|(_, out)| out).copied();
        (0..FOLDS).map(|fold| Fold { out: out[fold].clone(), rest: rest(fold).collect() }).collect()
    }

    /// Returns machines fitted to `rows`.
    fn fit(&self, counts: &Counts, rows: &[usize], descent: &Descent, stop: &Interrupt) -> Result<Vec<Machine>> {
        let machines = svm::fit(counts, self.labels, rows, self.classes, descent);
        ensure!(!stop.requested(), "stopped by a signal while a linear classifier was fitted");
        Ok(machines)
    }

    /// Returns for each of `views`, what is seen of the texts, the machines, fitted to `counts`, that classify the texts which are not learnt
    /// best by it, and their `C`, the smallest of equals, and power of the log-count ratios among `powers`, the first of equals. With a power, a
    /// larger `C` than the first that is worse is not tried.
    fn strongest<const N: usize>(
        &self,
        counts: &Counts,
        views: [&Counts; N],
        powers: &[f32],
        seed: u64,
        stop: &Interrupt,
    ) -> Result<[Chosen; N]> {
        let rows: Vec<usize> = (0..self.learnt).collect();
        let mut best = [const { None::<Chosen> }; N];
        for &power in powers {
            // The best with this power.
            let mut so_far = [f64::NEG_INFINITY; N];
            let mut rises = [true; N];
            for strength in STRENGTHS {
                let machines = Rc::new(self.fit(counts, &rows, &Descent::new(strength, power, seed), stop)?);
                for (view, seen) in views.iter().enumerate().filter(|(view, _)| rises[*view]).collect::<Vec<_>>() {
                    let accuracy = self.score(&machines, seen);
                    rises[view] = accuracy >= so_far[view];
                    so_far[view] = so_far[view].max(accuracy);
                    if best[view].as_ref().is_none_or(|best| accuracy > best.accuracy) {
                        let machines = Rc::clone(&machines);
                        best[view] = Some(Chosen { accuracy, strength, ratio_power: power, machines });
                    }
                }
                if !rises.contains(&true) {
                    break;
                }
            }
        }
        Ok(best.map(|best| best.expect("there are strengths")))
    }
}

/// Machines that classify the texts which are not learnt best.
struct Chosen {
    accuracy: f64,
    strength: f32,
    ratio_power: f32,
    machines: Rc<Vec<Machine>>,
}

/// What each token says for the classes, in machines fitted to tokens.
#[derive(Clone, Debug)]
pub struct TokenWeights {
    /// Weights times inverse document frequencies, `[V, K]` row by row; of classes that exclude each other less the mean over them, and for two of
    /// them one column, of class 1.
    pub weights: Vec<f32>,
    /// How well their means over the tokens of each text classify those that are not learnt, as [`Linear::accuracy`].
    pub accuracy: f64,
}

impl TokenWeights {
    /// Takes the weights of machines that were `chosen` by what a network sees: means over tokens.
    fn new(chosen: &Chosen, counts: &Counts, several: bool) -> Self {
        let machines = &chosen.machines;
        let mut weights = Vec::with_capacity(counts.width() * machines.len());
        for id in 0..counts.width() {
            let mean = if several || machines.len() == 1 {
                0.0
            } else {
                machines.iter().map(|m| m.weights[id]).sum::<f32>() / machines.len() as f32
            };
            weights.extend(machines.iter().map(|machine| (machine.weights[id] - mean) * counts.idf(id)));
        }
        TokenWeights { weights, accuracy: chosen.accuracy }
    }
}

/// What linear classifiers say of each text that they were not fitted to.
#[derive(Debug)]
pub struct Linear {
    classes: usize,
    /// Margins of each text by the machines of the other folds, `[N, K]` row by row.
    held_out: Vec<f32>,
    /// Whether the other folds have enough texts of the class of each text.
    known: Vec<bool>,
    /// Factor of the margins under which the held-out probabilities are best, and of any number of labels what is added.
    sharpness: f64,
    shift: f64,
    /// The chosen `C`.
    pub strength: f32,
    /// What is counted.
    pub columns: Columns,
    /// Accuracy on the texts that are not learnt; of any number of labels micro F1, with the threshold of all labels that is best on them.
    pub accuracy: f64,
    /// The same on those that are, each by the machines of the other folds.
    pub held_out_accuracy: f64,
    /// What the tokens say alone.
    pub tokens: TokenWeights,
}

impl Linear {
    /// Fits classifiers to texts; `None` where there are fewer than 50 that are no parts of others, or so many ids and classes that weights
    /// would take too much memory. What is counted, and `C`, is what classifies the texts best that are not learnt; the first of equals. Runs
    /// on all cores; the result depends on `seed` alone.
    ///
    /// # Errors
    /// If a signal asks for a stop.
    pub fn fit(data: &Labelled<'_>, seed: u64, interrupt: &Interrupt) -> Result<Option<Self>> {
        let &Labelled { ids, labels, learnt, classes, .. } = data;
        let several = labels.is_multi_label();
        let groups = groups(&ids[..learnt]);
        if groups.iter().max().is_none_or(|&last| last + 1 < FEWEST) {
            return Ok(None);
        }
        let Some(counts) = data.counts(Columns::Tokens) else { return Ok(None) };
        let [chosen, mean] = data.strongest(&counts, [&counts, &Counts::of_mean(data)], &[0.0], seed, interrupt)?;
        let tokens = TokenWeights::new(&mean, &counts, several);
        let mut best = (chosen, Columns::Tokens, counts);
        for columns in [Columns::Pairs, Columns::Grams] {
            let Some(counts) = data.counts(columns) else { continue };
            let [chosen] = data.strongest(&counts, [&counts], &[0.0], seed, interrupt)?;
            if chosen.accuracy > best.0.accuracy {
                best = (chosen, columns, counts);
            }
        }
        let (Chosen { accuracy, strength, .. }, columns, counts) = best;

        let mut held_out = vec![0.0; learnt * classes];
        let mut known = vec![false; learnt];
        for fold in data.folds(&groups, seed) {
            let mut texts = vec![0; classes];
            fold.rest.iter().flat_map(|&text| labels.of(text)).for_each(|&label| texts[label] += 1);
            let machines = data.fit(&counts, &fold.rest, &Descent::new(strength, 0.0, seed), interrupt)?;
            for &text in &fold.out {
                known[text] = labels.of(text).iter().all(|&label| texts[label] >= FOLDS - 1);
                margins(&machines, &counts, text, &mut held_out[text * classes..(text + 1) * classes]);
            }
        }
        let rows = || held_out.chunks_exact(classes).zip(labels.iter());
        let (sharpness, shift, held_out_accuracy) = if several {
            let all: Vec<_> = rows().flat_map(|(margins, set)| several::with_labels(margins, set)).collect();
            let (sharpness, shift) = several::logistic(&all);
            (sharpness, shift, several::best_f1(all.into_iter()))
        } else {
            let one = || rows().filter_map(|(margins, label)| Some((margins, *label.first()?)));
            let right = one().filter(|&(margins, label)| largest(margins) == label).count();
            let sharpness = sharpest(|factor| one().map(|(margins, label)| surprise(margins, label, factor)).sum());
            (sharpness, 0.0, right as f64 / learnt as f64)
        };
        Ok(Some(Linear {
            classes,
            held_out,
            known,
            sharpness,
            shift,
            strength,
            columns,
            accuracy,
            held_out_accuracy,
            tokens,
        }))
    }

    /// Returns the probabilities of the classes for each learnt text by the machines that were not fitted to it, `[N, K]` row by row. A text
    /// with a class of which those machines saw fewer than four texts has its `labels` for sure.
    pub fn soft_labels(&self, labels: &Labels) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.held_out.len());
        for ((margins, set), &known) in self.held_out.chunks_exact(self.classes).zip(labels.iter()).zip(&self.known) {
            if !known {
                out.extend((0..self.classes).map(|class| f32::from(u8::from(set.contains(&class)))));
                continue;
            }
            if labels.is_multi_label() {
                let odds = |margin: f32| self.sharpness * f64::from(margin) + self.shift;
                out.extend(margins.iter().map(|&margin| (1.0 / (1.0 + (-odds(margin)).exp())) as f32));
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

    /// Texts that are learnt, and the first 40 of them once more as those that are not.
    struct Texts {
        texts: Vec<String>,
        ids: Vec<Vec<u32>>,
        labels: Labels,
        learnt: usize,
    }

    impl Texts {
        /// Ids are words.
        fn new(ids: Vec<Vec<u32>>, labels: Vec<usize>) -> Self {
            let word = |id: &u32| format!("w{id}");
            let texts = ids.iter().map(|text| text.iter().map(word).collect::<Vec<_>>().join(" ")).collect();
            Texts::written(texts, ids, labels)
        }

        fn written(texts: Vec<String>, ids: Vec<Vec<u32>>, mut labels: Vec<usize>) -> Self {
            labels.extend_from_within(..40);
            Texts::of(texts, ids, Labels::One(labels))
        }

        /// `labels`: also of the texts once more.
        fn of(mut texts: Vec<String>, mut ids: Vec<Vec<u32>>, labels: Labels) -> Self {
            let learnt = texts.len();
            texts.extend_from_within(..40);
            ids.extend_from_within(..40);
            Texts { texts, ids, labels, learnt }
        }

        fn data(&self, classes: usize) -> Labelled<'_> {
            let Texts { texts, ids, labels, learnt } = self;
            let vocab_size = ids.iter().flatten().max().map_or(0, |&most| most as usize + 1);
            Labelled { texts, ids, labels, learnt: *learnt, vocab_size, classes }
        }
    }

    /// Texts of two classes that say their class in one token of three, and of a third class with two texts.
    fn texts() -> Texts {
        let mut random = SplitMix64::new(7);
        let mut noise = || 4 + (random.next_u64() % 20) as u32;
        let mut texts: Vec<Vec<u32>> = (0..100).map(|i| vec![noise(), i % 2 + 1, noise()]).collect();
        let mut labels: Vec<usize> = (0..100).map(|i| i % 2).collect();
        texts.extend([vec![3, 3], vec![3, 5]]);
        labels.extend([2, 2]);
        Texts::new(texts, labels)
    }

    fn fit(data: &Labelled<'_>) -> Linear {
        Linear::fit(data, 1, &Interrupt::default()).unwrap().unwrap()
    }

    #[test]
    fn held_out_texts_are_classified_and_their_probabilities_are_sharp() {
        let texts = texts();
        let data = texts.data(3);
        let linear = fit(&data);
        assert!(linear.accuracy > 0.97 && linear.held_out_accuracy > 0.95, "{linear:?}");
        let soft = linear.soft_labels(&texts.labels);
        assert_eq!(soft.len(), 3 * texts.learnt);
        for ((row, &label), text) in soft.chunks_exact(3).zip(texts.labels.one().unwrap()).zip(&texts.ids) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            assert!(row[label] > 0.7, "{text:?}: {row:?}");
        }
        // The class that the folds can hardly know is as its label says.
        assert_eq!(soft[300..], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        let weights = &linear.tokens.weights;
        let says = |id: usize| largest(&weights[3 * id..3 * id + 3]);
        assert_eq!([says(1), says(2), says(3)], [0, 1, 2]);
        assert_eq!(weights[..3], [0.0; 3]);
        assert_eq!(fit(&data).soft_labels(&texts.labels), soft);
    }

    #[test]
    fn pairs_are_counted_where_they_say_more_and_two_classes_have_one_machine() {
        // Which of two tokens comes first says the class.
        let order = |i: u32| if i.is_multiple_of(2) { vec![1, 2, 3 + i] } else { vec![2, 1, 3 + i] };
        let texts = Texts::new((0..100).map(order).collect(), (0..100).map(|i| i % 2).collect());
        let data = Labelled { learnt: 60, ..texts.data(2) };
        let linear = fit(&data);
        assert!(linear.columns == Columns::Pairs && linear.accuracy == 1.0, "{linear:?}");
        assert_eq!(linear.soft_labels(&texts.labels).len(), 120);
        assert_eq!(linear.tokens.weights.len(), 103);
    }

    #[test]
    fn any_number_of_labels_has_a_machine_each() {
        // Two tokens say a label each; a third label has two texts.
        let mut random = SplitMix64::new(9);
        let mut noise = || 4 + (random.next_u64() % 20) as u32;
        let mut sets: Vec<Vec<usize>> =
            (0..120).map(|i| (0..2).filter(|label| i >> label & 1 == 1).collect()).collect();
        sets[118].push(2);
        sets[119].push(2);
        let ids: Vec<Vec<u32>> = sets
            .iter()
            .map(|set| set.iter().map(|&label| label as u32 + 1).chain([noise(), noise(), noise()]).collect())
            .collect();
        sets.extend_from_within(..40);
        let written = Texts::new(ids, vec![0; 120]);
        let texts = Texts { labels: Labels::Any(sets), ..written };
        let linear = fit(&texts.data(3));
        let found = (linear.accuracy, linear.held_out_accuracy, linear.columns);
        assert!(found.0 > 0.97 && found.1 > 0.9, "{found:?}");
        let soft = linear.soft_labels(&texts.labels);
        let has = |at: usize| texts.labels.of(at / 3).contains(&(at % 3));
        let right = soft.iter().enumerate().filter(|(at, p)| (**p > 0.5) == has(*at)).count();
        assert!(soft.len() == 360 && right > 340, "{right} of {}", soft.len());
        // The label that the folds can hardly know is as it was said; the others are not as sure.
        assert_eq!(soft[3 * 118 + 2..3 * 119], [1.0]);
        assert!(soft[..300].iter().all(|&p| p > 0.0 && p < 1.0));
        let weights = &linear.tokens.weights;
        assert!(
            weights[3] > 0.0 && weights[3 + 1].abs() < weights[3] && weights[6 + 1] > weights[6].abs(),
            "{weights:?}"
        );
    }

    #[test]
    fn groups_of_characters_are_counted_where_they_say_more() {
        // Each word is new, and its ending says the class.
        let word = |i: usize| format!("{i}{}", ["ing", "ed"][i % 2]);
        let texts = Texts::written(
            (10..110).map(word).collect(),
            (0..100).map(|i| vec![i]).collect(),
            (0..100).map(|i| i % 2).collect(),
        );
        let linear = fit(&Labelled { learnt: 60, ..texts.data(2) });
        assert!(linear.columns == Columns::Grams && linear.held_out_accuracy > 0.95, "{linear:?}");
    }

    #[test]
    fn phrases_of_a_text_are_held_out_with_it() {
        // Texts whose class nothing else says, each twice and in a longer one: what is learnt from the others is worth nothing.
        let mut random = SplitMix64::new(3);
        let mut ids: Vec<Vec<u32>> = (0..60).map(|i| vec![2 * i, 2 * i + 1]).collect();
        let labels: Vec<usize> = (0..60).map(|_| (random.next_u64() % 2) as usize).collect();
        ids.extend(ids.clone());
        ids.extend((0..60).map(|i| vec![120, 2 * i, 2 * i + 1]));
        let texts = Texts::new(ids, labels.repeat(3));
        let linear = fit(&texts.data(2));
        assert!(linear.held_out_accuracy < 0.7, "{}", linear.held_out_accuracy);
    }

    #[test]
    fn few_texts_say_nothing_and_a_signal_stops() {
        let interrupt = Interrupt::default();
        let texts = texts();
        let few = Labelled { learnt: 49, ..texts.data(3) };
        assert!(Linear::fit(&few, 1, &interrupt).unwrap().is_none());
        interrupt.request();
        let said = Linear::fit(&texts.data(3), 1, &interrupt).unwrap_err().to_string();
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
