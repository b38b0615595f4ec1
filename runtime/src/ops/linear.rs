//! Matrix products: `y = x·Wᵀ` with `W`: `[out, in]`, both sides in int8 by the rules of [`crate::quant`].
//!
//! ```text
//! s = max(max|x|, 1e-30) / 127;   q = round_half_even(x / s);   y[o] = (f32(Σ q[i]·w[o, i]) · s) · scale[o]
//! ```

use crate::kernels::{Activation, Kernels, Panels};

/// Bytes from one quantised row of `columns` to the next.
///
/// Whole cache lines, and an odd number of them where the rows would lie a power of two apart: rows that a kernel reads side by side must not
/// fall into the same sets of the cache.
pub(crate) const fn stride(columns: usize) -> usize {
    const LINE: usize = 64;
    let lines = columns.div_ceil(LINE);
    let spread = if lines >= 4 && lines.is_multiple_of(2) { lines + 1 } else { lines };
    spread * LINE
}

/// Room for one quantised left side: `q` for `R` rows of [`stride`] bytes, `scales`: `[R]`.
pub(crate) struct Room<'s> {
    /// The integers.
    pub(crate) q: &'s mut [u8],
    /// A scale for each row.
    pub(crate) scales: &'s mut [f32],
}

impl Room<'_> {
    /// Quantises rows. `x`: `[R, columns]`.
    pub(crate) fn quantise(&mut self, kernels: &Kernels, x: &[f32], columns: usize) -> Operand<'_> {
        let rows = x.len().checked_div(columns).unwrap_or(0);
        let stride = stride(columns);
        debug_assert!(rows <= self.scales.len() && rows * stride <= self.q.len());
        let scales = self.scales.get_mut(..rows).unwrap_or_default();
        let q = self.q.get_mut(..rows * stride).unwrap_or_default();
        kernels.quantise(x, columns, q, stride, scales);
        Operand { room: Room { q: self.q, scales: self.scales }, rows, stride }
    }
}

/// The left side of matrix products, quantised once for all of them.
pub(crate) struct Operand<'s> {
    room: Room<'s>,
    rows: usize,
    stride: usize,
}

impl<'s> Operand<'s> {
    /// `out`: `[R, w.outputs]`.
    pub(crate) fn linear(&self, kernels: &Kernels, w: &Panels<'_>, activation: Activation, out: &mut [f32]) {
        let q = self.room.q.get(..self.rows * self.stride).unwrap_or_default();
        let scales = self.room.scales.get(..self.rows).unwrap_or_default();
        kernels.matmul(q, self.stride, scales, w, activation, out, w.outputs);
    }

    /// Number of rows, `R`.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The room again, for another left side.
    pub(crate) fn into_room(self) -> Room<'s> {
        self.room
    }
}
