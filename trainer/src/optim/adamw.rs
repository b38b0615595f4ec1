//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.

use std::collections::HashMap;

use anyhow::Result;
use tch::Tensor;

use super::optimizer::{Optimizer, Parameter, Slot, load_slot, load_step, scale_rates, slots, step_tensor};
use crate::ffi::{self, AdamWStep, AdamWWeight};

/// Hyper-parameters of [`AdamW`], with PyTorch's defaults, including epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, relative to the learning rate. Applies to embedding and matrices; norms, biases and
    /// kernel taps do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// libtorch's fused kernel reads and writes each weight once.
///
/// ```text
/// p ← p·(1 − lr·decay);  m ← m + (g − m)(1 − β1);  v ← β2·v + (1 − β2)·g²
/// p ← p − lr/(1 − β1ᵗ) · m / (sqrt(v)/sqrt(1 − β2ᵗ) + eps)
/// ```
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: i64,
    /// First and second moment per parameter.
    slots: Vec<Slot<(Tensor, Tensor)>>,
}

impl AdamW {
    /// Creates zero moments for `params`, on their devices.
    pub fn new<P: Parameter>(config: AdamWConfig, params: &[(P, Tensor)]) -> Self {
        let zeros = |p: &Tensor| tch::no_grad(|| p.zeros_like());
        AdamW { config, step: 0, slots: slots(params, |p| (zeros(p), zeros(p))) }
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, lr: f64) {
        self.step += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let gradients: Vec<Tensor> = self.slots.iter().map(|slot| slot.tensor.grad()).collect();
        let mut groups: Vec<((bool, f64), Vec<AdamWWeight<'_>>)> = Vec::new();
        for (Slot { decays, rate, tensor, memory: (m, v), .. }, g) in self.slots.iter().zip(&gradients) {
            if g.defined() {
                let weight = [tensor, g, m, v];
                match groups.iter_mut().find(|(key, _)| *key == (*decays, *rate)) {
                    Some((_, group)) => group.push(weight),
                    None => groups.push(((*decays, *rate), vec![weight])),
                }
            }
        }
        for ((decays, rate), weights) in groups {
            let weight_decay = if decays { weight_decay } else { 0.0 };
            let step = AdamWStep { step: self.step, lr: lr * rate, beta1, beta2, weight_decay, eps };
            if let Err(reason) = ffi::adamw(&weights, step) {
                panic!("a step of AdamW: {reason}");
            }
        }
    }

    fn scale_rates(&mut self, factors: &[f64]) {
        scale_rates(&mut self.slots, factors);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = vec![step_tensor(self.step)];
        for Slot { name, memory: (m, v), .. } in &self.slots {
            out.push((format!("{name}.m"), m.shallow_clone()));
            out.push((format!("{name}.v"), v.shallow_clone()));
        }
        out
    }

    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        for Slot { name, memory: (m, v), .. } in &mut self.slots {
            load_slot(m, state, &format!("{name}.m"))?;
            load_slot(v, state, &format!("{name}.v"))?;
        }
        self.step = load_step(state)?;
        Ok(())
    }
}
