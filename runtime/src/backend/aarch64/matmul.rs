//! Products of quantized rows with a matrix: tiles of a few rows by one panel, whose sums stay in registers.

use core::arch::aarch64::*;
use core::arch::asm;
use core::array::from_fn;

use super::lanes::{V, load, store, store_part};
use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Bytes of a panel for [`PANEL_INPUTS`] inputs.
const GROUP: usize = PANEL_OUTPUTS * PANEL_INPUTS;

/// The operands of a tile; each slice starts at the tile's first element.
struct Tile<'a> {
    q: &'a [u8],
    q_stride: usize,
    /// `[K' / 4, 16, 4]`.
    panel: &'a [i8],
    rows: &'a [f32],
    channels: &'a [f32; PANEL_OUTPUTS],
    activation: Activation,
    out: &'a mut [f32],
    out_stride: usize,
    /// Number of outputs of the panel to store.
    width: usize,
}

impl Tile<'_> {
    /// Returns `K'` if `rows` rows of it can be read.
    #[inline]
    fn inputs(&self, rows: usize) -> Option<usize> {
        let inputs = self.panel.len() / GROUP * PANEL_INPUTS;
        let end = rows.checked_sub(1)?.checked_mul(self.q_stride)?.checked_add(inputs)?;
        (end <= self.q.len()).then_some(inputs)
    }

    /// Stores `(f32(sum) · s) · scale` of `R` rows.
    #[inline]
    #[target_feature(enable = "neon")]
    fn finish<const R: usize>(&mut self, sums: [[int32x4_t; 4]; R]) {
        let channels = load(self.channels);
        for ((r, sums), &s) in sums.iter().enumerate().zip(self.rows) {
            let y: V = from_fn(|i| {
                let y = vmulq_f32(vmulq_n_f32(vcvtq_f32_s32(sums[i]), s), channels[i]);
                match self.activation {
                    Activation::Identity => y,
                    Activation::Relu => vmaxnmq_f32(y, vdupq_n_f32(0.0)),
                }
            });
            let out = self.out.get_mut(r * self.out_stride..).unwrap_or_default();
            match out.first_chunk_mut() {
                Some(out) if self.width == PANEL_OUTPUTS => store(y, out),
                _ => store_part(y, out.split_at_mut_checked(self.width).unwrap_or_default().0),
            }
        }
    }
}

/// Computes a tile; requires the features of its backend.
type TileKernel = unsafe fn(Tile<'_>);

/// Covers the output with tiles: `kernels[n − 1]` computes `n` rows.
///
/// # Safety
/// The processor has the features required by `kernels`.
#[inline]
unsafe fn cover(kernels: &[TileKernel], mut product: Product<'_>) {
    let (w, count) = (product.w, product.scales.len());
    for (p, (panel, channels)) in w.panels().enumerate() {
        let first = p * PANEL_OUTPUTS;
        let mut r = 0;
        while r < count {
            let n = kernels.len().min(count - r);
            let Some(kernel) = kernels.get(n - 1) else { return };
            let Product { q, q_stride, scales, activation, out, out_stride, .. } = product.rows(r, n);
            let out = out.get_mut(first..).unwrap_or_default();
            let width = PANEL_OUTPUTS.min(w.outputs - first);
            // SAFETY: the caller vouches for the features.
            unsafe { kernel(Tile { q, q_stride, panel, rows: scales, channels, activation, out, out_stride, width }) };
            r += n;
        }
    }
}

/// Loads four bytes of `q` from `at` on.
///
/// # Safety
/// `q` can be read there.
#[inline]
unsafe fn four(q: *const u8, at: usize) -> i32 {
    // SAFETY: the caller vouches for the place.
    unsafe { q.add(at).cast::<i32>().read_unaligned() }
}

/// [`Backend::matmul`](crate::backend::Backend::matmul) with widening products of bytes.
#[target_feature(enable = "neon")]
pub(super) fn neon(product: Product<'_>) {
    // Two rows: 16 registers of sums, and 8 for the operands and products in flight.
    const KERNELS: [TileKernel; 2] = [neon_tile::<1>, neon_tile::<2>];
    // SAFETY: this function has the feature that the tiles ask for.
    unsafe { cover(&KERNELS, product) };
}

/// Half a vector of weights holds 4 inputs for each of 2 outputs. `smull` multiplies it by 4 activations, repeated, to
/// 16 bits; `smlal` adds the products of the next 4 inputs; `sadalp` adds neighbours to sums in 32 bits. An activation
/// is never −128, so two products are at most 2 · 127 · 128 < 2¹⁵.
#[target_feature(enable = "neon")]
fn neon_tile<const R: usize>(mut tile: Tile<'_>) {
    let Some(inputs) = tile.inputs(R) else { return };
    let (q, w) = (tile.q.as_ptr(), tile.panel.as_ptr());
    let mut sums = [[vdupq_n_s32(0); 8]; R];
    let mut i = 0;
    while i + 2 * PANEL_INPUTS <= inputs {
        // SAFETY: `inputs` says that R rows have i + 8 inputs; R and r are below it.
        let first: [int8x8_t; R] =
            from_fn(|r| vreinterpret_s8_s32(vdup_n_s32(unsafe { four(q, r * tile.q_stride + i) })));
        // SAFETY: as above.
        let second: [int8x8_t; R] =
            from_fn(|r| vreinterpret_s8_s32(vdup_n_s32(unsafe { four(q, r * tile.q_stride + i + PANEL_INPUTS) })));
        for v in 0..8 {
            // SAFETY: the panel has 16 bytes an input.
            let (w0, w1) = unsafe {
                let w = w.add(i * PANEL_OUTPUTS + 8 * v);
                (vld1_s8(w), vld1_s8(w.add(GROUP)))
            };
            for r in 0..R {
                sums[r][v] = vpadalq_s16(sums[r][v], vmlal_s8(vmull_s8(w0, first[r]), w1, second[r]));
            }
        }
        i += 2 * PANEL_INPUTS;
    }
    if i < inputs {
        // SAFETY: `inputs`, a multiple of 4, says that R rows have i + 4 inputs.
        let a: [int8x8_t; R] = from_fn(|r| vreinterpret_s8_s32(vdup_n_s32(unsafe { four(q, r * tile.q_stride + i) })));
        for v in 0..8 {
            // SAFETY: the panel has 16 bytes an input.
            let w = unsafe { vld1_s8(w.add(i * PANEL_OUTPUTS + 8 * v)) };
            for r in 0..R {
                sums[r][v] = vpadalq_s16(sums[r][v], vmull_s8(w, a[r]));
            }
        }
    }
    tile.finish::<R>(sums.map(|row| from_fn(|v| vpaddq_s32(row[2 * v], row[2 * v + 1]))));
}

/// [`Backend::matmul`](crate::backend::Backend::matmul) with `sdot`.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dotprod(product: Product<'_>) {
    // Four rows: 16 registers of sums, 4 of activations, 4 of weights.
    const KERNELS: [TileKernel; 4] = [dotprod_tile::<1>, dotprod_tile::<2>, dotprod_tile::<3>, dotprod_tile::<4>];
    // SAFETY: this function has the features that the tiles ask for.
    unsafe { cover(&KERNELS, product) };
}

