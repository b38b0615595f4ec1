//! Depthwise convolution with one kernel per channel, and the form shared with the lightweight convolution.

use tch::{Kind, Tensor};

use super::mode::Mode;

/// Depthwise convolution: `Y[b, i, c] = Σ_j taps[c, j] · X[b, i + (j − offset)·dilation, c]`, zero outside the
/// sequence.
///
/// `x`: `[B, T, C]`, `taps`: `[C, K]` of the same kind; returns `[B, T, C]`. `offset` is in taps, `dilation` in
/// positions.
pub fn depthwise(x: &Tensor, taps: &Tensor, offset: i64, dilation: i64) -> Tensor {
    let (channels, width) = (x.size()[2], taps.size()[1]);
    let (left, right) = (offset * dilation, (width - 1 - offset) * dilation);
    // As a conv2d over `[B, C, 1, T]`, whose strides are those of channels-last memory: nothing is transposed.
    let (x, padding) =
        if left == right { (x.shallow_clone(), left) } else { (x.constant_pad_nd([0, 0, left, right]), 0) };
    let x = x.transpose(1, 2).unsqueeze(2);
    let taps = taps.view([channels, 1, 1, width]);
    x.conv2d(&taps, None::<&Tensor>, [1, 1], [0, padding], [1, dilation], channels).squeeze_dim(2).transpose(1, 2)
}

/// Equation 1 of the paper: taps `[C, K]` used directly, without softmax.
#[derive(Debug)]
pub struct DilatedConv {
    kernel: Tensor,
    offset: i64,
    dilation: i64,
}

impl DilatedConv {
    /// Creates the layer of a kernel `[C, K]`; tap `j` reads position `i + (j − offset)·dilation`. The tensor is
    /// shared.
    pub fn new(kernel: Tensor, offset: i64, dilation: i64) -> Self {
        DilatedConv { kernel, offset, dilation }
    }

    /// Maps `[B, T, C]` to `[B, T, C]`; the product is bf16 under [`Mode::bf16`].
    ///
    /// DropConnect as in [`super::lightconv`], on the taps themselves.
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        let kind = mode.product_kind();
        let taps = mode.drop_taps(&self.kernel).to_kind(kind);
        depthwise(&x.to_kind(kind), &taps, self.offset, self.dilation).to_kind(Kind::Float)
    }
}
