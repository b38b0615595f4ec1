//! The shape of a model with its dialect, and the names and shapes of its weights.

use std::fmt;
use std::ops::{Deref, DerefMut};

use anyhow::{Result, bail, ensure};
use kinglet::spec::{Config, FlatConfig, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Role, Task, Weight};
use serde::de::{Error, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::dialect::{Compat, DialectWeight, per_layer};
use crate::optim::Parameter;

/// A [`Config`] in a dialect. As JSON and TOML it is one flat object, that of [`Config`].
///
/// In a training configuration widths, offsets and dilations may be left out; [`ModelConfig::resolve`] fills them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// Dialect of the architecture. Export and engines take `paper` alone.
    pub compat: Compat,
    /// Everything else.
    pub base: Config,
}

impl From<Config> for ModelConfig {
    fn from(base: Config) -> Self {
        ModelConfig { compat: Compat::Paper, base }
    }
}

impl Deref for ModelConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.base
    }
}

impl DerefMut for ModelConfig {
    fn deref_mut(&mut self) -> &mut Config {
        &mut self.base
    }
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatConfig::new(&self.base, self.compat.name()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatConfig::deserialize(deserializer)?;
        let compat = Compat::deserialize(IntoDeserializer::<D::Error>::into_deserializer(flat.compat.as_str()))?;
        Ok(ModelConfig { compat, base: flat.config().map_err(D::Error::custom)? })
    }
}

impl ModelConfig {
    /// Fills in what a training configuration may leave out: one width, offset or dilation stands for all layers, none are the
    /// dialect's ([`Compat`]), dilations are 1. `mesh` has a kernel per channel, whatever is given.
    pub fn resolve(mut self) -> Self {
        let (compat, layers, channels) = (self.compat, self.num_hidden_layers, self.hidden_size);
        let spread = |list: PerLayer| match *list.as_slice() {
            [one] => PerLayer::repeat(one, layers),
            _ => list,
        };
        if let Some(Kernels { sizes, offsets }) = self.mixer.kernels_mut() {
            *sizes = if sizes.is_empty() { compat.widths(layers) } else { spread(*sizes) };
            *offsets = spread(*offsets);
            if offsets.is_empty() {
                *offsets = per_layer(sizes.as_slice().iter().map(|&k| compat.offset(usize::from(k)) as u16));
            }
        }
        match &mut self.mixer {
            MixerConfig::Light { heads, .. } | MixerConfig::Dynamic { heads, .. } if compat == Compat::Mesh => {
                *heads = channels;
            }
            MixerConfig::Dilated { dilations, .. } if dilations.is_empty() => *dilations = PerLayer::repeat(1, layers),
            MixerConfig::Dilated { dilations, .. } => *dilations = spread(*dilations),
            _ => {}
        }
        self
    }

