//! The config section: a [`Config`] as numbers.

use super::BundleError;
use crate::spec::{Config, MAX_LAYERS, Mixer, MixerConfig, Norm, Parameters, PerLayer, Pooling, Task};

/// Bytes before the per-layer fields.
pub(super) const HEAD: usize = 14 * 4;
/// Bytes of each layer.
pub(super) const LAYER: usize = 8;

/// Returns the 32-bit number at `at`.
pub(super) const fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let Some((_, rest)) = bytes.split_at_checked(at) else { return None };
    let Some(word) = rest.first_chunk::<4>() else { return None };
    Some(u32::from_le_bytes(*word))
}

/// Returns the 64-bit number at `at`.
pub(super) const fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let Some((_, rest)) = bytes.split_at_checked(at) else { return None };
    let Some(long) = rest.first_chunk::<8>() else { return None };
    Some(u64::from_le_bytes(*long))
}

const fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let Some((_, rest)) = bytes.split_at_checked(at) else { return None };
    let Some(half) = rest.first_chunk::<2>() else { return None };
    Some(u16::from_le_bytes(*half))
}

const fn unknown(field: &'static str, got: u32) -> Result<Config, BundleError> {
    Err(BundleError::ConfigCode { field, got })
}

/// Code of the only dialect that engines compute.
pub(super) const PAPER: u32 = 0;

/// Returns the mixer of a code: its place in [`Mixer::ALL`].
const fn mixer_of(code: u32) -> Option<Mixer> {
    let mut i = 0;
    while i < Mixer::ALL.len() {
        if i == code as usize {
            return Some(Mixer::ALL[i]);
        }
        i += 1;
    }
    None
}

/// Reads the configuration of a section without validating it; see [`Config::validate`]. The section does not have the task and
/// the number of n-grams: they are [`Task::Classify`] and 0 until another section says otherwise.
pub(super) const fn read(bytes: &[u8]) -> Result<Config, BundleError> {
    let mut words = [0u32; HEAD / 4];
    let mut i = 0;
    while i < words.len() {
        words[i] = match word(bytes, i * 4) {
            Some(word) => word,
            None => return Err(BundleError::ConfigLength { need: HEAD, got: bytes.len() }),
        };
        i += 1;
    }
    let [
        version,
        mixer,
        compat,
        norm,
        pooling,
        vocab,
        hidden,
        layers,
        inner,
        kernels,
        heads,
        buckets,
        distance,
        labels,
    ] = words;
    let mixer = match mixer_of(mixer) {
        Some(Mixer::Attention) => return Err(BundleError::Attention),
        Some(mixer) => mixer,
        None => return unknown("mixer", mixer),
    };
    if compat != PAPER {
        return unknown("compat", compat);
    }
    let norm = match norm {
        0 => Norm::PostLayer,
        1 => Norm::PreRms,
        got => return unknown("norm", got),
    };
    let pooling = match pooling {
        0 => Pooling::Mean,
        1 => Pooling::Max,
        got => return unknown("pooling", got),
    };
    let layers = layers as usize;
    if layers > MAX_LAYERS {
        return unknown("num_hidden_layers", layers as u32);
    }
    let need = HEAD + layers * LAYER;
    if bytes.len() != need {
        return Err(BundleError::ConfigLength { need, got: bytes.len() });
    }
    let (mut widths, mut offsets, mut dilations) = (PerLayer::EMPTY, PerLayer::EMPTY, PerLayer::EMPTY);
    let mut i = 0;
    while i < layers {
        let at = HEAD + i * LAYER;
        let fields = (half(bytes, at), half(bytes, at + 2), half(bytes, at + 4), half(bytes, at + 6));
        let (Some(width), Some(offset), Some(dilation), Some(zero)) = fields else {
            return Err(BundleError::ConfigLength { need, got: bytes.len() });
        };
        if zero != 0 {
            return unknown("the zero of a layer", zero as u32);
        }
        match (widths.push(width), offsets.push(offset), dilations.push(dilation)) {
            (Some(w), Some(o), Some(d)) => (widths, offsets, dilations) = (w, o, d),
            _ => return Err(BundleError::ConfigLength { need, got: bytes.len() }),
        }
        i += 1;
    }
    let parameters = Parameters {
        kernel_heads: kernels as usize,
        kernel_sizes: widths,
        kernel_offsets: offsets,
        dilations,
        num_attention_heads: heads as usize,
        relative_attention_num_buckets: buckets as usize,
        relative_attention_max_distance: distance as usize,
    };
    let mixer = match MixerConfig::from_parameters(mixer, layers, &parameters) {
        Ok(mixer) => mixer,
        Err(error) => return Err(BundleError::Config(error)),
    };
    Ok(Config {
        format_version: version,
        task: Task::Classify,
        mixer,
        norm,
        pooling,
        vocab_size: vocab as usize,
        hidden_size: hidden as usize,
        num_hidden_layers: layers,
        intermediate_size: inner as usize,
        num_labels: labels as usize,
        ngrams: 0,
    })
}
