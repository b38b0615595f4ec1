//! Products of quantized rows with a matrix: tiles of a few rows by half a panel, whose sums stay in registers.

use core::arch::wasm32::*;
use core::array::from_fn;

use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Bytes of a panel for [`PANEL_INPUTS`] inputs.
const GROUP: usize = PANEL_OUTPUTS * PANEL_INPUTS;
/// Outputs of a tile: half a panel, since engines have 16 registers on most processors.
const OUTPUTS: usize = PANEL_OUTPUTS / 2;
/// Rows of a tile: with half a panel, 8 registers of sums.
const ROWS: usize = 2;

/// The operands of a tile; each slice starts at the tile's first element.
struct Tile<'a> {
    q: &'a [u8],
    q_stride: usize,
    /// `[K' / 4, 16, 4]`, from the tile's first output on.
    panel: &'a [i8],
    /// `K'`.
    inputs: usize,
    rows: &'a [f32],
    channels: &'a [f32; OUTPUTS],
    activation: Activation,
    out: &'a mut [f32],
    out_stride: usize,
    /// Number of outputs to store.
    width: usize,
}

impl Tile<'_> {
    /// Returns whether `rows` rows of `K'` inputs, and the half panel for them, can be read.
    #[inline]
    fn is_whole(&self, rows: usize) -> bool {
        let groups = self.inputs / PANEL_INPUTS;
        let (Some(row), Some(group)) = (rows.checked_sub(1), groups.checked_sub(1)) else { return false };
        let q = row.saturating_mul(self.q_stride).saturating_add(self.inputs);
        let panel = group.saturating_mul(GROUP).saturating_add(GROUP / 2);
        q <= self.q.len() && panel <= self.panel.len()
    }

    /// Stores `(f32(sum) · s) · scale` of `R` rows.
    #[inline]
    fn finish<const R: usize>(&mut self, sums: [[v128; 2]; R]) {
        // SAFETY: channels has 8 elements.
        let channels: [v128; 2] = from_fn(|i| unsafe { v128_load(self.channels.as_ptr().add(4 * i).cast()) });
        for ((r, sums), &s) in sums.iter().enumerate().zip(self.rows) {
            let y: [v128; 2] = from_fn(|i| {
                let y = f32x4_mul(f32x4_mul(f32x4_convert_i32x4(sums[i]), f32x4_splat(s)), channels[i]);
                match self.activation {
                    Activation::Identity => y,
                    Activation::Relu => f32x4_pmax(f32x4_splat(0.0), y),
                }
            });
            let out = self.out.get_mut(r * self.out_stride..).unwrap_or_default();
            match out.first_chunk_mut() {
                Some(out) if self.width == OUTPUTS => store(y, out),
                _ => {
                    let mut all = [0.0; OUTPUTS];
                    store(y, &mut all);
                    out.iter_mut().zip(all).take(self.width).for_each(|(out, y)| *out = y);
                }
            }
        }
    }
}

/// Stores a row of a tile.
#[inline]
fn store(y: [v128; 2], out: &mut [f32; OUTPUTS]) {
    for (i, y) in y.into_iter().enumerate() {
        // SAFETY: out has 8 elements.
        unsafe { v128_store(out.as_mut_ptr().add(4 * i).cast(), y) };
    }
}

/// Adds the products of 4 inputs, in both halves of `a[r]`, with the weights at `w`: a vector holds the sum of 2
/// products for each of 2 outputs, `[o₀, o₀, o₁, o₁]`.
///
/// # Safety
/// `w` can be read for 32 bytes.
#[inline]
unsafe fn group<const R: usize>(w: *const i8, a: [v128; R], sums: &mut [[v128; 4]; R]) {
    for v in 0..4 {
        // SAFETY: the caller vouches for 32 bytes.
        let w = unsafe { i16x8_load_extend_i8x8(w.add(8 * v)) };
        for r in 0..R {
            sums[r][v] = i32x4_add(sums[r][v], i32x4_dot_i16x8(w, a[r]));
        }
    }
}

/// Computes a tile of `R` rows. Bytes are extended to 16 bits; their products, added in pairs, are exact in 32.
fn tile<const R: usize>(mut tile: Tile<'_>) {
    if !tile.is_whole(R) {
        return;
    }
    let (q, w) = (tile.q.as_ptr(), tile.panel.as_ptr());
    let mut sums = [[i32x4_splat(0); 4]; R];
    let mut i = 0;
    while i + 2 * PANEL_INPUTS <= tile.inputs {
        // SAFETY: R rows have i + 8 inputs; r is below R.
        let a: [v128; R] = from_fn(|r| unsafe { i16x8_load_extend_i8x8(q.add(r * tile.q_stride + i).cast()) });
        // SAFETY: the half panel has 32 bytes for each of the two groups.
        unsafe {
            let w = w.add(i * PANEL_OUTPUTS);
            group(w, a.map(|a| i64x2_shuffle::<0, 0>(a, a)), &mut sums);
            group(w.add(GROUP), a.map(|a| i64x2_shuffle::<1, 1>(a, a)), &mut sums);
        }
        i += 2 * PANEL_INPUTS;
    }
    if i < tile.inputs {
        // SAFETY: the inputs, a multiple of 4, are i + 4 in each of R rows.
        let a: [v128; R] = from_fn(|r| unsafe { v128_load32_splat(q.add(r * tile.q_stride + i).cast()) });
        // SAFETY: the half panel has 32 bytes for this group.
        unsafe { group(w.add(i * PANEL_OUTPUTS), a.map(|a| i16x8_extend_low_i8x16(a)), &mut sums) };
    }
    let pairs = |a, b| i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
    tile.finish::<R>(sums.map(|row| [pairs(row[0], row[1]), pairs(row[2], row[3])]));
}

/// [`Backend::matmul`](crate::backend::Backend::matmul).
pub(super) fn matmul(mut product: Product<'_>) {
    let (w, inputs, count) = (product.w, product.w.padded_inputs(), product.scales.len());
    for (p, (panel, channels)) in w.panels().enumerate() {
        for (half, channels) in channels.as_chunks().0.iter().enumerate() {
            let first = p * PANEL_OUTPUTS + half * OUTPUTS;
            let panel = panel.get(half * OUTPUTS * PANEL_INPUTS..).unwrap_or_default();
            let width = OUTPUTS.min(w.outputs.saturating_sub(first));
            if width == 0 {
                return;
            }
            let mut r = 0;
            while r < count {
                let n = ROWS.min(count - r);
                let Product { q, q_stride, scales, activation, out, out_stride, .. } = product.rows(r, n);
                let out = out.get_mut(first..).unwrap_or_default();
                let operands =
                    Tile { q, q_stride, panel, inputs, rows: scales, channels, activation, out, out_stride, width };
                if n == ROWS {
                    tile::<ROWS>(operands)
                } else {
                    tile::<1>(operands)
                }
                r += n;
            }
        }
    }
}
