//! The contract between the rooms: what a checkpoint directory holds. One file, though a long one, so that it is read as a whole.
//!
//! The trainer writes it, export reads it, the engines are built from it. Configuration fields, weight names, shapes,
//! roles and file names are defined here and nowhere else.
//!
//! # The directory
//!
//! | file | what |
//! |---|---|
//! | [`files::CONFIG`] | [`Config`] as JSON |
//! | [`files::TOKENIZER`] | Hugging Face `tokenizers` file |
//! | [`files::TOKENIZER_TABLE`] | the flat table of [`crate::tokenizer`] |
//! | [`files::WEIGHTS`] | safetensors, f32 or f16, named by [`Weight`] |
//! | [`files::LABELS`] | JSON array of label names, by class index |
//! | [`files::GOLDEN`] | safetensors: `input_ids` and `attention_mask` `[N, T]` i64, `logits` `[N, num_labels]` f32 (PyTorch, f32, CPU) |
//! | [`files::TRAINING`] | resolved training configuration, data files and metrics as JSON |
//! | [`files::CARD`] | the model card |
//!
//! # The encoder
//!
//! With `X`: `[T, C]`, layer by layer (Tay et al. 2021, section 3.2.1; `T` tokens, `C` = `hidden_size` channels):
//!
//! ```text
//! norm = post_layer:  A = X + LayerNorm(Mixer(X));        Y = A + LayerNorm(Ffn(A))
//! norm = pre_rms:     A = X + Mixer(RmsNorm(X));          Y = A + Ffn(RmsNorm(A));   after the last layer RmsNorm
//! Mixer(X) = ConvBlock((X·W_I) ⊙ sigmoid(X·W_S))·W_O      light, dynamic, dilated
//! Ffn(X)   = relu(X·W_up)·W_down
//! logits   = pool(Y)·W_head + b_head
//! ```
//!
//! This is the paper's dialect; how others differ says [`Compat`]. No biases but in the head and in `LayerNorm`. Both norms use eps = 1e-6. Outside the sequence everything is zero: what is
//! masked is set to zero before the convolution reads it. The products are written for row vectors; weights are stored
//! `[out, in]` as PyTorch does.

use core::fmt;

/// Most layers a configuration can have: per-layer lists are arrays of this length, so that no allocation is needed.
pub const MAX_LAYERS: usize = 48;

/// The epsilon of `LayerNorm` and `RmsNorm` (T5 and Mesh TensorFlow: 1e-6); [`Compat::Fairseq`] has its own.
pub const NORM_EPS: f32 = 1e-6;

/// Version of the checkpoint format, written to and demanded of `config.json`.
pub const FORMAT_VERSION: u32 = 1;

/// File names inside a checkpoint directory and an export directory.
pub mod files {
    /// Model configuration.
    pub const CONFIG: &str = "config.json";
    /// Configuration of an encoder-decoder, beside its [`WEIGHTS`]; it holds the encoder's.
    pub const SEQ2SEQ: &str = "seq2seq.json";
    /// Tokenizer for Hugging Face `tokenizers`.
    pub const TOKENIZER: &str = "tokenizer.json";
    /// How `transformers.AutoTokenizer` loads [`TOKENIZER`].
    pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
    /// Tokenizer as the flat table that devices read.
    pub const TOKENIZER_TABLE: &str = "tokenizer.bin";
    /// Weights.
    pub const WEIGHTS: &str = "model.safetensors";
    /// Label names.
    pub const LABELS: &str = "labels.json";
    /// Token ids of dev texts and the logits PyTorch gave for them.
    pub const GOLDEN: &str = "golden.safetensors";
    /// Resolved training configuration, data and metrics.
    pub const TRAINING: &str = "training.json";
    /// Model card.
    pub const CARD: &str = "README.md";
    /// Optimizer state, apart from the model: only `--resume` needs it.
    pub const OPTIMIZER: &str = "optimizer.safetensors";
    /// Exported model, float32.
    pub const ONNX: &str = "model.onnx";
    /// Exported model, int8.
    pub const ONNX_INT8: &str = "model.int8.onnx";
    /// Exported model, int8, as one custom operator ([`super::operator`]).
    pub const ONNX_CUSTOM_OP: &str = "model.custom-op.onnx";
    /// Exported model for the native engine, int8, with everything it needs ([`crate::bundle`]).
    pub const BUNDLE: &str = "model.kinglet";
    /// What export measured.
    pub const REPORT: &str = "report.json";
    /// Beside a data file: its class names (`classes`, `fine_classes`).
    pub const MANIFEST: &str = "MANIFEST.json";
}

/// Keys of the metadata that an exported ONNX file carries, so that the one file is enough to classify text.
pub mod metadata {
    /// [`super::Config`] as JSON.
    pub const CONFIG: &str = "kinglet.config";
    /// SHA-256 of the checkpoint's `config.json`, in hex.
    pub const CONFIG_SHA256: &str = "kinglet.config_sha256";
    /// SHA-256 of the encoded graph, in hex: a damaged graph is refused before an engine sees it.
    pub const GRAPH_SHA256: &str = "kinglet.graph_sha256";
    /// Label names as a JSON array.
    pub const LABELS: &str = "kinglet.labels";
    /// The flat tokenizer table in base64 (standard alphabet, padded).
    pub const TOKENIZER: &str = "kinglet.tokenizer";
    /// `fp32` or `int8`.
    pub const PRECISION: &str = "kinglet.precision";
    /// [`crate::calibration::Calibration`] as JSON; absent when the model was not calibrated.
    pub const CALIBRATION: &str = "kinglet.calibration";
}

