//! Dynamic convolution (Wu et al. 2019, eq. 3 of Tay et al. 2021): the taps are computed at each position.

use tch::{Kind, Tensor};

use super::{linear::Linear, mode::Mode};

/// Sequences of more than this many kernel widths are convolved tap by tap: the band matrix grows with the square of
/// the length, the loop with the width of the kernel.
const BAND_WIDTHS: i64 = 16;

/// `Y[b, i, c] = Σ_j taps[b, i, h(c), j] · X[b, i + j − offset, c]` with `h(c) = ⌊c·H/C⌋`, zero outside the sequence.
///
/// `x`: `[B, T, C]`, `taps`: `[B, T, H, K]` of the same kind; returns `[B, T, C]`.
pub fn dynamic(x: &Tensor, taps: &Tensor, offset: i64) -> Tensor {
    // A matrix per channel would share nothing.
    let shared = taps.size()[2] < x.size()[2];
    let short = taps.size()[1] <= BAND_WIDTHS * taps.size()[3];
    if short && shared { by_band(x, taps, offset) } else { by_tap(x, taps, offset) }
}

/// Multiplies a `T × T` matrix per head, with the taps on its band, by the tokens.
fn by_band(x: &Tensor, taps: &Tensor, offset: i64) -> Tensor {
    let (batch, tokens, channels) = x.size3().unwrap_or_default();
    let (heads, width) = (taps.size()[2], taps.size()[3]);
    // Rows `[taps, T zeros]`, read as if they were one shorter, shift each row one column to the right.
    let (row, head) = (width + tokens, batch * heads);
    let rows = taps.transpose(1, 2).constant_pad_nd([0, tokens]).reshape([head, tokens * row]);
    let band = rows.narrow(1, 0, tokens * (row - 1)).view([head, tokens, row - 1]).narrow(2, offset, tokens);
    let by_head = x.view([batch, tokens, heads, channels / heads]).transpose(1, 2);
    let mixed = band.bmm(&by_head.reshape([head, tokens, channels / heads]));
    mixed.view([batch, heads, tokens, channels / heads]).transpose(1, 2).reshape([batch, tokens, channels])
}

/// Sums the shifted sequence over the taps.
fn by_tap(x: &Tensor, taps: &Tensor, offset: i64) -> Tensor {
    let (batch, tokens, channels) = x.size3().unwrap_or_default();
    let (heads, width) = (taps.size()[2], taps.size()[3]);
    let padded = x.constant_pad_nd([0, 0, offset, width - 1 - offset]);
    let padded = padded.view([batch, tokens + width - 1, heads, channels / heads]);
    let mut sum = padded.narrow(1, 0, tokens) * taps.narrow(3, 0, 1);
    for j in 1..width {
        sum = sum.addcmul(&padded.narrow(1, j, tokens), &taps.narrow(3, j, 1));
    }
    sum.view([batch, tokens, channels])
}

/// Lightweight convolution whose taps are `softmax(X·W_K)` at each position, from the block's input or, in dialects
/// other than the paper's, from the gated rows.
///
/// DropConnect is dropout on the computed taps after the softmax (fairseq's `weight_dropout` in `DynamicConv1dTBC`): an
/// independent draw per tap, head, position and text.
#[derive(Debug)]
pub struct DynamicConv {
    projection: Linear,
    heads: i64,
    offset: i64,
}

impl DynamicConv {
    /// Creates the layer of a projection `[H·K, C]`; tap `j` reads position `i + j − offset`.
    pub fn new(projection: Linear, heads: i64, offset: i64) -> Self {
        DynamicConv { projection, heads, offset }
    }

    /// Convolves `x`, the gated `[B, T, C]`, with taps computed from `source` `[B, T, C]`; returns `[B, T, C]`.
    pub fn forward(&self, x: &Tensor, source: &Tensor, mode: &Mode) -> Tensor {
        let kind = mode.product_kind();
        let (batch, tokens, _) = x.size3().unwrap_or_default();
        let scores = self.projection.forward(source, mode).view([batch, tokens, self.heads, -1]);
        let taps = mode.drop_taps(&scores.softmax(-1, Kind::Float));
        dynamic(&x.to_kind(kind), &taps.to_kind(kind), self.offset).to_kind(Kind::Float)
    }
}
