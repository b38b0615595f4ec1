//! Products of quantized rows with a matrix: `dpbusd` multiplies unsigned `q + 128` by `w`, four products at a time.
//!
//! A tile is up to 12 rows by two panels (32 outputs): 24 sums stay in registers, so each loaded weight is used 12
//! times and each activation 32 times. Few rows take more panels instead, because a sum can only be added to every few
//! cycles and independent ones must fill the time between.
//!
//! The overhead per tile matters: at 256 inputs its products take 1,536 cycles, and the processor begins those of the
//! next tile only as far as it can look ahead over the instructions between. Tiles are therefore functions of their
//! own, which the compiler cannot prepare all together, and sizes are checked once, before the first.

use core::arch::x86_64::*;

use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Rows of the largest tile.
const TILE_ROWS: usize = 12;
/// Bytes of a panel for one group of inputs: one register.
const GROUP: usize = PANEL_OUTPUTS * PANEL_INPUTS;

/// Rows of the lowest tile that prefetches; a lower one waits for memory anyway.
const PREFETCHING_ROWS: usize = 4;

/// Positions and sizes of the parts of a tile.
struct Tile {
    /// Rows of `inputs` = `K'` bytes, `q_stride` from one to the next.
    q: *const u8,
    q_stride: usize,
    inputs: usize,
    /// One for each row.
    scales: *const f32,
    /// Whole panels.
    values: *const i8,
    /// For each output of the panels.
    channel: *const f32,
    /// For each output of the panels.
    corrections: *const i32,
    /// Distance in bytes from a weight in use to the one to prefetch: the panels after these while the first rows are
    /// processed, since each is often a page, where the processor's own prefetching ends; then 0.
    ahead: usize,
    /// Rows of `outputs` floats, `out_stride` from one to the next. There may be more outputs than the tile computes.
    out: *mut f32,
    out_stride: usize,
    outputs: usize,
    activation: Activation,
}

/// See [`crate::backend::Backend::matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in crate::backend) fn matmul(product: Product<'_>) {
    let Product { q, q_stride, scales, w, activation, out, out_stride } = product;
    let (rows, inputs) = (scales.len(), w.padded_inputs());
    let panels = w.panels().len().min(w.corrections.len() / PANEL_OUTPUTS);
    let outputs = w.outputs.min(panels * PANEL_OUTPUTS);
    let width = if rows < 4 { 4 } else { 2 };
    // Tiles of nearly the same height: a low one at the end would wait for its sums.
    let tiles = rows.div_ceil(TILE_ROWS);
    let mut panel = 0;
    while panel < panels {
        let count = width.min(panels - panel);
        let first = panel * PANEL_OUTPUTS;
        // A panel's weights stay in the L1 cache while all rows are processed.
        let mut tile = Tile {
            q: q.as_ptr(),
            q_stride,
            inputs,
            scales: scales.as_ptr(),
            values: w.values.as_ptr().wrapping_add(first * inputs),
            channel: w.scales.as_ptr().wrapping_add(first),
            corrections: w.corrections.as_ptr().wrapping_add(first),
            ahead: count * PANEL_OUTPUTS * inputs,
            out: out.as_mut_ptr().wrapping_add(first),
            out_stride,
            outputs: outputs - first,
            activation,
        };
        for t in 0..tiles {
            // Σ ⌊(rows + t) / tiles⌋ = rows.
            let height = (rows + t) / tiles;
            // SAFETY: `height` of the `rows` and `count` of the `panels` that fit are left.
            unsafe {
                match (height, count) {
                    (1, 4) => tile_of::<1, 4>(&tile),
                    (2, 4) => tile_of::<2, 4>(&tile),
                    (3, 4) => tile_of::<3, 4>(&tile),
                    (1, 3) => tile_of::<1, 3>(&tile),
                    (2, 3) => tile_of::<2, 3>(&tile),
                    (3, 3) => tile_of::<3, 3>(&tile),
                    (_, 2) => tile_of_height::<2>(height, &tile),
                    _ => tile_of_height::<1>(height, &tile),
                }
            }
            tile.q = tile.q.wrapping_add(height * q_stride);
            tile.scales = tile.scales.wrapping_add(height);
            tile.out = tile.out.wrapping_add(height * out_stride);
            tile.ahead = 0;
        }
        panel += count;
    }
}

/// [`tile_of`] for a number of rows known at run time, at most [`TILE_ROWS`].
///
/// # Safety
/// As [`tile_of`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_of_height<const P: usize>(height: usize, tile: &Tile) {
    // SAFETY: the caller's.
    unsafe {
        match height {
            1 => tile_of::<1, P>(tile),
            2 => tile_of::<2, P>(tile),
            3 => tile_of::<3, P>(tile),
            4 => tile_of::<4, P>(tile),
            5 => tile_of::<5, P>(tile),
            6 => tile_of::<6, P>(tile),
            7 => tile_of::<7, P>(tile),
            8 => tile_of::<8, P>(tile),
            9 => tile_of::<9, P>(tile),
            10 => tile_of::<10, P>(tile),
            11 => tile_of::<11, P>(tile),
            _ => tile_of::<TILE_ROWS, P>(tile),
        }
    }
}

/// Multiplies the first `R` rows by the first `P` panels.
///
/// # Safety
/// `tile` has `R` rows to read and to write, and `P` panels with their scales and corrections.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline(never)]
unsafe fn tile_of<const R: usize, const P: usize>(tile: &Tile) {
    let &Tile { q, q_stride, inputs, scales, values, channel, corrections, .. } = tile;
    let &Tile { ahead, out, out_stride, outputs, activation, .. } = tile;
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    for p in 0..P {
        // SAFETY: `corrections` holds 16 · P elements.
        let start = unsafe { _mm512_loadu_si512(corrections.add(p * PANEL_OUTPUTS).cast()) };
        for sums in &mut sums {
            sums[p] = start;
        }
    }
    for group in 0..inputs / PANEL_INPUTS {
        let mut weights = [_mm512_setzero_si512(); P];
        for p in 0..P {
            let at = values.wrapping_add(p * PANEL_OUTPUTS * inputs + group * GROUP);
            if R >= PREFETCHING_ROWS {
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(ahead));
            }
            // SAFETY: panel `p` is `inputs / 4` groups of 64 bytes.
            weights[p] = unsafe { _mm512_loadu_si512(at.cast()) };
        }
        for r in 0..R {
            // SAFETY: four bytes of row `r`, which has `inputs` of them.
            let x = unsafe { q.add(r * q_stride + group * PANEL_INPUTS).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            for p in 0..P {
                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], x, weights[p]);
            }
        }
    }
    for p in 0..P {
        let first = p * PANEL_OUTPUTS;
        let count = outputs.saturating_sub(first).min(PANEL_OUTPUTS);
        let mask = ((1u32 << count) - 1) as __mmask16;
        // SAFETY: `channel` holds 16 · P elements.
        let channel = unsafe { _mm512_loadu_ps(channel.add(first)) };
        for r in 0..R {
            // SAFETY: `scales` holds R elements.
            let scale = _mm512_set1_ps(unsafe { *scales.add(r) });
            let mut y = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][p]), scale), channel);
            if activation == Activation::Relu {
                // y > 0 ? y : 0, also for −0 and NaN.
                y = _mm512_max_ps(y, _mm512_setzero_ps());
            }
            // SAFETY: row `r` of `out` has `outputs` elements; the mask ends there.
            unsafe { _mm512_mask_storeu_ps(out.wrapping_add(r * out_stride + first), mask, y) };
        }
    }
}
