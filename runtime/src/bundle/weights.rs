//! The weights section: one deterministic layout, computed from the configuration.

use super::{ALIGN, BundleError};
use crate::backend::cast::view;
use crate::backend::{PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};
use crate::spec::{Config, LayerWeight, Mixer, Norm, PerLayer, Weight};

/// The weights of a model, read in place.
///
/// # Format
/// Tensors one after the other, each followed by zeros up to a multiple of 64 bytes. `C`, `FF`, `V`, `H`, `K` are the
/// configuration's `hidden_size`, `intermediate_size`, `vocab_size`, `kernel_heads` and the layer's kernel width.
///
/// A *matrix* `[N, I]` (outputs, inputs) is three tensors, those of [`PackedMatrix`]: int8 values in panels, f32 scales `[N']`, i32
/// corrections `[N']`, with `N'` = `N` rounded up to 16. Scales and corrections beyond `N`, and values beyond `N` and `I`, are 0.
///
/// | tensor | kind |
/// |---|---|
/// | embedding values `[V, C]` | int8 |
/// | embedding scales `[V]` | f32 |
/// | *of each layer:* `W_I` `[C, C]` | matrix |
/// | `W_S`, the gate, `[C, C]` | matrix |
/// | taps: `[H, K]` after softmax (light), `[K, C]` (dilated) | f32 |
/// | taps' projection `[H·K, C]` (dynamic, instead) | matrix |
/// | `W_O` `[C, C]` | matrix |
/// | gain of the mixer's norm `[C]` | f32 |
/// | its shift `[C]` (post_layer) | f32 |
/// | `W_up` `[FF, C]` | matrix |
/// | `W_down` `[C, FF]` | matrix |
/// | gain of the feed-forward network's norm `[C]` | f32 |
/// | its shift `[C]` (post_layer) | f32 |
/// | *then:* gain of the final norm `[C]` (pre_rms) | f32 |
/// | classifier `[num_labels, C]` | matrix |
/// | its bias `[num_labels]` | f32 |
///
/// int8 values are −127 to 127, quantized by the rule of [`crate::quant`] row by row; scales are finite and above 0, other
/// numbers finite.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

/// The weights of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `W_I`, `[C, C]`.
    pub input: PackedMatrix<'a>,
    /// `W_S`, the gate, `[C, C]`.
    pub gate: PackedMatrix<'a>,
    /// The convolution's taps.
    pub taps: Taps<'a>,
    /// `W_O`, `[C, C]`.
    pub output: PackedMatrix<'a>,
    /// The mixer's norm.
    pub mixer_norm: NormWeights<'a>,
    /// `W_up`, `[FF, C]`.
    pub up: PackedMatrix<'a>,
    /// `W_down`, `[C, FF]`.
    pub down: PackedMatrix<'a>,
    /// The feed-forward network's norm.
    pub ffn_norm: NormWeights<'a>,
}

/// A convolution's taps.
#[derive(Clone, Copy, Debug)]
pub enum Taps<'a> {
    /// `[H, K]`, after softmax: channel `c` uses kernel `⌊c·H/C⌋` (light).
    Shared(&'a [f32]),
    /// `[K, C]`: one kernel a channel (dilated).
    Channels(&'a [f32]),
    /// `[H·K, C]`: row `h·K + j` gives tap `j` of head `h` before softmax (dynamic).
    Computed(PackedMatrix<'a>),
}

/// A norm's weights.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights<'a> {
    /// `[C]`.
    pub gain: &'a [f32],
    /// `[C]`; empty for `pre_rms`.
    pub shift: &'a [f32],
}

/// What the layout depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    mixer: Mixer,
    norm: Norm,
    vocab: usize,
    channels: usize,
    inner: usize,
    heads: usize,
    labels: usize,
    layers: usize,
    widths: PerLayer,
}

/// `count` numbers of `size` bytes, up to the next tensor. A validated configuration keeps this below 2⁴⁰.
const fn tensor(count: u64, size: u64) -> u64 {
    (count * size).next_multiple_of(ALIGN as u64)
}

const fn matrix(outputs: usize, inputs: usize) -> u64 {
    let (n, k) = (
        (outputs as u64).next_multiple_of(PANEL_OUTPUTS as u64),
        (inputs as u64).next_multiple_of(PANEL_INPUTS as u64),
    );
    n * k + 2 * tensor(n, 4)
}

