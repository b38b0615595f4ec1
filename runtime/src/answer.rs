//! From the scores of a model to its answer.
//!
//! For the scores (logits) `x` of a text, with the numbers of a [`Calibration`](crate::calibration::Calibration) or, without one, temperature 1 and
//! threshold 0:
//!
//! ```text
//! p[c] = e[c] / Σ e        e[c] = exp((x[c] − max x) / temperature)     temperature scaling (Guo et al. 2017)
//! label c = argmax p       if p[c] > threshold, otherwise unsure         selective classification (Geifman, El-Yaniv 2017)
//! set = argmax p and every c with p[c] >= set_threshold                  split-conformal LAC (Sadinle et al. 2019)
//! ```
//!
//! For a model of which any number of labels apply to a text, with the numbers of a [`MultiLabel`]:
//!
//! ```text
//! p[c] = 1 / (1 + exp(−x[c] / temperature))                              each label for itself
//! labels = every c with p[c] > thresholds[c]
//! set = every c with p[c] >= set_threshold                               conformal risk control (Angelopoulos et al. 2022)
//! ```
//!
//! # Arithmetic
//! f32: difference, quotient, [`scalar::exp`], the sum in the order of the classes, quotient; each rounded separately.
//! The bits are therefore the same on every processor, and a threshold means the same on a device as where it was
//! fitted. A temperature of 1 leaves the quotient exact and equals the softmax of [`crate::backend`]. The logistic function is
//! `1 / (1 + e)` for `x ≥ 0` and `e / (1 + e)` below, with `e = exp(−|x / temperature|)`.

use crate::backend::scalar;
use crate::error::Error;
use crate::multi_label::{Decision, MultiLabel};
use crate::spec::{Config, Task};
use crate::tokenizer::Blank;

/// A class with its probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The class, an index into the model's labels.
    pub class: usize,
    /// Its probability, 0 to 1, calibrated if the model is; all classes sum to 1, unless any number of labels may apply.
    pub probability: f32,
}

/// Returns the number of classes of a model.
///
/// # Errors
/// [`Error::Embeds`] if the model has none: it embeds.
pub const fn classes(config: &Config) -> Result<usize, Error> {
    match config.task {
        Task::Classify | Task::MultiLabel => Ok(config.num_labels),
        Task::Embed => Err(Error::Embeds { dimension: config.num_labels }),
    }
}

/// What a model says about a text. Borrows the probabilities; nothing allocates.
///
/// ```
/// use kinglet::answer::Answer;
/// use kinglet::calibration::Calibration;
///
/// let calibration = Calibration {
///     temperature: 2.0, threshold: 0.6, error_rate: 0.05, set_threshold: 0.3, coverage: 0.9, rows: 1000,
///     out_of_scope: None,
/// };
/// let mut probabilities = [0.0; 3];
/// let answer = Answer::from_logits(&[1.0, 2.0, 3.0], Some(&calibration), &mut probabilities)?;
/// assert_eq!(answer.best().class, 2); // with probability 0.506
/// assert!(answer.label().is_none()); // not above 0.6: unsure
/// let set: Vec<usize> = answer.set().unwrap().map(|prediction| prediction.class).collect();
/// assert_eq!(set, [2, 1]); // each with at least 0.3
/// # Ok::<(), kinglet::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Answer<'p> {
    probabilities: &'p [f32],
    best: Prediction,
    given: Given<'p>,
    /// Smallest probability of a class of the set; `None` if the model is not calibrated.
    set_threshold: Option<f32>,
    /// Why the text has no label, whatever the threshold.
    blank: Option<Blank>,
}

/// Which labels are given.
#[derive(Clone, Copy, Debug)]
enum Given<'p> {
    /// The most likely one, above a threshold.
    One(f32),
    /// Each above its own.
    Any(&'p [f32]),
    /// Each above one threshold.
    AnyAbove(f32),
}

impl Given<'_> {
    /// Returns the threshold of a class.
    fn threshold(&self, class: usize) -> f32 {
        match self {
            Given::One(threshold) | Given::AnyAbove(threshold) => *threshold,
            // A label without a threshold is never given.
            Given::Any(thresholds) => thresholds.get(class).copied().unwrap_or(1.0),
        }
    }
}