/// Names of the exported graph's inputs and outputs, as the Hugging Face ecosystem has them.
pub mod graph {
    /// Token ids, `[B, T]` int64.
    pub const INPUT_IDS: &str = "input_ids";
    /// 1 for a token, 0 for padding, `[B, T]` int64.
    pub const ATTENTION_MASK: &str = "attention_mask";
    /// Class scores before softmax, `[B, num_labels]` f32.
    pub const LOGITS: &str = "logits";
}

/// The ONNX operator that is a whole model, computed by the native engine inside another one.
///
/// Its inputs and its output are those of the exported graph ([`graph`]). The mask is 1 for tokens and 0 for padding, which may
/// stand before and behind a text's tokens but not between them.
pub mod operator {
    /// The operator's domain.
    pub const DOMAIN: &str = "dev.kinglet";
    /// Version of the domain's operator set.
    pub const VERSION: i64 = 1;
    /// The operator's type. It carries the name of the project because tract tells operators apart by their type alone.
    pub const CLASSIFIER: &str = "KingletClassifier";
    /// The operator's only attribute: the bytes of a bundle as a tensor `[bytes]` uint8.
    pub const BUNDLE: &str = "bundle";
}

/// What mixes information between positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Mixer {
    /// Lightweight convolution: depthwise, softmax over taps, kernels shared by heads (Wu et al. 2019; Tay et al. eq. 2).
    Light,
    /// Dynamic convolution: lightweight, with kernels computed from the block input at each position (eq. 3).
    Dynamic,
    /// Depthwise convolution with one kernel a channel, widths and dilations by layer (eq. 1).
    Dilated,
    /// Multi-head self-attention of T5 (Raffel et al. 2020): relative position buckets, no scaling; the baseline.
    Attention,
}

impl Mixer {
    /// All mixers, in the order of the paper's tables.
    pub const ALL: [Mixer; 4] = [Mixer::Light, Mixer::Dynamic, Mixer::Dilated, Mixer::Attention];

    /// The name in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Mixer::Light => "light",
            Mixer::Dynamic => "dynamic",
            Mixer::Dilated => "dilated",
            Mixer::Attention => "attention",
        }
    }

    /// Whether the receptive field is finite: true of every mixer but attention.
    pub const fn is_conv(self) -> bool {
        !matches!(self, Mixer::Attention)
    }
}

/// Which dialect of the paper's architecture a model follows where the paper, the authors' code and fairseq differ.
///
/// `G` is the gated `(X·W_I + b_I) ⊙ sigmoid(X·W_S + b_S)`.
///
/// | | `paper` | `mesh` | `fairseq` |
/// |---|---|---|---|
/// | mixers | light, dynamic, dilated | light, dynamic | light, dynamic |
/// | width of kernels that is taken where none is given | 7 | 9 | 3, 7, 15, then 31 |
/// | offset that is taken where none is given | `⌈(K+1)/2⌉ − 1` | as the paper | `⌊(K−1)/2⌋`; the same for odd `K` |
/// | kernels a layer | `kernel_heads` | one a channel | `kernel_heads` |
/// | dynamic kernels from | `X` | `G`, with biases | `G` |
/// | after the convolution | `·W_O` | `+ b`, `·W_P + b_P`, `·W_O + b_O` | `·W_O + b_O` |
/// | biases elsewhere in the block | none | `b_I`, `b_S` | `b_I`, `b_S`, of both matrices of the feed-forward network |
/// | norm | `post_layer` or `pre_rms` | `pre_rms` | `LayerNorm(X + f(X))`, eps 1e-5 (`post_layer`) |
/// | hidden from the convolution | padding | padding, also in the decoder, whose first id is that of padding | padding |
///
/// The same in all: channel `c` uses kernel `⌊c·H/C⌋`, the softmax runs over all taps, also those outside the sequence, and
/// what is masked is zero before the convolution. Not part of the dialect: positions (the authors' code adds learned ones,
/// fairseq sinusoids; here there are none), fairseq's scaled embedding and its encoder-decoder attention with biases (here T5's),
/// fairseq's optional norm before the sublayer, and how weights are drawn. In decoding token by token the authors' code forgets to hide the
/// decoder's first position, which training hides; here both hide it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Compat {
    /// As the paper's text says (section 3.2.1).
    #[default]
    Paper,
    /// As the authors' released code computes: `LocalConvAttnBlock` of Mesh TensorFlow 0.1.21
    /// (`transformer/transformer_layers.py`), which hands the number of shared kernels to nobody.
    Mesh,
    /// As fairseq 0.12.2: `LightConvEncoderLayer` and `LightConvDecoderLayer` with GLU and without `normalize_before`.
    Fairseq,
}

impl Compat {
    /// The name in configurations and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Compat::Paper => "paper",
            Compat::Mesh => "mesh",
            Compat::Fairseq => "fairseq",
        }
    }

    /// Width of a layer's kernels where none is given; layers count from 0.
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

    /// Widths for `layers` layers, at most [`MAX_LAYERS`], where none are given.
    pub const fn widths(self, layers: usize) -> PerLayer {
        let mut out = PerLayer::EMPTY;
        let mut i = 0;
        while i < layers && i < MAX_LAYERS {
            out.values[i] = self.width(i);
            i += 1;
        }
        out.len = i as u8;
        out
    }

    /// Taps to the left of a position in a kernel that looks both ways, where no offset is given.
    pub const fn offset(self, kernel: usize) -> usize {
        match self {
            Compat::Paper | Compat::Mesh => paper_offset(kernel),
            Compat::Fairseq => kernel.saturating_sub(1) / 2,
        }
    }

    /// The epsilon of the norms: [`NORM_EPS`], or that of PyTorch's `LayerNorm` (fairseq).
    pub const fn norm_eps(self) -> f32 {
        match self {
            Compat::Paper | Compat::Mesh => NORM_EPS,
            Compat::Fairseq => 1e-5,
        }
    }
}