impl Layout {
    /// The layout of a configuration that [`Config::validate`] accepts.
    pub(super) const fn new(config: &Config) -> Self {
        Layout {
            mixer: config.mixer,
            norm: config.norm,
            vocab: config.vocab_size,
            channels: config.hidden_size,
            inner: config.intermediate_size,
            heads: config.kernel_heads,
            labels: config.num_labels,
            layers: config.num_hidden_layers,
            widths: config.kernel_sizes,
        }
    }

    fn embedding_bytes(&self) -> u64 {
        tensor(self.vocab as u64 * self.channels as u64, 1) + tensor(self.vocab as u64, 4)
    }

    fn taps_bytes(&self, layer: usize) -> u64 {
        let k = self.widths.get(layer);
        match self.mixer {
            Mixer::Light | Mixer::Attention => tensor(self.heads as u64 * k as u64, 4),
            Mixer::Dilated => tensor(self.channels as u64 * k as u64, 4),
            Mixer::Dynamic => matrix(self.heads * k, self.channels),
        }
    }

    /// What all layers have: everything but the taps.
    fn fixed_bytes(&self) -> u64 {
        let c = self.channels;
        let norms = if self.norm == Norm::PostLayer { 4 } else { 2 };
        3 * matrix(c, c) + matrix(self.inner, c) + matrix(c, self.inner) + norms * tensor(c as u64, 4)
    }

    /// Where layer `layer` begins; with `layers`, where the last one ends.
    fn layer_at(&self, layer: usize) -> u64 {
        let taps: u64 = (0..layer).map(|i| self.taps_bytes(i)).sum();
        self.embedding_bytes() + layer as u64 * self.fixed_bytes() + taps
    }

    fn final_norm_bytes(&self) -> u64 {
        if self.norm == Norm::PreRms { tensor(self.channels as u64, 4) } else { 0 }
    }

    /// Bytes of the whole section.
    pub(super) fn bytes(&self) -> u64 {
        let head = matrix(self.labels, self.channels) + tensor(self.labels as u64, 4);
        self.layer_at(self.layers) + self.final_norm_bytes() + head
    }
}

/// Takes tensor after tensor. What is not there gives empty views: sizes were checked when the bundle was opened.
struct Cursor<'a> {
    rest: &'a [u8],
    /// Whether all bytes between tensors were zero so far.
    zeros: bool,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8], at: u64) -> Self {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        Cursor { rest, zeros: true }
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (tensor, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        let (padding, rest) = rest.split_at_checked(len.next_multiple_of(ALIGN) - len).unwrap_or_default();
        self.zeros &= padding.iter().all(|&b| b == 0);
        self.rest = rest;
        tensor
    }

    fn floats(&mut self, len: usize) -> &'a [f32] {
        view(self.bytes(len * 4)).unwrap_or_default()
    }

    fn matrix(&mut self, outputs: usize, inputs: usize) -> PackedMatrix<'a> {
        let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
        PackedMatrix {
            outputs,
            inputs,
            values: view(self.bytes(n * k)).unwrap_or_default(),
            scales: self.floats(n),
            corrections: view(self.bytes(n * 4)).unwrap_or_default(),
        }
    }

    fn norm(&mut self, layout: &Layout) -> NormWeights<'a> {
        let gain = self.floats(layout.channels);
        let shift = if layout.norm == Norm::PostLayer { self.floats(layout.channels) } else { &[] };
        NormWeights { gain, shift }
    }

    fn layer(&mut self, layout: &Layout, i: usize) -> Layer<'a> {
        let (c, k) = (layout.channels, layout.widths.get(i));
        Layer {
            input: self.matrix(c, c),
            gate: self.matrix(c, c),
            taps: match layout.mixer {
                Mixer::Light | Mixer::Attention => Taps::Shared(self.floats(layout.heads * k)),
                Mixer::Dilated => Taps::Channels(self.floats(k * c)),
                Mixer::Dynamic => Taps::Computed(self.matrix(layout.heads * k, c)),
            },
            output: self.matrix(c, c),
            mixer_norm: self.norm(layout),
            up: self.matrix(layout.inner, c),
            down: self.matrix(c, layout.inner),
            ffn_norm: self.norm(layout),
        }
    }
}

impl<'a> Weights<'a> {
    /// The weights of a section that [`Weights::check`] took for `config`.
    pub(super) fn cut(bytes: &'a [u8], config: &Config) -> Self {
        Weights { bytes, layout: Layout::new(config) }
    }

