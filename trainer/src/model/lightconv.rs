//! Lightweight convolution (Wu et al. 2019, eq. 2 of Tay et al. 2021).

use tch::{Kind, Tensor};

use super::{dilatedconv::depthwise, mode::Mode};

/// Depthwise convolution with softmax-normalized taps shared by heads: channel `c` uses kernel `⌊c·H/C⌋`.
///
/// DropConnect is applied to the taps after the softmax, with an independent draw per weight `[H, K]` and batch; kept
/// ones are scaled by `1 / (1 − p)`, as `weight_dropout` in fairseq's `LightweightConv1d`.
#[derive(Debug)]
pub struct LightConv {
    kernel: Tensor,
    offset: i64,
}

impl LightConv {
    /// Creates the layer of a kernel `[H, K]` before the softmax; tap `j` reads position `i + j − offset`. The tensor
    /// is shared.
    pub fn new(kernel: Tensor, offset: i64) -> Self {
        LightConv { kernel, offset }
    }

    /// Maps `[B, T, C]` to `[B, T, C]`, `C` a multiple of `H`; the softmax is f32, the product bf16 under
    /// [`Mode::bf16`].
    pub fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        let kind = mode.product_kind();
        let per_head = x.size()[2] / self.kernel.size()[0];
        let taps = mode.drop_taps(&self.kernel.softmax(-1, Kind::Float));
        let taps = taps.to_kind(kind).repeat_interleave_self_int(per_head, 0, None);
        depthwise(&x.to_kind(kind), &taps, self.offset, 1).to_kind(Kind::Float)
    }
}
