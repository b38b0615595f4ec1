//! The table of a backend: its operations and the shapes of their operands.

/// Whether the processor has the features: detected at run time with `std`, otherwise at compile time.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! has {
    ($detected:ident, $($feature:tt),+) => {{
        #[cfg(feature = "std")]
        let found = $(std::arch::$detected!($feature))&&+;
        #[cfg(not(feature = "std"))]
        let found = $(cfg!(target_feature = $feature))&&+;
        found
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use has;

/// Output channels in a panel of [`PackedMatrix`].
pub const PANEL_OUTPUTS: usize = 16;
/// Number of adjacent inputs in a panel of [`PackedMatrix`].
pub const PANEL_INPUTS: usize = 4;
/// Fixed-point steps per unit of the mean.
pub const POOL_SCALE: f32 = 2_097_152.0;
/// Activations are clamped to this magnitude before pooling, so that a step fits in 32 bits: the largest f32 below
/// 1,024.
pub const POOL_LIMIT: f32 = 1_023.999_94;

/// A matrix `[N, K]` (outputs, inputs) in int8, with the same layout for all backends.
///
/// `N` and `K` are those of the matrix; `N'` is `N` rounded up to [`PANEL_OUTPUTS`], `K'` is `K` rounded up to
/// [`PANEL_INPUTS`]. The padding is zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackedMatrix<'a> {
    /// `N`.
    pub outputs: usize,
    /// `K`.
    pub inputs: usize,
    /// `[N' / 16, K' / 4, 16, 4]`: the element of output `o` and input `i` is at
    /// `(o / 16)·16·K' + (i / 4)·64 + (o mod 16)·4 + i mod 4`.
    pub values: &'a [i8],
    /// One scale per output, `[N']`.
    pub scales: &'a [f32],
    /// `−128 · Σ_i w[o, i]`, `[N']`: the initial sum for a backend that multiplies unsigned `q + 128`.
    pub corrections: &'a [i32],
}

impl PackedMatrix<'_> {
    /// Returns `K'`.
    pub(super) const fn padded_inputs(&self) -> usize {
        self.inputs.next_multiple_of(PANEL_INPUTS)
    }

    /// Returns the whole panels, `[K' / 4, 16, 4]`, each with the scales of its outputs.
    pub(super) fn panels(&self) -> impl ExactSizeIterator<Item = (&[i8], &[f32; PANEL_OUTPUTS])> {
        let panel = self.padded_inputs().saturating_mul(PANEL_OUTPUTS);
        let panels = self.values.chunks_exact(panel.max(1)).zip(self.scales.as_chunks().0);
        panels.take(self.outputs.div_ceil(PANEL_OUTPUTS))
    }
}

/// Function applied to a product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `y > 0 ? y : +0`.
    Relu,
}

/// A depthwise convolution over rows. Output row `r` reads rows `r + j·dilation`, `j < K`, of `x`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Channels, `C`: the distance of two rows in `x` and in the output.
    pub channels: usize,
    /// Taps, `K`.
    pub taps: usize,
    /// Rows between two taps.
    pub dilation: usize,
}

impl Window {
    /// Returns the number of output rows for an `x` of `len` elements; 0 if a field is 0.
    pub const fn rows(&self, len: usize) -> usize {
        let Window { channels, taps, dilation } = *self;
        if channels == 0 || taps == 0 || dilation == 0 {
            return 0;
        }
        (len / channels).saturating_sub((taps - 1).saturating_mul(dilation))
    }
}

/// `quantize`: rows, columns, floats from one row to the next, quantized rows, bytes from one to the next, scale of each row.
type Quantize = fn(&[f32], usize, usize, &mut [u8], usize, &mut [f32]);

/// The operands of [`Backend::matmul`], checked once for all backends: `R` = `scales.len()` whole rows are in `q` and
/// have room in `out`.
pub(super) struct Product<'a> {
    pub q: &'a [u8],
    /// At least `K'` of the matrix.
    pub q_stride: usize,
    pub scales: &'a [f32],
    /// Has at least one output and one input.
    pub w: &'a PackedMatrix<'a>,
    pub activation: Activation,
    pub out: &'a mut [f32],
    /// At least `w.outputs`.
    pub out_stride: usize,
}

