//! The backend of 32-bit Arm processors with the DSP extension (Cortex-M4, M7, M33, M55): `cortex-m-dsp`.
//!
//! The compiler does not expose whether its target has the extension, so the feature `cortex-m-dsp` of this crate does.
//! A mistake is noticed: for a target without the instructions, or without Thumb code, the crate does not assemble.
//!
//! int8 products use `smlad`, which multiplies two pairs of 16-bit numbers and adds both products to a sum. Everything
//! else is done as in [`scalar`](super::scalar), element by element in the same order, arranged so that sums and
//! neighbouring channels stay in registers. `f32` needs no special instructions: with or without a floating-point unit,
//! the operations are the IEEE 754 ones.

mod convolve;
mod matmul;
mod rows;

use super::scalar;
use super::table::Backend;

/// Features of the target, as verified by the assembler.
pub(super) const DSP: Backend = Backend {
    name: "cortex-m-dsp",
    quantize: rows::quantize,
    matmul: matmul::matmul,
    convolve_shared: convolve::shared,
    convolve_channels: convolve::channels,
    layer_norm: rows::layer_norm,
    rms_norm: rows::rms_norm,
    ..scalar::TABLE
};
