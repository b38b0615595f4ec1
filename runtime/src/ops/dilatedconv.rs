//! Depthwise convolution with one kernel per channel, widths and dilations by layer (Tay et al. 2021, eq. 1).
//!
//! ```text
//! y[i, c] = Σ_j w[c, j] · x[i + (j − offset)·dilation, c]
//! ```

use crate::backend::{Backend, Window};

/// `x`: `[R + (K − 1)·dilation, C]`; `taps`: `[K, C]`; `y`: `[R, C]`.
pub(crate) fn dilatedconv(backend: &Backend, x: &[f32], window: Window, taps: &[f32], y: &mut [f32]) {
    backend.convolve_channels(x, window, taps, y);
}