/// Where the norm stands and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Norm {
    /// `X + LayerNorm(f(X))`, as the paper writes its conv blocks; in [`Compat::Fairseq`] `LayerNorm(X + f(X))`.
    PostLayer,
    /// `X + f(RmsNorm(X))` and a final `RmsNorm`, as T5 and the authors' code.
    PreRms,
}

/// How token vectors become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Pooling {
    /// Mean over the tokens.
    #[default]
    Mean,
    /// Maximum over the tokens, channel by channel.
    Max,
}

/// One small number for each layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerLayer {
    len: u8,
    values: [u16; MAX_LAYERS],
}

impl PerLayer {
    /// The empty list: "not given".
    pub const EMPTY: PerLayer = PerLayer { len: 0, values: [0; MAX_LAYERS] };

    /// A list with the same value for `layers` layers; the length is capped at [`MAX_LAYERS`].
    pub const fn repeat(value: u16, layers: usize) -> Self {
        let mut out = Self::EMPTY;
        let n = if layers > MAX_LAYERS { MAX_LAYERS } else { layers };
        let mut i = 0;
        while i < n {
            out.values[i] = value;
            i += 1;
        }
        out.len = n as u8;
        out
    }

    /// The list of `values`; `None` when there are more than [`MAX_LAYERS`].
    pub fn from_slice(values: &[u16]) -> Option<Self> {
        let mut out = Self::EMPTY;
        out.values.get_mut(..values.len())?.copy_from_slice(values);
        out.len = values.len() as u8;
        Some(out)
    }

