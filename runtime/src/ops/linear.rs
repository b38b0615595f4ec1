//! Matrix products: `y = x·Wᵀ` with `W`: `[out, in]`, both sides in int8 by the rules of [`crate::quant`].
//!
//! ```text
//! s = max(max|x|, 1e-30) / 127;   q = round_half_even(x / s);   y[o] = (f32(Σ q[i]·w[o, i]) · s) · scale[o]
//! ```

use crate::backend::{Activation, Backend, PackedMatrix};

/// Returns the bytes from one quantized row of `columns` to the next.
///
/// Whole cache lines, and an odd number of them if rows would be a power of two apart: rows that a backend reads
/// together must not map to the same sets of the cache.
pub const fn stride(columns: usize) -> usize {
    const LINE: usize = 64;
    let lines = columns.div_ceil(LINE);
    let spread = if lines >= 4 && lines.is_multiple_of(2) { lines + 1 } else { lines };
    spread * LINE
}

/// Returns the floats from one inner row of the feed-forward network, of `columns`, to the next: rows that a backend
/// writes together must not map to few sets of the L1 cache, 4,096 bytes apart or close to it.
pub const fn inner_stride(columns: usize) -> usize {
    const LINE: usize = 16;
    if columns > 0 && columns.is_multiple_of(512) { columns.saturating_add(LINE) } else { columns }
}

/// Memory for one quantized left side: `q` for `R` rows of [`stride`] bytes, `scales`: `[R]`.
pub(crate) struct Room<'s> {
    /// The integers.
    pub(crate) q: &'s mut [u8],
    /// A scale for each row.
    pub(crate) scales: &'s mut [f32],
}

impl Room<'_> {
    /// Quantizes rows. `x`: `[R, columns]`.
    pub(crate) fn quantize(&mut self, backend: &Backend, x: &[f32], columns: usize) -> Operand<'_> {
        self.quantize_strided(backend, x, columns, columns)
    }

    /// Quantizes rows that lie `x_stride` floats apart. `x`: `[R, x_stride]`.
    pub(crate) fn quantize_strided(
        &mut self,
        backend: &Backend,
        x: &[f32],
        columns: usize,
        x_stride: usize,
    ) -> Operand<'_> {
        let rows = x.len().checked_div(x_stride).unwrap_or(0);
        let stride = stride(columns);
        debug_assert!(rows <= self.scales.len() && rows * stride <= self.q.len());
        let scales = self.scales.get_mut(..rows).unwrap_or_default();
        let q = self.q.get_mut(..rows * stride).unwrap_or_default();
        backend.quantize(x, columns, x_stride, q, stride, scales);
        Operand { room: Room { q: self.q, scales: self.scales }, rows, stride }
    }
}

/// Left side of matrix products, quantized once for all of them.
pub(crate) struct Operand<'s> {
    room: Room<'s>,
    rows: usize,
    stride: usize,
}

impl<'s> Operand<'s> {
    /// `out`: `[R, w.outputs]`.
    pub(crate) fn linear(&self, backend: &Backend, w: &PackedMatrix<'_>, activation: Activation, out: &mut [f32]) {
        self.linear_strided(backend, w, activation, out, w.outputs);
    }

    /// The same into rows that lie `out_stride` floats apart. `out`: `[R, out_stride]`.
    pub(crate) fn linear_strided(
        &self,
        backend: &Backend,
        w: &PackedMatrix<'_>,
        activation: Activation,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let q = self.room.q.get(..self.rows * self.stride).unwrap_or_default();
        let scales = self.room.scales.get(..self.rows).unwrap_or_default();
        backend.matmul(q, self.stride, scales, w, activation, out, out_stride);
    }

    /// Returns the number of rows, `R`.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the room for another left side.
    pub(crate) fn into_room(self) -> Room<'s> {
        self.room
    }
}
