//! Adafactor (Shazeer and Stern 2018) as used by T5: no first moment, updates relative to the size of the weight.

use std::collections::HashMap;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::optimizer::{Optimizer, Parameter, Slot, load_slot, load_step, scale_rates, slots, step_tensor};
use crate::ffi::{self, AdafactorStep};

/// Minimum of both dimensions of a matrix for a factored second moment (Mesh TensorFlow, `min_dim_size_to_factor`).
pub const FACTORED_FROM: i64 = 128;
/// Added to squared gradients (Shazeer and Stern 2018, ε₁).
const EPS_GRADIENT: f64 = 1e-30;
/// Minimum root mean square of a weight that a step is relative to (Shazeer and Stern 2018, ε₂).
const EPS_WEIGHT: f64 = 1e-3;
/// Updates with a larger root mean square are scaled down to it (Shazeer and Stern 2018, d).
const CLIP: f64 = 1.0;
/// Exponent of the decay `1 − t^−0.8` (Shazeer and Stern 2018, section 7.2).
const DECAY_EXPONENT: f64 = -0.8;

/// Hyper-parameters of [`Adafactor`], apart from the published constants.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdafactorConfig {
    /// Decoupled weight decay of embedding and matrices only.
    pub weight_decay: f64,
}

/// The second moment of one weight.
#[derive(Debug)]
enum Second {
    /// Running means of the squared gradient over columns, `[rows]`, and over rows, `[columns]`.
    Factored(Tensor, Tensor),
    /// Running mean of the squared gradient.
    Full(Tensor),
}

/// ```text
/// t = step + 1;  β = 1 − t^−0.8;  s = g² + 1e-30
/// factored:  r ← β·r + (1 − β)·mean(s over columns);  c ← β·c + (1 − β)·mean(s over rows);  v = r ⊗ c / mean(r)
/// full:      v ← β·v + (1 − β)·s
/// u = g / sqrt(v);  u ← u / max(1, rms(u));  α = lr·max(1e-3, rms(p));  p ← p·(1 − α·decay) − α·u
/// ```
#[derive(Debug)]
pub struct Adafactor {
    config: AdafactorConfig,
    step: i64,
    slots: Vec<Slot<Second>>,
}

impl Adafactor {
    /// Creates zero moments for `params`, on their devices.
    pub fn new<P: Parameter>(config: AdafactorConfig, params: &[(P, Tensor)]) -> Self {
        let second = |p: &Tensor| match *p.size() {
            [rows, columns] if rows >= FACTORED_FROM && columns >= FACTORED_FROM => {
                let options = (Kind::Float, p.device());
                Second::Factored(Tensor::zeros([rows], options), Tensor::zeros([columns], options))
            }
            _ => Second::Full(tch::no_grad(|| p.zeros_like())),
        };
        Adafactor { config, step: 0, slots: slots(params, second) }
    }
}

/// Returns the root mean square of all elements as a scalar tensor, without waiting for the device.
fn rms(x: &Tensor) -> Tensor {
    (x * x).mean(Kind::Float).sqrt()
}

impl Second {
    /// Updates the moment with a gradient and returns `g / sqrt(v)`.
    fn scale(&mut self, g: &Tensor, decay: f64) -> Tensor {
        let mut square = g * g;
        let _ = square.g_add_scalar_(EPS_GRADIENT);
        match self {
            Second::Factored(rows, columns) => {
                let mean = |dim: i64| square.mean_dim([dim].as_slice(), false, Kind::Float);
                let _ = rows.lerp_(&mean(1), 1.0 - decay);
                let _ = columns.lerp_(&mean(0), 1.0 - decay);
                let row_factor = (&*rows / rows.mean(Kind::Float)).rsqrt().unsqueeze(1);
                let mut update = g * row_factor;
                let _ = update.g_mul_(&columns.rsqrt().unsqueeze(0));
                update
            }
            Second::Full(v) => {
                let _ = v.lerp_(&square, 1.0 - decay);
                g * v.rsqrt()
            }
        }
    }
}

