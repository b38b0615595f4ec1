//! Calibration of a model: numbers fitted by export and used by [`Answer`](crate::answer::Answer).

use core::fmt;

/// Error for an unusable [`Calibration`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CalibrationError {
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
    /// There are more or fewer thresholds than labels, or their bytes are not whole numbers.
    Thresholds {
        /// Labels of the model.
        need: usize,
        /// Thresholds found.
        got: usize,
    },
    /// The bytes of a calibration have another length than [`Calibration::BYTES`] or [`Calibration::MAX_BYTES`].
    Length {
        /// Bytes found.
        got: usize,
    },
}

impl fmt::Display for CalibrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CalibrationError::Field { field, got, expected } => {
                write!(f, "calibration: {field} is {got}, must be {expected}")
            }
            CalibrationError::Thresholds { need, got } => {
                write!(f, "calibration: {got} thresholds for {need} labels, or bytes between them")
            }
            CalibrationError::NoRows => f.write_str("calibration: rows is 0, must be 1 or more"),
            CalibrationError::Length { got } => {
                write!(f, "calibration: {got} bytes, must be {} or {}", Calibration::BYTES, Calibration::MAX_BYTES)
            }
        }
    }
}

impl core::error::Error for CalibrationError {}

/// Calibration of a model, fitted by `kinglet-export` on rows that the weights were not fitted to. Six numbers, 24
/// bytes; a seventh if the share of texts out of scope is stated.
///
/// What it promises holds for texts like the rows, mixed like them: where more texts are out of scope, more answers are wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
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
    /// The share of texts out of scope in the mixture that it holds for: between 0 and 1, both excluded. `None` if it is not stated:
    /// the mixture is that of the rows.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub out_of_scope: Option<f32>,
}

impl Calibration {
    /// Bytes of a calibration without a share of texts out of scope.
    pub const BYTES: usize = 24;
    /// Bytes of one with it.
    pub const MAX_BYTES: usize = 28;

    /// Temperatures that are accepted, both ends included.
    pub const TEMPERATURES: (f32, f32) = (0.01, 100.0);

