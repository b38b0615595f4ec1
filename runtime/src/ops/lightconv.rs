//! Lightweight convolution: depthwise, channel `c` uses the softmax of kernel `h(c) = ⌊c·H/C⌋` (Tay et al. 2021, eq. 2).
//!
//! ```text
//! y[i, c] = Σ_j softmax(w[h(c)])[j] · x[i + j − offset, c]
//! ```
//! The softmax is folded into the stored taps: computed in f64, rounded once.

use crate::backend::{Backend, Window};

/// `x`: `[R + (K − 1)·dilation, C]`; `taps`: `[H, K]`; `y`: `[R, C]`.
pub(crate) fn lightconv(backend: &Backend, x: &[f32], window: Window, taps: &[f32], heads: usize, y: &mut [f32]) {
    backend.convolve_shared(x, window, taps, 0, heads, y);
}
