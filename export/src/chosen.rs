//! Constants of calibration, and the threshold that is chosen.

use serde::Serialize;

/// Probability, over the choice of rows, that the target error rate is kept.
pub const CONFIDENCE: f64 = 0.95;

/// Shares of the rows at which test sequences begin, at least [`crate::calibrate::min_rows`].
pub const STARTS: [f64; 4] = [1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0, 3.0 / 4.0];

/// Probability that one sequence goes wrong.
pub(crate) const DELTA: f64 = (1.0 - CONFIDENCE) / STARTS.len() as f64;

/// Range of fitted temperatures, both ends included.
pub const TEMPERATURES: (f64, f64) = (0.1, 10.0);

/// A threshold and the rows it was chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// A label is given when its probability is greater.
    pub threshold: f32,
    /// Rows that are answered.
    pub answered: usize,
    /// Wrong answers among them.
    pub errors: usize,
    /// Upper bound on the error rate of new texts, at the confidence of one sequence; 1 when nothing is answered.
    pub error_bound: f64,
}
