//! Which trainings are tried in the time there is.
//!
//! Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"): a round of
//! short trainings, the better half of which is trained anew for twice as long, until one round trains a single one for the full length.
//! Each round takes the same time. Every training has a learning-rate schedule of its own length.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The most trainings of the first round.
pub const MOST_TRIALS: usize = 8;

/// Share of the epochs that are best which the last training has at least, if there are others.
const ENOUGH: f64 = 0.7;

/// How many trainings there are and how long they last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Trainings of the first round, a power of two.
    pub trials: usize,
    /// Epochs of the last round, which has one training.
    pub epochs: f64,
}

/// A round: so many trainings of so many epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Number of trainings.
    pub trials: usize,
    /// Epochs of each.
    pub epochs: f64,
}

impl Plan {
    /// Returns the plan of `trials` trainings in the first round that end with one of `epochs` epochs.
    ///
    /// # Errors
    /// If `trials` is not 1, 2, 4 or 8, or `epochs` not above 0.
    pub fn new(trials: usize, epochs: f64) -> Result<Self> {
        let possible = trials.is_power_of_two() && trials <= MOST_TRIALS;
        ensure!(possible, "--trials is {trials}, must be 1, 2, 4 or {MOST_TRIALS}");
        ensure!(epochs.is_finite() && epochs > 0.0, "--epochs is {epochs}, must be above 0");
        Ok(Plan { trials, epochs })
    }

    /// Returns the plan for the time of `possible` epochs, if `wanted` are best: with the most trainings, out of at most `candidates`, that
    /// leave the last one most of its length (seven tenths), or else one training of what is possible. `beside`: what each training takes
    /// beside its epochs, in epochs.
    pub fn within(possible: f64, wanted: f64, candidates: usize, beside: f64) -> Self {
        let trained = |trials: usize| (possible - beside * (2 * trials - 1) as f64).max(0.0) / rounds(trials) as f64;
        let fits = |trials: &usize| *trials <= candidates.max(1) && ENOUGH * wanted <= trained(*trials);
        let trials = [MOST_TRIALS, 4, 2].into_iter().find(fits).unwrap_or(1);
        let each = trained(trials);
        // Few digits, which a user may type.
        let digits = if each < 1.0 { 100.0 } else { 10.0 };
        Plan { trials, epochs: wanted.min(((each * digits).floor() / digits).max(0.01)) }
    }

    /// Returns the rounds in order.
    pub fn rounds(&self) -> Vec<Round> {
        (0..rounds(self.trials))
            .map(|round| Round {
                trials: self.trials >> round,
                epochs: self.epochs * (1 << round) as f64 / self.trials as f64,
            })
            .collect()
    }

    /// Returns the epochs of all trainings together.
    pub fn cost(&self) -> f64 {
        self.epochs * rounds(self.trials) as f64
    }
}

fn rounds(trials: usize) -> u32 {
    trials.max(1).ilog2() + 1
}

/// How much a training has to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// What the order of words adds to what they say alone.
    Short,
    /// What an encoder does not know of the task.
    Usual,
    /// Everything, from random weights.
    Long,
}

/// Returns how many epochs suit a training file of so many rows: few rows need many passes, random weights half as many again as an encoder
/// that is good already, and words that are known hardly any.
pub fn epochs_for(rows: usize, lesson: Lesson) -> f64 {
    let epochs = match rows {
        0..=2_500 => 40.0,
        2_501..=7_000 => 30.0,
        7_001..=12_000 => 25.0,
        12_001..=25_000 => 20.0,
        25_001..=50_000 => 8.0,
        50_001..=200_000 => 4.0,
        _ => 2.0,
    };
    match lesson {
        Lesson::Short => f64::min(epochs, 5.0),
        Lesson::Usual => epochs,
        Lesson::Long => 1.5 * epochs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_needs_fewer_epochs() {
        let all = |rows| [Lesson::Short, Lesson::Usual, Lesson::Long].map(|lesson| epochs_for(rows, lesson));
        assert_eq!(all(20_000), [5.0, 20.0, 30.0]);
        assert_eq!(all(1_000_000), [2.0, 2.0, 3.0]);
    }

    #[test]
    fn each_round_halves_the_trainings_and_doubles_their_length() {
        let plan = Plan::new(8, 16.0).unwrap();
        let rounds: Vec<(usize, f64)> = plan.rounds().iter().map(|round| (round.trials, round.epochs)).collect();
        assert_eq!(rounds, [(8, 2.0), (4, 4.0), (2, 8.0), (1, 16.0)]);
        assert_eq!(plan.cost(), 64.0);
        assert_eq!(Plan::new(1, 0.5).unwrap().rounds(), [Round { trials: 1, epochs: 0.5 }]);
        assert!(Plan::new(3, 1.0).is_err() && Plan::new(16, 1.0).is_err() && Plan::new(2, 0.0).is_err());
    }

    #[test]
    fn the_time_decides_how_much_is_tried() {
        let plan = |possible| Plan::within(possible, 10.0, 8, 0.0);
        assert_eq!(plan(100.0), Plan { trials: 8, epochs: 10.0 });
        assert_eq!(plan(39.0), Plan { trials: 8, epochs: 9.7 });
        assert_eq!(plan(27.0), Plan { trials: 4, epochs: 9.0 });
        assert_eq!(plan(20.0), Plan { trials: 2, epochs: 10.0 });
        assert_eq!(plan(14.0), Plan { trials: 2, epochs: 7.0 });
        assert_eq!(plan(13.0), Plan { trials: 1, epochs: 10.0 });
        assert_eq!(plan(7.38), Plan { trials: 1, epochs: 7.3 });
        assert_eq!(plan(0.456), Plan { trials: 1, epochs: 0.45 });
        assert_eq!(Plan::within(100.0, 10.0, 3, 0.0).trials, 2);
        // Seven trainings that take three epochs each beside their own, or one.
        assert_eq!(Plan::within(42.0, 10.0, 8, 3.0), Plan { trials: 4, epochs: 7.0 });
        assert_eq!(Plan::within(12.0, 10.0, 8, 4.0), Plan { trials: 1, epochs: 8.0 });
        assert_eq!(Plan::within(3.0, 10.0, 8, 4.0), Plan { trials: 1, epochs: 0.01 });
        for possible in [0.456, 7.38, 13.0, 14.0, 20.0, 39.0, 100.0] {
            assert!(plan(possible).cost() <= possible);
        }
    }
}
