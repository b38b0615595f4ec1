//! How sure a model is: calibrated probabilities, "not sure", and sets of labels that hold the right one.
//!
//! The numbers of a [`Calibration`] are fitted by `kinglet-export` on rows that the weights were not fitted to, with the
//! probabilities that [`Calibration::probabilities`] gives. For the logits `x` of a text:
//!
//! ```text
//! p[c] = e[c] / Σ e        e[c] = exp((x[c] − max x) / temperature)     temperature scaling (Guo et al. 2017)
//! label c = argmax p       if p[c] > threshold, otherwise unsure         selective classification (Geifman, El-Yaniv 2017)
//! set = argmax p and every c with p[c] >= set_threshold                  split-conformal LAC (Sadinle et al. 2019)
//! ```
//!
//! # Arithmetic
//! f32: difference, quotient, [`scalar::exp`], the sum in the order of the classes, quotient; each rounded on its own. The
//! bits are therefore the same on every processor, and a threshold means on a device what it meant where it was fitted.
//! A temperature of 1 leaves the quotient exact and gives the softmax of [`crate::backend`].

use core::fmt;

use crate::backend::scalar;

/// Why confidences cannot be computed, or a [`Calibration`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfidenceError {
    /// A number of a calibration is not finite or outside its range.
    Field {
        /// The number.
        field: &'static str,
        /// Its value.
        got: f32,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// A calibration was fitted on no rows.
    NoRows,
    /// The bytes of a calibration have another length than [`Calibration::BYTES`].
    Length {
        /// Bytes found.
        got: usize,
    },
    /// There are no logits, or the output has another length.
    Shape {
        /// Logits.
        logits: usize,
        /// Places for probabilities.
        out: usize,
    },
    /// The model gave a score that is no number, or an infinite one: its weights are damaged.
    NotANumber,
}

impl fmt::Display for ConfidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ConfidenceError::Field { field, got, expected } => {
                write!(f, "calibration: {field} is {got}, must be {expected}")
            }
            ConfidenceError::NoRows => f.write_str("calibration: rows is 0, must be 1 or more"),
            ConfidenceError::Length { got } => {
                write!(f, "calibration: {got} bytes, must be {}", Calibration::BYTES)
            }
            ConfidenceError::Shape { logits, out } => {
                write!(f, "{logits} logits for {out} probabilities; must be the same number, 1 or more")
            }
            ConfidenceError::NotANumber => f.write_str("the model gave a score that is not a number; export it again"),
        }
    }
}

impl core::error::Error for ConfidenceError {}

/// What was fitted to make a model's confidence honest. Six numbers, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Calibration {
    /// What logits are divided by before softmax: [`Self::TEMPERATURES`].
    pub temperature: f32,
    /// A probability must be greater than this for its label to be given: 0 (never unsure) to 1 (always unsure).
    pub threshold: f32,
    /// The share of wrong labels, among those given, that `threshold` was chosen for: between 0 and 1, both excluded.
    pub error_rate: f32,
    /// Labels with at least this probability belong to the set: 0 to 1. In the terms of conformal prediction `1 − q`, `q` the
    /// quantile of the scores `1 − p[gold]`.
    pub set_threshold: f32,
    /// The share of texts whose right label is to be in the set: between 0 and 1, both excluded.
    pub coverage: f32,
    /// Rows it was fitted on, at least 1.
    pub rows: u32,
}

/// What to answer for a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// The likeliest class, whose probability is above the threshold.
    Label {
        /// The class.
        class: usize,
        /// Its calibrated probability.
        probability: f32,
    },
    /// No class is likely enough.
    Unsure,
}

impl Calibration {
    /// Bytes of [`Self::to_le_bytes`].
    pub const BYTES: usize = 24;

    /// Temperatures that are accepted, both ends included.
    pub const TEMPERATURES: (f32, f32) = (0.01, 100.0);

    /// The same numbers, if every one of them is finite and in its range.
    ///
    /// # Errors
    /// [`ConfidenceError::Field`] or [`ConfidenceError::NoRows`] names the first that is not.
    pub fn validated(self) -> Result<Self, ConfidenceError> {
        let (low, high) = Self::TEMPERATURES;
        let share = |v: f32| v > 0.0 && v < 1.0;
        let probability = |v: f32| (0.0..=1.0).contains(&v);
        // A NaN is in no range.
        let fields = [
            ("temperature", self.temperature, (low..=high).contains(&self.temperature), "0.01 to 100"),
            ("threshold", self.threshold, probability(self.threshold), "0 to 1"),
            ("error_rate", self.error_rate, share(self.error_rate), "between 0 and 1"),
            ("set_threshold", self.set_threshold, probability(self.set_threshold), "0 to 1"),
            ("coverage", self.coverage, share(self.coverage), "between 0 and 1"),
        ];
        for (field, got, good, expected) in fields {
            if !good {
                return Err(ConfidenceError::Field { field, got, expected });
            }
        }
        if self.rows == 0 { Err(ConfidenceError::NoRows) } else { Ok(self) }
    }

