//! The interface of optimizers, and their shared parts.

use std::collections::HashMap;
use std::fmt::Display;

use anyhow::{Context, Result, ensure};
use kinglet::spec::{Role, Weight};
use tch::{Kind, Tensor};

/// Identifies a parameter of a model. `Display` writes the name used in files; names are unique within a model.
pub trait Parameter: Display {
    /// Returns whether weight decay applies: to embeddings and matrices, not to norms, biases and kernel taps.
    fn decays(&self) -> bool;
}

impl Parameter for Weight {
    fn decays(&self) -> bool {
        matches!(self.role(), Role::Embedding | Role::Linear)
    }
}

/// Turns gradients into steps. An optimizer belongs to the parameters of a model and shares their tensors.
pub trait Optimizer {
    /// Takes one step with learning rate `lr` from the gradients of the parameters, which it does not change.
    fn step(&mut self, lr: f64);

    /// Sets what each parameter's learning rate is multiplied by, in the order of the parameters; at first all are 1.
    /// Not part of the state.
    fn scale_rates(&mut self, factors: &[f64]);

    /// Returns the complete state by name: f32 tensors named after their parameter, and `step`, i64. The tensors are
    /// shared, not copied.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Restores what [`Optimizer::state`] returned.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape; the state is then partly replaced.
    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()>;
}

/// One parameter of an optimizer and its state.
#[derive(Debug)]
pub(super) struct Slot<M> {
    pub(super) name: String,
    pub(super) decays: bool,
    /// Factor of the learning rate.
    pub(super) rate: f64,
    pub(super) tensor: Tensor,
    pub(super) memory: M,
}

/// Creates a slot per parameter, with the state that `fresh` makes of its tensor.
pub(super) fn slots<P: Parameter, M>(params: &[(P, Tensor)], fresh: impl Fn(&Tensor) -> M) -> Vec<Slot<M>> {
    let slot = |(parameter, tensor): &(P, Tensor)| Slot {
        name: parameter.to_string(),
        decays: parameter.decays(),
        rate: 1.0,
        tensor: tensor.shallow_clone(),
        memory: fresh(tensor),
    };
    params.iter().map(slot).collect()
}

/// Sets the factors of the learning rate; slots without one keep theirs.
pub(super) fn scale_rates<M>(slots: &mut [Slot<M>], factors: &[f64]) {
    for (slot, &factor) in slots.iter_mut().zip(factors) {
        slot.rate = factor;
    }
}

/// Name of the step count in the state.
const STEP: &str = "step";

pub(super) fn step_tensor(step: i64) -> (String, Tensor) {
    (STEP.to_owned(), Tensor::from_slice(&[step]))
}

pub(super) fn load_step(state: &HashMap<String, Tensor>) -> Result<i64> {
    let step = state.get(STEP).context("the optimizer state has no step")?;
    ensure!(step.kind() == Kind::Int64 && step.numel() == 1, "the optimizer state's step is not one i64");
    Ok(step.int64_value(&[0]))
}

/// Copies the tensor `name` into `slot`.
pub(super) fn load_slot(slot: &mut Tensor, state: &HashMap<String, Tensor>, name: &str) -> Result<()> {
    let from = state.get(name).with_context(|| format!("the optimizer state has no {name}"))?;
    let (want, got) = (slot.size(), from.size());
    ensure!(want == got, "{name} has shape {got:?} in the optimizer state, must be {want:?}");
    ensure!(from.kind() == Kind::Float, "{name} is {:?} in the optimizer state, must be f32", from.kind());
    tch::no_grad(|| slot.copy_(from));
    Ok(())
}