    /// Checks every field and every relation between fields.
    ///
    /// # Errors
    /// The first thing found wrong, with its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.validate_dialect()?;
        Ok(self.base.validate()?)
    }

    /// As [`ModelConfig::validate`], for an encoder, which has no head and no `num_labels`.
    ///
    /// # Errors
    /// As [`ModelConfig::validate`].
    pub fn validate_encoder(&self) -> Result<()> {
        ensure!(self.task == Task::Classify, "an encoder has no task: leave task out");
        self.validate_dialect()?;
        Ok(self.base.validate_encoder()?)
    }

    fn validate_dialect(&self) -> Result<()> {
        let (compat, mixer) = (self.compat.name(), self.mixer.kind());
        let Some(norm) = self.compat.norm() else { return Ok(()) };
        ensure!(
            matches!(mixer, Mixer::Light | Mixer::Dynamic),
            "compat \"{compat}\" has no mixer \"{}\": take mixer \"light\" or \"dynamic\", or compat = \"paper\"",
            mixer.name()
        );
        if self.norm != norm {
            let norm = if norm == Norm::PreRms { "pre_rms" } else { "post_layer" };
            bail!("compat \"{compat}\" needs norm = \"{norm}\"");
        }
        let heads = self.mixer.kernel_heads();
        ensure!(
            self.compat != Compat::Mesh || heads == self.hidden_size,
            "kernel_heads is {heads}, must be hidden_size, as compat = \"mesh\" has a kernel a channel"
        );
        Ok(())
    }

    /// Returns all weights with their shapes, as PyTorch stores them, in the order of the forward pass.
    pub fn weights(&self) -> impl Iterator<Item = (ModelWeight, Vec<usize>)> + '_ {
        let with_dialect = |weight: Weight| {
            let (i, more) = match weight {
                Weight::Layer(i, w) => (i, DialectWeight::after(w)),
                _ => (0, &[][..]),
            };
            std::iter::once(ModelWeight::Paper(weight)).chain(more.iter().map(move |&w| ModelWeight::Dialect(i, w)))
        };
        let all = self.base.weights().flat_map(with_dialect);
        all.filter_map(|weight| Some((weight, self.shape(weight)?)))
    }

    /// Returns the weights of layer `i` with their shapes, in the order of the forward pass.
    pub fn block_weights(&self, i: u16) -> impl Iterator<Item = (BlockWeight, Vec<usize>)> + '_ {
        let of_layer = move |weight: &ModelWeight| weight.block().filter(|block| block.of_layer(i) == *weight);
        self.weights().filter_map(move |(weight, shape)| Some((of_layer(&weight)?, shape)))
    }

    /// Returns the shape of a weight; `None` when this model has no such weight.
    pub fn shape(&self, weight: impl Into<ModelWeight>) -> Option<Vec<usize>> {
        match weight.into() {
            ModelWeight::Paper(weight) => self.base.shape(weight).map(|shape| shape.dims().to_vec()),
            ModelWeight::Dialect(i, weight) => weight.shape(self.compat, &self.base, usize::from(i)),
        }
    }

    /// Returns the number of parameters.
    pub fn parameters(&self) -> usize {
        self.weights().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// One weight of a classifier or an encoder, in any dialect. `Display` writes its name in `model.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelWeight {
    /// One that every dialect can have.
    Paper(Weight),
    /// One that a dialect adds to a layer.
    Dialect(u16, DialectWeight),
}

/// One weight of a layer, in any dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockWeight {
    /// One that every dialect can have.
    Paper(LayerWeight),
    /// One that a dialect adds.
    Dialect(DialectWeight),
}

impl BlockWeight {
    /// Returns the weight of layer `i`.
    pub fn of_layer(self, i: u16) -> ModelWeight {
        match self {
            BlockWeight::Paper(weight) => ModelWeight::Paper(Weight::Layer(i, weight)),
            BlockWeight::Dialect(weight) => ModelWeight::Dialect(i, weight),
        }
    }

    /// Returns whether it belongs to the feed-forward network or its norm.
    pub fn is_ffn(self) -> bool {
        use LayerWeight as L;
        matches!(
            self,
            BlockWeight::Paper(L::Up | L::Down | L::FfnNorm | L::FfnNormBias)
                | BlockWeight::Dialect(DialectWeight::UpBias | DialectWeight::DownBias)
        )
    }
}

impl From<LayerWeight> for BlockWeight {
    fn from(weight: LayerWeight) -> Self {
        BlockWeight::Paper(weight)
    }
}

impl From<DialectWeight> for BlockWeight {
    fn from(weight: DialectWeight) -> Self {
        BlockWeight::Dialect(weight)
    }
}

impl From<Weight> for ModelWeight {
    fn from(weight: Weight) -> Self {
        ModelWeight::Paper(weight)
    }
}

impl PartialEq<Weight> for ModelWeight {
    fn eq(&self, other: &Weight) -> bool {
        *self == ModelWeight::Paper(*other)
    }
}

impl ModelWeight {
    /// Returns what the weight is for.
    pub fn role(self) -> Role {
        match self {
            ModelWeight::Paper(weight) => weight.role(),
            ModelWeight::Dialect(_, DialectWeight::Pointwise) => Role::Linear,
            ModelWeight::Dialect(..) => Role::Bias,
        }
    }

    /// Returns which weight of its layer it is; `None` outside layers.
    pub fn block(self) -> Option<BlockWeight> {
        match self {
            ModelWeight::Paper(Weight::Layer(_, weight)) => Some(BlockWeight::Paper(weight)),
            ModelWeight::Dialect(_, weight) => Some(BlockWeight::Dialect(weight)),
            ModelWeight::Paper(_) => None,
        }
    }

