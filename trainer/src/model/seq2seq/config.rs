//! Shape of an encoder-decoder, and the names of its weights.

use std::fmt;

use anyhow::{Context, Result, ensure};
use kinglet::spec::{Config, Kernels, Mixer, MixerConfig, Norm, Parameters, PerLayer, Weight};
use serde::{Deserialize, Serialize};

use crate::model::{BlockWeight, ModelConfig, ModelWeight};
use crate::optim::Parameter;

/// Kernel widths of the paper's dilated base model, by layer (Tay et al. 2021, section 5.2.1).
const PAPER_DILATED_WIDTHS: [u16; 12] = [4, 4, 7, 7, 15, 15, 15, 15, 15, 31, 31, 31];
/// Channels of an attention head in the presets: T5's `d_kv` (Raffel et al. 2020, section 3.1.1).
const HEAD_CHANNELS: usize = 64;

/// The shape of an encoder-decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seq2SeqConfig {
    /// The encoder. The decoder's blocks share its mixer, norm, channels and kernel heads. `num_labels` and `pooling`
    /// are ignored.
    pub encoder: ModelConfig,
    /// Decoder blocks.
    pub num_decoder_layers: usize,
    /// Kernel widths of the decoder, by layer; all taps except the last read earlier positions. Empty: those of the
    /// encoder, or of the dialect if it has none either ([`crate::model::Compat`]). Empty for attention.
    #[serde(default = "empty")]
    pub decoder_kernel_sizes: PerLayer,
    /// Distance between taps in the decoder, by layer; 1 unless the mixer is dilated. Empty: those of the encoder.
    #[serde(default = "empty")]
    pub decoder_dilations: PerLayer,
    /// Heads of the encoder-decoder attention and, with the attention mixer, of all self-attention. Must divide
    /// `hidden_size`.
    pub num_attention_heads: usize,
}

fn empty() -> PerLayer {
    PerLayer::EMPTY
}

impl Seq2SeqConfig {
    /// Returns a named size: `nano` (4 + 4 layers, `C` 128, `FF` 512), `small` (6 + 6, 256, 1,024), or `base`, the
    /// paper's (12 + 12, 768, 3,072). Convolutions have the paper's widths; a dilated model with fewer layers takes
    /// every third or second one of the paper's list. `vocab_size` includes the sentinels.
    pub fn preset(name: &str, mixer: Mixer, vocab_size: usize) -> Option<Self> {
        let (layers, hidden_size, intermediate_size) = match name {
            "nano" => (4, 128, 512),
            "small" => (6, 256, 1024),
            "base" => (12, 768, 3072),
            _ => return None,
        };
        let shape = Config::new(mixer, layers, hidden_size);
        let mut shape = Config { vocab_size, intermediate_size, ..shape };
        if mixer == Mixer::Dilated {
            let every: Vec<u16> =
                PAPER_DILATED_WIDTHS.into_iter().step_by(PAPER_DILATED_WIDTHS.len() / layers).collect();
            shape.mixer = shape.mixer.with_kernels(Kernels::centred(PerLayer::from_slice(&every)?));
        }
        let config = Seq2SeqConfig {
            encoder: shape.into(),
            num_decoder_layers: layers,
            decoder_kernel_sizes: PerLayer::EMPTY,
            decoder_dilations: PerLayer::EMPTY,
            num_attention_heads: hidden_size / HEAD_CHANNELS,
        };
        Some(config.resolve())
    }