    /// The values, one a layer.
    pub fn as_slice(&self) -> &[u16] {
        self.values.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The value of layer `i`; 0 beyond the end.
    pub const fn get(&self, i: usize) -> usize {
        if i < self.len() && i < MAX_LAYERS { self.values[i] as usize } else { 0 }
    }

    /// The list with one more value; `None` when it is full.
    pub const fn push(mut self, value: u16) -> Option<Self> {
        let i = self.len();
        if i >= MAX_LAYERS {
            return None;
        }
        self.values[i] = value;
        self.len += 1;
        Some(self)
    }

    /// Number of values.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no value was given.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for PerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Taps to the left of the centre in the paper's eq. 1, where tap `j` of 1..=k reads position `i + j − ⌈(k+1)/2⌉`.
///
/// Used to fill in [`Config::kernel_offsets`] when a model is made; afterwards the stored value counts.
pub const fn paper_offset(kernel: usize) -> usize {
    (kernel + 1).div_ceil(2) - 1
}

/// The shape of a model: all that is needed to build it from its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Config {
    /// Format of the checkpoint: [`FORMAT_VERSION`].
    #[cfg_attr(feature = "serde", serde(default = "defaults::format_version"))]
    pub format_version: u32,
    /// What mixes positions.
    pub mixer: Mixer,
    /// Dialect of the architecture. Export and engines take `paper` alone.
    #[cfg_attr(feature = "serde", serde(default))]
    pub compat: Compat,
    /// Norm and its place. Attention is T5's and takes `pre_rms` only.
    #[cfg_attr(feature = "serde", serde(default = "defaults::norm"))]
    pub norm: Norm,
    /// How token vectors become one vector.
    #[cfg_attr(feature = "serde", serde(default))]
    pub pooling: Pooling,
    /// Rows of the embedding, `V`. 0 in a training configuration: taken from the tokenizer.
    #[cfg_attr(feature = "serde", serde(default))]
    pub vocab_size: usize,
    /// Channels, `C`.
    pub hidden_size: usize,
    /// Encoder blocks.
    pub num_hidden_layers: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Backend a layer, `H`: channel `c` uses kernel `⌊c·H/C⌋` (light, dynamic). The paper has 2; `compat = "mesh"` has `C`, whatever is
    /// given.
    #[cfg_attr(feature = "serde", serde(default = "defaults::kernel_heads"))]
    pub kernel_heads: usize,
    /// Kernel widths, `K`, by layer. Empty for attention.
    #[cfg_attr(feature = "serde", serde(default = "defaults::per_layer"))]
    pub kernel_sizes: PerLayer,
    /// Taps left of the centre, by layer: tap `j` of 0..K reads position `i + (j − offset)·dilation`.
    #[cfg_attr(feature = "serde", serde(default = "defaults::per_layer"))]
    pub kernel_offsets: PerLayer,
    /// Distance between taps, by layer; 1 unless the mixer is dilated.
    #[cfg_attr(feature = "serde", serde(default = "defaults::per_layer"))]
    pub dilations: PerLayer,
    /// Attention heads (attention only; 0 otherwise). `hidden_size` must be a multiple.
    #[cfg_attr(feature = "serde", serde(default))]
    pub num_attention_heads: usize,
    /// T5's number of relative position buckets.
    #[cfg_attr(feature = "serde", serde(default = "defaults::buckets"))]
    pub relative_attention_num_buckets: usize,
    /// T5's distance from which all positions share the last bucket.
    #[cfg_attr(feature = "serde", serde(default = "defaults::distance"))]
    pub relative_attention_max_distance: usize,
    /// Classes. 0 in a training configuration: taken from the data.
    #[cfg_attr(feature = "serde", serde(default))]
    pub num_labels: usize,
}

#[cfg(feature = "serde")]
mod defaults {
    use super::{FORMAT_VERSION, Norm, PerLayer};
    pub fn format_version() -> u32 {
        FORMAT_VERSION
    }
    pub fn norm() -> Norm {
        Norm::PostLayer
    }
    pub fn kernel_heads() -> usize {
        2
    }
    pub fn per_layer() -> PerLayer {
        PerLayer::EMPTY
    }
    pub fn buckets() -> usize {
        32
    }
    pub fn distance() -> usize {
        128
    }
}

/// Why a [`Config`] cannot be a model.
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
    /// A per-layer list does not have one value a layer.
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
    /// A mixer that a dialect does not have.
    CompatMixer {
        /// The dialect.
        compat: Compat,
        /// The mixer.
        mixer: Mixer,
    },
    /// A norm that a dialect does not have.
    CompatNorm {
        /// The dialect.
        compat: Compat,
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
            ConfigError::AttentionNorm => {
                write!(f, "mixer \"attention\" is T5's and needs norm = \"pre_rms\", not \"post_layer\"")
            }
            ConfigError::CompatMixer { compat, mixer } => {
                let (compat, mixer) = (compat.name(), mixer.name());
                write!(
                    f,
                    "compat \"{compat}\" has no mixer \"{mixer}\": take mixer \"light\" or \"dynamic\", or compat = \"paper\""
                )
            }
            ConfigError::CompatNorm { compat } => {
                let norm = if let Compat::Mesh = compat { "pre_rms" } else { "post_layer" };
                write!(f, "compat \"{}\" needs norm = \"{norm}\"", compat.name())
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Fills in what a training configuration may leave out: widths of one value for all layers are spread, none and offsets are
    /// the dialect's ([`Compat`]), dilations are 1; lists that the mixer has no use for are emptied.
    pub fn resolve(mut self) -> Self {
        let layers = self.num_hidden_layers;
        if self.mixer == Mixer::Attention {
            self.kernel_sizes = PerLayer::EMPTY;
            self.kernel_offsets = PerLayer::EMPTY;
            self.dilations = PerLayer::EMPTY;
            return self;
        }
        self.num_attention_heads = 0;
        if self.kernel_sizes.is_empty() {
            self.kernel_sizes = self.compat.widths(layers);
        }
        if self.compat == Compat::Mesh {
            self.kernel_heads = self.hidden_size;
        }
        for list in [&mut self.kernel_sizes, &mut self.dilations, &mut self.kernel_offsets] {
            if let [one] = *list.as_slice() {
                *list = PerLayer::repeat(one, layers);
            }
        }
        if self.dilations.is_empty() {
            self.dilations = PerLayer::repeat(1, layers);
        }
        if self.kernel_offsets.is_empty() {
            let mut out = PerLayer::EMPTY;
            for (o, &k) in out.values.iter_mut().zip(self.kernel_sizes.as_slice()) {
                *o = self.compat.offset(usize::from(k)) as u16;
            }
            out.len = self.kernel_sizes.len;
            self.kernel_offsets = out;
        }
        self
    }

    /// Checks every field and every relation between fields.
    ///
    /// # Errors
    /// The first thing found wrong, with its value and what is allowed. Never allocates.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_encoder()?;
        within("num_labels", self.num_labels, 2, 65536, "2 to 65,536")
    }

    /// Checks everything but the head's `num_labels`, which an encoder without one has no use for.
    ///
    /// # Errors
    /// As [`Config::validate`].
    pub fn validate_encoder(&self) -> Result<(), ConfigError> {
        if self.format_version != FORMAT_VERSION {
            return Err(ConfigError::FormatVersion { expected: FORMAT_VERSION, got: self.format_version });
        }
        let layers = self.num_hidden_layers;
        within("num_hidden_layers", layers, 1, MAX_LAYERS, "1 to 48")?;
        within("vocab_size", self.vocab_size, 1, 1 << 20, "1 to 1,048,576")?;
        within("hidden_size", self.hidden_size, 1, 8192, "1 to 8,192")?;
        within("intermediate_size", self.intermediate_size, 1, 65536, "1 to 65,536")?;
        let (compat, mixer) = (self.compat, self.mixer);
        match compat {
            Compat::Paper => {}
            Compat::Mesh | Compat::Fairseq if !matches!(mixer, Mixer::Light | Mixer::Dynamic) => {
                return Err(ConfigError::CompatMixer { compat, mixer });
            }
            Compat::Mesh if self.norm != Norm::PreRms => return Err(ConfigError::CompatNorm { compat }),
            Compat::Fairseq if self.norm != Norm::PostLayer => return Err(ConfigError::CompatNorm { compat }),
            Compat::Mesh if self.kernel_heads != self.hidden_size => {
                let expected = "hidden_size, as compat = \"mesh\" has a kernel a channel";
                return Err(ConfigError::Field { field: "kernel_heads", got: self.kernel_heads, expected });
            }
            Compat::Mesh | Compat::Fairseq => {}
        }
        if self.mixer == Mixer::Attention {
            if self.norm != Norm::PreRms {
                return Err(ConfigError::AttentionNorm);
            }
            let heads = self.num_attention_heads;
            if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
                let expected = "at least 1 and a divisor of hidden_size";
                return Err(ConfigError::Field { field: "num_attention_heads", got: heads, expected });
            }
            let buckets = self.relative_attention_num_buckets;
            within("relative_attention_num_buckets", buckets, 4, 1024, "an even number from 4 to 1,024")?;
            if !buckets.is_multiple_of(2) {
                let expected = "an even number from 4 to 1,024";
                return Err(ConfigError::Field { field: "relative_attention_num_buckets", got: buckets, expected });
            }
            let distance = self.relative_attention_max_distance;
            return within(
                "relative_attention_max_distance",
                distance,
                buckets / 4 + 1,
                1 << 20,
                "more than a quarter of relative_attention_num_buckets",
            );
        }
        let lists = [
            ("kernel_sizes", &self.kernel_sizes),
            ("kernel_offsets", &self.kernel_offsets),
            ("dilations", &self.dilations),
        ];
        for (field, list) in lists {
            if list.len() != layers {
                return Err(ConfigError::LayerCount { field, got: list.len(), layers });
            }
        }
        for i in 0..layers {
            let k = self.kernel_sizes.get(i);
            within("kernel_sizes", k, 1, 255, "1 to 255")?;
            within("kernel_offsets", self.kernel_offsets.get(i), 0, k - 1, "less than the kernel width")?;
            let most = if self.mixer == Mixer::Dilated { 4096 } else { 1 };
            within("dilations", self.dilations.get(i), 1, most, "1 to 4,096 (dilated) or 1 (other mixers)")?;
        }
        if matches!(self.mixer, Mixer::Light | Mixer::Dynamic)
            && (self.kernel_heads == 0 || !self.hidden_size.is_multiple_of(self.kernel_heads))
        {
            let expected = "at least 1 and a divisor of hidden_size";
            return Err(ConfigError::Field { field: "kernel_heads", got: self.kernel_heads, expected });
        }
        Ok(())
    }