/// `sum[i] + Σ_j w[4·i + j]·a[4·LANE + j]`, `j < 4`. The intrinsic `vdotq_laneq_s32` is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const LANE: usize>(mut sum: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction belongs to the feature `dotprod` and touches nothing but its operands.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Adds the products of 4 inputs, weights `w[0 .. 64]`, activations in quarter `LANE` of `a`.
///
/// # Safety
/// `w` can be read for 64 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group<const LANE: usize, const R: usize>(w: *const i8, a: &[int8x16_t; R], sums: &mut [[int32x4_t; 4]; R]) {
    for v in 0..4 {
        // SAFETY: the caller vouches for 64 bytes.
        let w = unsafe { vld1q_s8(w.add(16 * v)) };
        for r in 0..R {
            sums[r][v] = sdot::<LANE>(sums[r][v], w, a[r]);
        }
    }
}

/// A vector of weights holds 4 inputs for each of 4 outputs: one `sdot` multiplies it by 4 activations.
#[target_feature(enable = "neon,dotprod")]
fn dotprod_tile<const R: usize>(mut tile: Tile<'_>) {
    let Some(inputs) = tile.inputs(R) else { return };
    let (q, w) = (tile.q.as_ptr(), tile.panel.as_ptr());
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    let mut a = [vdupq_n_s8(0); R];
    let mut i = 0;
    while i + 4 * PANEL_INPUTS <= inputs {
        for (r, a) in a.iter_mut().enumerate() {
            // SAFETY: `inputs` says that R rows have i + 16 inputs.
            *a = unsafe { vld1q_s8(q.add(r * tile.q_stride + i).cast()) };
        }
        // SAFETY: the panel has 16 bytes an input, 16 inputs from i on.
        unsafe {
            let w = w.add(i * PANEL_OUTPUTS);
            group::<0, R>(w, &a, &mut sums);
            group::<1, R>(w.add(GROUP), &a, &mut sums);
            group::<2, R>(w.add(2 * GROUP), &a, &mut sums);
            group::<3, R>(w.add(3 * GROUP), &a, &mut sums);
        }
        i += 4 * PANEL_INPUTS;
    }
    while i < inputs {
        for (r, a) in a.iter_mut().enumerate() {
            // SAFETY: `inputs`, a multiple of 4, says that R rows have i + 4 inputs.
            *a = vreinterpretq_s8_s32(vdupq_n_s32(unsafe { four(q, r * tile.q_stride + i) }));
        }
        // SAFETY: the panel has 64 bytes for these 4 inputs.
        unsafe { group::<0, R>(w.add(i * PANEL_OUTPUTS), &a, &mut sums) };
        i += PANEL_INPUTS;
    }
    tile.finish::<R>(sums);
}
