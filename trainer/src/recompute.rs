//! Gradient checkpointing: computing again in the backward pass what the forward pass did not keep.
//!
//! Training keeps every intermediate result until the backward pass has used it. Of a function run by [`checkpoint`] only
//! inputs and output are kept; its inside is computed a second time when its gradients are needed (Chen et al. 2016, "Training
//! deep nets with sublinear memory cost"). `n` layers of which each is a checkpoint keep `n` inputs and the inside of
//! one layer, for one more forward pass.

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
