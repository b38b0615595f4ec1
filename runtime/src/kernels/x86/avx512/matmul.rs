//! Products of quantised rows with a matrix: `dpbusd` multiplies `q + 128` without sign by `w`, four products at a time.
//!
//! A tile is up to 12 rows by two panels (32 outputs): 24 sums stay in registers, so that each loaded weight is used 12
//! times and each activation 32 times. Few rows take more panels instead, because a sum can only be added to every few
//! cycles and independent ones must fill the time between.

use core::arch::x86_64::*;

use crate::kernels::x86::fitting;
use crate::kernels::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Panels};

/// Rows of the largest tile.
const TILE_ROWS: usize = 12;
/// Bytes of a panel for one group of inputs: one register.
const GROUP: usize = PANEL_OUTPUTS * PANEL_INPUTS;

/// Rows of the lowest tile that fetches ahead; a lower one waits for memory anyway.
const PREFETCHING_ROWS: usize = 4;

/// What a tile needs to know besides its rows and panels.
#[derive(Clone, Copy)]
struct Task {
    /// `K'`.
    inputs: usize,
    q_stride: usize,
    out_stride: usize,
    activation: Activation,
    /// Bytes from a weight in use to the one to fetch: the panels after these while the first rows pass, as each is often
    /// a page, where the processor's own foresight ends; then 0.
    ahead: usize,
}

/// See [`crate::kernels::Kernels::matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in crate::kernels) fn matmul(
    q: &[u8],
    q_stride: usize,
    scales: &[f32],
    w: &Panels<'_>,
    activation: Activation,
    out: &mut [f32],
    out_stride: usize,
) {
    let inputs = w.inputs.next_multiple_of(PANEL_INPUTS);
    if inputs == 0 || w.outputs == 0 || q_stride < inputs || out_stride < w.outputs {
        return;
    }
    // Whole rows and panels that fit into the slices.
    let rows = scales.len().min(fitting(q.len(), inputs, q_stride)).min(fitting(out.len(), w.outputs, out_stride));
    let panels = w.outputs.div_ceil(PANEL_OUTPUTS);
    let panels = panels.min(w.values.len() / inputs.saturating_mul(PANEL_OUTPUTS).max(1));
    let panels = panels.min(w.scales.len() / PANEL_OUTPUTS).min(w.corrections.len() / PANEL_OUTPUTS);
    let outputs = w.outputs.min(panels * PANEL_OUTPUTS);
    let width = if rows < 4 { 4 } else { 2 };
    let mut panel = 0;
    while panel < panels {
        let count = width.min(panels - panel);
        let first = panel * PANEL_OUTPUTS;
        // A panel's weights stay in the nearest cache while all rows pass. Tiles of nearly the same height: a low one at
        // the end would wait for its sums.
        let tiles = rows.div_ceil(TILE_ROWS);
        let mut row = 0;
        for tile in 0..tiles {
            let height = (rows - row).div_ceil(tiles - tile);
            let part = Panels {
                outputs: outputs - first,
                inputs,
                values: w.values.get(first * inputs..).unwrap_or_default(),
                scales: w.scales.get(first..).unwrap_or_default(),
                corrections: w.corrections.get(first..).unwrap_or_default(),
            };
            let ahead = if tile == 0 { count * PANEL_OUTPUTS * inputs } else { 0 };
            let task = Task { inputs, q_stride, out_stride, activation, ahead };
            let q = q.get(row * q_stride..).unwrap_or_default();
            let scales = scales.get(row..).unwrap_or_default();
            let out = out.get_mut(row * out_stride + first..).unwrap_or_default();
            match (height, count) {
                (1, 4) => tile_of::<1, 4>(task, q, scales, &part, out),
                (2, 4) => tile_of::<2, 4>(task, q, scales, &part, out),
                (3, 4) => tile_of::<3, 4>(task, q, scales, &part, out),
                (1, 3) => tile_of::<1, 3>(task, q, scales, &part, out),
                (2, 3) => tile_of::<2, 3>(task, q, scales, &part, out),
                (3, 3) => tile_of::<3, 3>(task, q, scales, &part, out),
                (_, 2) => tile_of_height::<2>(height, task, q, scales, &part, out),
                _ => tile_of_height::<1>(height, task, q, scales, &part, out),
            }
            row += height;
        }
        panel += count;
    }
}