    /// What layer `i` convolves with; `None` for attention and beyond the last layer.
    pub const fn convolution(&self, i: usize) -> Option<Convolution> {
        if !self.mixer.is_conv() || i >= self.num_hidden_layers || i >= MAX_LAYERS {
            return None;
        }
        Some(Convolution {
            taps: self.kernel_sizes.get(i),
            offset: self.kernel_offsets.get(i),
            dilation: self.dilations.get(i),
        })
    }

    /// Tokens that one output position reads through all layers; `None` for attention, which reads all.
    pub const fn receptive_field(&self) -> Option<usize> {
        match (self.look_back(), self.look_ahead()) {
            (Some(left), Some(right)) => Some(left.saturating_add(right).saturating_add(1)),
            _ => None,
        }
    }

    /// Tokens to the left of a position that its output depends on; `None` for attention.
    pub const fn look_back(&self) -> Option<usize> {
        let (mut sum, mut i) = (0usize, 0);
        while let Some(convolution) = self.convolution(i) {
            sum = convolution.left().saturating_add(sum);
            i += 1;
        }
        if self.mixer.is_conv() { Some(sum) } else { None }
    }

    /// Tokens to the right of a position that its output depends on; `None` for attention.
    pub const fn look_ahead(&self) -> Option<usize> {
        let (mut sum, mut i) = (0usize, 0);
        while let Some(convolution) = self.convolution(i) {
            sum = convolution.right().saturating_add(sum);
            i += 1;
        }
        if self.mixer.is_conv() { Some(sum) } else { None }
    }

    /// All weights of the model in the order of the forward pass. Does not allocate.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + '_ {
        let layers =
            (0..self.num_hidden_layers as u16).flat_map(|i| LayerWeight::ALL.iter().map(move |&w| Weight::Layer(i, w)));
        core::iter::once(Weight::Embedding)
            .chain(layers)
            .chain([Weight::FinalNorm, Weight::HeadWeight, Weight::HeadBias])
            .filter(|&w| self.shape(w).is_some())
    }

    /// The shape of a weight as PyTorch stores it; `None` when this model has no such weight.
    pub fn shape(&self, weight: Weight) -> Option<Shape> {
        use LayerWeight as L;
        let (v, c, ff) = (self.vocab_size, self.hidden_size, self.intermediate_size);
        let conv = self.mixer.is_conv();
        let (mesh, fairseq) = (self.compat == Compat::Mesh, self.compat == Compat::Fairseq);
        match weight {
            Weight::Embedding => Some(Shape::matrix(v, c)),
            Weight::FinalNorm => (self.norm == Norm::PreRms).then(|| Shape::vector(c)),
            Weight::HeadWeight => Some(Shape::matrix(self.num_labels, c)),
            Weight::HeadBias => Some(Shape::vector(self.num_labels)),
            Weight::Layer(i, w) => {
                let i = usize::from(i);
                if i >= self.num_hidden_layers {
                    return None;
                }
                let k = self.kernel_sizes.get(i);
                match w {
                    L::In | L::Gate => conv.then(|| Shape::matrix(c, c)),
                    L::Out => Some(Shape::matrix(c, c)),
                    L::Query | L::Key | L::Value => (!conv).then(|| Shape::matrix(c, c)),
                    L::Kernel => match self.mixer {
                        Mixer::Light => Some(Shape::matrix(self.kernel_heads, k)),
                        Mixer::Dilated => Some(Shape::matrix(c, k)),
                        Mixer::Dynamic | Mixer::Attention => None,
                    },
                    L::KernelProjection => {
                        (self.mixer == Mixer::Dynamic).then(|| Shape::matrix(self.kernel_heads * k, c))
                    }
                    L::InBias | L::GateBias | L::OutBias => (mesh || fairseq).then(|| Shape::vector(c)),
                    L::KernelProjectionBias => {
                        (mesh && self.mixer == Mixer::Dynamic).then(|| Shape::vector(self.kernel_heads * k))
                    }
                    L::ConvBias | L::PointwiseBias => mesh.then(|| Shape::vector(c)),
                    L::Pointwise => mesh.then(|| Shape::matrix(c, c)),
                    L::UpBias => fairseq.then(|| Shape::vector(ff)),
                    L::DownBias => fairseq.then(|| Shape::vector(c)),
                    L::RelativeBias => (!conv && i == 0)
                        .then(|| Shape::matrix(self.relative_attention_num_buckets, self.num_attention_heads)),
                    L::MixerNorm | L::FfnNorm => Some(Shape::vector(c)),
                    L::MixerNormBias | L::FfnNormBias => (self.norm == Norm::PostLayer).then(|| Shape::vector(c)),
                    L::Up => Some(Shape::matrix(ff, c)),
                    L::Down => Some(Shape::matrix(c, ff)),
                }
            }
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.weights().filter_map(|w| self.shape(w)).map(|s| s.len()).sum()
    }
}

