//! The mixers, and the parameters of each.

use core::fmt;

use super::error::{ConfigError, divides, within};

/// Maximum number of layers: per-layer lists are arrays of this length, so that no allocation is needed.
pub const MAX_LAYERS: usize = 48;

/// Longest distance between two taps of a dilated convolution.
const MAX_DILATION: usize = 4096;
/// What is allowed of dilations, in words.
const DILATIONS: &str = "1 to 4,096 (dilated) or 1 (other mixers)";

/// What mixes information between positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mixer {
    /// Lightweight convolution: depthwise, softmax over taps, kernels shared by heads (Wu et al. 2019; Tay et al. eq. 2).
    Light,
    /// Dynamic convolution: lightweight, with kernels computed from the block input at each position (eq. 3).
    Dynamic,
    /// Depthwise convolution with one kernel per channel, widths and dilations by layer (eq. 1).
    Dilated,
    /// Multi-head self-attention of T5 (Raffel et al. 2020): relative position buckets, no scaling; the baseline.
    Attention,
}

impl Mixer {
    /// All mixers. A mixer's place in this list is its number in a bundle.
    pub const ALL: [Mixer; 4] = [Mixer::Light, Mixer::Dynamic, Mixer::Dilated, Mixer::Attention];

    /// Returns the name in configurations and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Mixer::Light => "light",
            Mixer::Dynamic => "dynamic",
            Mixer::Dilated => "dilated",
            Mixer::Attention => "attention",
        }
    }

    /// Returns whether the receptive field is finite: true of every mixer but attention.
    pub const fn is_conv(self) -> bool {
        !matches!(self, Mixer::Attention)
    }

    /// Returns the mixers with a finite receptive field, which bundles store and the native engine runs.
    pub fn convolutions() -> impl Iterator<Item = Mixer> {
        Self::ALL.into_iter().filter(|mixer| mixer.is_conv())
    }

    /// Returns whether taps are computed from the block's input at each position.
    pub const fn reads_input(self) -> bool {
        matches!(self, Mixer::Dynamic)
    }

    /// Returns whether this is one of `mixers`.
    pub(super) const fn is_among(self, mixers: &[Mixer]) -> bool {
        let mut rest = mixers;
        while let [first, others @ ..] = rest {
            if *first as u8 == self as u8 {
                return true;
            }
            rest = others;
        }
        false
    }
}

/// A mixer with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MixerConfig {
    /// [`Mixer::Light`].
    Light {
        /// Kernels per layer, `H`: channel `c` uses kernel `⌊c·H/C⌋`. The paper has 2.
        heads: usize,
        /// Widths and offsets.
        kernels: Kernels,
    },
    /// [`Mixer::Dynamic`].
    Dynamic {
        /// Kernels per layer and position, `H`, as for light convolutions.
        heads: usize,
        /// Widths and offsets.
        kernels: Kernels,
    },
    /// [`Mixer::Dilated`].
    Dilated {
        /// Widths and offsets.
        kernels: Kernels,
        /// Positions between two taps, by layer.
        dilations: PerLayer,
    },
    /// [`Mixer::Attention`].
    Attention {
        /// Heads; `hidden_size` must be a multiple.
        heads: usize,
        /// T5's number of relative position buckets.
        buckets: usize,
        /// T5's distance from which all positions share the last bucket.
        max_distance: usize,
    },
}

/// The parameters of all mixers side by side, as files have them: a mixer reads its own and writes the others' defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `H` of light and dynamic convolutions.
    pub kernel_heads: usize,
    /// Kernel widths, `K`, by layer.
    pub kernel_sizes: PerLayer,
    /// Taps left of the centre, by layer.
    pub kernel_offsets: PerLayer,
    /// Distance between taps, by layer; 1 unless the mixer is dilated.
    pub dilations: PerLayer,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// T5's number of relative position buckets.
    pub relative_attention_num_buckets: usize,
    /// T5's distance from which all positions share the last bucket.
    pub relative_attention_max_distance: usize,
}

impl Parameters {
    /// What stands where nothing is given.
    pub const DEFAULT: Parameters = Parameters {
        kernel_heads: 2,
        kernel_sizes: PerLayer::EMPTY,
        kernel_offsets: PerLayer::EMPTY,
        dilations: PerLayer::EMPTY,
        num_attention_heads: 0,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
    };
}

impl MixerConfig {
    /// Returns the paper's parameters for `layers` layers: kernels of width 7, two heads, no dilation; T5's buckets.
    ///
    /// The number of attention heads has no default and is 0, which [`MixerConfig::with_heads`] replaces.
    pub const fn new(mixer: Mixer, layers: usize) -> Self {
        let Kernels { sizes, offsets } = Kernels::centred(PerLayer::repeat(7, layers));
        let dilations = PerLayer::repeat(1, layers);
        let paper = Parameters { kernel_sizes: sizes, kernel_offsets: offsets, dilations, ..Parameters::DEFAULT };
        Self::own(mixer, &paper)
    }

