//! The inner loops of the native engine, one table of them per kind of processor.
//!
//! [`scalar`] is the specification: every other backend returns the same bits. That is possible because each operation
//! is either exact (integer sums, maxima) or a single IEEE 754 operation (`+`, `−`, `·`, `/`, `sqrt`, conversions), and
//! the order of the operations is part of its definition. Products and sums are never contracted into FMA.
//!
//! # Arithmetic
//! All f32, rounded half to even. `R` rows (tokens), `C` columns (channels).
//!
//! - **Sum over columns**: 16 virtual lanes, lane `i` adds `x[i]`, `x[i + 16]`, … in this order to 0; then `lane[i] +=
//!   lane[i + 8]` for `i < 8`, and so on with 4, 2 and 1.
//! - **quantize**: the rule of [`crate::quant`].
//! - **matmul**: `y[r, o] = (f32(Σ q[r, i]·w[o, i]) · s[r]) · scale[o]`, the sum exact in i32.
//! - **exp**: [`scalar::exp`]; **sigmoid**: `1 / (1 + exp(−x))`; **softmax**: `exp(x − max) / Σ`, the sum in order.
//! - **layer norm**: `m = Σx / C`; `d = x − m`; `v = Σd² / C`; `i = 1 / sqrt(v + eps)`; `y = (d·i)·gain + shift`.
//! - **RMS norm**: `i = 1 / sqrt(Σx² / C + eps)`; `y = (x·i)·gain`.
//! - **convolution**: `y = w₀·x₀`, then `y = y + wⱼ·xⱼ` for `j = 1, 2, …`.
//! - **mean pooling**: 64-bit fixed point, [`POOL_SCALE`] steps per unit, so neither order nor length can change it.
//!
//! Inputs are finite. For NaN and infinities the only guarantee is: no panic, no out-of-bounds access. Nothing
//! allocates. If slices are shorter than the accompanying numbers require, what fits is computed: the engine checks
//! sizes once, when it is built.

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[allow(unsafe_code)] // loads, stores, and calls of functions that need a feature of the processor
mod aarch64;
#[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
#[allow(unsafe_code)] // instructions that no stable intrinsic offers
mod arm;
pub mod cast;
pub mod scalar;
#[allow(unused_imports, unused_macros, dead_code)] // of an architecture without vectors
mod simd;
mod table;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code)] // loads and stores
mod wasm;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // loads, stores, and calls of functions that need a feature of the processor
pub mod x86;

pub use table::{Activation, Backend, PANEL_INPUTS, PANEL_OUTPUTS, POOL_LIMIT, POOL_SCALE, PackedMatrix, Window};

/// Returns all compiled-in backends, the slowest first, each with whether this processor can run it.
///
/// This is the only list of them: a new backend adds a line.
fn list() -> impl DoubleEndedIterator<Item = (&'static Backend, bool)> {
    [
        (&Backend::SCALAR, true),
        #[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
        (&arm::DSP, true),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        (&wasm::SIMD128, true),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        (&aarch64::NEON, true),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        (&aarch64::DOTPROD, aarch64::has_dotprod()),
        #[cfg(target_arch = "x86_64")]
        (&x86::AVX2, x86::has_avx2()),
        #[cfg(target_arch = "x86_64")]
        (&x86::AVX512VNNI, x86::has_avx512vnni()),
    ]
    .into_iter()
}

impl Backend {
    /// The specification itself; runs on every processor.
    pub const SCALAR: Backend = scalar::TABLE;

    /// Returns the fastest backend of this processor.
    ///
    /// With the feature `std`, the processor is queried; otherwise the compiler's target features count.
    pub fn detect() -> Self {
        list().rev().find(|(_, runs)| *runs).map_or(Backend::SCALAR, |(backend, _)| *backend)
    }

    /// Returns all backends that this processor can run, [`Backend::SCALAR`] first, the fastest last.
    pub fn all() -> impl Iterator<Item = Backend> {
        list().filter(|(_, runs)| *runs).map(|(backend, _)| *backend)
    }

    /// Returns the names of all backends of this target, including those that this processor cannot run.
    pub fn names() -> impl Iterator<Item = &'static str> {
        list().map(|(backend, _)| backend.name)
    }

    /// Returns the backend of this name, if this processor can run it.
    pub fn by_name(name: &str) -> Option<Self> {
        Backend::all().find(|k| k.name == name)
    }
}
