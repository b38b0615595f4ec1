//! The weights of a model: one row per weight.
//!
//! The order of [`LAYER`] is that of the forward pass, of checkpoints and of bundles. Names, shapes, roles, and how a weight is
//! stored on a device, are read from here alone.

use core::fmt;

use super::config::{Config, Norm};
use super::mixer::Mixer;

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows looked up by token id.
    Embedding,
    /// A matrix `[out, in]` multiplied with activations.
    Linear,
    /// Convolution taps.
    Kernel,
    /// Gain or shift of a norm.
    Norm,
    /// Added to the scores, or to a matrix product.
    Bias,
    /// T5's relative position bias.
    RelativeBias,
}

/// How a device stores a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// int8, one f32 scale per row, by the rule of [`crate::quant`]; rows are looked up.
    Rows,
    /// int8, one f32 scale per row (output channel), in the panels of [`crate::backend::PackedMatrix`].
    Matrix,
    /// f32, as it is.
    F32,
    /// f32, column after column.
    F32Columns,
    /// f32, after softmax over each row, which `Storage::fold` computes.
    F32Softmax,
}

impl Storage {
    /// Returns whether values become int8.
    pub const fn is_int8(self) -> bool {
        matches!(self, Storage::Rows | Storage::Matrix)
    }

    /// Folds what can be computed once into values that are stored as f32: `F32Softmax` replaces each row of `columns`
    /// values with its softmax, computed in f64 and rounded once; others stay unchanged.
    #[cfg(feature = "std")]
    pub fn fold(self, values: &mut [f32], columns: usize) {
        if self != Storage::F32Softmax {
            return;
        }
        for row in values.chunks_mut(columns.max(1)) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: std::vec::Vec<f64> = row.iter().map(|&t| f64::from(t - max).exp()).collect();
            let sum: f64 = powers.iter().sum();
            row.iter_mut().zip(powers).for_each(|(tap, power)| *tap = (power / sum) as f32);
        }
    }
}

/// A dimension of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dim {
    /// `V`, `vocab_size`.
    Vocabulary,
    /// `C`, `hidden_size`.
    Channels,
    /// `FF`, `intermediate_size`.
    Inner,
    /// `num_labels`.
    Labels,
    /// `H`, kernels that channels share.
    Heads,
    /// `K`, width of the layer's kernel.
    Width,
    /// `H·K`.
    Taps,
    /// Relative position buckets.
    Buckets,
    /// Attention heads.
    AttentionHeads,
}

impl Dim {
    const fn of(self, config: &Config, layer: usize) -> usize {
        let width = match config.mixer.kernels() {
            Some(kernels) => kernels.sizes.get(layer),
            None => 0,
        };
        match self {
            Dim::Vocabulary => config.vocab_size,
            Dim::Channels => config.hidden_size,
            Dim::Inner => config.intermediate_size,
            Dim::Labels => config.num_labels,
            Dim::Heads => config.mixer.kernel_heads(),
            Dim::Width => width,
            Dim::Taps => config.mixer.kernel_heads().saturating_mul(width),
            Dim::Buckets => config.mixer.parameters().relative_attention_num_buckets,
            Dim::AttentionHeads => config.mixer.attention_heads(),
        }
    }
}

/// Which models have a weight.
#[derive(Clone, Copy, Debug)]
enum When {
    /// All.
    Always,
    /// Those that convolve, after a gate.
    Convolution,
    /// Those of these mixers.
    Mixer(&'static [Mixer]),
    /// Those of these mixers, in the first layer.
    FirstLayer(&'static [Mixer]),
    /// Those with this norm.
    Norm(Norm),
}

impl When {
    const fn holds(self, config: &Config, layer: usize) -> bool {
        match self {
            When::Always => true,
            When::Convolution => config.mixer.is_conv(),
            When::Mixer(mixers) => config.mixer.kind().is_among(mixers),
            When::FirstLayer(mixers) => layer == 0 && config.mixer.kind().is_among(mixers),
            When::Norm(norm) => norm as u8 == config.norm as u8,
        }
    }
}

/// All that is to be known about a weight.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in `model.safetensors`; of a layer's weight, what follows `layers.I.`.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// How a device stores it.
    pub storage: Storage,
    when: When,
    dims: &'static [Dim],
}

impl Row {
    const fn new(name: &'static str, role: Role, when: When, dims: &'static [Dim], storage: Storage) -> Self {
        Row { name, role, storage, when, dims }
    }

    const fn norm(name: &'static str, when: When) -> Self {
        Row::new(name, Role::Norm, when, &[Dim::Channels], Storage::F32)
    }