    /// Returns the same numbers if all are finite and in range.
    ///
    /// # Errors
    /// [`CalibrationError::Field`] or [`CalibrationError::NoRows`] names the first invalid one.
    pub fn validated(self) -> Result<Self, CalibrationError> {
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
            ("out_of_scope", self.out_of_scope.unwrap_or(0.5), self.out_of_scope.is_none_or(share), "between 0 and 1"),
        ];
        for (field, got, good, expected) in fields {
            if !good {
                return Err(CalibrationError::Field { field, got, expected });
            }
        }
        if self.rows == 0 { Err(CalibrationError::NoRows) } else { Ok(self) }
    }

    /// Returns the numbers in the order of the fields, little endian: five f32, a u32 and an f32. The first [`Self::bytes`] of them
    /// are the calibration.
    pub fn to_le_bytes(&self) -> [u8; Self::MAX_BYTES] {
        let words = [
            self.temperature.to_bits(),
            self.threshold.to_bits(),
            self.error_rate.to_bits(),
            self.set_threshold.to_bits(),
            self.coverage.to_bits(),
            self.rows,
            self.out_of_scope.unwrap_or_default().to_bits(),
        ];
        let mut out = [0; Self::MAX_BYTES];
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Returns the length of the calibration in bytes, [`Self::BYTES`] or [`Self::MAX_BYTES`].
    pub const fn bytes(&self) -> usize {
        if self.out_of_scope.is_some() { Self::MAX_BYTES } else { Self::BYTES }
    }

    /// Reads what [`Self::to_le_bytes`] wrote.
    ///
    /// # Errors
    /// If there are neither [`Self::BYTES`] nor [`Self::MAX_BYTES`] bytes, and as [`Self::validated`].
    pub fn from_le_bytes(bytes: &[u8]) -> Result<Self, CalibrationError> {
        let (words, rest) = bytes.as_chunks::<4>();
        let ([temperature, threshold, error_rate, set_threshold, coverage, rows, more @ ..], []) = (words, rest) else {
            return Err(CalibrationError::Length { got: bytes.len() });
        };
        let out_of_scope = match more {
            [] => None,
            [share] => Some(f32::from_le_bytes(*share)),
            _ => return Err(CalibrationError::Length { got: bytes.len() }),
        };
        Calibration {
            temperature: f32::from_le_bytes(*temperature),
            threshold: f32::from_le_bytes(*threshold),
            error_rate: f32::from_le_bytes(*error_rate),
            set_threshold: f32::from_le_bytes(*set_threshold),
            coverage: f32::from_le_bytes(*coverage),
            rows: u32::from_le_bytes(*rows),
            out_of_scope,
        }
        .validated()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    pub(crate) const GOOD: Calibration = Calibration {
        temperature: 1.5,
        threshold: 0.5,
        error_rate: 0.05,
        set_threshold: 0.2,
        coverage: 0.9,
        rows: 100,
        out_of_scope: None,
    };

    #[test]
    fn numbers_outside_their_range_are_refused_by_name() {
        type Change = fn(&mut Calibration, f32);
        let cases: [(&str, Change, &[f32]); 6] = [
            ("temperature", |c, v| c.temperature = v, &[0.0, -1.0, 101.0, f32::NAN, f32::INFINITY]),
            ("threshold", |c, v| c.threshold = v, &[-0.1, 1.1, f32::NAN]),
            ("error_rate", |c, v| c.error_rate = v, &[0.0, 1.0, f32::NAN]),
            ("set_threshold", |c, v| c.set_threshold = v, &[-0.1, 1.1, f32::NAN]),
            ("coverage", |c, v| c.coverage = v, &[0.0, 1.0, f32::NAN]),
            ("out_of_scope", |c, v| c.out_of_scope = Some(v), &[0.0, 1.0, -0.1, f32::NAN]),
        ];
        for (name, change, bad) in cases {
            for &v in bad {
                let mut c = GOOD;
                change(&mut c, v);
                let error = Calibration::from_le_bytes(&c.to_le_bytes()[..c.bytes()]).unwrap_err();
                assert!(matches!(error, CalibrationError::Field { field, .. } if field == name), "{name} {v}: {error}");
                assert!(error.to_string().starts_with(&std::format!("calibration: {name} is ")), "{error}");
            }
        }
        let none = Calibration { rows: 0, ..GOOD };
        assert_eq!(Calibration::from_le_bytes(&none.to_le_bytes()[..24]), Err(CalibrationError::NoRows));
    }

    #[test]
    fn bytes_are_little_endian_in_the_order_of_the_fields() {
        let bytes = GOOD.to_le_bytes();
        assert_eq!(&bytes[..4], 1.5f32.to_le_bytes());
        assert_eq!(&bytes[20..24], 100u32.to_le_bytes());
        assert_eq!(Calibration::from_le_bytes(&bytes[..GOOD.bytes()]), Ok(GOOD));
        let stated = Calibration { out_of_scope: Some(0.25), ..GOOD };
        let bytes = stated.to_le_bytes();
        assert_eq!((&bytes[24..], stated.bytes()), (&0.25f32.to_le_bytes()[..], 28));
        assert_eq!(Calibration::from_le_bytes(&bytes), Ok(stated));
        for n in [0, 4, 23, 27] {
            assert_eq!(Calibration::from_le_bytes(&bytes[..n]), Err(CalibrationError::Length { got: n }));
        }
        assert!(Calibration::from_le_bytes(&[0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_valid_calibration_or_an_error(bytes in any::<[u8; Calibration::MAX_BYTES]>(), stated in any::<bool>()) {
            let bytes = &bytes[..if stated { Calibration::MAX_BYTES } else { Calibration::BYTES }];
            if let Ok(c) = Calibration::from_le_bytes(bytes) {
                prop_assert_eq!(&c.to_le_bytes()[..c.bytes()], bytes);
                prop_assert!(c.validated().is_ok());
            }
        }
    }
}