impl Product<'_> {
    /// Returns the product of `count` of the rows, `first` being the first.
    #[allow(dead_code)] // of an architecture without vectors
    pub fn rows(&mut self, first: usize, count: usize) -> Product<'_> {
        Product {
            q: self.q.get(first * self.q_stride..).unwrap_or_default(),
            scales: self.scales.get(first..).and_then(|scales| scales.get(..count)).unwrap_or_default(),
            out: self.out.get_mut(first * self.out_stride..).unwrap_or_default(),
            ..*self
        }
    }
}

/// The inner loops of one backend. Features of the processor are detected when it is created, never in a loop.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // the methods name the arguments
pub struct Backend {
    pub(super) name: &'static str,
    /// XOR of a stored byte with this is the two's complement of `q`.
    pub(super) flip: u8,
    pub(super) quantize: Quantize,
    pub(super) matmul: fn(Product<'_>),
    pub(super) glu: fn(&mut [f32], &[f32]),
    pub(super) softmax: fn(&mut [f32], usize),
    pub(super) convolve_shared: fn(&[f32], Window, &[f32], usize, usize, &mut [f32]),
    pub(super) convolve_channels: fn(&[f32], Window, &[f32], &mut [f32]),
    pub(super) layer_norm: fn(&[f32], &[f32], &[f32], &mut [f32]),
    pub(super) rms_norm: fn(&[f32], &[f32], &mut [f32]),
    pub(super) add: fn(&mut [f32], &[f32]),
    pub(super) dequantize: fn(&[i8], f32, &mut [f32]),
    pub(super) prefetch: fn(&[i8]),
    pub(super) pool_mean: fn(&[f32], &mut [i64]),
    pub(super) pool_max: fn(&[f32], &mut [f32]),
}

impl core::fmt::Debug for Backend {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Backend").field(&self.name).finish()
    }
}

/// Returns the number of rows of `width` elements, `stride` apart, in a slice of `len`.
pub(super) fn fitting(len: usize, width: usize, stride: usize) -> usize {
    if len < width { 0 } else { (len - width).checked_div(stride).map_or(1, |n| n + 1) }
}

impl Backend {
    /// Returns the name: `{arch}-{feature}`, such as `x86-avx2`, or `scalar`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the quantized number of a `byte` stored by [`Backend::quantize`].
    pub const fn decode(&self, byte: u8) -> i8 {
        (byte ^ self.flip) as i8
    }

    /// Quantizes rows.
    ///
    /// `x`: `R` rows of `columns` = `C` floats, `x_stride` ≥ `C` apart; `q`: `R` rows of `q_stride` ≥ `C` bytes;
    /// `scales`: `[R]`, whose length is the number of rows. Bytes of `q` from `C` to `C` rounded up to 4 receive the
    /// byte of 0. The encoding of a byte is specific to the backend, see [`Backend::decode`].
    #[inline]
    pub fn quantize(
        &self,
        x: &[f32],
        columns: usize,
        x_stride: usize,
        q: &mut [u8],
        q_stride: usize,
        scales: &mut [f32],
    ) {
        (self.quantize)(x, columns, x_stride, q, q_stride, scales);
    }

