//! Data files and metrics for the text classifiers of [`kinglet`].
//!
//! - [`dataset`]: labelled texts, pairs and documents from JSONL, CSV, TSV and text files, plain, gzip or zstd.
//! - [`metrics`]: accuracy and F1 from a confusion matrix.
//! - [`calibration_metrics`]: calibration error, proper scores, selective accuracy.
//! - [`files`]: atomic writes.
//!
//! ```
//! use kinglet_data::metrics::Confusion;
//!
//! let mut confusion = Confusion::new(2);
//! for (gold, predicted) in [(0, 0), (1, 1), (1, 0)] {
//!     confusion.add(gold, predicted);
//! }
//! assert_eq!(confusion.accuracy(), 2.0 / 3.0);
//! ```

pub mod calibration_metrics;
pub mod dataset;
pub mod files;
pub mod metrics;
mod zstd_reader;
