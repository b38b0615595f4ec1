//! Optimizers with exactly restorable state, learning-rate schedules and gradient clipping.
//!
//! Steps are taken in place on the f32 master weights. A weight without a gradient is not changed.

mod adafactor;
mod adamw;
mod clip;
mod optimizer;
mod schedule;

pub use adafactor::{Adafactor, AdafactorConfig, FACTORED_FROM};
pub use adamw::{AdamW, AdamWConfig};
pub use clip::{clear_gradients, clip_gradients};
pub use optimizer::{Optimizer, Parameter};
pub use schedule::{Decay, Schedule};

use tch::Tensor;

/// Choice of optimizer with its hyper-parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerConfig {
    /// [`Adafactor`].
    Adafactor(AdafactorConfig),
    /// [`AdamW`].
    AdamW(AdamWConfig),
}

impl OptimizerConfig {
    /// Creates the optimizer with fresh state for `params`.
    pub fn build<P: Parameter>(&self, params: &[(P, Tensor)]) -> Box<dyn Optimizer> {
        match *self {
            OptimizerConfig::Adafactor(config) => Box::new(Adafactor::new(config, params)),
            OptimizerConfig::AdamW(config) => Box::new(AdamW::new(config, params)),
        }
    }
}