impl<'p> Answer<'p> {
    /// Computes the answer from scores. `logits`: `[num_labels]`; `decision`: that of the model
    /// ([`ReadBundle::decision`](crate::bundle::ReadBundle::decision)), or a calibration; `probabilities`: the same length, receives
    /// those of all classes.
    ///
    /// # Errors
    /// As [`softmax`].
    pub fn from_logits(
        logits: &[f32],
        decision: impl Into<Decision<'p>>,
        probabilities: &'p mut [f32],
    ) -> Result<Self, Error> {
        let decision = decision.into();
        match decision {
            Decision::One(_) => softmax(logits, decision.temperature(), probabilities)?,
            Decision::Any(_) => logistic(logits, decision.temperature(), probabilities)?,
        }
        Self::from_probabilities(probabilities, decision)
    }

    /// As [`Answer::from_logits`], from probabilities that it computed. `probabilities`: `[num_labels]`.
    ///
    /// # Errors
    /// If there are none.
    pub fn from_probabilities(probabilities: &'p [f32], decision: impl Into<Decision<'p>>) -> Result<Self, Error> {
        let (class, probability) = best(probabilities).ok_or(Error::Probabilities { logits: 0, out: 0 })?;
        let (given, set_threshold) = match decision.into() {
            Decision::One(calibration) => (
                Given::One(calibration.map_or(0.0, |calibration| calibration.threshold)),
                calibration.map(|calibration| calibration.set_threshold),
            ),
            Decision::Any(MultiLabel { thresholds, calibration }) => {
                (Given::Any(thresholds), calibration.map(|calibration| calibration.set_threshold))
            }
        };
        Ok(Answer { probabilities, best: Prediction { class, probability }, given, set_threshold, blank: None })
    }

    /// Replaces the model's threshold, or those of all labels: 0 (never unsure, except about a blank text; every label) to 1
    /// (always unsure; no label).
    pub fn with_threshold(self, threshold: f32) -> Self {
        let given = match self.given {
            Given::One(_) => Given::One(threshold),
            Given::Any(_) | Given::AnyAbove(_) => Given::AnyAbove(threshold),
        };
        Answer { given, ..self }
    }

    /// Says whether the text is blank, so that it has no label whatever the threshold.
    pub fn with_blank(self, blank: Option<Blank>) -> Self {
        Answer { blank, ..self }
    }

    /// Returns why the text was said to have no label; the probabilities of such a text mean nothing.
    pub fn blank(&self) -> Option<Blank> {
        self.blank
    }

    /// Returns whether any number of labels may apply to a text.
    pub fn is_multi_label(&self) -> bool {
        !matches!(self.given, Given::One(_))
    }

    /// Returns the probability of each class, `[num_labels]`.
    pub fn probabilities(&self) -> &'p [f32] {
        self.probabilities
    }

    /// Returns the most likely class, sure or not; the lowest one among ties.
    pub fn best(&self) -> Prediction {
        self.best
    }

    /// Returns whether a class is given as a label.
    fn gives(&self, one: Prediction) -> bool {
        let may = self.is_multi_label() || one.class == self.best.class;
        self.blank.is_none() && may && one.probability > self.given.threshold(one.class)
    }

    /// Returns the most likely label that is given, or `None` if the model is unsure, the text blank, or no label applies.
    ///
    /// It is given if its probability exceeds the threshold. See [`Answer::labels`] for a model of which several may apply.
    pub fn label(&self) -> Option<Prediction> {
        self.labels().next()
    }

    /// Returns the labels of the text, most likely first: of a model of which any number may apply, all whose probability
    /// exceeds their threshold; of another one, [`Answer::label`] or none.
    pub fn labels(&self) -> impl Iterator<Item = Prediction> + use<'p> {
        let answer = *self;
        let all = self.probabilities.iter().enumerate();
        let one = |(class, &probability): (usize, &f32)| Prediction { class, probability };
        let count = all.filter(|place| answer.gives(one(*place))).count();
        self.likeliest().filter(move |&one| answer.gives(one)).take(count)
    }

    /// Returns the threshold of [`Answer::label`]: of a model of which several labels may apply, that of its most likely class.
    pub fn threshold(&self) -> f32 {
        self.given.threshold(self.best.class)
    }

    /// Returns whether the question is open: no class is likely enough, or the text is blank. Of a model of which any number
    /// of labels may apply, none is an answer, too, and only a blank text leaves it open.
    pub fn is_unsure(&self) -> bool {
        if self.is_multi_label() { self.blank.is_some() } else { self.label().is_none() }
    }

    /// Returns the classes, most likely first; the lowest one first among ties.
    ///
    /// The first is free, every 16 more need one pass over all classes.
    pub fn likeliest(&self) -> Likeliest<'p> {
        let mut found = [Prediction::default(); BATCH];
        found[0] = self.best;
        Likeliest { probabilities: self.probabilities, found, next: 0, len: 1 }
    }

    /// Returns the classes of the conformal set, most likely first, or `None` if the model is not calibrated.
    ///
    /// They are the most likely one, and every one with a probability of at least
    /// [`Calibration::set_threshold`](crate::calibration::Calibration::set_threshold). The
    /// set includes the correct class for a share of at least [`Calibration::coverage`](crate::calibration::Calibration::coverage) of new texts, on average over
    /// calibration rows and texts, if both come from the same source (are exchangeable). There is no guarantee for a
    /// single text or class.
    ///
    /// Of a model of which any number of labels may apply, they are all with a probability of at least
    /// [`LabelCalibration::set_threshold`](crate::multi_label::LabelCalibration::set_threshold), perhaps none: on average they
    /// hold a share of at least `coverage` of a text's labels.
    pub fn set(&self) -> Option<core::iter::Take<Likeliest<'p>>> {
        let least = self.set_threshold?;
        let count = self.probabilities.iter().filter(|&&probability| probability >= least).count();
        Some(self.likeliest().take(if self.is_multi_label() { count } else { count.max(1) }))
    }
}

