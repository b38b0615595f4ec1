//! Dialects of the paper's architecture, and the weights that they add to the paper's.

use kinglet::spec::{Config, LayerWeight, Mixer, NORM_EPS, Norm, PerLayer, paper_offset};
use serde::{Deserialize, Serialize};

/// Which dialect of the paper's architecture a model follows where the paper, the authors' code and fairseq differ.
///
/// `G` is the gated `(X·W_I + b_I) ⊙ sigmoid(X·W_S + b_S)`.
///
/// | | `paper` | `mesh` | `fairseq` |
/// |---|---|---|---|
/// | mixers | light, dynamic, dilated | light, dynamic | light, dynamic |
/// | width of kernels where none is given | 7 | 9 | 3, 7, 15, then 31 |
/// | offset where none is given | `⌈(K+1)/2⌉ − 1` | as the paper | `⌊(K−1)/2⌋`; the same for odd `K` |
/// | kernels per layer | `kernel_heads` | one per channel | `kernel_heads` |
/// | dynamic kernels from | `X` | `G`, with biases | `G` |
/// | after the convolution | `·W_O` | `+ b`, `·W_P + b_P`, `·W_O + b_O` | `·W_O + b_O` |
/// | biases elsewhere in the block | none | `b_I`, `b_S` | `b_I`, `b_S`, of both matrices of the feed-forward network |
/// | norm | `post_layer` or `pre_rms` | `pre_rms` | `LayerNorm(X + f(X))`, eps 1e-5 (`post_layer`) |
/// | hidden from the convolution | padding | padding, also in the decoder, whose first id is that of padding | padding |
///
/// The same in all: channel `c` uses kernel `⌊c·H/C⌋`, the softmax runs over all taps, also those outside the sequence, and
/// what is masked is zero before the convolution. Not part of the dialect: positions (the authors' code adds learned ones,
/// fairseq sinusoids; here there are none), fairseq's scaled embedding and its encoder-decoder attention with biases (here T5's),
/// fairseq's optional norm before the sublayer, and how weights are drawn. In decoding token by token the authors' code forgets
/// to hide the decoder's first position, which training hides; here both hide it.
///
/// Export and the engines compute [`Compat::Paper`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// As the paper's text says (section 3.2.1).
    #[default]
    Paper,
    /// As the authors' released code computes: `LocalConvAttnBlock` of Mesh TensorFlow 0.1.21
    /// (`transformer/transformer_layers.py`), which passes the number of shared kernels to nobody.
    Mesh,
    /// As fairseq 0.12.2: `LightConvEncoderLayer` and `LightConvDecoderLayer` with GLU and without `normalize_before`.
    Fairseq,
}

impl Compat {
    /// Returns the name in configurations and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Compat::Paper => "paper",
            Compat::Mesh => "mesh",
            Compat::Fairseq => "fairseq",
        }
    }

    /// Returns the width of a layer's kernels where none is given; layers count from 0.
    pub const fn width(self, layer: usize) -> u16 {
        match (self, layer) {
            (Compat::Paper, _) => 7,
            (Compat::Mesh, _) => 9,
            (Compat::Fairseq, 0) => 3,
            (Compat::Fairseq, 1) => 7,
            (Compat::Fairseq, 2) => 15,
            (Compat::Fairseq, _) => 31,
        }
    }

    /// Returns widths for `layers` layers, at most [`kinglet::spec::MAX_LAYERS`], where none are given.
    pub fn widths(self, layers: usize) -> PerLayer {
        per_layer((0..layers).map(|i| self.width(i)))
    }

    /// Returns the taps to the left of a position in a kernel that looks both ways, where no offset is given.
    pub const fn offset(self, kernel: usize) -> usize {
        match self {
            Compat::Paper | Compat::Mesh => paper_offset(kernel),
            Compat::Fairseq => kernel.saturating_sub(1) / 2,
        }
    }

    /// Returns the epsilon of the norms: [`NORM_EPS`], or that of PyTorch's `LayerNorm` (fairseq).
    pub const fn norm_eps(self) -> f32 {
        match self {
            Compat::Paper | Compat::Mesh => NORM_EPS,
            Compat::Fairseq => 1e-5,
        }
    }

    /// Returns the norm that the dialect demands; `None` where it takes either.
    pub const fn norm(self) -> Option<Norm> {
        match self {
            Compat::Paper => None,
            Compat::Mesh => Some(Norm::PreRms),
            Compat::Fairseq => Some(Norm::PostLayer),
        }
    }
}