    /// Checks the section's size, its f32 numbers and the zeros between tensors; with `verify` the int8 values and their corrections too.
    /// `config` is validated, `bytes` begin at an address that is a multiple of 4.
    pub(super) fn check(bytes: &[u8], config: &Config, verify: bool) -> Result<(), BundleError> {
        let layout = &Layout::new(config);
        let need = layout.bytes();
        if need != bytes.len() as u64 {
            return Err(BundleError::WeightsLength { need, got: bytes.len() as u64 });
        }
        let mut cursor = Cursor::new(bytes, 0);
        let values: &[i8] = view(cursor.bytes(layout.vocab * layout.channels)).unwrap_or_default();
        if verify {
            check_range(Weight::Embedding, values)?;
        }
        check_scales(Weight::Embedding, cursor.floats(layout.vocab), layout.vocab)?;
        for i in 0..layout.layers {
            let layer = cursor.layer(layout, i);
            let name = |weight| Weight::Layer(i as u16, weight);
            let matrix = |weight, panels: &PackedMatrix<'_>| check_matrix(name(weight), panels, verify);
            matrix(LayerWeight::In, &layer.input)?;
            matrix(LayerWeight::Gate, &layer.gate)?;
            match layer.taps {
                Taps::Shared(taps) | Taps::Channels(taps) => check_finite(name(LayerWeight::Kernel), taps)?,
                Taps::Computed(panels) => matrix(LayerWeight::KernelProjection, &panels)?,
            }
            matrix(LayerWeight::Out, &layer.output)?;
            check_finite(name(LayerWeight::MixerNorm), layer.mixer_norm.gain)?;
            check_finite(name(LayerWeight::MixerNormBias), layer.mixer_norm.shift)?;
            matrix(LayerWeight::Up, &layer.up)?;
            matrix(LayerWeight::Down, &layer.down)?;
            check_finite(name(LayerWeight::FfnNorm), layer.ffn_norm.gain)?;
            check_finite(name(LayerWeight::FfnNormBias), layer.ffn_norm.shift)?;
        }
        if layout.norm == Norm::PreRms {
            check_finite(Weight::FinalNorm, cursor.floats(layout.channels))?;
        }
        check_matrix(Weight::HeadWeight, &cursor.matrix(layout.labels, layout.channels), verify)?;
        check_finite(Weight::HeadBias, cursor.floats(layout.labels))?;
        if cursor.zeros { Ok(()) } else { Err(BundleError::WeightsPadding) }
    }

    /// The embedding of a token: int8 values `[C]` and their scale. `None` for ids outside the vocabulary.
    pub fn embedding(&self, id: u32) -> Option<(&'a [i8], f32)> {
        let Layout { vocab, channels, .. } = self.layout;
        let id = usize::try_from(id).ok().filter(|&id| id < vocab)?;
        let values = self.bytes.get(id * channels..)?.get(..channels)?;
        let scales = (vocab * channels).next_multiple_of(ALIGN);
        let scale = self.bytes.get(scales + id * 4..)?.first_chunk::<4>()?;
        Some((view(values)?, f32::from_le_bytes(*scale)))
    }

    /// The weights of layer `i`, found by arithmetic alone; empty views from the number of layers on.
    pub fn layer(&self, i: usize) -> Layer<'a> {
        let at = if i < self.layout.layers { self.layout.layer_at(i) } else { u64::MAX };
        Cursor::new(self.bytes, at).layer(&self.layout, i)
    }

    /// Gain of the norm after the last layer, `[C]`; empty unless the norm is `pre_rms`.
    pub fn final_norm(&self) -> &'a [f32] {
        let len = if self.layout.norm == Norm::PreRms { self.layout.channels } else { 0 };
        Cursor::new(self.bytes, self.layout.layer_at(self.layout.layers)).floats(len)
    }

    /// The classifier `[num_labels, C]` and its bias `[num_labels]`.
    pub fn head(&self) -> (PackedMatrix<'a>, &'a [f32]) {
        let at = self.layout.layer_at(self.layout.layers) + self.layout.final_norm_bytes();
        let mut cursor = Cursor::new(self.bytes, at);
        let panels = cursor.matrix(self.layout.labels, self.layout.channels);
        (panels, cursor.floats(self.layout.labels))
    }

    /// Bytes of the embedding, of all layers and of what follows them.
    pub fn parts(&self) -> [(&'static str, u64); 3] {
        let (begin, end) = (self.layout.embedding_bytes(), self.layout.layer_at(self.layout.layers));
        [("embedding", begin), ("layers", end - begin), ("head", self.layout.bytes() - end)]
    }
}