/// Number of classes found per pass.
const BATCH: usize = 16;

/// Classes by probability; see [`Answer::likeliest`].
#[derive(Clone, Debug)]
pub struct Likeliest<'p> {
    probabilities: &'p [f32],
    /// Result of the last pass, in order.
    found: [Prediction; BATCH],
    next: usize,
    len: usize,
}

/// Returns whether `a` comes before `b`.
fn before(a: &Prediction, b: &Prediction) -> bool {
    a.probability > b.probability || (a.probability == b.probability && a.class < b.class)
}

impl Likeliest<'_> {
    /// Finds the classes after the last one.
    fn pass(&mut self) {
        let last = self.found.get(self.len.wrapping_sub(1)).copied();
        (self.next, self.len) = (0, 0);
        for (class, &probability) in self.probabilities.iter().enumerate() {
            let mut one = Prediction { class, probability };
            if last.is_none_or(|last| !before(&last, &one)) {
                continue;
            }
            for place in self.found.iter_mut().take(self.len) {
                if before(&one, place) {
                    core::mem::swap(&mut one, place);
                }
            }
            if let Some(place) = self.found.get_mut(self.len) {
                *place = one;
                self.len += 1;
            }
        }
    }
}

impl Iterator for Likeliest<'_> {
    type Item = Prediction;

    fn next(&mut self) -> Option<Prediction> {
        if self.next == self.len {
            self.pass();
        }
        let found = self.found.get(..self.len)?.get(self.next).copied();
        self.next += usize::from(found.is_some());
        found
    }
}

/// Computes `out[c] = exp((logits[c] − max) / temperature) / Σ`. `logits` and `out`: `[num_labels]`. Does not allocate.
///
/// # Errors
/// [`Error::Probabilities`] without logits or with an output of another length; [`Error::NotANumber`] if a logit is NaN
/// or infinite, or the temperature is not a positive number.
pub fn softmax(logits: &[f32], temperature: f32, out: &mut [f32]) -> Result<(), Error> {
    if logits.is_empty() || logits.len() != out.len() {
        return Err(Error::Probabilities { logits: logits.len(), out: out.len() });
    }
    if !logits.iter().all(|v| v.is_finite()) || !temperature.is_finite() || temperature <= 0.0 {
        return Err(Error::NotANumber);
    }
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let mut sum = 0.0f32;
    for (p, &v) in out.iter_mut().zip(logits) {
        *p = scalar::exp((v - max) / temperature);
        sum += *p;
    }
    out.iter_mut().for_each(|p| *p /= sum);
    Ok(())
}

/// Computes `out[c] = 1 / (1 + exp(−logits[c] / temperature))`. `logits` and `out`: `[num_labels]`. Does not allocate.
///
/// # Errors
/// As [`softmax`].
pub fn logistic(logits: &[f32], temperature: f32, out: &mut [f32]) -> Result<(), Error> {
    if logits.is_empty() || logits.len() != out.len() {
        return Err(Error::Probabilities { logits: logits.len(), out: out.len() });
    }
    if !logits.iter().all(|v| v.is_finite()) || !temperature.is_finite() || temperature <= 0.0 {
        return Err(Error::NotANumber);
    }
    for (p, &v) in out.iter_mut().zip(logits) {
        let x = v / temperature;
        let e = scalar::exp(if x < 0.0 { x } else { -x });
        *p = if x < 0.0 { e } else { 1.0 } / (1.0 + e);
    }
    Ok(())
}

