//! Products of many rows, whose weights are widened once for up to [`ROWS`] of them.
//!
//! Two products need one multiplication, after Winograd ("A New Algorithm for Inner Product", IEEE Transactions on
//! Computers C-17, 1968): `x₀w₀ + x₁w₁ = (x₀ + w₁)·(x₁ + w₀) − x₀x₁ − w₀w₁`, where the subtracted terms depend on the
//! row alone or on the channel alone. The factors are sums of two bytes, −256 to 254. So 32 products take two additions
//! of i16, one `madd` and one addition of i32, instead of two of each of the latter: the same number of operations, but
//! processors can do more additions than multiplications at a time. Sums wrap, so the result is exact wherever the
//! plain sum fits in i32.
//!
//! A block of inputs is processed for all panels before the next; between blocks the sums are stored where the results
//! will be.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::group::{GROUP, TILE_ROWS, split, split_group};
use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Tiles of rows that are widened at a time.
const TILES: usize = 12;
/// Rows that are widened at a time.
pub(super) const ROWS: usize = TILES * TILE_ROWS;
/// Fewer rows are faster without widened weights.
pub(super) const LEAST_ROWS: usize = 12;
/// Groups of inputs that are widened at a time: the weights and two tiles of rows fit in an L1 cache of 32 KiB.
const BLOCK: usize = 128;

/// A group of a tile's rows: for each row the even and the odd inputs, a pair of i16 each.
type Inputs = [[MaybeUninit<i32>; 2]; TILE_ROWS];

/// A group of a panel: the even inputs of outputs 0 to 7 and 8 to 15, then the odd ones.
type Weights = [[MaybeUninit<__m256i>; 2]; 2];

/// Shared parameters of the tiles of a block.
#[derive(Clone, Copy)]
struct Task {
    /// Groups in this block.
    groups: usize,
    /// Whether this is the first block; otherwise the sums continue from those that the previous block left in `out`.
    first: bool,
    /// Whether this is the last block, which stores results; otherwise it stores sums.
    last: bool,
    activation: Activation,
    out_stride: usize,
}

/// A block of a panel.
struct Panel<'a> {
    weights: &'a [Weights; BLOCK],
    /// Result of [`widen_weights`].
    of_weights: [__m256i; 2],
    /// The scale of each output.
    channel: &'a [f32; PANEL_OUTPUTS],
    /// Number of outputs to store.
    outputs: usize,
}

