//! The student of a distillation: an encoder, the mean over its tokens, and a map to the width of the teacher's vectors. With the
//! map as its head it is a model that embeds.
//!
//! Its blocks start with residual branches of zero: the pooled vector is then that of the embedding alone (behind the last
//! norm, if there is one), and random branches do not disturb a good embedding. Under `pre_rms` the last matrix of each
//! sublayer is zero. Under `post_layer` a norm follows the matrix, which would raise an output near zero to full size after
//! the first step: there the norm's gain is zero.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::{LayerWeight, Norm, Pooling, Task, Weight};
use tch::{Device, Kind, Tensor};

use super::config::{ModelConfig, ModelWeight};
use super::dialect::Compat;
use super::encoder::Encoder;
use super::init;
use super::mode::Mode;
use super::pooling::pool;
use crate::optim::Parameter;

/// One weight of a student. `Display` writes its name in saved states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StudentWeight {
    /// One of the encoder.
    Encoder(ModelWeight),
    /// The matrix of the map, `[D, C]`.
    Map,
    /// The bias of the map, `[D]`.
    MapBias,
}

impl fmt::Display for StudentWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StudentWeight::Encoder(weight) => weight.fmt(f),
            StudentWeight::Map => f.write_str("map.weight"),
            StudentWeight::MapBias => f.write_str("map.bias"),
        }
    }
}

impl Parameter for StudentWeight {
    fn decays(&self) -> bool {
        match self {
            StudentWeight::Encoder(weight) => weight.decays(),
            // Vectors are compared by their direction, so a smaller map is the same map.
            StudentWeight::Map | StudentWeight::MapBias => false,
        }
    }
}

/// How much of the encoder is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The embedding and the last norm, if there is one: what the whole encoder returns while its branches are zero.
    Static,
    /// Everything.
    Whole,
}

/// A student on one device. `C` is the encoder's width, `D` that of the teacher's vectors.
#[derive(Debug)]
pub struct Student {
    config: ModelConfig,
    device: Device,
    parameters: Vec<(StudentWeight, Tensor)>,
    encoder: Encoder,
    /// The encoder without its blocks.
    shallow: Encoder,
    map: (Tensor, Tensor),
}

impl Student {
    /// Creates a student for vectors of `width` values, with weights drawn from `seed` and residual branches of zero.
    ///
    /// # Errors
    /// If the vectors cannot be those of a model that embeds, or the configuration is not that of an encoder ([`ModelConfig::validate_encoder`]), or of another dialect than the
    /// paper's, in which branches of zero are not the identity.
    pub fn new(config: &ModelConfig, width: usize, seed: i64, device: Device) -> Result<Self> {
        config.validate_encoder().context("model configuration")?;
        embedder(config, width).validate().with_context(|| format!("the teacher's vectors have {width} values"))?;
        if config.compat != Compat::Paper {
            bail!("compat is \"{}\", must be \"paper\", the dialect that devices run", config.compat.name());
        }
        let mut weights = Vec::new();
        for (index, (weight, shape)) in config.weights().filter(|(weight, _)| weight.is_encoder()).enumerate() {
            let draw =
                if silenced(config.norm, weight) { init::Draw::Constant(0.0) } else { init::draw(config, weight) };
            weights.push((StudentWeight::Encoder(weight), init::tensor(draw, &shape, index, seed)));
        }
        let index = weights.len();
        weights.push((
            StudentWeight::Map,
            init::tensor(init::Draw::Normal(1.0), &[width, config.hidden_size], index, seed),
        ));
        weights.push((StudentWeight::MapBias, init::tensor(init::Draw::Constant(0.0), &[width], index + 1, seed)));

        let parameters = super::masters(weights, device);
        let find = |weight| parameters.iter().find(|(w, _)| *w == weight).map(|(_, t)| t.shallow_clone());
        let encoder = Encoder::new(config, |weight| find(StudentWeight::Encoder(weight)))?;
        let mut no_blocks = config.clone();
        no_blocks.num_hidden_layers = 0;
        let no_bias = Weight::Layer(0, LayerWeight::RelativeBias);
        let shallow =
            Encoder::new(
                &no_blocks,
                |weight| {
                    if weight == no_bias { None } else { find(StudentWeight::Encoder(weight)) }
                },
            )?;
        let map = |weight| find(weight).with_context(|| format!("the student has no {weight}"));
        let map = (map(StudentWeight::Map)?, map(StudentWeight::MapBias)?);
        Ok(Student { config: config.clone(), device, parameters, encoder, shallow, map })
    }