/// Returns the largest score and its class, the lowest one among ties, or `None` without scores.
pub fn best(scores: &[f32]) -> Option<(usize, f32)> {
    let all = scores.iter().copied().enumerate();
    all.reduce(|a, b| if b.1 > a.1 { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Calibration;
    use crate::calibration::tests::GOOD;
    use crate::multi_label::LabelCalibration;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn answer(probabilities: &[f32]) -> Answer<'_> {
        Answer::from_probabilities(probabilities, Some(&GOOD)).unwrap()
    }

    fn set(probabilities: &[f32]) -> Vec<usize> {
        answer(probabilities).set().unwrap().map(|one| one.class).collect()
    }

    #[test]
    fn probabilities_equal_numpy() {
        // numpy, f64: e = exp([1, 2, 3] / 2); e / e.sum()
        let mut out = [0.0; 3];
        softmax(&[1.0, 2.0, 3.0], 2.0, &mut out).unwrap();
        for (got, want) in out.iter().zip([0.186_323_72, 0.307_195_9, 0.506_480_4]) {
            assert!((got - want).abs() < 1e-7, "{got} {want}");
        }
    }

    #[test]
    fn a_shift_of_all_logits_changes_nothing_and_nothing_overflows() {
        let (mut a, mut b) = ([0.0; 3], [0.0; 3]);
        softmax(&[1.0, 2.0, 3.0], 1.0, &mut a).unwrap();
        softmax(&[1001.0, 1002.0, 1003.0], 1.0, &mut b).unwrap();
        assert_eq!(a, b);
        softmax(&[f32::MAX, -f32::MAX, 0.0], 0.01, &mut a).unwrap();
        assert!(a[0] == 1.0 && a.iter().all(|p| p.is_finite() && *p >= 0.0), "{a:?}");
    }

    #[test]
    fn a_temperature_of_one_gives_the_bits_of_the_softmax_kernel() {
        let logits: Vec<f32> = (0..151).map(|i| (i * 37 % 101) as f32 * 0.13 - 4.0).collect();
        let mut from_backend = logits.clone();
        crate::backend::Backend::by_name("scalar").unwrap().softmax(&mut from_backend, logits.len());
        let mut out = vec![0.0; logits.len()];
        softmax(&logits, 1.0, &mut out).unwrap();
        assert_eq!(out, from_backend);
    }

    #[test]
    fn logits_that_are_no_numbers_and_wrong_lengths_are_errors() {
        let mut out = [0.0; 2];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(softmax(&[0.0, bad], 1.0, &mut out), Err(Error::NotANumber), "{bad}");
            assert_eq!(softmax(&[0.0, 1.0], bad, &mut out), Err(Error::NotANumber), "{bad}");
        }
        assert_eq!(softmax(&[0.0, 1.0], 0.0, &mut out), Err(Error::NotANumber));
        assert_eq!(softmax(&[0.0], 1.0, &mut out), Err(Error::Probabilities { logits: 1, out: 2 }));
        assert_eq!(softmax(&[], 1.0, &mut []), Err(Error::Probabilities { logits: 0, out: 0 }));
    }

    #[test]
    fn a_label_needs_more_than_the_threshold() {
        let sure = |class, probability| Some(Prediction { class, probability });
        assert_eq!(answer(&[0.5, 0.3, 0.2]).label(), None);
        assert_eq!(answer(&[0.3, 0.6, 0.1]).label(), sure(1, 0.6));
        assert_eq!(answer(&[0.5, 0.5]).with_threshold(0.0).label(), sure(0, 0.5));
        for blank in [Blank::Empty, Blank::Unknown] {
            let blank = answer(&[0.0, 1.0]).with_blank(Some(blank)).with_threshold(0.0);
            assert!(blank.blank().is_some() && blank.is_unsure() && blank.best().class == 1);
        }
        assert!(answer(&[0.0, 1.0]).with_threshold(1.0).is_unsure());
        assert_eq!(answer(&[0.0, 1.0]).with_threshold(1.0).best(), Prediction { class: 1, probability: 1.0 });
        assert_eq!(Answer::from_probabilities(&[0.5, 0.5], None::<Calibration>).unwrap().label(), sure(0, 0.5));
        let none = Error::Probabilities { logits: 0, out: 0 };
        assert_eq!(Answer::from_probabilities(&[], Some(&GOOD)).unwrap_err(), none);
    }

    #[test]
    fn a_set_holds_the_likeliest_class_and_all_likely_ones() {
        assert_eq!(set(&[0.2, 0.5, 0.199, 0.101]), [1, 0]);
        assert_eq!(set(&[0.1; 10]), [0]);
        assert!(Answer::from_probabilities(&[1.0], None::<Calibration>).unwrap().set().is_none());
    }

    #[test]
    fn logistic_functions_equal_numpy() {
        // numpy, f64: 1 / (1 + exp(-x / 2)) of [-8, -0.5, 0, 3].
        let mut out = [0.0; 4];
        logistic(&[-8.0, -0.5, 0.0, 3.0], 2.0, &mut out).unwrap();
        for (got, want) in out.iter().zip([0.017_986_21, 0.437_823_5, 0.5, 0.817_574_5]) {
            assert!((got - want).abs() < 1e-7, "{got} {want}");
        }
        logistic(&[f32::MAX, -f32::MAX, 1e-30, -0.0], 0.01, &mut out).unwrap();
        // The smallest normal number instead of nothing, as the exponential has it.
        assert!(out[0] == 1.0 && out[1] < 1.3e-38 && out[2..] == [0.5, 0.5], "{out:?}");
        assert_eq!(logistic(&[f32::NAN], 1.0, &mut [0.0]), Err(Error::NotANumber));
        assert_eq!(logistic(&[0.0], 0.0, &mut [0.0]), Err(Error::NotANumber));
        assert_eq!(logistic(&[0.0; 2], 1.0, &mut [0.0]), Err(Error::Probabilities { logits: 2, out: 1 }));
    }

    #[test]
    fn any_number_of_labels_is_given_each_above_its_threshold() {
        let calibration = LabelCalibration { temperature: 1.0, set_threshold: 0.25, coverage: 0.9, rows: 1 };
        let labels = MultiLabel { thresholds: &[0.5, 0.25, 0.25, 1.0], calibration: Some(calibration) };
        let of = |probabilities: &'static [f32]| Answer::from_probabilities(probabilities, labels).unwrap();
        let classes = |answer: Answer<'_>| answer.labels().map(|one| one.class).collect::<Vec<_>>();
        let answer = of(&[0.5, 0.3, 0.9, 1.0]);
        assert!(answer.is_multi_label() && !answer.is_unsure());
        assert_eq!((classes(answer), answer.label().map(|one| one.class)), (vec![2, 1], Some(2)));
        assert_eq!(answer.best().class, 3);
        assert_eq!(answer.set().unwrap().map(|one| one.class).collect::<Vec<_>>(), [3, 2, 0, 1]);
        assert_eq!(classes(answer.with_threshold(0.4)), [3, 2, 0]);
        assert!(classes(answer.with_threshold(1.0)).is_empty());
        assert_eq!(classes(answer.with_threshold(0.0)), [3, 2, 0, 1]);
        let none = of(&[0.1; 4]);
        assert!(none.label().is_none() && !none.is_unsure() && none.set().unwrap().next().is_none());
        let blank = answer.with_blank(Some(Blank::Empty));
        assert!(blank.label().is_none() && blank.is_unsure() && classes(blank).is_empty());
        // A model of one label gives that one, or none.
        let one = Answer::from_probabilities(&[0.4, 0.6], None::<Calibration>).unwrap();
        assert_eq!((classes(one), classes(one.with_threshold(0.7))), (vec![1], vec![]));
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one_and_temperature_leaves_the_order(
            logits in prop::collection::vec(-30f32..30.0, 1..200),
            temperature in 0.05f32..20.0,
        ) {
            let mut out = vec![0.0; logits.len()];
            softmax(&logits, temperature, &mut out).unwrap();
            let sum: f64 = out.iter().map(|&p| f64::from(p)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{}", sum);
            prop_assert!(out.iter().all(|p| (0.0..=1.0).contains(p)));
            // Rounding may make unequal logits equal, never turn them around.
            let (class, _) = best(&logits).unwrap();
            prop_assert_eq!(out[class], out.iter().copied().fold(0.0, f32::max));
        }

        #[test]
        fn the_likeliest_classes_come_first_and_the_set_is_the_first_of_them(
            probabilities in prop::collection::vec(prop_oneof![Just(0.25f32), Just(0.0), 0f32..1.0], 1..80),
        ) {
            let mut want: Vec<usize> = (0..probabilities.len()).collect();
            want.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
            let got: Vec<Prediction> = answer(&probabilities).likeliest().collect();
            prop_assert!(got.iter().all(|one| probabilities[one.class].to_bits() == one.probability.to_bits()));
            prop_assert_eq!(got.iter().map(|one| one.class).collect::<Vec<_>>(), &want[..]);
            let inside = want.iter().filter(|&&class| probabilities[class] >= GOOD.set_threshold).count().max(1);
            prop_assert_eq!(set(&probabilities), &want[..inside]);
        }
    }
}