impl core::fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Weights").field("bytes", &self.bytes.len()).field("layout", &self.layout).finish()
    }
}

fn check_finite(weight: Weight, values: &[f32]) -> Result<(), BundleError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(BundleError::NotFinite { weight, at }),
    }
}

/// The first `count` scales are finite and above 0, the others 0.
fn check_scales(weight: Weight, scales: &[f32], count: usize) -> Result<(), BundleError> {
    let (used, padding) = scales.split_at_checked(count).unwrap_or_default();
    if let Some(at) = used.iter().position(|&s| !(s.is_finite() && s > 0.0)) {
        return Err(BundleError::Scale { weight, at });
    }
    match padding.iter().position(|s| s.to_bits() != 0) {
        None => Ok(()),
        Some(at) => Err(BundleError::Scale { weight, at: count + at }),
    }
}

/// No value is −128.
fn check_range(weight: Weight, values: &[i8]) -> Result<(), BundleError> {
    // Counted before it is looked for: the count has no early exit and is done many at a time.
    if values.iter().fold(false, |any, &v| any | (v == i8::MIN)) {
        let at = values.iter().position(|&v| v == i8::MIN).unwrap_or(0);
        return Err(BundleError::Value { weight, at });
    }
    Ok(())
}

fn check_matrix(weight: Weight, panels: &PackedMatrix<'_>, all: bool) -> Result<(), BundleError> {
    check_scales(weight, panels.scales, panels.outputs)?;
    if !all {
        return Ok(());
    }
    check_range(weight, panels.values)?;
    let inputs = panels.inputs.next_multiple_of(PANEL_INPUTS);
    let (corrections, _) = panels.corrections.as_chunks::<PANEL_OUTPUTS>();
    let parts = panels.values.chunks_exact((inputs * PANEL_OUTPUTS).max(1)).zip(corrections);
    for (panel, (values, corrections)) in parts.enumerate() {
        let first = panel * PANEL_OUTPUTS;
        let (groups, _) = values.as_chunks::<{ PANEL_OUTPUTS * PANEL_INPUTS }>();
        for (o, (sum, &got)) in sums(groups).iter().zip(corrections).enumerate() {
            let expected = -128 * sum;
            if got != expected {
                return Err(BundleError::Correction { weight, output: first + o, expected, got });
            }
        }
        let unused_outputs = PANEL_OUTPUTS.saturating_sub(panels.outputs.saturating_sub(first));
        let unused_inputs = inputs - panels.inputs;
        let padded = |(g, group): (usize, &[i8; PANEL_OUTPUTS * PANEL_INPUTS])| {
            let last = g + 1 == groups.len();
            group.as_chunks::<PANEL_INPUTS>().0.iter().enumerate().all(|(o, run)| {
                let used = if o >= PANEL_OUTPUTS - unused_outputs {
                    0
                } else if last {
                    PANEL_INPUTS - unused_inputs
                } else {
                    PANEL_INPUTS
                };
                run.iter().skip(used).all(|&v| v == 0)
            })
        };
        // Only the last group of inputs and the last panel have anything to look at.
        let from = if unused_outputs > 0 { 0 } else { groups.len().saturating_sub(1) };
        if !groups.iter().enumerate().skip(from).all(padded) {
            return Err(BundleError::PanelPadding { weight, panel });
        }
    }
    Ok(())
}

/// The sum of each output's values in a panel, 64 columns at a time: 256 values of at most 128 fit into 16 bits.
fn sums(groups: &[[i8; PANEL_OUTPUTS * PANEL_INPUTS]]) -> [i32; PANEL_OUTPUTS] {
    let mut out = [0i32; PANEL_OUTPUTS];
    for part in groups.chunks(255) {
        let mut columns = [0i16; PANEL_OUTPUTS * PANEL_INPUTS];
        for group in part {
            for (column, &v) in columns.iter_mut().zip(group) {
                *column = column.wrapping_add(i16::from(v));
            }
        }
        for (sum, run) in out.iter_mut().zip(columns.as_chunks::<PANEL_INPUTS>().0) {
            *sum += run.iter().map(|&v| i32::from(v)).sum::<i32>();
        }
    }
    out
}