/// Takes the step of one weight on any device, by operations of libtorch.
fn by_operations(p: &mut Tensor, g: &Tensor, second: &mut Second, keep: f64, lr: f64, weight_decay: f64) {
    let mut update = second.scale(g, keep);
    let clip = (rms(&update) / CLIP).clamp_min(1.0);
    let size = rms(p).clamp_min(EPS_WEIGHT) * lr;
    let _ = update.g_mul_(&(&size / clip));
    if weight_decay != 0.0 {
        let _ = p.g_mul_(&(size * -weight_decay + 1.0));
    }
    let _ = p.g_sub_(&update);
}

/// Takes the step of one weight on the CPU in three passes over its memory; [`by_operations`] takes some twenty.
fn fused(p: &mut Tensor, g: &Tensor, second: &mut Second, keep: f64, lr: f64, weight_decay: f64) {
    let (rows, columns) = match &*second {
        Second::Factored(rows, columns) => (rows, Some(columns)),
        Second::Full(v) => (v, None),
    };
    let step = AdafactorStep { keep, lr, weight_decay, eps_gradient: EPS_GRADIENT, eps_weight: EPS_WEIGHT, clip: CLIP };
    if let Err(reason) = ffi::adafactor(p, g, rows, columns, step) {
        panic!("a step of Adafactor: {reason}");
    }
}

impl Optimizer for Adafactor {
    fn step(&mut self, lr: f64) {
        self.step += 1;
        let decay = 1.0 - (self.step as f64).powf(DECAY_EXPONENT);
        tch::no_grad(|| {
            for Slot { decays, rate, tensor: p, memory: second, .. } in &mut self.slots {
                let g = p.grad();
                if !g.defined() {
                    continue;
                }
                let weight_decay = if *decays { self.config.weight_decay } else { 0.0 };
                let take = if p.device() == Device::Cpu { fused } else { by_operations };
                take(p, &g, second, decay, lr * *rate, weight_decay);
            }
        });
    }

    fn scale_rates(&mut self, factors: &[f64]) {
        scale_rates(&mut self.slots, factors);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = vec![step_tensor(self.step)];
        for Slot { name, memory: second, .. } in &self.slots {
            match second {
                Second::Factored(rows, columns) => {
                    out.push((format!("{name}.rows"), rows.shallow_clone()));
                    out.push((format!("{name}.columns"), columns.shallow_clone()));
                }
                Second::Full(v) => out.push((format!("{name}.v"), v.shallow_clone())),
            }
        }
        out
    }

    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        for Slot { name, memory: second, .. } in &mut self.slots {
            match second {
                Second::Factored(rows, columns) => {
                    load_slot(rows, state, &format!("{name}.rows"))?;
                    load_slot(columns, state, &format!("{name}.columns"))?;
                }
                Second::Full(v) => load_slot(v, state, &format!("{name}.v"))?,
            }
        }
        self.step = load_step(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    #[test]
    fn both_ways_to_take_a_step_agree() {
        let _turn = generator();
        tch::manual_seed(1);
        let options = (Kind::Float, Device::Cpu);
        let zeros = |shape: &[i64]| Tensor::zeros(shape, options);
        // Blocks and vectors end in the middle of rows and columns.
        for (shape, factored) in [(&[130, 131][..], true), (&[5, 7], false), (&[37], false), (&[130, 128], true)] {
            let start = Tensor::randn(shape, options) * 0.3;
            let second = || {
                if factored {
                    Second::Factored(zeros(&shape[..1]), zeros(&shape[1..]))
                } else {
                    Second::Full(zeros(shape))
                }
            };
            let (mut a, mut b) = (start.copy(), start.copy());
            let (mut of_a, mut of_b) = (second(), second());
            for step in 1..5 {
                let g = Tensor::randn(shape, options) * 10f64.powi(-step);
                let keep = 1.0 - f64::from(step).powf(DECAY_EXPONENT);
                by_operations(&mut a, &g, &mut of_a, keep, 0.1, 0.2);
                fused(&mut b, &g, &mut of_b, keep, 0.1, 0.2);
                let off = (&a - &b).abs().max().double_value(&[]);
                assert!(off < 2e-6, "{shape:?}, step {step}: off by {off:e}");
            }
            let moved = (&a - start).abs().max().double_value(&[]);
            assert!(moved > 1e-3, "{shape:?}: moved by {moved:e}");
        }
    }
}
