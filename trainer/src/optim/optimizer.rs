//! What an optimizer is, and what they share.

use std::collections::HashMap;
use std::fmt::Display;

use anyhow::{Context, Result, ensure};
use kinglet::spec::{Role, Weight};
use tch::{Kind, Tensor};

/// What names a model's parameter. `Display` gives the name in files; no two parameters of a model share one.
pub trait Parameter: Display {
    /// Whether weight decay takes from it: embeddings and matrices yes; norms, biases and kernel taps no.
    fn decays(&self) -> bool;
}

impl Parameter for Weight {
    fn decays(&self) -> bool {
        matches!(self.role(), Role::Embedding | Role::Linear)
    }
}

/// Turns gradients into steps. An optimizer is made for a model's parameters and shares their tensors.
pub trait Optimizer {
    /// Takes one step with learning rate `lr` from the gradients that the parameters hold. Gradients are left as they are.
    fn step(&mut self, lr: f64);

    /// All state by name: f32 tensors named after their parameter, and `step`, i64. The tensors are shared, not copied.
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Takes over what [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; the state is then partly replaced.
    fn load_state(&mut self, state: &HashMap<String, Tensor>) -> Result<()>;
}

/// One parameter of an optimizer: what it is and what the optimizer remembers of it.
#[derive(Debug)]
pub(super) struct Slot<M> {
    pub(super) name: String,
    pub(super) decays: bool,
    pub(super) tensor: Tensor,
    pub(super) memory: M,
}

/// A slot for each of `params`, with the memory that `fresh` makes of its tensor.
pub(super) fn slots<P: Parameter, M>(params: &[(P, Tensor)], fresh: impl Fn(&Tensor) -> M) -> Vec<Slot<M>> {
    let slot = |(parameter, tensor): &(P, Tensor)| Slot {
        name: parameter.to_string(),
        decays: parameter.decays(),
        tensor: tensor.shallow_clone(),
        memory: fresh(tensor),
    };
    params.iter().map(slot).collect()
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