    const fn matrix(name: &'static str, when: When, dims: &'static [Dim]) -> Self {
        Row::new(name, Role::Linear, when, dims, Storage::Matrix)
    }

    /// Returns the shape in layer `layer` of a model, as PyTorch stores it; `None` when the model has no such weight.
    pub const fn shape(&self, config: &Config, layer: usize) -> Option<Shape> {
        if !self.when.holds(config, layer) {
            return None;
        }
        match self.dims {
            [n] => Some(Shape { dims: [n.of(config, layer), 1], rank: 1 }),
            [rows, columns] => Some(Shape { dims: [rows.of(config, layer), columns.of(config, layer)], rank: 2 }),
            _ => None,
        }
    }
}

/// The embedding.
const EMBEDDING: Row =
    Row::new("embed.weight", Role::Embedding, When::Always, &[Dim::Vocabulary, Dim::Channels], Storage::Rows);
/// The gain of the norm after the last layer.
const FINAL_NORM: Row = Row::norm("final_norm.weight", When::Norm(Norm::PreRms));
/// The classifier.
const HEAD_WEIGHT: Row = Row::matrix("head.weight", When::Always, &[Dim::Labels, Dim::Channels]);
/// The classifier's bias.
const HEAD_BIAS: Row = Row::new("head.bias", Role::Bias, When::Always, &[Dim::Labels], Storage::F32);

/// `[C, C]`.
const SQUARE: &[Dim] = &[Dim::Channels, Dim::Channels];

/// The weights of a layer, in the order of the forward pass. A weight whose shape depends on the mixer has a row per shape.
#[rustfmt::skip]
const LAYER: [(LayerWeight, Row); 16] = {
    use Dim::{AttentionHeads, Buckets, Channels, Heads, Inner, Taps, Width};
    use LayerWeight as L;
    use When::{Always, Convolution, FirstLayer, Mixer as Of, Norm as With};
    const ATTENTION: When = Of(&[Mixer::Attention]);
    [
        (L::In, Row::matrix("mixer.in_proj.weight", Convolution, SQUARE)),
        (L::Gate, Row::matrix("mixer.gate_proj.weight", Convolution, SQUARE)),
        (L::Kernel, Row::new("mixer.kernel", Role::Kernel, Of(&[Mixer::Light]), &[Heads, Width], Storage::F32Softmax)),
        (L::Kernel, Row::new("mixer.kernel", Role::Kernel, Of(&[Mixer::Dilated]), &[Channels, Width], Storage::F32Columns)),
        (L::KernelProjection, Row::matrix("mixer.kernel_proj.weight", Of(&[Mixer::Dynamic]), &[Taps, Channels])),
        (L::Query, Row::matrix("mixer.q_proj.weight", ATTENTION, SQUARE)),
        (L::Key, Row::matrix("mixer.k_proj.weight", ATTENTION, SQUARE)),
        (L::Value, Row::matrix("mixer.v_proj.weight", ATTENTION, SQUARE)),
        (L::RelativeBias, Row::new("mixer.relative_bias.weight", Role::RelativeBias, FirstLayer(&[Mixer::Attention]), &[Buckets, AttentionHeads], Storage::F32)),
        (L::Out, Row::matrix("mixer.out_proj.weight", Always, SQUARE)),
        (L::MixerNorm, Row::norm("mixer_norm.weight", Always)),
        (L::MixerNormBias, Row::norm("mixer_norm.bias", With(Norm::PostLayer))),
        (L::Up, Row::matrix("ffn.up.weight", Always, &[Inner, Channels])),
        (L::Down, Row::matrix("ffn.down.weight", Always, &[Channels, Inner])),
        (L::FfnNorm, Row::norm("ffn_norm.weight", Always)),
        (L::FfnNormBias, Row::norm("ffn_norm.bias", With(Norm::PostLayer))),
    ]
};

/// One weight inside a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerWeight {
    /// W_I, `[C, C]` (conv).
    In,
    /// W_S, the gate, `[C, C]` (conv).
    Gate,
    /// Taps before the softmax `[H, K]` (light) or as they are `[C, K]` (dilated).
    Kernel,
    /// Computes the taps: row `h·K + j` belongs to tap `j` of head `h`, `[H·K, C]` (dynamic).
    KernelProjection,
    /// Queries, `[C, C]` (attention). Head `h` has rows `h·C/heads..(h+1)·C/heads`.
    Query,
    /// Keys, `[C, C]` (attention).
    Key,
    /// Values, `[C, C]` (attention).
    Value,
    /// T5's relative position bias `[buckets, heads]`, in layer 0, used by all layers (attention).
    RelativeBias,
    /// W_O, `[C, C]`.
    Out,
    /// Gain of the mixer's norm, `[C]`.
    MixerNorm,
    /// Shift of the mixer's norm, `[C]` (post_layer).
    MixerNormBias,
    /// First matrix of the feed-forward network, `[FF, C]`.
    Up,
    /// Second matrix of the feed-forward network, `[C, FF]`.
    Down,
    /// Gain of the feed-forward network's norm, `[C]`.
    FfnNorm,
    /// Shift of the feed-forward network's norm, `[C]` (post_layer).
    FfnNormBias,
}

