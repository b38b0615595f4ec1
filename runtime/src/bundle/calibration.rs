//! The calibration section.

use super::BundleError;
use super::config::word;

/// Bytes of the section.
const BYTES: usize = 6 * 4;

/// What export measured on dev data about the scores: how sure is sure.
///
/// # Format
/// The fields below in their order, 4 bytes each, little endian; the f32 fields are finite, the temperature is above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Scores are divided by it before softmax; above 0.
    pub temperature: f32,
    /// Below this probability the answer is "not sure".
    pub threshold: f32,
    /// The error rate that the threshold was chosen for.
    pub error_rate: f32,
    /// The part of dev texts at or above the threshold.
    pub coverage: f32,
    /// The quantile of split-conformal label sets.
    pub conformal_quantile: f32,
    /// Dev texts measured.
    pub rows: u32,
}

impl Calibration {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let wrong = BundleError::CalibrationLength { need: BYTES, got: bytes.len() };
        if bytes.len() != BYTES {
            return Err(wrong);
        }
        let field = |at, field| match word(bytes, at).map(f32::from_bits) {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => Err(BundleError::Calibration { field }),
            None => Err(wrong),
        };
        let calibration = Calibration {
            temperature: field(0, "temperature")?,
            threshold: field(4, "threshold")?,
            error_rate: field(8, "error_rate")?,
            coverage: field(12, "coverage")?,
            conformal_quantile: field(16, "conformal_quantile")?,
            rows: word(bytes, 20).ok_or(wrong)?,
        };
        if calibration.temperature > 0.0 {
            Ok(calibration)
        } else {
            Err(BundleError::Calibration { field: "temperature" })
        }
    }

    #[cfg(feature = "alloc")]
    pub(super) fn write(&self) -> alloc::vec::Vec<u8> {
        let floats = [self.temperature, self.threshold, self.error_rate, self.coverage, self.conformal_quantile];
        let mut out: alloc::vec::Vec<u8> = floats.iter().flat_map(|field| field.to_le_bytes()).collect();
        out.extend(self.rows.to_le_bytes());
        out
    }
}