    /// Returns the encoder's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the device that the weights are on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the width `D` of the teacher's vectors.
    pub fn width(&self) -> usize {
        self.map.1.numel()
    }

    /// Returns the master weights, f32 with `requires_grad`: those of the encoder, then the map.
    pub fn parameters(&self) -> &[(StudentWeight, Tensor)] {
        &self.parameters
    }

    /// Returns the weights of the encoder.
    pub fn encoder_weights(&self) -> impl Iterator<Item = (ModelWeight, &Tensor)> {
        self.parameters.iter().filter_map(|(weight, tensor)| match weight {
            StudentWeight::Encoder(weight) => Some((*weight, tensor)),
            StudentWeight::Map | StudentWeight::MapBias => None,
        })
    }

    /// Returns the configuration of the model that embeds with the student's weights.
    pub fn embedder_config(&self) -> ModelConfig {
        embedder(&self.config, self.width())
    }

    /// Returns all weights under their names in the model that embeds: the map is its head.
    pub fn embedder_weights(&self) -> impl Iterator<Item = (ModelWeight, &Tensor)> {
        self.parameters.iter().map(|(weight, tensor)| match weight {
            StudentWeight::Encoder(weight) => (*weight, tensor),
            StudentWeight::Map => (Weight::HeadWeight.into(), tensor),
            StudentWeight::MapBias => (Weight::HeadBias.into(), tensor),
        })
    }

    /// Copies `values` into a weight of the student.
    ///
    /// # Errors
    /// If the student has no such weight, or of another shape.
    pub fn set(&self, weight: StudentWeight, values: &Tensor) -> Result<()> {
        let found = self.parameters.iter().find(|(w, _)| *w == weight);
        let (_, tensor) = found.with_context(|| format!("the student has no {weight}"))?;
        let (shape, given) = (tensor.size(), values.size());
        ensure!(shape == given, "{weight} is {shape:?}, was given {given:?}");
        tch::no_grad(|| tensor.shallow_clone().f_copy_(values)).with_context(|| format!("copying {weight}"))
    }

    /// Returns the mean token vector of each text, `[B, C]` f32. Inputs as in [`Encoder::forward`].
    pub fn pooled(&self, ids: &Tensor, mask: &Tensor, depth: Depth, mode: &Mode) -> Tensor {
        let encoder = match depth {
            Depth::Static => &self.shallow,
            Depth::Whole => &self.encoder,
        };
        let positions = mask.to_kind(Kind::Float).unsqueeze(-1);
        pool(&encoder.forward(ids, mask, mode), &positions, Pooling::Mean)
    }

    /// Returns the vector of each text in the teacher's space, `[B, D]` f32, of any length. Inputs as in
    /// [`Encoder::forward`].
    pub fn forward(&self, ids: &Tensor, mask: &Tensor, depth: Depth, mode: &Mode) -> Tensor {
        let (weight, bias) = &self.map;
        self.pooled(ids, mask, depth, mode).linear(weight, Some(bias))
    }
}

/// Returns the configuration of a model that embeds into `width` values with an encoder. Students pool by the mean, whatever their
/// configuration says of the pooling that a classifier would have.
fn embedder(encoder: &ModelConfig, width: usize) -> ModelConfig {
    let mut config = encoder.clone();
    (config.task, config.pooling, config.num_labels) = (Task::Embed, Pooling::Mean, width);
    config
}

/// Returns whether a weight starts at zero, so that its residual branch does.
fn silenced(norm: Norm, weight: ModelWeight) -> bool {
    use LayerWeight as L;
    let ModelWeight::Paper(Weight::Layer(_, weight)) = weight else { return false };
    match norm {
        Norm::PreRms => matches!(weight, L::Out | L::Down),
        Norm::PostLayer => matches!(weight, L::MixerNorm | L::FfnNorm),
    }
}