    /// The numbers in the order of the fields, little endian: five f32 and a u32.
    pub fn to_le_bytes(&self) -> [u8; Self::BYTES] {
        let words = [
            self.temperature.to_bits(),
            self.threshold.to_bits(),
            self.error_rate.to_bits(),
            self.set_threshold.to_bits(),
            self.coverage.to_bits(),
            self.rows,
        ];
        let mut out = [0; Self::BYTES];
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads what [`Self::to_le_bytes`] wrote.
    ///
    /// # Errors
    /// When there are not [`Self::BYTES`] bytes, and as [`Self::validated`].
    pub fn from_le_bytes(bytes: &[u8]) -> Result<Self, ConfidenceError> {
        let (words, rest) = bytes.as_chunks::<4>();
        let ([temperature, threshold, error_rate, set_threshold, coverage, rows], []) = (words, rest) else {
            return Err(ConfidenceError::Length { got: bytes.len() });
        };
        Calibration {
            temperature: f32::from_le_bytes(*temperature),
            threshold: f32::from_le_bytes(*threshold),
            error_rate: f32::from_le_bytes(*error_rate),
            set_threshold: f32::from_le_bytes(*set_threshold),
            coverage: f32::from_le_bytes(*coverage),
            rows: u32::from_le_bytes(*rows),
        }
        .validated()
    }

    /// The calibrated probability of each class. `logits` and `out`: `[num_labels]`. Does not allocate.
    ///
    /// # Errors
    /// As [`softmax`].
    pub fn probabilities(&self, logits: &[f32], out: &mut [f32]) -> Result<(), ConfidenceError> {
        softmax(logits, self.temperature, out)
    }

    /// The likeliest class if its probability is above the threshold. `probabilities`: `[num_labels]`, as
    /// [`Self::probabilities`] gave them.
    pub fn decide(&self, probabilities: &[f32]) -> Decision {
        decide(probabilities, self.threshold)
    }

    /// The classes of the conformal set, lowest first: the likeliest one, and every one with a probability of at least
    /// [`Self::set_threshold`]. Never empty unless `probabilities` is; an iterator, so nothing is allocated.
    ///
    /// The set holds the right class for a share of at least [`Self::coverage`] of new texts, on average over calibration rows
    /// and texts, if both come from the same source (are exchangeable). It promises nothing for a single text or class.
    pub fn set<'p>(&self, probabilities: &'p [f32]) -> impl Iterator<Item = usize> + 'p {
        let (best, least) = (best(probabilities), self.set_threshold);
        let classes = probabilities.iter().enumerate();
        classes.filter(move |&(class, &p)| p >= least || best.is_some_and(|(b, _)| b == class)).map(|(class, _)| class)
    }
}

/// `out[c] = exp((logits[c] − max) / temperature) / Σ`. `logits` and `out`: `[num_labels]`. Does not allocate.
///
/// # Errors
/// [`ConfidenceError::Shape`] without logits or with an output of another length; [`ConfidenceError::NotANumber`] when a logit
/// is NaN or infinite, or the temperature is not a positive number.
pub fn softmax(logits: &[f32], temperature: f32, out: &mut [f32]) -> Result<(), ConfidenceError> {
    if logits.is_empty() || logits.len() != out.len() {
        return Err(ConfidenceError::Shape { logits: logits.len(), out: out.len() });
    }
    if !logits.iter().all(|v| v.is_finite()) || !temperature.is_finite() || temperature <= 0.0 {
        return Err(ConfidenceError::NotANumber);
    }
    let most = logits.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let mut sum = 0.0f32;
    for (p, &v) in out.iter_mut().zip(logits) {
        *p = scalar::exp((v - most) / temperature);
        sum += *p;
    }
    out.iter_mut().for_each(|p| *p /= sum);
    Ok(())
}

/// The likeliest class and its probability, of equal ones the lowest class; `None` of nothing.
pub fn best(probabilities: &[f32]) -> Option<(usize, f32)> {
    let all = probabilities.iter().copied().enumerate();
    all.reduce(|a, b| if b.1 > a.1 { b } else { a })
}