/// Whether the value of a field lies between two bounds, both included.
fn within(field: &'static str, got: usize, low: usize, high: usize, expected: &'static str) -> Result<(), ConfigError> {
    if (low..=high).contains(&got) { Ok(()) } else { Err(ConfigError::Field { field, got, expected }) }
}

/// The taps of one layer: tap `j` of position `i` reads position `i + (j − offset)·dilation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Taps, `K`.
    pub taps: usize,
    /// Taps left of the centre, less than `K`.
    pub offset: usize,
    /// Positions between two taps.
    pub dilation: usize,
}

impl Convolution {
    /// Positions to the left that are read.
    pub const fn left(&self) -> usize {
        self.offset.saturating_mul(self.dilation)
    }

    /// Positions to the right that are read.
    pub const fn right(&self) -> usize {
        self.taps.saturating_sub(self.offset + 1).saturating_mul(self.dilation)
    }
}

/// What a weight is for, which decides how it is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows looked up by token id: int8, one scale a row.
    Embedding,
    /// A matrix `[out, in]` multiplied with activations: int8, one scale an output channel.
    Linear,
    /// Convolution taps: f32, softmax folded at export (light).
    Kernel,
    /// Gain or shift of a norm: f32.
    Norm,
    /// Added to the scores, or to a matrix product: f32.
    Bias,
    /// T5's relative position bias: f32.
    RelativeBias,
}

/// One weight inside a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerWeight {
    /// W_I, `[C, C]` (conv).
    In,
    /// b_I, `[C]` (conv; mesh, fairseq).
    InBias,
    /// W_S, the gate, `[C, C]` (conv).
    Gate,
    /// b_S, `[C]` (conv; mesh, fairseq).
    GateBias,
    /// Taps before the softmax `[H, K]` (light) or as they are `[C, K]` (dilated).
    Kernel,
    /// Computes the taps: row `h·K + j` gives tap `j` of head `h`, `[H·K, C]` (dynamic).
    KernelProjection,
    /// Added to the computed taps before the softmax, `[H·K]` (dynamic; mesh).
    KernelProjectionBias,
    /// Added to what the convolution gives, `[C]` (conv; mesh).
    ConvBias,
    /// W_P, between the convolution and W_O, `[C, C]` (conv; mesh).
    Pointwise,
    /// b_P, `[C]` (conv; mesh).
    PointwiseBias,
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
    /// b_O, `[C]` (conv; mesh, fairseq).
    OutBias,
    /// Gain of the mixer's norm, `[C]`.
    MixerNorm,
    /// Shift of the mixer's norm, `[C]` (post_layer).
    MixerNormBias,
    /// First matrix of the feed-forward network, `[FF, C]`.
    Up,
    /// Added to its product, `[FF]` (fairseq).
    UpBias,
    /// Second matrix of the feed-forward network, `[C, FF]`.
    Down,
    /// Added to its product, `[C]` (fairseq).
    DownBias,
    /// Gain of the feed-forward network's norm, `[C]`.
    FfnNorm,
    /// Shift of the feed-forward network's norm, `[C]` (post_layer).
    FfnNormBias,
}

impl LayerWeight {
    /// All of them, in the order of the forward pass.
    pub const ALL: [LayerWeight; 24] = [
        LayerWeight::In,
        LayerWeight::InBias,
        LayerWeight::Gate,
        LayerWeight::GateBias,
        LayerWeight::Kernel,
        LayerWeight::KernelProjection,
        LayerWeight::KernelProjectionBias,
        LayerWeight::ConvBias,
        LayerWeight::Pointwise,
        LayerWeight::PointwiseBias,
        LayerWeight::Query,
        LayerWeight::Key,
        LayerWeight::Value,
        LayerWeight::RelativeBias,
        LayerWeight::Out,
        LayerWeight::OutBias,
        LayerWeight::MixerNorm,
        LayerWeight::MixerNormBias,
        LayerWeight::Up,
        LayerWeight::UpBias,
        LayerWeight::Down,
        LayerWeight::DownBias,
        LayerWeight::FfnNorm,
        LayerWeight::FfnNormBias,
    ];

