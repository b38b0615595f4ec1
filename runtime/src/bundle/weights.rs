//! The weights section: one deterministic layout, computed from the configuration.

use super::{ALIGN, BundleError};
use crate::backend::cast::view;
use crate::backend::{PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};
use crate::spec::{Config, LayerWeight, Shape, Storage, Weight};

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
    config: &'a Config,
}

/// The weights of a layer; empty views where a model has no such weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layer<'a> {
    /// `W_I`, `[C, C]`.
    pub input: PackedMatrix<'a>,
    /// `W_S`, the gate, `[C, C]`.
    pub gate: PackedMatrix<'a>,
    /// Taps: `[H, K]` after softmax (light), `[K, C]` (dilated).
    pub kernel: &'a [f32],
    /// `[H·K, C]`: row `h·K + j` belongs to tap `j` of head `h` before softmax (dynamic).
    pub kernel_projection: PackedMatrix<'a>,
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

/// A norm's weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormWeights<'a> {
    /// `[C]`.
    pub gain: &'a [f32],
    /// `[C]`; empty for `pre_rms`.
    pub shift: &'a [f32],
}

/// Returns the bytes of `count` numbers of `size` bytes, up to the next tensor. A valid configuration keeps this below 2⁴⁰.
const fn tensor(count: u64, size: u64) -> u64 {
    (count * size).next_multiple_of(ALIGN as u64)
}

/// Returns the bytes of a weight; 0 when the model has no such weight.
fn bytes_of(config: &Config, weight: Weight) -> u64 {
    let (Some(row), Some(shape)) = (config.row(weight), config.shape(weight)) else { return 0 };
    let (rows, columns) = (shape.matrix().0 as u64, shape.matrix().1 as u64);
    match row.storage {
        Storage::Rows => tensor(rows * columns, 1) + tensor(rows, 4),
        Storage::Matrix => {
            let n = rows.next_multiple_of(PANEL_OUTPUTS as u64);
            n * columns.next_multiple_of(PANEL_INPUTS as u64) + 2 * tensor(n, 4)
        }
        Storage::F32 | Storage::F32Columns | Storage::F32Softmax => tensor(rows * columns, 4),
    }
}

/// Returns the bytes of the section of a configuration that [`Config::validate`] accepts.
pub(super) fn section_bytes(config: &Config) -> u64 {
    config.weights().map(|weight| bytes_of(config, weight)).sum()
}

/// A weight as it is stored.
enum Stored<'a> {
    Rows(&'a [i8], &'a [f32]),
    Matrix(PackedMatrix<'a>),
    Floats(&'a [f32]),
}

/// Takes tensor after tensor. Absent ones become empty views: sizes were checked when the bundle was opened.
struct Cursor<'a> {
    rest: &'a [u8],
    /// Whether all bytes between tensors have been zero so far.
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

    /// Takes the next weight.
    fn stored(&mut self, storage: Storage, shape: Shape) -> Stored<'a> {
        let (rows, columns) = shape.matrix();
        match storage {
            Storage::Rows => {
                let values = view(self.bytes(rows * columns)).unwrap_or_default();
                Stored::Rows(values, self.floats(rows))
            }
            Storage::Matrix => Stored::Matrix(self.matrix(rows, columns)),
            Storage::F32 | Storage::F32Columns | Storage::F32Softmax => Stored::Floats(self.floats(rows * columns)),
        }
    }

    /// Takes the weights of layer `i`.
    fn layer(&mut self, config: &Config, i: usize) -> Layer<'a> {
        let mut layer = Layer::default();
        for (weight, row, shape) in config.layer_rows(i) {
            match (weight, self.stored(row.storage, shape)) {
                (LayerWeight::In, Stored::Matrix(matrix)) => layer.input = matrix,
                (LayerWeight::Gate, Stored::Matrix(matrix)) => layer.gate = matrix,
                (LayerWeight::Kernel, Stored::Floats(taps)) => layer.kernel = taps,
                (LayerWeight::KernelProjection, Stored::Matrix(matrix)) => layer.kernel_projection = matrix,
                (LayerWeight::Out, Stored::Matrix(matrix)) => layer.output = matrix,
                (LayerWeight::MixerNorm, Stored::Floats(gain)) => layer.mixer_norm.gain = gain,
                (LayerWeight::MixerNormBias, Stored::Floats(shift)) => layer.mixer_norm.shift = shift,
                (LayerWeight::Up, Stored::Matrix(matrix)) => layer.up = matrix,
                (LayerWeight::Down, Stored::Matrix(matrix)) => layer.down = matrix,
                (LayerWeight::FfnNorm, Stored::Floats(gain)) => layer.ffn_norm.gain = gain,
                (LayerWeight::FfnNormBias, Stored::Floats(shift)) => layer.ffn_norm.shift = shift,
                _ => {}
            }
        }
        layer
    }
}

/// The layers of a model, one after the other.
pub(crate) struct Layers<'a> {
    cursor: Cursor<'a>,
    config: &'a Config,
    next: usize,
}

impl<'a> Iterator for Layers<'a> {
    type Item = Layer<'a>;

    fn next(&mut self) -> Option<Layer<'a>> {
        if self.next >= self.config.num_hidden_layers {
            return None;
        }
        let layer = self.cursor.layer(self.config, self.next);
        self.next += 1;
        Some(layer)
    }
}

