//! Gradient checkpointing: recomputing in the backward pass what the forward pass did not keep.
//!
//! Training keeps every intermediate result until the backward pass has used it. For a function run by [`checkpoint`],
//! only inputs and output are kept; its inside is recomputed when its gradients are needed (Chen et al. 2016, "Training
//! deep nets with sublinear memory cost"). `n` layers that are each a checkpoint keep `n` inputs and the inside of one
//! layer, for one more forward pass.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use tch::Tensor;

use crate::ffi;

/// Runs `function(inputs)` and recomputes its inside in the backward pass.
///
/// Gradients are those of the plain call, bit for bit, also with dropout: for the second run, libtorch's generators
/// (the CPU's and that of the inputs' CUDA device) are reset to where they were in the first, and both runs record what
/// autograd needs, since libtorch uses other kernels if nothing is recorded. Only a weight that is used by three or
/// more checkpoints may get its sum of gradients in another order.
///
/// Gradients flow to `inputs` and to leaves (weights) held by `function`. Every other tensor that needs a gradient must
/// be among `inputs`. `function` holds copies (`shallow_clone`) of its weights, since the backward pass outlives this
/// call; it must return the same for the same inputs, and change nothing. There is no second derivative.
///
/// # Errors
/// If `function` panics, as tch does if libtorch throws; the message is passed on. In the backward pass, this makes
/// `Tensor::backward` fail.
pub fn checkpoint<F>(function: F, inputs: &[Tensor]) -> Result<Tensor>
where
    F: Fn(&[Tensor]) -> Tensor + Send + 'static,
{
    ffi::checkpoint(function, inputs).map_err(|why| anyhow!("a checkpointed function failed: {why}"))
}

/// A layer that can be recomputed in the backward pass, on any thread that runs it.
#[derive(Debug)]
pub struct Recomputable<L>(Arc<Mutex<L>>);

impl<L: Send + 'static> Recomputable<L> {
    /// Wraps a layer; its tensors are shared, not copied.
    pub fn new(layer: L) -> Self {
        Recomputable(Arc::new(Mutex::new(layer)))
    }

    /// Locks the layer for the lifetime of the guard. A backward pass through [`Recomputable::run`] waits for it.
    pub fn lock(&self) -> MutexGuard<'_, L> {
        // A pass that panicked has changed nothing: layers are only read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `function(layer, inputs)`; if `again`, as a [`checkpoint`], which defines what must be among `inputs`.
    ///
    /// # Panics
    /// If `function` panics, as tch does if libtorch throws.
    pub fn run<F>(&self, again: bool, inputs: &[Tensor], function: F) -> Tensor
    where
        F: Fn(&L, &[Tensor]) -> Tensor + Send + 'static,
    {
        if !again {
            return function(&self.lock(), inputs);
        }
        let layer = Recomputable(Arc::clone(&self.0));
        let output = checkpoint(move |inputs| function(&layer.lock(), inputs), inputs);
        // The inner panic has printed its message; propagate it.
        output.unwrap_or_else(|error| resume_unwind(Box::new(format!("{error:#}"))))
    }
}