/// [`super::matmul`] of at most [`ROWS`] rows.
#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul(product: Product<'_>) {
    let Product { q, q_stride, scales, w, activation, out, out_stride } = product;
    let mut rows = [[[[MaybeUninit::uninit(); 2]; TILE_ROWS]; BLOCK]; TILES];
    let mut weights = [[[MaybeUninit::uninit(); 2]; 2]; BLOCK];
    let inputs = w.padded_inputs();
    let mut from = 0;
    while from < inputs {
        let size = (inputs - from).min(BLOCK * PANEL_INPUTS);
        let (first, last) = (from == 0, from + size == inputs);
        let task = Task { groups: size / PANEL_INPUTS, first, last, activation, out_stride };
        let mut of_rows = [[0; TILE_ROWS]; TILES];
        for (t, scales) in scales.chunks(TILE_ROWS).enumerate() {
            let (Some(rows), Some(of_rows)) = (rows.get_mut(t), of_rows.get_mut(t)) else { return };
            let mut x = [[].as_slice(); TILE_ROWS];
            for (r, x) in x.iter_mut().enumerate() {
                // The last row stands in for missing ones.
                let at = (t * TILE_ROWS + r.min(scales.len() - 1)) * q_stride + from;
                let Some(row) = q.get(at..at + size) else { return };
                *x = row;
            }
            *of_rows = widen_rows(x, rows);
        }
        for (panel, (values, channel)) in w.panels().enumerate() {
            let to = panel * PANEL_OUTPUTS;
            let Some(block) = values.get(from * PANEL_OUTPUTS..(from + size) * PANEL_OUTPUTS) else { break };
            let outputs = (w.outputs - to).min(PANEL_OUTPUTS);
            let of_weights = widen_weights(block, values.len(), &mut weights);
            let panel = Panel { weights: &weights, of_weights, channel, outputs };
            // Whole tiles, then a lower one.
            let (whole, rest) = scales.as_chunks::<TILE_ROWS>();
            let mut tile = 0;
            for scales in [whole.as_flattened(), rest] {
                let rows = rows.get(tile..).unwrap_or_default().iter().zip(of_rows.get(tile..).unwrap_or_default());
                let out = out.get_mut(tile * TILE_ROWS * out_stride + to..).unwrap_or_default();
                match (scales.len() % TILE_ROWS, outputs) {
                    (1, PANEL_OUTPUTS) => tiles::<1, true>(task, &panel, rows, scales, out),
                    (2, PANEL_OUTPUTS) => tiles::<2, true>(task, &panel, rows, scales, out),
                    (3, PANEL_OUTPUTS) => tiles::<3, true>(task, &panel, rows, scales, out),
                    (_, PANEL_OUTPUTS) => tiles::<TILE_ROWS, true>(task, &panel, rows, scales, out),
                    (1, _) => tiles::<1, false>(task, &panel, rows, scales, out),
                    (2, _) => tiles::<2, false>(task, &panel, rows, scales, out),
                    (3, _) => tiles::<3, false>(task, &panel, rows, scales, out),
                    (_, _) => tiles::<TILE_ROWS, false>(task, &panel, rows, scales, out),
                }
                tile += scales.len() / TILE_ROWS;
            }
        }
        from += size;
    }
}

/// Splits the rows of a tile, all of one length: whole groups, at most [`BLOCK`] of them. Returns `Σ x₀x₁ + x₂x₃` of each.
#[target_feature(enable = "avx2,fma")]
fn widen_rows(x: [&[u8]; TILE_ROWS], widened: &mut [Inputs; BLOCK]) -> [i32; TILE_ROWS] {
    const LANES: usize = 8;
    const BYTES: usize = LANES * PANEL_INPUTS;
    let size = x.iter().fold(BLOCK * PANEL_INPUTS, |size, x| size.min(x.len()));
    let mut products = [_mm256_setzero_si256(); TILE_ROWS];
    let (parts, _) = widened.as_chunks_mut::<LANES>();
    for (p, part) in parts.iter_mut().enumerate().take(size / BYTES) {
        let mut pairs = [[_mm256_setzero_si256(); 2]; TILE_ROWS];
        for ((x, pairs), product) in x.iter().zip(&mut pairs).zip(&mut products) {
            // SAFETY: each row has `size` bytes, part `p` ends within them.
            let x = unsafe { _mm256_loadu_si256(x.as_ptr().add(p * BYTES).cast()) };
            let [even, odd] = split(x);
            *product = _mm256_add_epi32(*product, _mm256_madd_epi16(even, odd));
            // 64 bits per group: 0, 1, 4, 5 and 2, 3, 6, 7.
            *pairs = [_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd)];
        }
        let [a, b, c, d] = pairs;
        for half in 0..2 {
            let (ab, cd) = (_mm256_unpacklo_epi64(a[half], b[half]), _mm256_unpacklo_epi64(c[half], d[half]));
            let (ab_next, cd_next) = (_mm256_unpackhi_epi64(a[half], b[half]), _mm256_unpackhi_epi64(c[half], d[half]));
            let groups = [
                (2 * half, _mm256_permute2x128_si256::<0x20>(ab, cd)),
                (2 * half + 1, _mm256_permute2x128_si256::<0x20>(ab_next, cd_next)),
                (2 * half + 4, _mm256_permute2x128_si256::<0x31>(ab, cd)),
                (2 * half + 5, _mm256_permute2x128_si256::<0x31>(ab_next, cd_next)),
            ];
            for (g, group) in groups {
                // SAFETY: a group of a tile has 32 bytes.
                unsafe { _mm256_storeu_si256(part[g].as_mut_ptr().cast(), group) };
            }
        }
    }
    let mut sums = [0i32; TILE_ROWS];
    for (r, ((x, product), sum)) in x.iter().zip(products).zip(&mut sums).enumerate() {
        let mut lanes = [0i32; LANES];
        // SAFETY: `lanes` has 8 elements.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), product) };
        *sum = lanes.iter().fold(0, |sum, &lane| sum.wrapping_add(lane));
        let from = size / BYTES * LANES;
        for (x, group) in x.as_chunks::<PANEL_INPUTS>().0.iter().zip(widened.iter_mut()).skip(from) {
            let [x0, x1, x2, x3] = x.map(|x| i32::from(x as i8));
            *sum = sum.wrapping_add(x0 * x1 + x2 * x3);
            group[r] = split_group(*x).map(MaybeUninit::new);
        }
    }
    sums
}