impl<'a> Weights<'a> {
    /// Returns the weights of a section that [`Weights::check`] has accepted for `config`.
    pub(super) fn cut(bytes: &'a [u8], config: &'a Config) -> Self {
        Weights { bytes, config }
    }

    /// Checks the section's size, its f32 numbers and the zeros between tensors; with `verify` also the int8 values and
    /// their corrections. `config` is validated; `bytes` start at a multiple of 4.
    pub(super) fn check(bytes: &[u8], config: &Config, verify: bool) -> Result<(), BundleError> {
        let need = section_bytes(config);
        if need != bytes.len() as u64 {
            return Err(BundleError::WeightsLength { need, got: bytes.len() as u64 });
        }
        let mut cursor = Cursor::new(bytes, 0);
        for weight in config.weights() {
            let (Some(row), Some(shape)) = (config.row(weight), config.shape(weight)) else { continue };
            match cursor.stored(row.storage, shape) {
                Stored::Rows(values, scales) => {
                    if verify {
                        check_range(weight, values)?;
                    }
                    check_scales(weight, scales, scales.len())?;
                }
                Stored::Matrix(panels) => check_matrix(weight, &panels, verify)?,
                Stored::Floats(values) => check_finite(weight, values)?,
            }
        }
        if cursor.zeros { Ok(()) } else { Err(BundleError::WeightsPadding) }
    }

    /// Returns the embedding of a token: int8 values `[C]` and their scale. `None` for ids outside the vocabulary.
    pub fn embedding(&self, id: u32) -> Option<(&'a [i8], f32)> {
        let (vocab, channels) = (self.config.vocab_size, self.config.hidden_size);
        let id = usize::try_from(id).ok().filter(|&id| id < vocab)?;
        let values = self.bytes.get(id * channels..)?.get(..channels)?;
        let scales = (vocab * channels).next_multiple_of(ALIGN);
        let scale = self.bytes.get(scales + id * 4..)?.first_chunk::<4>()?;
        Some((view(values)?, f32::from_le_bytes(*scale)))
    }

    /// Returns the layers, first to last.
    pub(crate) fn layers(&self) -> Layers<'a> {
        let cursor = Cursor::new(self.bytes, bytes_of(self.config, Weight::Embedding));
        Layers { cursor, config: self.config, next: 0 }
    }

    /// Returns the weights of layer `i`; empty views from the number of layers on.
    pub fn layer(&self, i: usize) -> Layer<'a> {
        self.layers().nth(i).unwrap_or_default()
    }

    /// Returns a cursor at the first of some weights, which are the last of the section.
    fn last(&self, weights: &[Weight]) -> Cursor<'a> {
        let bytes: u64 = weights.iter().map(|&weight| bytes_of(self.config, weight)).sum();
        Cursor::new(self.bytes, (self.bytes.len() as u64).saturating_sub(bytes))
    }

    /// Returns the gain of the norm after the last layer, `[C]`; empty unless the norm is `pre_rms`.
    pub fn final_norm(&self) -> &'a [f32] {
        let len = self.config.shape(Weight::FinalNorm).map_or(0, |shape| shape.len());
        self.last(&[Weight::FinalNorm, Weight::HeadWeight, Weight::HeadBias]).floats(len)
    }

    /// Returns the classifier `[num_labels, C]` and its bias `[num_labels]`.
    pub fn head(&self) -> (PackedMatrix<'a>, &'a [f32]) {
        let mut cursor = self.last(&[Weight::HeadWeight, Weight::HeadBias]);
        let panels = cursor.matrix(self.config.num_labels, self.config.hidden_size);
        (panels, cursor.floats(self.config.num_labels))
    }

    /// Returns the bytes of the embedding, of all layers and of what follows them.
    pub fn parts(&self) -> [(&'static str, u64); 3] {
        let (mut embedding, mut layers, mut head) = (0, 0, 0);
        for weight in self.config.weights() {
            let part = match weight {
                Weight::Embedding => &mut embedding,
                Weight::Layer(..) => &mut layers,
                Weight::FinalNorm | Weight::HeadWeight | Weight::HeadBias => &mut head,
            };
            *part += bytes_of(self.config, weight);
        }
        [("embedding", embedding), ("layers", layers), ("head", head)]
    }
}

impl core::fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Weights").field("bytes", &self.bytes.len()).field("config", self.config).finish()
    }
}

fn check_finite(weight: Weight, values: &[f32]) -> Result<(), BundleError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(BundleError::NotFinite { weight, at }),
    }
}

/// Checks that the first `count` scales are finite and above 0, the others 0.
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

/// Checks that no value is −128.
fn check_range(weight: Weight, values: &[i8]) -> Result<(), BundleError> {
    // Counted before it is searched for: the count has no early exit and is vectorized.
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
        // Only the last group of inputs and the last panel can have padding.
        let from = if unused_outputs > 0 { 0 } else { groups.len().saturating_sub(1) };
        if !groups.iter().enumerate().skip(from).all(padded) {
            return Err(BundleError::PanelPadding { weight, panel });
        }
    }
    Ok(())
}

/// Returns the sum of each output's values in a panel, 64 columns at a time: 256 values of at most 128 fit in 16 bits.
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
