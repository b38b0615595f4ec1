//! Dynamic convolution: lightweight, with the kernel of each position computed from the block's input there (Tay et al.
//! 2021, eq. 3).
//!
//! ```text
//! y[i, c] = Σ_j softmax((X·W_K)[i, h(c)])[j] · x[i + j − offset, c],   h(c) = ⌊c·H/C⌋
//! ```
//! Row `h·K + j` of `W_K` computes tap `j` of head `h`.

use super::linear::Operand;
use crate::backend::{Activation, Backend, PackedMatrix, Window};

/// `input`: the block's input, of `R` rows; `projection`: `[H·K, C]`; `room`: at least `[R, H·K]`, in which they are returned.
pub(crate) fn taps<'r>(
    backend: &Backend,
    input: &Operand<'_>,
    projection: &PackedMatrix<'_>,
    window: Window,
    room: &'r mut [f32],
) -> &'r [f32] {
    let taps = room.get_mut(..input.rows() * projection.outputs).unwrap_or_default();
    input.linear(backend, projection, Activation::Identity, taps);
    backend.softmax(taps, window.taps);
    taps
}

/// `x`: `[R + (K − 1)·dilation, C]`; `taps`: `[R, H·K]`, of which a row has `stride`; `y`: `[R, C]`.
pub(crate) fn dynamicconv(
    backend: &Backend,
    x: &[f32],
    window: Window,
    taps: &[f32],
    stride: usize,
    heads: usize,
    y: &mut [f32],
) {
    backend.convolve_shared(x, window, taps, stride, heads, y);
}
