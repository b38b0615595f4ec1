//! What turns the scores of an exported model into its answer, with numbers of its own.

use kinglet::calibration::Calibration;
use kinglet::multi_label::{Decision, MultiLabel};
use kinglet::spec::Config;
use kinglet::spec::Task;
use kinglet_onnx::LabelThresholds;

/// A [`Decision`] that owns its thresholds.
#[derive(Clone, Debug, PartialEq)]
pub enum Decided {
    /// One label per text.
    One(Option<Calibration>),
    /// Any number of labels.
    Any(LabelThresholds),
}

impl Decided {
    /// Returns what there is before anything was fitted: no calibration, and labels above one half.
    pub fn unfitted(config: &Config) -> Self {
        match config.task {
            Task::Classify | Task::Embed => Decided::One(None),
            Task::MultiLabel => {
                Decided::Any(LabelThresholds { thresholds: vec![0.5; config.num_labels], calibration: None })
            }
        }
    }

    /// Returns the decision.
    pub fn decision(&self) -> Decision<'_> {
        match self {
            Decided::One(calibration) => Decision::One(*calibration),
            Decided::Any(LabelThresholds { thresholds, calibration }) => {
                Decision::Any(MultiLabel { thresholds, calibration: *calibration })
            }
        }
    }
}