    /// Fills in omitted fields: the encoder by [`ModelConfig::resolve`], the decoder's widths and dilations by the
    /// encoder's; one value stands for all layers.
    pub fn resolve(mut self) -> Self {
        if let MixerConfig::Attention { heads, .. } = &mut self.encoder.mixer {
            *heads = self.num_attention_heads;
        }
        let sizes = self.encoder.mixer.parameters().kernel_sizes;
        let given = !sizes.is_empty() || !self.decoder_kernel_sizes.is_empty();
        self.encoder = self.encoder.resolve();
        let layers = self.num_decoder_layers;
        if self.encoder.mixer.is_conv() && !given {
            self.decoder_kernel_sizes = self.encoder.compat.widths(layers);
        }
        let encoder = self.encoder.mixer.parameters();
        let lists = [
            (&mut self.decoder_kernel_sizes, &encoder.kernel_sizes),
            (&mut self.decoder_dilations, &encoder.dilations),
        ];
        for (list, encoder) in lists {
            if !self.encoder.mixer.is_conv() {
                *list = PerLayer::EMPTY;
            } else if list.is_empty() {
                *list = *encoder;
            }
            if let [first, rest @ ..] = list.as_slice()
                && rest.iter().all(|value| value == first)
            {
                *list = PerLayer::repeat(*first, layers);
            }
        }
        self
    }

    /// Checks every field and every relation between fields of a resolved configuration.
    ///
    /// # Errors
    /// The first problem found, with its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate_encoder().context("encoder")?;
        let (heads, channels) = (self.num_attention_heads, self.encoder.hidden_size);
        ensure!(
            heads > 0 && channels.is_multiple_of(heads),
            "num_attention_heads is {heads}, must be at least 1 and a divisor of hidden_size ({channels})"
        );
        if let MixerConfig::Attention { heads: encoder, buckets, max_distance: distance } = self.encoder.mixer {
            ensure!(
                encoder == heads,
                "the encoder has {encoder} attention heads, the decoder {heads}; T5 has one number"
            );
            ensure!(
                distance > buckets / 2,
                "relative_attention_max_distance is {distance}, must be more than half of the decoder's {buckets} buckets"
            );
        }
        let own = self.decoder_parameters();
        MixerConfig::from_parameters(self.encoder.mixer.kind(), self.num_decoder_layers, &own).context("decoder")?;
        self.decoder().validate_encoder().context("decoder")
    }

    /// Returns the decoder as a stack of blocks: the encoder's configuration with the decoder's layers and causal
    /// kernels, whose last tap reads the position itself.
    fn decoder_parameters(&self) -> Parameters {
        let mut offsets = PerLayer::EMPTY;
        for &width in self.decoder_kernel_sizes.as_slice() {
            offsets = offsets.push(width.saturating_sub(1)).unwrap_or(offsets);
        }
        Parameters {
            kernel_sizes: self.decoder_kernel_sizes,
            kernel_offsets: offsets,
            dilations: self.decoder_dilations,
            ..self.encoder.mixer.parameters()
        }
    }

    /// Returns the decoder as a stack of blocks: the encoder's configuration with the decoder's layers and causal kernels.
    pub fn decoder(&self) -> ModelConfig {
        let own = self.decoder_parameters();
        let mut decoder = self.encoder.clone();
        decoder.num_hidden_layers = self.num_decoder_layers;
        let kernels = Kernels { sizes: own.kernel_sizes, offsets: own.kernel_offsets };
        decoder.mixer = self.encoder.mixer.clone().with_kernels(kernels).with_dilations(own.dilations);
        decoder
    }

    /// Returns all weights with their shapes, as PyTorch stores them, in the order of the forward pass.
    pub fn weights(&self) -> impl Iterator<Item = (Seq2SeqWeight, Vec<usize>)> {
        let encoder = self.encoder.weights().filter(|(weight, _)| weight.is_encoder());
        let mut all: Vec<_> = encoder.map(|(weight, shape)| (Seq2SeqWeight::Encoder(weight), shape)).collect();
        let (stack, cross) = (self.decoder(), DecoderWeight::CROSS);
        for i in 0..self.num_decoder_layers as u16 {
            let block = stack.block_weights(i).map(|(weight, _)| DecoderWeight::Block(weight));
            let layer = block.chain(cross).map(|weight| Seq2SeqWeight::Decoder(i, weight));
            all.extend(layer.filter_map(|weight| Some((weight, self.shape(weight)?))));
        }
        all.extend(self.shape(Seq2SeqWeight::DecoderFinalNorm).map(|shape| (Seq2SeqWeight::DecoderFinalNorm, shape)));
        all.into_iter()
    }

    /// Returns the shape of a weight, or `None` if this model does not have it.
    pub fn shape(&self, weight: Seq2SeqWeight) -> Option<Vec<usize>> {
        let c = self.encoder.hidden_size;
        match weight {
            Seq2SeqWeight::Encoder(weight) if weight.is_encoder() => self.encoder.shape(weight),
            Seq2SeqWeight::Encoder(_) => None,
            Seq2SeqWeight::DecoderFinalNorm => self.decoder().shape(Weight::FinalNorm),
            Seq2SeqWeight::Decoder(i, _) if usize::from(i) >= self.num_decoder_layers => None,
            Seq2SeqWeight::Decoder(i, weight) => match weight {
                DecoderWeight::Block(weight) => self.decoder().shape(weight.of_layer(i)),
                DecoderWeight::CrossNorm => Some(vec![c]),
                DecoderWeight::CrossNormBias => (self.encoder.norm == Norm::PostLayer).then(|| vec![c]),
                DecoderWeight::CrossQuery
                | DecoderWeight::CrossKey
                | DecoderWeight::CrossValue
                | DecoderWeight::CrossOut => Some(vec![c, c]),
            },
        }
    }

    /// Returns the number of parameters. The embedding, which is also the output matrix, counts once.
    pub fn parameters(&self) -> usize {
        self.weights().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// One weight of a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecoderWeight {
    /// A weight of the mixer, of the feed-forward network or of their norms, as an encoder layer has it.
    Block(BlockWeight),
    /// Queries of the encoder-decoder attention, from the decoder, `[C, C]`. Head `h` has rows `h·C/heads..(h+1)·C/heads`.
    CrossQuery,
    /// Keys, from the encoder, `[C, C]`.
    CrossKey,
    /// Values, from the encoder, `[C, C]`.
    CrossValue,
    /// W_O of the encoder-decoder attention, `[C, C]`.
    CrossOut,
    /// Gain of the encoder-decoder attention's norm, `[C]`.
    CrossNorm,
    /// Shift of that norm, `[C]` (post_layer).
    CrossNormBias,
}

