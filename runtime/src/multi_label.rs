//! Models of which any number of labels apply to a text: a threshold per label, and a calibration.

use core::fmt;

use crate::backend::cast::view;
use crate::calibration::{Calibration, CalibrationError};

/// What a model of several labels needs beside its scores, fitted by `kinglet-export` on rows that the weights were not
/// fitted to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MultiLabel<'a> {
    /// A label is given if its probability exceeds its threshold: `[num_labels]`, each 0 to 1. A label with a threshold of 1
    /// is never given.
    pub thresholds: &'a [f32],
    /// The calibration of the probabilities, if there is one.
    pub calibration: Option<LabelCalibration>,
}

/// Calibration of probabilities of which each is that of a label, whatever the others.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct LabelCalibration {
    /// What logits are divided by before the logistic function: [`Calibration::TEMPERATURES`].
    pub temperature: f32,
    /// Labels with at least this probability belong to the set: 0 to 1.
    pub set_threshold: f32,
    /// The share of a text's labels that its set holds, on average over texts and over the rows it was fitted on (conformal
    /// risk control, Angelopoulos et al. 2022): between 0 and 1, both excluded.
    pub coverage: f32,
    /// Rows it was fitted on, at least 1.
    pub rows: u32,
}

impl LabelCalibration {
    /// Returns the same numbers if all are finite and in range.
    ///
    /// # Errors
    /// [`CalibrationError`] names the first invalid one.
    pub fn validated(self) -> Result<Self, CalibrationError> {
        let (low, high) = Calibration::TEMPERATURES;
        let fields = [
            ("temperature", self.temperature, (low..=high).contains(&self.temperature), "0.01 to 100"),
            ("set_threshold", self.set_threshold, (0.0..=1.0).contains(&self.set_threshold), "0 to 1"),
            ("coverage", self.coverage, self.coverage > 0.0 && self.coverage < 1.0, "between 0 and 1"),
        ];
        for (field, got, good, expected) in fields {
            if !good {
                return Err(CalibrationError::Field { field, got, expected });
            }
        }
        if self.rows == 0 { Err(CalibrationError::NoRows) } else { Ok(self) }
    }
}

/// Bytes before the thresholds.
const HEAD: usize = 16;

impl<'a> MultiLabel<'a> {
    /// Returns the length in bytes for a number of labels.
    pub const fn bytes(num_labels: usize) -> usize {
        HEAD + 4 * num_labels
    }

    /// Returns the same if all numbers are in range and there is a threshold per label.
    ///
    /// # Errors
    /// [`CalibrationError`] names the first thing found wrong.
    pub fn validated(self, num_labels: usize) -> Result<Self, CalibrationError> {
        if self.thresholds.len() != num_labels {
            return Err(CalibrationError::Thresholds { need: num_labels, got: self.thresholds.len() });
        }
        // A NaN is in no range.
        if let Some(&got) = self.thresholds.iter().find(|threshold| !(0.0..=1.0).contains(*threshold)) {
            return Err(CalibrationError::Field { field: "the threshold of a label", got, expected: "0 to 1" });
        }
        self.calibration.map(LabelCalibration::validated).transpose()?;
        Ok(self)
    }

    /// Returns the first 16 bytes of what [`Self::from_le_bytes`] reads: temperature, set threshold and coverage, f32,
    /// and the rows, u32, little endian. All are zero without a calibration. The thresholds, f32, follow.
    pub fn head(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        if let Some(LabelCalibration { temperature, set_threshold, coverage, rows }) = self.calibration {
            let words = [temperature.to_bits(), set_threshold.to_bits(), coverage.to_bits(), rows];
            for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
        }
        out
    }

    /// Reads the section of a bundle in place. `bytes` begin at a multiple of 4.
    ///
    /// # Errors
    /// If their length is not [`Self::bytes`], and as [`Self::validated`].
    pub fn from_le_bytes(bytes: &'a [u8], num_labels: usize) -> Result<Self, CalibrationError> {
        let got = bytes.len().saturating_sub(HEAD) / 4;
        let wrong = CalibrationError::Thresholds { need: num_labels, got };
        let (head, thresholds) = bytes.split_at_checked(HEAD).ok_or(wrong)?;
        let thresholds = view::<f32>(thresholds).ok_or(wrong)?;
        let ([temperature, set_threshold, coverage, rows], []) = head.as_chunks::<4>() else { return Err(wrong) };
        let calibration = head.iter().any(|&byte| byte != 0).then(|| LabelCalibration {
            temperature: f32::from_le_bytes(*temperature),
            set_threshold: f32::from_le_bytes(*set_threshold),
            coverage: f32::from_le_bytes(*coverage),
            rows: u32::from_le_bytes(*rows),
        });
        MultiLabel { thresholds, calibration }.validated(num_labels)
    }