/// Splits the weights of a block of a panel: whole groups, at most [`BLOCK`] of them. Prefetches those `ahead` bytes
/// after them, the next panel's. Returns `Σ w₀w₁ + w₂w₃` of each output.
#[target_feature(enable = "avx2,fma")]
fn widen_weights(values: &[i8], ahead: usize, widened: &mut [Weights; BLOCK]) -> [__m256i; 2] {
    let mut products = [_mm256_setzero_si256(); 2];
    for (group, [evens, odds]) in values.as_chunks::<GROUP>().0.iter().zip(widened) {
        _mm_prefetch::<_MM_HINT_T1>(group.as_ptr().wrapping_add(ahead));
        for (half, ((even, odd), product)) in evens.iter_mut().zip(odds).zip(&mut products).enumerate() {
            // SAFETY: a group has 64 bytes.
            let w = unsafe { _mm256_loadu_si256(group.as_ptr().add(32 * half).cast()) };
            let [w_even, w_odd] = split(w);
            *product = _mm256_add_epi32(*product, _mm256_madd_epi16(w_even, w_odd));
            even.write(w_even);
            odd.write(w_odd);
        }
    }
    products
}

/// Multiplies tiles of `R` rows by one panel, all of whose outputs are stored if it is `WHOLE`. `rows`: for each tile
/// its rows and the result of [`widen_rows`]; `scales`: `R` for each tile; `out`: from the panel's first output of the
/// first row on.
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn tiles<'a, const R: usize, const WHOLE: bool>(
    task: Task,
    panel: &Panel<'_>,
    rows: impl Iterator<Item = (&'a [Inputs; BLOCK], &'a [i32; TILE_ROWS])>,
    scales: &[f32],
    out: &mut [f32],
) {
    let Task { groups, first, last, activation, out_stride } = task;
    let outputs = if WHOLE { PANEL_OUTPUTS } else { panel.outputs };
    if R == 0 || R > TILE_ROWS || outputs > PANEL_OUTPUTS {
        return;
    }
    let needed = ((R - 1).saturating_mul(out_stride)).saturating_add(outputs);
    let tiles = rows.zip(scales.as_chunks::<R>().0).zip(out.chunks_mut(R.saturating_mul(out_stride).max(1)));
    for (((rows, of_rows), scales), out) in tiles {
        // The loads and stores below rely on this. `matmul` always passes enough.
        if out.len() < needed {
            return;
        }
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for r in 0..R {
            if !first {
                // SAFETY: row `r` of `out` has `outputs` elements.
                sums[r] = unsafe { load(out, r * out_stride, outputs) };
            }
            for half in 0..2 {
                let start = _mm256_add_epi32(_mm256_set1_epi32(of_rows[r]), panel.of_weights[half]);
                sums[r][half] = _mm256_sub_epi32(sums[r][half], start);
            }
        }
        // SAFETY: `matmul` widened as many groups of rows and weights.
        let mut sums = unsafe { add_products(sums, rows, panel.weights, groups) };
        for r in 0..R {
            for half in 0..2 {
                if last {
                    let y = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][half]), _mm256_set1_ps(scales[r]));
                    // SAFETY: `channel` has 16 elements.
                    let mut y = _mm256_mul_ps(y, unsafe { _mm256_loadu_ps(panel.channel.as_ptr().add(8 * half)) });
                    if activation == Activation::Relu {
                        // y > 0 ? y : 0, also for −0 and NaN.
                        y = _mm256_max_ps(y, _mm256_setzero_ps());
                    }
                    sums[r][half] = _mm256_castps_si256(y);
                }
            }
            // SAFETY: row `r` of `out` has `outputs` elements.
            unsafe { store(out, r * out_stride, outputs, sums[r]) };
        }
    }
}