    const fn name(self) -> &'static str {
        match self {
            LayerWeight::In => "mixer.in_proj.weight",
            LayerWeight::InBias => "mixer.in_proj.bias",
            LayerWeight::Gate => "mixer.gate_proj.weight",
            LayerWeight::GateBias => "mixer.gate_proj.bias",
            LayerWeight::Kernel => "mixer.kernel",
            LayerWeight::KernelProjection => "mixer.kernel_proj.weight",
            LayerWeight::KernelProjectionBias => "mixer.kernel_proj.bias",
            LayerWeight::ConvBias => "mixer.kernel_bias",
            LayerWeight::Pointwise => "mixer.pointwise.weight",
            LayerWeight::PointwiseBias => "mixer.pointwise.bias",
            LayerWeight::Query => "mixer.q_proj.weight",
            LayerWeight::Key => "mixer.k_proj.weight",
            LayerWeight::Value => "mixer.v_proj.weight",
            LayerWeight::RelativeBias => "mixer.relative_bias.weight",
            LayerWeight::Out => "mixer.out_proj.weight",
            LayerWeight::OutBias => "mixer.out_proj.bias",
            LayerWeight::MixerNorm => "mixer_norm.weight",
            LayerWeight::MixerNormBias => "mixer_norm.bias",
            LayerWeight::Up => "ffn.up.weight",
            LayerWeight::UpBias => "ffn.up.bias",
            LayerWeight::Down => "ffn.down.weight",
            LayerWeight::DownBias => "ffn.down.bias",
            LayerWeight::FfnNorm => "ffn_norm.weight",
            LayerWeight::FfnNormBias => "ffn_norm.bias",
        }
    }
}

/// One weight of a model. `Display` gives its name in `model.safetensors`.
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
    /// What the weight is for.
    pub const fn role(self) -> Role {
        use LayerWeight as L;
        match self {
            Weight::Embedding => Role::Embedding,
            Weight::FinalNorm => Role::Norm,
            Weight::HeadWeight => Role::Linear,
            Weight::HeadBias => Role::Bias,
            Weight::Layer(_, w) => match w {
                L::In
                | L::Gate
                | L::KernelProjection
                | L::Pointwise
                | L::Query
                | L::Key
                | L::Value
                | L::Out
                | L::Up
                | L::Down => Role::Linear,
                L::InBias
                | L::GateBias
                | L::KernelProjectionBias
                | L::ConvBias
                | L::PointwiseBias
                | L::OutBias
                | L::UpBias
                | L::DownBias => Role::Bias,
                L::Kernel => Role::Kernel,
                L::RelativeBias => Role::RelativeBias,
                L::MixerNorm | L::MixerNormBias | L::FfnNorm | L::FfnNormBias => Role::Norm,
            },
        }
    }

    /// Whether the weight belongs to the encoder, so that another task can start from it.
    pub const fn is_encoder(self) -> bool {
        !matches!(self, Weight::HeadWeight | Weight::HeadBias)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Weight::Embedding => f.write_str("embed.weight"),
            Weight::Layer(i, w) => write!(f, "layers.{i}.{}", w.name()),
            Weight::FinalNorm => f.write_str("final_norm.weight"),
            Weight::HeadWeight => f.write_str("head.weight"),
            Weight::HeadBias => f.write_str("head.bias"),
        }
    }
}

/// The shape of a weight: a vector or a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 2],
    rank: u8,
}

impl Shape {
    const fn vector(n: usize) -> Self {
        Shape { dims: [n, 1], rank: 1 }
    }

    const fn matrix(rows: usize, columns: usize) -> Self {
        Shape { dims: [rows, columns], rank: 2 }
    }

    /// The dimensions, one or two.
    pub fn dims(&self) -> &[usize] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.dims[0] * self.dims[1]
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// T5's bucket of a relative position, bidirectional (`T5Attention._relative_position_bucket`).
///
/// `distance` is key position minus query position. Half of the buckets serve positive distances; in each half the
/// first half holds exact distances, the rest grows logarithmically up to `max_distance`. Needs the logarithm, which `core`
/// lacks: engines without `std` store the bias by distance.
#[cfg(feature = "std")]
pub fn relative_bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let base = if distance > 0 { half } else { 0 };
    base + bucket_of(distance.unsigned_abs() as usize, half, max_distance)
}

/// T5's bucket of a key that lies `back` positions before the query, where no key lies behind it: a decoder's self-attention.
///
/// As [`relative_bucket`], with all buckets for the one direction.
#[cfg(feature = "std")]
pub fn relative_bucket_causal(back: usize, buckets: usize, max_distance: usize) -> usize {
    bucket_of(back, buckets, max_distance)
}