/// Returns a list of values, one per layer; those beyond the most layers are dropped.
pub(super) fn per_layer(values: impl IntoIterator<Item = u16>) -> PerLayer {
    values.into_iter().fold(PerLayer::EMPTY, |list, value| list.push(value).unwrap_or(list))
}

/// A weight of a layer that a dialect has and the paper does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DialectWeight {
    /// b_I, `[C]` (mesh, fairseq).
    InBias,
    /// b_S, `[C]` (mesh, fairseq).
    GateBias,
    /// Added to the computed taps before the softmax, `[H·K]` (dynamic; mesh).
    KernelProjectionBias,
    /// Added to the convolution's result, `[C]` (mesh).
    ConvBias,
    /// W_P, between the convolution and W_O, `[C, C]` (mesh).
    Pointwise,
    /// b_P, `[C]` (mesh).
    PointwiseBias,
    /// b_O, `[C]` (mesh, fairseq).
    OutBias,
    /// Added to the product of the feed-forward network's first matrix, `[FF]` (fairseq).
    UpBias,
    /// Added to the product of its second matrix, `[C]` (fairseq).
    DownBias,
}

impl DialectWeight {
    /// Returns the weights that follow one of the paper's in the forward pass.
    pub(super) const fn after(weight: LayerWeight) -> &'static [DialectWeight] {
        use DialectWeight as D;
        match weight {
            LayerWeight::In => &[D::InBias],
            LayerWeight::Gate => &[D::GateBias],
            LayerWeight::Kernel => &[D::ConvBias, D::Pointwise, D::PointwiseBias],
            LayerWeight::KernelProjection => &[D::KernelProjectionBias, D::ConvBias, D::Pointwise, D::PointwiseBias],
            LayerWeight::Out => &[D::OutBias],
            LayerWeight::Up => &[D::UpBias],
            LayerWeight::Down => &[D::DownBias],
            _ => &[],
        }
    }

    /// Returns the name in `model.safetensors`, below `layers.I.`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            DialectWeight::InBias => "mixer.in_proj.bias",
            DialectWeight::GateBias => "mixer.gate_proj.bias",
            DialectWeight::KernelProjectionBias => "mixer.kernel_proj.bias",
            DialectWeight::ConvBias => "mixer.kernel_bias",
            DialectWeight::Pointwise => "mixer.pointwise.weight",
            DialectWeight::PointwiseBias => "mixer.pointwise.bias",
            DialectWeight::OutBias => "mixer.out_proj.bias",
            DialectWeight::UpBias => "ffn.up.bias",
            DialectWeight::DownBias => "ffn.down.bias",
        }
    }

    /// Returns the shape in layer `i`; `None` when a model of this dialect has no such weight.
    pub(super) fn shape(self, compat: Compat, config: &Config, i: usize) -> Option<Vec<usize>> {
        use DialectWeight as D;
        let (mesh, fairseq) = (compat == Compat::Mesh, compat == Compat::Fairseq);
        let c = config.hidden_size;
        match self {
            D::InBias | D::GateBias | D::OutBias => (mesh || fairseq).then(|| vec![c]),
            D::KernelProjectionBias => {
                let taps = config.convolution(i)?.taps * config.mixer.kernel_heads();
                (mesh && config.mixer.kind() == Mixer::Dynamic).then(|| vec![taps])
            }
            D::ConvBias | D::PointwiseBias => mesh.then(|| vec![c]),
            D::Pointwise => mesh.then(|| vec![c, c]),
            D::UpBias => fairseq.then(|| vec![config.intermediate_size]),
            D::DownBias => fairseq.then(|| vec![c]),
        }
    }
}