/// Adds `(x₀ + w₁)·(x₁ + w₀) + (x₂ + w₃)·(x₃ + w₂)` of each of the first `groups` groups.
///
/// # Safety
/// `R` ≤ [`TILE_ROWS`]; as many groups of `rows` and of `weights` have been written.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn add_products<const R: usize>(
    mut sums: [[__m256i; 2]; R],
    rows: &[Inputs; BLOCK],
    weights: &[Weights; BLOCK],
    groups: usize,
) -> [[__m256i; 2]; R] {
    for (x, [evens, odds]) in rows.iter().zip(weights).take(groups) {
        // SAFETY: written, says the caller.
        let evens = unsafe { [evens[0].assume_init(), evens[1].assume_init()] };
        // SAFETY: as above.
        let odds = unsafe { [odds[0].assume_init(), odds[1].assume_init()] };
        for r in 0..R {
            // SAFETY: as above.
            let [x_even, x_odd] = unsafe { [x[r][0].assume_init(), x[r][1].assume_init()] };
            let (x_even, x_odd) = (_mm256_set1_epi32(x_even), _mm256_set1_epi32(x_odd));
            for half in 0..2 {
                let (a, b) = (_mm256_add_epi16(x_even, odds[half]), _mm256_add_epi16(x_odd, evens[half]));
                sums[r][half] = _mm256_add_epi32(sums[r][half], _mm256_madd_epi16(a, b));
            }
        }
    }
    sums
}

/// Loads the bits of `count` ≤ 16 elements of `x`, then 0.
///
/// # Safety
/// `x` has `count` elements from `at` on.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn load(x: &[f32], at: usize, count: usize) -> [__m256i; 2] {
    let mut part = [0.0; PANEL_OUTPUTS];
    let mut from = x.as_ptr().wrapping_add(at);
    if count < PANEL_OUTPUTS {
        part.iter_mut().zip(x.iter().skip(at)).take(count).for_each(|(part, &x)| *part = x);
        from = part.as_ptr();
    }
    // SAFETY: 16 elements, of `part` or, says the caller, of `x`.
    unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
}

/// Stores the bits of the first `count` ≤ 16 elements of `y`.
///
/// # Safety
/// `x` has `count` elements from `at` on.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn store(x: &mut [f32], at: usize, count: usize, y: [__m256i; 2]) {
    let mut part = [0.0; PANEL_OUTPUTS];
    let whole = count == PANEL_OUTPUTS;
    let to: *mut f32 = if whole { x.as_mut_ptr().wrapping_add(at) } else { part.as_mut_ptr() };
    // SAFETY: 16 elements, of `part` or, says the caller, of `x`.
    unsafe {
        _mm256_storeu_si256(to.cast(), y[0]);
        _mm256_storeu_si256(to.add(8).cast(), y[1]);
    }
    if !whole {
        x.iter_mut().skip(at).zip(&part).take(count).for_each(|(x, &part)| *x = part);
    }
}
