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

/// Mixes the positions of gated rows `x`: `[R + (K − 1)·dilation, C]` into `y`: `[R, C]`.
///
/// `input` is the block's input at the `R` output rows where [`crate::spec::Mixer::reads_input`]; `room` holds at least
/// `[R, H·K]`.
pub(crate) fn mix(
    backend: &Backend,
    mixer: &MixerConfig,
    layer: &Layer<'_>,
    window: Window,
    x: &[f32],
    input: &linear::Operand<'_>,
    room: &mut [f32],
    y: &mut [f32],
) {
    match mixer {
        MixerConfig::Light { heads, .. } => lightconv::lightconv(backend, x, window, layer.kernel, *heads, y),
        MixerConfig::Dilated { .. } => dilatedconv::dilatedconv(backend, x, window, layer.kernel, y),
        MixerConfig::Dynamic { heads, .. } => {
            dynamicconv::dynamicconv(backend, input, &layer.kernel_projection, x, window, *heads, room, y);
        }
        // No bundle has it.
        MixerConfig::Attention { .. } => {}
    }
}