impl DecoderWeight {
    /// The weights of the encoder-decoder attention.
    const CROSS: [DecoderWeight; 6] = {
        use DecoderWeight as D;
        [D::CrossQuery, D::CrossKey, D::CrossValue, D::CrossOut, D::CrossNorm, D::CrossNormBias]
    };
}

/// One weight of an encoder-decoder. `Display` writes its name in `model.safetensors`: encoder weights are named as in
/// a classifier's checkpoint, those of the decoder begin with `decoder.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seq2SeqWeight {
    /// A weight of the encoder; its embedding also serves the decoder's input and output.
    Encoder(ModelWeight),
    /// A weight of a decoder layer.
    Decoder(u16, DecoderWeight),
    /// Gain of the norm after the last decoder layer, `[C]` (pre_rms).
    DecoderFinalNorm,
}

impl fmt::Display for Seq2SeqWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (i, name) = match *self {
            Seq2SeqWeight::Encoder(weight) => return weight.fmt(f),
            Seq2SeqWeight::Decoder(i, DecoderWeight::Block(weight)) => {
                return write!(f, "decoder.{}", weight.of_layer(i));
            }
            Seq2SeqWeight::DecoderFinalNorm => return write!(f, "decoder.{}", Weight::FinalNorm),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossQuery) => (i, "cross.q_proj.weight"),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossKey) => (i, "cross.k_proj.weight"),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossValue) => (i, "cross.v_proj.weight"),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossOut) => (i, "cross.out_proj.weight"),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossNorm) => (i, "cross_norm.weight"),
            Seq2SeqWeight::Decoder(i, DecoderWeight::CrossNormBias) => (i, "cross_norm.bias"),
        };
        write!(f, "decoder.layers.{i}.{name}")
    }
}

