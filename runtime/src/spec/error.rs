//! Why a configuration cannot be a model.

use core::fmt;

/// Why a [`Config`](super::Config) cannot be a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Written by another version of the format.
    FormatVersion {
        /// The version this code reads.
        expected: u32,
        /// The version found.
        got: u32,
    },
    /// A field is outside what is allowed.
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        got: usize,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// A per-layer list does not have one value per layer.
    LayerCount {
        /// The list.
        field: &'static str,
        /// Its length.
        got: usize,
        /// `num_hidden_layers`.
        layers: usize,
    },
    /// `mixer = "attention"` with `norm = "post_layer"`.
    AttentionNorm,
    /// A model that embeds has n-grams.
    NGramsWithoutLabels,
    /// An output of a convolution depends on too many tokens.
    ReceptiveField {
        /// The most there may be.
        most: usize,
        /// The number found.
        got: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ConfigError::FormatVersion { expected, got } => {
                write!(
                    f,
                    "format_version is {got}, this version of Kinglet reads {expected}; use the Kinglet that wrote it"
                )
            }
            ConfigError::Field { field, got, expected } => write!(f, "{field} is {got}, must be {expected}"),
            ConfigError::LayerCount { field, got, layers } => {
                write!(f, "{field} has {got} values, must have one for each of the {layers} layers")
            }
            ConfigError::NGramsWithoutLabels => f.write_str("a model that embeds has no n-grams"),
            ConfigError::ReceptiveField { most, got } => {
                write!(f, "kernel sizes and dilations give a receptive field of {got} tokens, must be at most {most}")
            }
            ConfigError::AttentionNorm => {
                write!(f, "mixer \"attention\" is T5's and needs norm = \"pre_rms\", not \"post_layer\"")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// Checks that a field's value lies between two bounds, both included.
pub(super) fn within(
    field: &'static str,
    got: usize,
    low: usize,
    high: usize,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if (low..=high).contains(&got) { Ok(()) } else { Err(ConfigError::Field { field, got, expected }) }
}

/// Checks that a number of heads divides the channels.
pub(super) fn divides(field: &'static str, heads: usize, channels: usize) -> Result<(), ConfigError> {
    let expected = "at least 1 and a divisor of hidden_size";
    let fits = heads > 0 && channels.is_multiple_of(heads);
    if fits { Ok(()) } else { Err(ConfigError::Field { field, got: heads, expected }) }
}