    /// Takes a mixer's own parameters from those in a file for `layers` layers.
    ///
    /// # Errors
    /// If the mixer does not allow them: dilations other than 1.
    pub const fn from_parameters(mixer: Mixer, layers: usize, given: &Parameters) -> Result<Self, ConfigError> {
        if let Mixer::Light | Mixer::Dynamic = mixer {
            let got = given.dilations.len();
            if got > 1 && got != layers {
                return Err(ConfigError::LayerCount { field: "dilations", got, layers });
            }
            let mut i = 0;
            while i < got {
                if given.dilations.get(i) != 1 {
                    let got = given.dilations.get(i);
                    return Err(ConfigError::Field { field: "dilations", got, expected: DILATIONS });
                }
                i += 1;
            }
        }
        Ok(Self::own(mixer, given))
    }

    /// Returns the mixer with its own parameters among those given.
    const fn own(mixer: Mixer, given: &Parameters) -> Self {
        let kernels = Kernels { sizes: given.kernel_sizes, offsets: given.kernel_offsets };
        match mixer {
            Mixer::Light => MixerConfig::Light { heads: given.kernel_heads, kernels },
            Mixer::Dynamic => MixerConfig::Dynamic { heads: given.kernel_heads, kernels },
            Mixer::Dilated => MixerConfig::Dilated { kernels, dilations: given.dilations },
            Mixer::Attention => MixerConfig::Attention {
                heads: given.num_attention_heads,
                buckets: given.relative_attention_num_buckets,
                max_distance: given.relative_attention_max_distance,
            },
        }
    }

    /// Returns the parameters as files have them.
    pub const fn parameters(&self) -> Parameters {
        let mut all = Parameters::DEFAULT;
        if let Some(kernels) = self.kernels() {
            all.kernel_sizes = kernels.sizes;
            all.kernel_offsets = kernels.offsets;
            all.dilations = PerLayer::repeat(1, kernels.sizes.len());
        }
        match self {
            MixerConfig::Light { heads, .. } | MixerConfig::Dynamic { heads, .. } => all.kernel_heads = *heads,
            MixerConfig::Dilated { dilations, .. } => all.dilations = *dilations,
            MixerConfig::Attention { heads, buckets, max_distance } => {
                all.num_attention_heads = *heads;
                all.relative_attention_num_buckets = *buckets;
                all.relative_attention_max_distance = *max_distance;
            }
        }
        all
    }

    /// Returns the mixer with `heads` kernels or attention heads, where it has heads.
    pub const fn with_heads(mut self, count: usize) -> Self {
        match &mut self {
            MixerConfig::Light { heads, .. }
            | MixerConfig::Dynamic { heads, .. }
            | MixerConfig::Attention { heads, .. } => *heads = count,
            _ => {}
        }
        self
    }

    /// Returns the mixer with other kernels, where it has kernels.
    pub const fn with_kernels(mut self, kernels: Kernels) -> Self {
        if let Some(own) = self.kernels_mut() {
            *own = kernels;
        }
        self
    }

    /// Returns the mixer with other dilations, where it has dilations.
    pub const fn with_dilations(mut self, list: PerLayer) -> Self {
        if let MixerConfig::Dilated { dilations, .. } = &mut self {
            *dilations = list;
        }
        self
    }

    /// Returns which mixer it is.
    pub const fn kind(&self) -> Mixer {
        match self {
            MixerConfig::Light { .. } => Mixer::Light,
            MixerConfig::Dynamic { .. } => Mixer::Dynamic,
            MixerConfig::Dilated { .. } => Mixer::Dilated,
            MixerConfig::Attention { .. } => Mixer::Attention,
        }
    }

    /// Returns the name in configurations and tables.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Returns whether the receptive field is finite: true of every mixer but attention.
    pub const fn is_conv(&self) -> bool {
        self.kind().is_conv()
    }

    /// Returns the widths and offsets; `None` for mixers without kernels.
    pub const fn kernels(&self) -> Option<&Kernels> {
        match self {
            MixerConfig::Light { kernels, .. }
            | MixerConfig::Dynamic { kernels, .. }
            | MixerConfig::Dilated { kernels, .. } => Some(kernels),
            _ => None,
        }
    }

    /// As [`MixerConfig::kernels`], to be changed.
    pub const fn kernels_mut(&mut self) -> Option<&mut Kernels> {
        match self {
            MixerConfig::Light { kernels, .. }
            | MixerConfig::Dynamic { kernels, .. }
            | MixerConfig::Dilated { kernels, .. } => Some(kernels),
            _ => None,
        }
    }

    /// Returns the kernels per layer that channels share, `H`; 0 for mixers whose channels share none.
    pub const fn kernel_heads(&self) -> usize {
        match self {
            MixerConfig::Light { heads, .. } | MixerConfig::Dynamic { heads, .. } => *heads,
            _ => 0,
        }
    }

    /// Returns the attention heads; 0 for convolutions.
    pub const fn attention_heads(&self) -> usize {
        if let MixerConfig::Attention { heads, .. } = self { *heads } else { 0 }
    }

