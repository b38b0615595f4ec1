//! The layers of [`crate::spec`] in the native engine: rows in, rows out, thin over
//! [`Backend`](crate::backend::Backend).
//!
//! One file per layer, named as in the trainer and in export, with its formula. Shapes: `R` rows (tokens of a chunk),
//! `C` channels, `FF` channels inside the feed-forward network, `H` heads, `K` taps. The caller owns all buffers.

pub(crate) mod dilatedconv;
pub(crate) mod dynamicconv;
pub(crate) mod embedding;
pub(crate) mod ffn;
pub(crate) mod glu;
pub(crate) mod lightconv;
pub(crate) mod linear;
pub(crate) mod ngrams;
pub(crate) mod norm;
pub(crate) mod pooling;

use crate::backend::{Backend, Window};
use crate::bundle::Layer;
use crate::spec::MixerConfig;

/// Computes the taps of each row where [`crate::spec::Mixer::reads_input`]: `[R, H·K]`, in the beginning of `room`; elsewhere none.
///
/// `input`: the block's input, of `R` rows.
pub(crate) fn taps<'r>(
    backend: &Backend,
    mixer: &MixerConfig,
    layer: &Layer<'_>,
    window: Window,
    input: &linear::Operand<'_>,
    room: &'r mut [f32],
) -> &'r [f32] {
    match mixer {
        MixerConfig::Dynamic { .. } => dynamicconv::taps(backend, input, &layer.kernel_projection, window, room),
        _ => &[],
    }
}

/// Mixes the positions of gated rows `x`: `[R + (K − 1)·dilation, C]` into `y`: `[R, C]`.
///
/// `taps`: those of [`taps`] for the `R` rows.
pub(crate) fn mix(
    backend: &Backend,
    mixer: &MixerConfig,
    layer: &Layer<'_>,
    window: Window,
    x: &[f32],
    taps: &[f32],
    y: &mut [f32],
) {
    match mixer {
        MixerConfig::Light { heads, .. } => lightconv::lightconv(backend, x, window, layer.kernel, *heads, y),
        MixerConfig::Dilated { .. } => dilatedconv::dilatedconv(backend, x, window, layer.kernel, y),
        MixerConfig::Dynamic { heads, .. } => {
            dynamicconv::dynamicconv(backend, x, window, taps, layer.kernel_projection.outputs, *heads, y);
        }
        // No bundle has it.
        MixerConfig::Attention { .. } => {}
    }
}