impl Parameter for Seq2SeqWeight {
    fn decays(&self) -> bool {
        match *self {
            Seq2SeqWeight::Encoder(weight) => weight.decays(),
            Seq2SeqWeight::Decoder(i, DecoderWeight::Block(weight)) => weight.of_layer(i).decays(),
            Seq2SeqWeight::Decoder(_, DecoderWeight::CrossNorm | DecoderWeight::CrossNormBias)
            | Seq2SeqWeight::DecoderFinalNorm => false,
            Seq2SeqWeight::Decoder(..) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_shapes() {
        for name in ["nano", "small", "base"] {
            for mixer in Mixer::ALL {
                Seq2SeqConfig::preset(name, mixer, 1000).unwrap().validate().unwrap();
            }
        }
        let base = |mixer| Seq2SeqConfig::preset("base", mixer, 32128).unwrap();
        // transformers: T5ForConditionalGeneration of t5-base has 222,903,552 parameters.
        assert_eq!(base(Mixer::Attention).parameters(), 222_903_552);
        assert_eq!(base(Mixer::Dilated).decoder_kernel_sizes.as_slice(), PAPER_DILATED_WIDTHS);
        assert_eq!(base(Mixer::Light).decoder().mixer.parameters().kernel_offsets.as_slice(), [6; 12]);
        let widths =
            |name| Seq2SeqConfig::preset(name, Mixer::Dilated, 9).unwrap().encoder.mixer.parameters().kernel_sizes;
        assert_eq!(widths("nano").as_slice(), [4, 7, 15, 31]);
        assert_eq!(widths("small").as_slice(), [4, 7, 15, 15, 15, 31]);
        assert!(Seq2SeqConfig::preset("huge", Mixer::Light, 9).is_none());
    }

    #[test]
    fn encoder_weights_are_called_as_in_a_classifier_and_no_name_comes_twice() {
        for mixer in Mixer::ALL {
            let config = Seq2SeqConfig::preset("nano", mixer, 300).unwrap();
            let names: Vec<String> = config.weights().map(|(w, _)| w.to_string()).collect();
            let encoder: Vec<String> =
                config.encoder.weights().filter(|(w, _)| w.is_encoder()).map(|(w, _)| w.to_string()).collect();
            assert!(names.starts_with(&encoder));
            assert!(names[encoder.len()..].iter().all(|name| name.starts_with("decoder.")));
            let unique: std::collections::HashSet<&String> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
            for name in ["decoder.layers.3.cross.q_proj.weight", "decoder.layers.0.ffn.up.weight"] {
                assert!(names.iter().any(|n| n == name), "{name}");
            }
        }
    }

    #[test]
    fn norms_and_taps_do_not_decay() {
        let config = Seq2SeqConfig::preset("nano", Mixer::Light, 300).unwrap();
        for (weight, shape) in config.weights() {
            let name = weight.to_string();
            let matrix = shape.len() == 2 && !name.ends_with("kernel");
            assert_eq!(weight.decays(), matrix, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let nano = |mixer| Seq2SeqConfig::preset("nano", mixer, 300).unwrap();
        let refused = |config: Seq2SeqConfig| format!("{:#}", config.resolve().validate().unwrap_err());
        let said = refused(Seq2SeqConfig { num_attention_heads: 5, ..nano(Mixer::Light) });
        assert!(said.contains("num_attention_heads is 5"), "{said}");
        let said = refused(Seq2SeqConfig { num_decoder_layers: 0, ..nano(Mixer::Light) });
        assert!(said.contains("decoder: num_hidden_layers is 0"), "{said}");
        let said = refused(Seq2SeqConfig { num_decoder_layers: 3, ..nano(Mixer::Dilated) });
        assert!(said.contains("decoder: kernel_sizes has 4 values"), "{said}");
        let mut config = nano(Mixer::Attention);
        config.encoder.mixer = MixerConfig::Attention { heads: 2, buckets: 32, max_distance: 16 };
        let said = refused(config);
        assert!(said.contains("relative_attention_max_distance is 16"), "{said}");
    }

    #[test]
    fn a_configuration_comes_back_and_unknown_keys_are_refused() {
        let config = Seq2SeqConfig::preset("small", Mixer::Dilated, 300).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Seq2SeqConfig>(&text).unwrap(), config);
        let text = text.replacen('{', "{\"heads\": 2, ", 1);
        assert!(serde_json::from_str::<Seq2SeqConfig>(&text).is_err());
    }
}
