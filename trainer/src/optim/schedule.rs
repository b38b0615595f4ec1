//! Learning rate as a pure function of the step.

use std::f64::consts::PI;

/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Constant.
    #[default]
    Constant,
    /// `sqrt(d / max(t, d))` with `d` = [`Schedule::decay_after`]. T5's pre-training has `learning_rate` 0.01 and `d`
    /// 10,000, which is `1 / sqrt(max(t, 10000))`.
    InverseSquareRoot,
    /// Linear decay to [`Schedule::final_fraction`] at the last step.
    Linear,
    /// Cosine decay to [`Schedule::final_fraction`] at the last step.
    Cosine,
}

impl Decay {
    /// Returns whether the rates depend on the number of all steps.
    pub fn depends_on_length(self) -> bool {
        matches!(self, Decay::Linear | Decay::Cosine)
    }
}

/// Learning rate by step. Defaults: 1e-3, constant, no warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Peak learning rate. For Adafactor, relative to the size of each weight.
    pub learning_rate: f64,
    /// Shape of the decay after the warm-up.
    pub decay: Decay,
    /// Linear warm-up steps, starting from `learning_rate / warmup_steps`.
    pub warmup_steps: u64,
    /// First step of the inverse square root.
    pub decay_after: u64,
    /// Fraction of the rate at the last step (linear, cosine), 0 to 1.
    pub final_fraction: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            learning_rate: 1e-3,
            decay: Decay::Constant,
            warmup_steps: 0,
            decay_after: 10_000,
            final_fraction: 0.0,
        }
    }
}

impl Schedule {
    /// Returns the rate of a step, counted from 0, out of `total` steps; past the end it stays constant.
    ///
    /// With `t = step + 1`: `learning_rate · min(1, t / warmup_steps) · decay`, where linear and cosine are functions
    /// of `(t − warmup) / (total − warmup)`.
    pub fn at(&self, step: u64, total: u64) -> f64 {
        let t = step.saturating_add(1);
        let warmup = if t < self.warmup_steps { t as f64 / self.warmup_steps as f64 } else { 1.0 };
        let progress = {
            let (done, of) = (t.saturating_sub(self.warmup_steps), total.saturating_sub(self.warmup_steps).max(1));
            (done as f64 / of as f64).min(1.0)
        };
        let left = |fraction: f64| self.final_fraction + (1.0 - self.final_fraction) * fraction;
        let decay = match self.decay {
            Decay::Constant => 1.0,
            Decay::InverseSquareRoot => {
                let after = self.decay_after.max(1);
                (after as f64 / t.max(after) as f64).sqrt()
            }
            Decay::Linear => left(1.0 - progress),
            Decay::Cosine => left(0.5 * (1.0 + (PI * progress).cos())),
        };
        self.learning_rate * warmup * decay
    }

    /// Checks that every value is in range.
    ///
    /// # Errors
    /// The field and its value.
    pub fn validate(&self) -> anyhow::Result<()> {
        let Schedule { learning_rate, final_fraction, .. } = *self;
        anyhow::ensure!(
            learning_rate.is_finite() && learning_rate > 0.0,
            "learning_rate is {learning_rate}, must be above 0"
        );
        anyhow::ensure!((0.0..=1.0).contains(&final_fraction), "final_fraction is {final_fraction}, must be 0 to 1");
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn schedule(decay: Decay) -> Schedule {
        Schedule { learning_rate: 2.0, decay, warmup_steps: 4, ..Schedule::default() }
    }

    #[test]
    fn warm_up_rises_in_a_straight_line_to_the_rate() {
        let s = schedule(Decay::Constant);
        let rates: Vec<f64> = (0..6).map(|i| s.at(i, 100)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn linear_and_cosine_end_at_the_final_fraction() {
        for decay in [Decay::Linear, Decay::Cosine] {
            let s = Schedule { final_fraction: 0.1, ..schedule(decay) };
            assert_eq!(s.at(3, 104), 2.0);
            assert!((s.at(53, 104) - 1.1).abs() < 1e-12, "half-way {}", s.at(53, 104));
            assert!((s.at(103, 104) - 0.2).abs() < 1e-12);
            assert_eq!(s.at(103, 104), s.at(5000, 104));
        }
        let quarter = schedule(Decay::Cosine).at(28, 104);
        assert!((quarter - (1.0 + (PI / 4.0).cos())).abs() < 1e-12);
    }

    #[test]
    fn inverse_square_root_is_that_of_t5() {
        let s = Schedule { learning_rate: 0.01, decay: Decay::InverseSquareRoot, ..Schedule::default() };
        for t in [1u64, 9_999, 10_000, 10_001, 524_288] {
            let want = 1.0 / (t.max(10_000) as f64).sqrt();
            assert!((s.at(t - 1, 524_288) / want - 1.0).abs() < 1e-12, "t {t}");
        }
    }
}