    /// Returns whether the weight belongs to the encoder, so that another task can start from it.
    pub fn is_encoder(self) -> bool {
        match self {
            ModelWeight::Paper(weight) => weight.is_encoder(),
            ModelWeight::Dialect(..) => true,
        }
    }
}

impl fmt::Display for ModelWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelWeight::Paper(weight) => weight.fmt(f),
            ModelWeight::Dialect(i, weight) => write!(f, "layers.{i}.{}", weight.name()),
        }
    }
}

impl Parameter for ModelWeight {
    fn decays(&self) -> bool {
        matches!(self.role(), Role::Embedding | Role::Linear)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(compat: Compat, norm: Norm, mixer: Mixer) -> ModelConfig {
        let mixer = MixerConfig::new(mixer, 5).with_kernels(Kernels::centred(PerLayer::EMPTY));
        let sizes = Config { vocab_size: 100, num_labels: 3, intermediate_size: 16, ..Config::new(mixer.kind(), 5, 8) };
        ModelConfig { compat, base: Config { mixer, norm, ..sizes } }.resolve()
    }

    #[test]
    fn dialects_have_their_widths_weights_and_refusals() {
        let mesh = of(Compat::Mesh, Norm::PreRms, Mixer::Dynamic);
        let fairseq = of(Compat::Fairseq, Norm::PostLayer, Mixer::Light);
        mesh.validate().unwrap();
        fairseq.validate().unwrap();
        let sizes = |config: &ModelConfig| config.mixer.kernels().unwrap().sizes;
        assert_eq!((sizes(&mesh), mesh.mixer.kernel_heads()), (PerLayer::repeat(9, 5), 8));
        assert_eq!(sizes(&fairseq).as_slice(), [3, 7, 15, 31, 31]);
        assert_eq!(fairseq.mixer.kernels().unwrap().offsets.as_slice(), [1, 3, 7, 15, 15]);
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
        let mut two = mesh;
        two.mixer = two.mixer.clone().with_heads(2);
        assert!(format!("{}", two.validate().unwrap_err()).contains("kernel_heads is 2, must be hidden_size"));
    }

    #[test]
    fn weights_of_dialects_stand_behind_those_that_they_belong_to() {
        let names = |config: &ModelConfig| -> Vec<String> {
            let mixer = config.weights().map(|(w, _)| w.to_string());
            mixer.filter_map(|name| name.strip_prefix("layers.0.").map(str::to_owned)).collect()
        };
        assert_eq!(
            names(&of(Compat::Mesh, Norm::PreRms, Mixer::Dynamic)),
            [
                "mixer.in_proj.weight",
                "mixer.in_proj.bias",
                "mixer.gate_proj.weight",
                "mixer.gate_proj.bias",
                "mixer.kernel_proj.weight",
                "mixer.kernel_proj.bias",
                "mixer.kernel_bias",
                "mixer.pointwise.weight",
                "mixer.pointwise.bias",
                "mixer.out_proj.weight",
                "mixer.out_proj.bias",
                "mixer_norm.weight",
                "ffn.up.weight",
                "ffn.down.weight",
                "ffn_norm.weight",
            ]
        );
        assert_eq!(
            names(&of(Compat::Fairseq, Norm::PostLayer, Mixer::Light))[..6],
            [
                "mixer.in_proj.weight",
                "mixer.in_proj.bias",
                "mixer.gate_proj.weight",
                "mixer.gate_proj.bias",
                "mixer.kernel",
                "mixer.out_proj.weight",
            ]
        );
    }

    #[test]
    fn files_hold_one_flat_object_with_the_dialect() {
        let mesh = of(Compat::Mesh, Norm::PreRms, Mixer::Light);
        let text = serde_json::to_string(&mesh).unwrap();
        assert!(text.starts_with(r#"{"format_version":1,"mixer":"light","compat":"mesh","norm":"pre_rms","#), "{text}");
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), mesh);
        let said = serde_json::from_str::<ModelConfig>(&text.replace("mesh", "jax")).unwrap_err().to_string();
        assert!(said.contains("unknown variant `jax`, expected one of `paper`, `mesh`, `fairseq`"), "{said}");
        assert!(serde_json::from_str::<ModelConfig>(&text.replace("compat", "dialect")).is_err());
    }
}
