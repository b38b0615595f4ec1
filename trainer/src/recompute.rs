//! Gradient checkpointing: computing again in the backward pass what the forward pass did not keep.
//!
//! Training keeps every intermediate result until the backward pass has used it. Of a function run by [`checkpoint`] only
//! inputs and output are kept; its inside is computed a second time when its gradients are needed (Chen et al. 2016, "Training
//! deep nets with sublinear memory cost"). `n` layers of which each is a checkpoint keep `n` inputs and the inside of
//! one layer, for one more forward pass.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use tch::Tensor;

use crate::ffi;

/// `function(inputs)`, whose inside is computed again in the backward pass.
///
/// Gradients are those of the plain call, bit for bit, also with dropout: libtorch's generators (the CPU's and that of the
/// inputs' CUDA device) are put back for the second run to where they stood in the first, and both runs record what autograd
/// needs, since libtorch takes other kernels where nothing is recorded. Only a weight that is used by three
/// or more checkpoints may get its sum of gradients in another order.
///
/// Gradients flow to `inputs` and to leaves (weights) that `function` holds. Every other tensor that needs a gradient must be
/// among `inputs`. `function` holds copies (`shallow_clone`) of its weights, since the backward pass outlives this
/// call; it must give the same for the same inputs, and change nothing. There is no second derivative.
///
/// # Errors
/// When `function` panics, as tch does where libtorch throws; the message is passed on. In the backward pass that makes
/// `Tensor::backward` fail.
pub fn checkpoint<F>(function: F, inputs: &[Tensor]) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Tensor + Send + 'static,
{
    ffi::checkpoint(function, inputs).map_err(|why| anyhow!("a checkpointed function failed: {why}"))
}

/// A layer that can be computed again in the backward pass, on whichever thread that runs.
#[derive(Debug)]
pub struct Recomputable<L>(Arc<Mutex<L>>);

impl<L: Send + 'static> Recomputable<L> {
    /// Takes a layer over; its tensors are shared, not copied.
    pub fn new(layer: L) -> Self {
        Recomputable(Arc::new(Mutex::new(layer)))
    }

    /// The layer, for as long as the guard lives. A backward pass through [`Recomputable::run`] waits for it.
    pub fn lock(&self) -> MutexGuard<'_, L> {
        // A pass that panicked has changed nothing: layers are only read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `function(layer, inputs)`; if `again`, as a [`checkpoint`], which says what must be among `inputs`.
    ///
    /// # Panics
    /// When `function` panics, as tch does where libtorch throws.
    pub fn run<F>(&self, again: bool, inputs: &[Tensor], function: F) -> Tensor
    where
        F: Fn(&L, &[Tensor]) -> Tensor + Send + 'static,
    {
        if !again {
            return function(&self.lock(), inputs);
        }
        let layer = Recomputable(Arc::clone(&self.0));
        let output = checkpoint(move |inputs| function(&layer.lock(), inputs), inputs);
        // The panic inside has told its message; it goes on.
        output.unwrap_or_else(|error| resume_unwind(Box::new(format!("{error:#}"))))
    }
}