#[cfg(test)]
mod tests {
    use kinglet::spec::{Config, Mixer, MixerConfig};

    use super::*;
    use crate::batch::Batch;

    fn shape(mixer: Mixer, norm: Norm) -> ModelConfig {
        let sizes = Config { vocab_size: 50, intermediate_size: 24, norm, ..Config::new(mixer, 2, 16) };
        let mixer = MixerConfig::new(mixer, 2).with_heads(4);
        ModelConfig::from(Config { mixer, ..sizes }).resolve()
    }

    fn batch() -> Batch {
        Batch::new(&[&[7, 30, 1], &[9, 8, 44, 20, 1]], Device::Cpu)
    }

    #[test]
    fn a_new_student_is_its_embedding_for_every_mixer_and_norm() {
        for (mixer, norm) in [
            (Mixer::Light, Norm::PostLayer),
            (Mixer::Light, Norm::PreRms),
            (Mixer::Dynamic, Norm::PostLayer),
            (Mixer::Dynamic, Norm::PreRms),
            (Mixer::Dilated, Norm::PostLayer),
            (Mixer::Dilated, Norm::PreRms),
            (Mixer::Attention, Norm::PreRms),
        ] {
            let student = Student::new(&shape(mixer, norm), 6, 3, Device::Cpu).unwrap();
            let Batch { ids, mask, .. } = batch();
            let of = |depth| student.forward(&ids, &mask, depth, &Mode::eval());
            let whole = of(Depth::Whole);
            assert_eq!(whole.size(), [2, 6]);
            assert!(whole == of(Depth::Static), "{} {norm:?}", mixer.name());

            // Every branch has a gradient through the weight that is zero, so it leaves zero.
            whole.square().sum(Kind::Float).backward();
            for (weight, tensor) in student.parameters() {
                if let StudentWeight::Encoder(model) = weight
                    && silenced(norm, *model)
                {
                    assert_eq!(tensor.detach().abs().max().double_value(&[]), 0.0, "{weight}");
                    assert!(tensor.grad().abs().max().double_value(&[]) > 0.0, "{} {weight}", mixer.name());
                }
            }
        }
    }

    #[test]
    fn the_model_that_embeds_is_the_student() {
        let mut config = shape(Mixer::Dynamic, Norm::PreRms);
        config.pooling = Pooling::Max;
        let student = Student::new(&config, 6, 3, Device::Cpu).unwrap();
        for (_, tensor) in student.parameters() {
            let _ = tch::no_grad(|| tensor.shallow_clone().g_add_(&tensor.randn_like().g_mul_scalar(0.1)));
        }
        let weights = student.embedder_weights().map(|(weight, tensor)| (weight, tensor.detach())).collect();
        let config = student.embedder_config();
        assert_eq!((config.task, config.pooling, config.num_labels), (Task::Embed, Pooling::Mean, 6));
        let model = crate::model::Classifier::from_weights(&config, weights, Device::Cpu).unwrap();
        let Batch { ids, mask, .. } = batch();
        let mode = Mode::eval();
        assert!(model.forward(&ids, &mask, &mode) == student.forward(&ids, &mask, Depth::Whole, &mode));
        for width in [0, 1, 65537] {
            let said = format!("{:#}", Student::new(student.config(), width, 3, Device::Cpu).unwrap_err());
            assert!(
                said.contains(&format!("vectors have {width} values: num_labels is {width}, must be 2 to 65,536")),
                "{said}"
            );
        }
    }

    #[test]
    fn other_dialects_and_wrong_shapes_are_refused() {
        let mut config = shape(Mixer::Light, Norm::PreRms);
        let student = Student::new(&config, 6, 3, Device::Cpu).unwrap();
        let said = student.set(StudentWeight::MapBias, &Tensor::zeros([7], (Kind::Float, Device::Cpu))).unwrap_err();
        assert_eq!(said.to_string(), "map.bias is [6], was given [7]");
        config.compat = Compat::Mesh;
        let config = config.resolve();
        let said = Student::new(&config, 6, 3, Device::Cpu).unwrap_err().to_string();
        assert!(said.contains("must be \"paper\""), "{said}");
    }
}