/// The likeliest class if its probability is greater than `threshold`.
pub fn decide(probabilities: &[f32], threshold: f32) -> Decision {
    match best(probabilities) {
        Some((class, probability)) if probability > threshold => Decision::Label { class, probability },
        _ => Decision::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::{vec, vec::Vec};

    const GOOD: Calibration = Calibration {
        temperature: 1.5,
        threshold: 0.5,
        error_rate: 0.05,
        set_threshold: 0.2,
        coverage: 0.9,
        rows: 100,
    };

    fn set(probabilities: &[f32]) -> Vec<usize> {
        GOOD.set(probabilities).collect()
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
        let mut kernel = logits.clone();
        crate::backend::Backend::by_name("scalar").unwrap().softmax(&mut kernel, logits.len());
        let mut out = vec![0.0; logits.len()];
        softmax(&logits, 1.0, &mut out).unwrap();
        assert_eq!(out, kernel);
    }

    #[test]
    fn logits_that_are_no_numbers_and_wrong_lengths_are_errors() {
        let mut out = [0.0; 2];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(softmax(&[0.0, bad], 1.0, &mut out), Err(ConfidenceError::NotANumber), "{bad}");
            assert_eq!(softmax(&[0.0, 1.0], bad, &mut out), Err(ConfidenceError::NotANumber), "{bad}");
        }
        assert_eq!(softmax(&[0.0, 1.0], 0.0, &mut out), Err(ConfidenceError::NotANumber));
        assert_eq!(softmax(&[0.0], 1.0, &mut out), Err(ConfidenceError::Shape { logits: 1, out: 2 }));
        assert_eq!(softmax(&[], 1.0, &mut []), Err(ConfidenceError::Shape { logits: 0, out: 0 }));
    }

    #[test]
    fn a_label_needs_more_than_the_threshold() {
        assert_eq!(GOOD.decide(&[0.5, 0.3, 0.2]), Decision::Unsure);
        assert_eq!(GOOD.decide(&[0.3, 0.6, 0.1]), Decision::Label { class: 1, probability: 0.6 });
        assert_eq!(decide(&[0.5, 0.5], 0.0), Decision::Label { class: 0, probability: 0.5 });
        assert_eq!(decide(&[0.0, 1.0], 1.0), Decision::Unsure);
        assert_eq!(decide(&[], 0.0), Decision::Unsure);
    }

    #[test]
    fn a_set_holds_the_likeliest_class_and_all_likely_ones() {
        assert_eq!(set(&[0.2, 0.5, 0.199, 0.101]), [0, 1]);
        assert_eq!(set(&[0.1; 10]), [0]);
        assert!(set(&[]).is_empty());
    }

    #[test]
    fn numbers_outside_their_range_are_refused_by_name() {
        type Change = fn(&mut Calibration, f32);
        let cases: [(&str, Change, &[f32]); 5] = [
            ("temperature", |c, v| c.temperature = v, &[0.0, -1.0, 101.0, f32::NAN, f32::INFINITY]),
            ("threshold", |c, v| c.threshold = v, &[-0.1, 1.1, f32::NAN]),
            ("error_rate", |c, v| c.error_rate = v, &[0.0, 1.0, f32::NAN]),
            ("set_threshold", |c, v| c.set_threshold = v, &[-0.1, 1.1, f32::NAN]),
            ("coverage", |c, v| c.coverage = v, &[0.0, 1.0, f32::NAN]),
        ];
        for (name, change, bad) in cases {
            for &v in bad {
                let mut c = GOOD;
                change(&mut c, v);
                let error = Calibration::from_le_bytes(&c.to_le_bytes()).unwrap_err();
                assert!(matches!(error, ConfidenceError::Field { field, .. } if field == name), "{name} {v}: {error}");
                assert!(error.to_string().starts_with(&std::format!("calibration: {name} is ")), "{error}");
            }
        }
        let none = Calibration { rows: 0, ..GOOD };
        assert_eq!(Calibration::from_le_bytes(&none.to_le_bytes()), Err(ConfidenceError::NoRows));
    }

    #[test]
    fn bytes_are_little_endian_in_the_order_of_the_fields() {
        let bytes = GOOD.to_le_bytes();
        assert_eq!(&bytes[..4], 1.5f32.to_le_bytes());
        assert_eq!(&bytes[20..], 100u32.to_le_bytes());
        assert_eq!(Calibration::from_le_bytes(&bytes), Ok(GOOD));
        for n in [0, 4, 23] {
            assert_eq!(Calibration::from_le_bytes(&bytes[..n]), Err(ConfidenceError::Length { got: n }));
        }
        assert!(Calibration::from_le_bytes(&[0; 28]).is_err());
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
        fn any_bytes_are_a_valid_calibration_or_an_error(bytes in any::<[u8; Calibration::BYTES]>()) {
            if let Ok(c) = Calibration::from_le_bytes(&bytes) {
                prop_assert_eq!(c.to_le_bytes(), bytes);
                prop_assert!(c.validated().is_ok());
            }
        }
    }
}