    /// Returns what layer `i` convolves with; `None` for attention.
    pub const fn convolution(&self, i: usize) -> Option<Convolution> {
        let Some(kernels) = self.kernels() else { return None };
        let dilation = if let MixerConfig::Dilated { dilations, .. } = self { dilations.get(i) } else { 1 };
        Some(Convolution { taps: kernels.sizes.get(i), offset: kernels.offsets.get(i), dilation })
    }

    /// Checks every parameter for `layers` layers of `channels` channels.
    pub(super) fn validate(&self, layers: usize, channels: usize) -> Result<(), ConfigError> {
        if let Some(kernels) = self.kernels() {
            let dilations = if let MixerConfig::Dilated { dilations, .. } = self { dilations.len() } else { layers };
            let lists = [
                ("kernel_sizes", kernels.sizes.len()),
                ("kernel_offsets", kernels.offsets.len()),
                ("dilations", dilations),
            ];
            for (field, got) in lists {
                if got != layers {
                    return Err(ConfigError::LayerCount { field, got, layers });
                }
            }
            for Convolution { taps, offset, dilation } in (0..layers).filter_map(|i| self.convolution(i)) {
                within("kernel_sizes", taps, 1, 255, "1 to 255")?;
                within("kernel_offsets", offset, 0, taps - 1, "less than the kernel width")?;
                within("dilations", dilation, 1, MAX_DILATION, DILATIONS)?;
            }
        }
        match self {
            MixerConfig::Light { heads, .. } | MixerConfig::Dynamic { heads, .. } => {
                divides("kernel_heads", *heads, channels)
            }
            MixerConfig::Attention { heads, buckets, max_distance } => {
                divides("num_attention_heads", *heads, channels)?;
                let (field, expected) = ("relative_attention_num_buckets", "an even number from 4 to 1,024");
                within(field, *buckets, 4, 1024, expected)?;
                if !buckets.is_multiple_of(2) {
                    return Err(ConfigError::Field { field, got: *buckets, expected });
                }
                let expected = "more than a quarter of relative_attention_num_buckets";
                within("relative_attention_max_distance", *max_distance, buckets / 4 + 1, 1 << 20, expected)
            }
            MixerConfig::Dilated { .. } => Ok(()),
        }
    }
}

/// Widths and offsets of kernels, by layer: tap `j` of 0..K reads position `i + (j − offset)·dilation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Kernel widths, `K`.
    pub sizes: PerLayer,
    /// Taps left of the centre, each less than its width.
    pub offsets: PerLayer,
}

impl Kernels {
    /// Returns kernels of the given widths that look both ways, each with [`paper_offset`].
    pub const fn centred(sizes: PerLayer) -> Self {
        let mut offsets = sizes;
        let mut i = 0;
        while i < sizes.len() && i < MAX_LAYERS {
            offsets.values[i] = paper_offset(sizes.get(i)) as u16;
            i += 1;
        }
        Kernels { sizes, offsets }
    }
}

/// Returns the taps to the left of the centre in the paper's eq. 1, where tap `j` of 1..=k reads position `i + j − ⌈(k+1)/2⌉`.
///
/// Fills in [`Kernels::offsets`] when a model is made; afterwards the stored value counts.
pub const fn paper_offset(kernel: usize) -> usize {
    (kernel + 1).div_ceil(2) - 1
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
    /// Returns how many positions to the left are read.
    pub const fn left(&self) -> usize {
        self.offset.saturating_mul(self.dilation)
    }

    /// Returns how many positions to the right are read.
    pub const fn right(&self) -> usize {
        self.taps.saturating_sub(self.offset + 1).saturating_mul(self.dilation)
    }
}

/// One small number per layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerLayer {
    len: u8,
    values: [u16; MAX_LAYERS],
}

impl PerLayer {
    /// The empty list: "not given".
    pub const EMPTY: PerLayer = PerLayer { len: 0, values: [0; MAX_LAYERS] };

    /// Returns a list with the same value for `layers` layers; the length is capped at [`MAX_LAYERS`].
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

    /// Returns the list of `values`; `None` when there are more than [`MAX_LAYERS`].
    pub fn from_slice(values: &[u16]) -> Option<Self> {
        let mut out = Self::EMPTY;
        out.values.get_mut(..values.len())?.copy_from_slice(values);
        out.len = values.len() as u8;
        Some(out)
    }

    /// Returns the values, one per layer.
    pub fn as_slice(&self) -> &[u16] {
        self.values.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Returns the value of layer `i`; 0 beyond the end.
    pub const fn get(&self, i: usize) -> usize {
        if i < self.len() && i < MAX_LAYERS { self.values[i] as usize } else { 0 }
    }

    /// Returns the list with one more value; `None` when it is full.
    pub const fn push(mut self, value: u16) -> Option<Self> {
        let i = self.len();
        if i >= MAX_LAYERS {
            return None;
        }
        self.values[i] = value;
        self.len += 1;
        Some(self)
    }

    /// Returns the number of values.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether no value was given.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for PerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