    /// Returns what [`Self::from_le_bytes`] has accepted; nothing of other bytes.
    pub(crate) fn cut(bytes: &'a [u8]) -> Self {
        let read = Self::from_le_bytes(bytes, bytes.len().saturating_sub(HEAD) / 4);
        read.unwrap_or(MultiLabel { thresholds: &[], calibration: None })
    }
}

/// How scores become an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision<'a> {
    /// A text has one label: the softmax of the scores, and a threshold below which it is none.
    One(Option<Calibration>),
    /// A text has any number of labels: the logistic function of each score, and a threshold of its own.
    Any(MultiLabel<'a>),
}

impl Decision<'_> {
    /// Returns what the scores are divided by; 1 without a calibration.
    pub fn temperature(&self) -> f32 {
        match self {
            Decision::One(calibration) => calibration.map_or(1.0, |calibration| calibration.temperature),
            Decision::Any(labels) => labels.calibration.map_or(1.0, |calibration| calibration.temperature),
        }
    }

    /// Returns whether probabilities are calibrated, so that there are sets of labels.
    pub fn is_calibrated(&self) -> bool {
        self.coverage().is_some()
    }

    /// Returns what is promised of sets of labels, if the model is calibrated.
    pub fn coverage(&self) -> Option<f32> {
        match self {
            Decision::One(calibration) => calibration.map(|calibration| calibration.coverage),
            Decision::Any(labels) => labels.calibration.map(|calibration| calibration.coverage),
        }
    }

    /// Returns whether any number of labels may apply to a text.
    pub const fn is_multi_label(&self) -> bool {
        matches!(self, Decision::Any(_))
    }
}

impl Default for Decision<'_> {
    fn default() -> Self {
        Decision::One(None)
    }
}

impl From<Option<Calibration>> for Decision<'_> {
    fn from(calibration: Option<Calibration>) -> Self {
        Decision::One(calibration)
    }
}

impl From<Option<&Calibration>> for Decision<'_> {
    fn from(calibration: Option<&Calibration>) -> Self {
        Decision::One(calibration.copied())
    }
}

impl<'a> From<MultiLabel<'a>> for Decision<'a> {
    fn from(labels: MultiLabel<'a>) -> Self {
        Decision::Any(labels)
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_multi_label() { "any number of labels" } else { "one label" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Aligned;
    use std::vec::Vec;

    const GOOD: LabelCalibration = LabelCalibration { temperature: 1.5, set_threshold: 0.2, coverage: 0.9, rows: 100 };

    fn written(labels: &MultiLabel<'_>) -> Vec<u8> {
        let thresholds = labels.thresholds.iter().flat_map(|threshold| threshold.to_le_bytes());
        labels.head().into_iter().chain(thresholds).collect()
    }

    #[test]
    fn what_was_written_is_read_in_place() {
        for calibration in [None, Some(GOOD)] {
            let labels = MultiLabel { thresholds: &[0.0, 0.25, 1.0], calibration };
            let bytes: [u8; 28] = written(&labels).try_into().unwrap();
            let bytes = Aligned(bytes);
            assert_eq!(MultiLabel::from_le_bytes(&bytes.0, 3), Ok(labels));
            assert_eq!(MultiLabel::cut(&bytes.0), labels);
            for need in [2, 4] {
                let wrong = CalibrationError::Thresholds { need, got: 3 };
                assert_eq!(MultiLabel::from_le_bytes(&bytes.0, need), Err(wrong));
            }
            for length in [0, 4, 15, 27] {
                assert!(MultiLabel::from_le_bytes(&bytes.0[..length], 3).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused_by_name() {
        let of = |calibration, thresholds: &[f32]| {
            MultiLabel { thresholds, calibration: Some(calibration) }.validated(2).map(|_| ())
        };
        let field = |result: Result<(), CalibrationError>| match result {
            Err(CalibrationError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for bad in [-0.1, 1.1, f32::NAN] {
            assert_eq!(field(of(GOOD, &[0.5, bad])), "the threshold of a label");
            assert_eq!(field(of(LabelCalibration { set_threshold: bad, ..GOOD }, &[0.5; 2])), "set_threshold");
            assert_eq!(field(of(LabelCalibration { coverage: bad, ..GOOD }, &[0.5; 2])), "coverage");
        }
        for bad in [0.0, 101.0, f32::INFINITY] {
            assert_eq!(field(of(LabelCalibration { temperature: bad, ..GOOD }, &[0.5; 2])), "temperature");
        }
        assert_eq!(of(LabelCalibration { rows: 0, ..GOOD }, &[0.5; 2]), Err(CalibrationError::NoRows));
        assert!(of(GOOD, &[0.0, 1.0]).is_ok());
    }
}