/// [`tile_of`] for a number of rows that is known when running.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of_height<const P: usize>(
    height: usize,
    task: Task,
    q: &[u8],
    scales: &[f32],
    w: &Panels<'_>,
    out: &mut [f32],
) {
    match height {
        1 => tile_of::<1, P>(task, q, scales, w, out),
        2 => tile_of::<2, P>(task, q, scales, w, out),
        3 => tile_of::<3, P>(task, q, scales, w, out),
        4 => tile_of::<4, P>(task, q, scales, w, out),
        5 => tile_of::<5, P>(task, q, scales, w, out),
        6 => tile_of::<6, P>(task, q, scales, w, out),
        7 => tile_of::<7, P>(task, q, scales, w, out),
        8 => tile_of::<8, P>(task, q, scales, w, out),
        9 => tile_of::<9, P>(task, q, scales, w, out),
        10 => tile_of::<10, P>(task, q, scales, w, out),
        11 => tile_of::<11, P>(task, q, scales, w, out),
        _ => tile_of::<TILE_ROWS, P>(task, q, scales, w, out),
    }
}

/// The first `R` rows times the first `P` panels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of<const R: usize, const P: usize>(task: Task, q: &[u8], scales: &[f32], w: &Panels<'_>, out: &mut [f32]) {
    let Task { inputs, q_stride, out_stride, activation, ahead } = task;
    let outputs = w.outputs.min(P * PANEL_OUTPUTS);
    // All that the loads and stores below rest on. `matmul` passes nothing else.
    if R == 0
        || P == 0
        || scales.len() < R
        || q.len() < (R - 1).saturating_mul(q_stride).saturating_add(inputs)
        || out.len() < (R - 1).saturating_mul(out_stride).saturating_add(outputs)
        || w.values.len() < inputs.saturating_mul(P * PANEL_OUTPUTS)
        || w.scales.len() < P * PANEL_OUTPUTS
        || w.corrections.len() < P * PANEL_OUTPUTS
    {
        return;
    }
    let mut sums = [[_mm512_setzero_si512(); P]; R];
    for p in 0..P {
        // SAFETY: `corrections` holds 16 · P elements.
        let start = unsafe { _mm512_loadu_si512(w.corrections.as_ptr().add(p * PANEL_OUTPUTS).cast()) };
        for sums in &mut sums {
            sums[p] = start;
        }
    }
    let mut group = 0;
    while group < inputs / PANEL_INPUTS {
        let mut weights = [_mm512_setzero_si512(); P];
        for p in 0..P {
            let at = w.values.as_ptr().wrapping_add(p * PANEL_OUTPUTS * inputs + group * GROUP);
            if R >= PREFETCHING_ROWS {
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(ahead));
            }
            // SAFETY: panel `p` is `inputs / 4` groups of 64 bytes, all panels lie in `values`.
            weights[p] =
                unsafe { _mm512_loadu_si512(w.values.as_ptr().add(p * PANEL_OUTPUTS * inputs + group * GROUP).cast()) };
        }
        for r in 0..R {
            // SAFETY: four bytes of row `r`, which has `inputs` of them; `q` holds R rows.
            let x = unsafe { q.as_ptr().add(r * q_stride + group * PANEL_INPUTS).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            for p in 0..P {
                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], x, weights[p]);
            }
        }
        group += 1;
    }
    for p in 0..P {
        let first = p * PANEL_OUTPUTS;
        let count = outputs.saturating_sub(first).min(PANEL_OUTPUTS);
        let mask = ((1u32 << count) - 1) as __mmask16;
        // SAFETY: `scales` of the panels holds 16 · P elements.
        let channel = unsafe { _mm512_loadu_ps(w.scales.as_ptr().add(first)) };
        for r in 0..R {
            let y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][p]), _mm512_set1_ps(scales[r]));
            let mut y = _mm512_mul_ps(y, channel);
            if activation == Activation::Relu {
                // y > 0 ? y : 0, also for −0 and NaN.
                y = _mm512_max_ps(y, _mm512_setzero_ps());
            }
            // SAFETY: row `r` of `out` has `outputs` elements; the mask ends there.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(r * out_stride + first), mask, y) };
        }
    }
}