    /// Multiplies quantized rows by a matrix.
    ///
    /// `q`, `q_stride`, `scales`: as written by [`Backend::quantize`] of this backend, with `C` = `w.inputs`. `out`:
    /// `R` rows of `out_stride` ≥ `w.outputs` floats.
    ///
    /// `x86-avx2` uses 64 KiB of stack for 12 rows or more, the other backends hardly any.
    ///
    /// Fastest if `q`, `w.values` and `out` begin with a cache line (64 bytes), both strides are whole lines, and rows
    /// of `out` are not a multiple of 4,096 bytes apart: the rows of a tile would map to one set of the L1 cache.
    #[inline]
    pub fn matmul(
        &self,
        q: &[u8],
        q_stride: usize,
        scales: &[f32],
        w: &PackedMatrix<'_>,
        activation: Activation,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let inputs = w.padded_inputs();
        if inputs == 0 || w.outputs == 0 || q_stride < inputs || out_stride < w.outputs {
            return;
        }
        let rows = scales.len().min(fitting(q.len(), inputs, q_stride)).min(fitting(out.len(), w.outputs, out_stride));
        let scales = scales.get(..rows).unwrap_or_default();
        (self.matmul)(Product { q, q_stride, scales, w, activation, out, out_stride });
    }

    /// Applies the gated linear unit: `value[i] = value[i] · sigmoid(gate[i])`.
    #[inline]
    pub fn glu(&self, value: &mut [f32], gate: &[f32]) {
        (self.glu)(value, gate);
    }

    /// Applies the softmax to each run of `width` elements, in place.
    #[inline]
    pub fn softmax(&self, x: &mut [f32], width: usize) {
        (self.softmax)(x, width);
    }

    /// Convolves with kernels shared by `heads` groups of channels: channel `c` uses kernel `⌊c·heads / C⌋`.
    ///
    /// `x`: `[R + (K − 1)·dilation, C]`; `out`: `[R, C]`; `taps`: `[heads, K]` for output row `r` begin at
    /// `r·taps_stride`: 0 if all rows share them.
    #[inline]
    pub fn convolve_shared(
        &self,
        x: &[f32],
        window: Window,
        taps: &[f32],
        taps_stride: usize,
        heads: usize,
        out: &mut [f32],
    ) {
        (self.convolve_shared)(x, window, taps, taps_stride, heads, out);
    }

    /// Convolves with one kernel per channel. `x`: `[R + (K − 1)·dilation, C]`; `taps`: `[K, C]`; `out`: `[R, C]`.
    #[inline]
    pub fn convolve_channels(&self, x: &[f32], window: Window, taps: &[f32], out: &mut [f32]) {
        (self.convolve_channels)(x, window, taps, out);
    }

    /// Computes `out += LayerNorm(x)`, row by row. `x`, `out`: `[R, C]`; `gain`, `shift`: `[C]`.
    #[inline]
    pub fn layer_norm(&self, x: &[f32], gain: &[f32], shift: &[f32], out: &mut [f32]) {
        (self.layer_norm)(x, gain, shift, out);
    }

    /// Computes `out = RmsNorm(x)`, row by row. `x`, `out`: `[R, C]`; `gain`: `[C]`.
    #[inline]
    pub fn rms_norm(&self, x: &[f32], gain: &[f32], out: &mut [f32]) {
        (self.rms_norm)(x, gain, out);
    }

    /// Computes `a[i] += b[i]`.
    #[inline]
    pub fn add(&self, a: &mut [f32], b: &[f32]) {
        (self.add)(a, b);
    }

    /// Computes `out[i] = f32(q[i]) · scale`.
    #[inline]
    pub fn dequantize(&self, q: &[i8], scale: f32, out: &mut [f32]) {
        (self.dequantize)(q, scale, out);
    }

    /// Prefetches `q`. A hint without effect on results.
    #[inline]
    pub fn prefetch(&self, q: &[i8]) {
        (self.prefetch)(q);
    }

    /// Adds rows to the sums of the mean. `x`: `[R, C]`; `sums`: `[C]`, in steps of 1 / [`POOL_SCALE`].
    #[inline]
    pub fn pool_mean(&self, x: &[f32], sums: &mut [i64]) {
        (self.pool_mean)(x, sums);
    }

    /// Computes `most[c] = x[r, c] > most[c] ? x[r, c] : most[c]`. `x`: `[R, C]`; `most`: `[C]`.
    #[inline]
    pub fn pool_max(&self, x: &[f32], most: &mut [f32]) {
        (self.pool_max)(x, most);
    }
}