/// The bucket of a distance without sign among `buckets`.
#[cfg(feature = "std")]
fn bucket_of(n: usize, buckets: usize, max_distance: usize) -> usize {
    let exact = buckets / 2;
    if n < exact {
        return n;
    }
    let log = (n as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
    let large = exact + (log * (buckets - exact) as f32) as usize;
    large.min(buckets - 1)
}

#[cfg(feature = "serde")]
impl serde::Serialize for PerLayer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.as_slice())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for PerLayer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(u16),
            Many(std::vec::Vec<u16>),
        }
        match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(v) => Ok(PerLayer::repeat(v, 1)),
            OneOrMany::Many(v) => PerLayer::from_slice(&v)
                .ok_or_else(|| serde::de::Error::custom("more than 48 values in a per-layer list")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec::Vec};

    fn light() -> Config {
        Config {
            format_version: FORMAT_VERSION,
            mixer: Mixer::Light,
            compat: Compat::Paper,
            norm: Norm::PostLayer,
            pooling: Pooling::Mean,
            vocab_size: 100,
            hidden_size: 8,
            num_hidden_layers: 2,
            intermediate_size: 16,
            kernel_heads: 2,
            kernel_sizes: PerLayer::repeat(7, 2),
            kernel_offsets: PerLayer::EMPTY,
            dilations: PerLayer::EMPTY,
            num_attention_heads: 0,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            num_labels: 3,
        }
    }

    #[test]
    fn the_paper_centres_the_kernel_with_the_ceiling() {
        assert_eq!([1, 3, 4, 7, 31].map(paper_offset), [0, 1, 2, 3, 15]);
    }

    #[test]
    fn the_papers_dilated_list_has_the_receptive_field_of_the_reference() {
        let widths = [4, 4, 7, 7, 15, 15, 15, 15, 15, 31, 31, 31];
        let mut c = Config { mixer: Mixer::Dilated, num_hidden_layers: 12, ..light() };
        c.kernel_sizes = PerLayer::from_slice(&widths).unwrap();
        let c = c.resolve();
        c.validate().unwrap();
        assert_eq!((c.receptive_field(), c.look_ahead()), (Some(179), Some(88)));
    }

    #[test]
    fn weights_have_names_and_shapes() {
        let c = light().resolve();
        c.validate().unwrap();
        let names: Vec<String> = c.weights().take(5).map(|w| format!("{w} {:?}", c.shape(w).unwrap())).collect();
        assert_eq!(
            names,
            [
                "embed.weight [100, 8]",
                "layers.0.mixer.in_proj.weight [8, 8]",
                "layers.0.mixer.gate_proj.weight [8, 8]",
                "layers.0.mixer.kernel [2, 7]",
                "layers.0.mixer.out_proj.weight [8, 8]"
            ]
        );
        assert_eq!(c.parameters(), 800 + 2 * (3 * 64 + 14 + 32 + 256) + 27);
    }

    #[test]
    fn every_impossible_configuration_is_refused() {
        let ok = light().resolve();
        let bad = [
            Config { hidden_size: 9, ..ok.clone() },
            Config { hidden_size: 0, ..ok.clone() },
            Config { num_hidden_layers: 3, ..ok.clone() },
            Config { num_hidden_layers: 49, ..ok.clone() },
            Config { kernel_heads: 0, ..ok.clone() },
            Config { dilations: PerLayer::repeat(2, 2), ..ok.clone() },
            Config { kernel_offsets: PerLayer::repeat(7, 2), ..ok.clone() },
            Config { format_version: 2, ..ok.clone() },
            Config { mixer: Mixer::Attention, num_attention_heads: 2, ..ok.clone() },
            Config { mixer: Mixer::Attention, norm: Norm::PreRms, num_attention_heads: 3, ..ok.clone() },
            Config { num_labels: 1, ..ok },
        ];
        for c in bad {
            assert!(c.validate().is_err(), "{c:?}");
        }
    }

    #[test]
    fn dialects_have_their_widths_weights_and_refusals() {
        let of = |compat, norm, mixer| {
            Config { compat, norm, mixer, num_hidden_layers: 5, kernel_sizes: PerLayer::EMPTY, ..light() }.resolve()
        };
        let mesh = of(Compat::Mesh, Norm::PreRms, Mixer::Dynamic);
        let fairseq = of(Compat::Fairseq, Norm::PostLayer, Mixer::Light);
        mesh.validate().unwrap();
        fairseq.validate().unwrap();
        assert_eq!((mesh.kernel_sizes, mesh.kernel_heads), (PerLayer::repeat(9, 5), 8));
        assert_eq!(fairseq.kernel_sizes.as_slice(), [3, 7, 15, 31, 31]);
        assert_eq!(fairseq.kernel_offsets.as_slice(), [1, 3, 7, 15, 15]);
        assert_eq!([1, 4, 6].map(|k| Compat::Fairseq.offset(k)), [0, 1, 2]);
        // Of a layer: four matrices and the one of the kernels with their biases, that of the convolution, feed-forward, norms.
        let layer = 4 * (64 + 8) + 72 * 8 + 72 + 8 + 2 * 128 + 16;
        assert_eq!(mesh.parameters(), 800 + 5 * layer + 8 + 27);
        let layer = |k: usize| 3 * (64 + 8) + 2 * k + 2 * 128 + 16 + 8 + 32;
        assert_eq!(fairseq.parameters(), 800 + [3, 7, 15, 31, 31].map(layer).iter().sum::<usize>() + 27);

        let said = |compat, norm, mixer| format!("{}", of(compat, norm, mixer).validate().unwrap_err());
        assert!(said(Compat::Mesh, Norm::PostLayer, Mixer::Light).contains("needs norm = \"pre_rms\""));
        assert!(said(Compat::Fairseq, Norm::PreRms, Mixer::Light).contains("needs norm = \"post_layer\""));
        assert!(said(Compat::Fairseq, Norm::PostLayer, Mixer::Dilated).contains("no mixer \"dilated\""));
        let two = Config { kernel_heads: 2, ..mesh };
        assert!(format!("{}", two.validate().unwrap_err()).contains("kernel_heads is 2, must be hidden_size"));
    }

    #[cfg(feature = "std")]
    #[test]
    fn relative_buckets_are_those_of_transformers() {
        // transformers 4.x T5Attention._relative_position_bucket, bidirectional, 32 buckets, distance 128.
        let got: Vec<usize> = [-200, -128, -127, -64, -20, -8, -7, -1, 0, 1, 7, 8, 15, 16, 64, 200]
            .map(|d| relative_bucket(d, 32, 128))
            .into();
        assert_eq!(got, [15, 15, 15, 14, 10, 8, 7, 1, 0, 17, 23, 24, 25, 26, 30, 31]);
        // transformers 5.23, of one direction.
        let got: Vec<usize> = [0, 1, 15, 16, 17, 20, 24, 31, 50, 64, 100, 113, 127, 128, 500]
            .map(|back| relative_bucket_causal(back, 32, 128))
            .into();
        assert_eq!(got, [0, 1, 15, 16, 16, 17, 19, 21, 24, 26, 30, 31, 31, 31, 31]);
    }
}