impl LayerWeight {
    /// Returns the rows of this weight: one, or one per shape.
    fn rows(self) -> impl Iterator<Item = &'static Row> {
        LAYER.iter().filter(move |(weight, _)| *weight == self).map(|(_, row)| row)
    }
}

/// One weight of a model. `Display` writes its name in `model.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Token embedding, `[V, C]`.
    Embedding,
    /// A weight of a layer.
    Layer(u16, LayerWeight),
    /// Gain of the norm after the last layer, `[C]` (pre_rms).
    FinalNorm,
    /// The classifier, `[num_labels, C]`.
    HeadWeight,
    /// The classifier's bias, `[num_labels]`.
    HeadBias,
}

impl Weight {
    /// Returns a row of the weight, whatever the model: name and role are the same in all.
    const fn row(self) -> &'static Row {
        match self {
            Weight::Embedding => &EMBEDDING,
            Weight::FinalNorm => &FINAL_NORM,
            Weight::HeadWeight => &HEAD_WEIGHT,
            Weight::HeadBias => &HEAD_BIAS,
            Weight::Layer(_, weight) => {
                let (mut rest, mut found): (&'static [(LayerWeight, Row)], _) = (&LAYER, &EMBEDDING);
                while let [(first, row), others @ ..] = rest {
                    if *first as u8 == weight as u8 {
                        found = row;
                    }
                    rest = others;
                }
                found
            }
        }
    }

    /// Returns what the weight is for.
    pub const fn role(self) -> Role {
        self.row().role
    }

    /// Returns whether the weight belongs to the encoder, so that another task can start from it.
    pub const fn is_encoder(self) -> bool {
        !matches!(self, Weight::HeadWeight | Weight::HeadBias)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Weight::Layer(i, _) = self {
            write!(f, "layers.{i}.")?;
        }
        f.write_str(self.row().name)
    }
}

/// The shape of a weight: a vector or a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 2],
    rank: u8,
}

impl Shape {
    /// Returns the dimensions, one or two.
    pub fn dims(&self) -> &[usize] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// Returns rows and columns; a vector is one column.
    pub const fn matrix(&self) -> (usize, usize) {
        (self.dims[0], self.dims[1])
    }

    /// Returns the number of elements.
    pub const fn len(&self) -> usize {
        self.dims[0] * self.dims[1]
    }

    /// Returns whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

impl Config {
    /// Returns all weights of the model in the order of the forward pass. Does not allocate.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + '_ {
        let layer = |i: u16| self.layer_rows(i.into()).map(move |(weight, ..)| Weight::Layer(i, weight));
        let layers = (0..self.num_hidden_layers as u16).flat_map(layer);
        let after = [Weight::FinalNorm, Weight::HeadWeight, Weight::HeadBias];
        let has = |&weight: &Weight| self.shape(weight).is_some();
        core::iter::once(Weight::Embedding).chain(layers).chain(after.into_iter().filter(has))
    }

    /// Returns the weights of layer `i` in the order of the forward pass, each with its row and its shape.
    pub(crate) fn layer_rows(&self, i: usize) -> impl Iterator<Item = (LayerWeight, &'static Row, Shape)> + '_ {
        LAYER.iter().filter_map(move |(weight, row)| Some((*weight, row, row.shape(self, i)?)))
    }

    /// Returns the row of a weight; `None` when this model has no such weight.
    pub fn row(&self, weight: Weight) -> Option<&'static Row> {
        match weight {
            Weight::Layer(i, _) if usize::from(i) >= self.num_hidden_layers => None,
            Weight::Layer(i, weight) => weight.rows().find(|row| row.shape(self, usize::from(i)).is_some()),
            weight => Some(weight.row()).filter(|row| row.shape(self, 0).is_some()),
        }
    }

    /// Returns the shape of a weight as PyTorch stores it; `None` when this model has no such weight.
    pub fn shape(&self, weight: Weight) -> Option<Shape> {
        let layer = if let Weight::Layer(i, _) = weight { usize::from(i) } else { 0 };
        self.row(weight)?.shape(self, layer)
    }

    /// Returns the number of parameters.
    pub fn parameters(&self) -> usize {
        self.weights().filter_map(|w| self.shape(w)).map(|s| s.len()).sum()
    }
}
