//! The backend of 32-bit Arm processors with the DSP extension (Cortex-M4, M7, M33, M55): `cortex-m-dsp`.
//!
//! The compiler does not say whether its target has the extension, so the feature `cortex-m-dsp` of this crate does. It cannot be wrong
//! without notice: for a target that lacks the instructions, or whose code is not Thumb code, the crate does not assemble.
//!
//! Products of int8 take `smlad`, which multiplies two pairs of 16-bit numbers and adds both products to a sum. Everything else is
//! what [`scalar`](super::scalar) does, element by element in the same order, arranged so that sums and neighbouring channels stay in
//! registers. `f32` needs no instruction of its own: with a floating-point unit or without, the operations are the IEEE 754 ones.

mod convolve;
mod matmul;
mod rows;

use super::scalar;
use super::table::Backend;

/// What the target has, as the assembler has checked.
pub(super) const DSP: Backend = Backend {
    name: "cortex-m-dsp",
    quantize: rows::quantize,
    matmul: matmul::matmul,
    convolve_shared: convolve::shared,
    convolve_channels: convolve::channels,
    layer_norm: rows::layer_norm,
    rms_norm: rows::rms_norm,
    ..scalar::KERNELS
};
