//! The contract between trainer, export and engines: what a checkpoint directory holds.
//!
//! The trainer writes it, export reads it, the engines are built from it. Configuration fields, weight names, shapes,
//! roles and file names are defined here and nowhere else.
//!
//! # The directory
//!
//! | file | content |
//! |---|---|
//! | [`files::CONFIG`] | [`Config`] as JSON |
//! | [`files::TOKENIZER`] | Hugging Face `tokenizers` file |
//! | [`files::TOKENIZER_TABLE`] | the flat table of [`crate::tokenizer`] |
//! | [`files::WEIGHTS`] | safetensors, f32 or f16, named by [`Weight`] |
//! | [`files::NGRAMS`] | only with [`Config::ngrams`] = `G` above 0: safetensors, `tokens` `[G, 2]` i64, `weight` `[G, num_labels]` f32, `norm` `[G]` f32, `bias` `[num_labels]` f32 ([the scores](#the-n-grams)) |
//! | [`files::LABELS`] | JSON array of label names, by class index; a model that embeds ([`Task::Embed`]) has none |
//! | [`files::GOLDEN`] | safetensors: `input_ids` and `attention_mask` `[N, T]` i64, [`Task::output`] `[N, num_labels]` f32 (PyTorch, f32, CPU) |
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
//! logits   = pool(Y)·W_head + b_head + n-grams            a model that embeds returns logits / ‖logits‖
//! ```
//!
//! There are no biases but in the head and in `LayerNorm`. Both norms use eps = 1e-6. Outside the sequence everything is zero:
//! masked positions are set to zero before the convolution reads them. The products are written for row vectors; weights are
//! stored `[out, in]` as PyTorch does. The trainer knows dialects that differ from this one; export and the engines do not.
//!
//! # The n-grams
//!
//! A linear classifier beside the encoder, as the wide part of Cheng et al. 2016 ("Wide & Deep Learning for Recommender Systems"), of the `G`
//! tokens and pairs of neighbouring tokens that say most:
//!
//! ```text
//! n-grams = bias + Σ_g n_g·weight[g] / √(Σ_g n_g·norm[g])        bias where no n-gram occurs
//! ```
//!
//! `n_g` is how often n-gram `g` occurs, `norm` the square of its inverse document frequency, by which its `weight` is multiplied already, so
//! that a text's length hardly matters. Export adds `bias` to that of the head. `tokens` has the two ids of a pair, of a single token −1 and its id; rows ascend, no two are the same,
//! and single tokens come last.
//!

#[cfg(feature = "std")]
mod buckets;
mod config;
mod error;
#[cfg(feature = "serde")]
mod flat;
mod labels;
mod mixer;
mod names;
mod weights;

#[cfg(feature = "std")]
pub use buckets::{relative_bucket, relative_bucket_causal, relative_reach};
pub use config::{Config, MAX_NGRAMS, MAX_RECEPTIVE_FIELD, NORM_EPS, Norm, Pooling, Task};
pub use error::ConfigError;
#[cfg(feature = "serde")]
pub use flat::{FlatConfig, PAPER};
#[cfg(feature = "std")]
pub use labels::check_labels;
pub use labels::{LabelFault, check_label};
pub use mixer::{Convolution, Kernels, MAX_LAYERS, Mixer, MixerConfig, Parameters, PerLayer, paper_offset};
pub use names::{FORMAT_VERSION, files, graph, metadata, operator};
pub use weights::{LayerWeight, Role, Row, Shape, Storage, Weight};

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec::Vec};

    pub(super) fn light() -> Config {
        let sizes = Config { vocab_size: 100, num_labels: 3, ..Config::new(Mixer::Light, 2, 8) };
        Config { intermediate_size: 16, ..sizes }
    }

    fn with(mixer: MixerConfig) -> Config {
        Config { mixer, ..light() }
    }

    #[test]
    fn the_paper_centres_the_kernel_with_the_ceiling() {
        assert_eq!([1, 3, 4, 7, 31].map(paper_offset), [0, 1, 2, 3, 15]);
    }

    #[test]
    fn the_papers_dilated_list_has_the_receptive_field_of_the_reference() {
        let widths = [4, 4, 7, 7, 15, 15, 15, 15, 15, 31, 31, 31];
        let mut c = Config { vocab_size: 100, num_labels: 3, ..Config::new(Mixer::Dilated, 12, 8) };
        c.mixer = c.mixer.with_kernels(Kernels::centred(PerLayer::from_slice(&widths).unwrap()));
        c.validate().unwrap();
        assert_eq!((c.receptive_field(), c.look_ahead()), (Some(179), Some(88)));
    }

    #[test]
    fn weights_have_names_and_shapes() {
        let c = light();
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
        let ok = light();
        let kernels = Kernels::centred(PerLayer::repeat(7, 2));
        let attention = |heads| Config {
            mixer: MixerConfig::new(Mixer::Attention, 2).with_heads(heads),
            norm: Norm::PreRms,
            ..ok.clone()
        };
        attention(2).validate().unwrap();
        let wide = with(MixerConfig::Dilated { kernels, dilations: PerLayer::repeat(682, 2) });
        assert!(wide.receptive_field() == Some(8185) && wide.validate().is_ok());
        let bad = [
            Config { hidden_size: 9, ..ok.clone() },
            Config { hidden_size: 0, ..ok.clone() },
            Config { num_hidden_layers: 3, ..ok.clone() },
            Config { num_hidden_layers: 49, ..ok.clone() },
            with(ok.mixer.clone().with_heads(0)),
            with(ok.mixer.clone().with_kernels(Kernels { offsets: PerLayer::repeat(7, 2), ..kernels })),
            with(MixerConfig::Dilated { kernels, dilations: PerLayer::repeat(2, 1) }),
            with(MixerConfig::Dilated { kernels, dilations: PerLayer::repeat(4097, 2) }),
            // A receptive field of 2 · 6 · 683 + 1 = 8,197 tokens.
            with(MixerConfig::Dilated { kernels, dilations: PerLayer::repeat(683, 2) }),
            Config { format_version: 2, ..ok.clone() },
            Config { norm: Norm::PostLayer, ..attention(2) },
            attention(0),
            attention(3),
            Config { num_labels: 1, ..ok },
        ];
        for c in bad {
            assert!(c.validate().is_err(), "{c:?}");
        }
    }

    #[test]
    fn a_mixer_takes_its_own_parameters_and_refuses_dilations_that_it_does_not_have() {
        let given = Parameters { num_attention_heads: 4, dilations: PerLayer::repeat(2, 2), ..Parameters::DEFAULT };
        for mixer in Mixer::ALL {
            let config = MixerConfig::new(mixer, 2).with_heads(4);
            assert_eq!(MixerConfig::from_parameters(mixer, 2, &config.parameters()), Ok(config));
            let said = MixerConfig::from_parameters(mixer, 2, &given).map_err(|error| format!("{error}"));
            if let Mixer::Light | Mixer::Dynamic = mixer {
                assert!(said.unwrap_err().contains("dilations is 2, must be 1"));
            } else {
                assert!(said.is_ok());
            }
        }
        let long = Parameters { dilations: PerLayer::repeat(1, 3), ..Parameters::DEFAULT };
        let said = format!("{}", MixerConfig::from_parameters(Mixer::Light, 2, &long).unwrap_err());
        assert_eq!(said, "dilations has 3 values, must have one for each of the 2 layers");
    }

    #[cfg(feature = "std")]
    #[test]
    fn kernels_of_light_convolutions_are_folded_and_others_are_not() {
        let kernel = Weight::Layer(0, LayerWeight::Kernel);
        let fold = |config: &Config, mut values: Vec<f32>| {
            config.row(kernel).unwrap().storage.fold(&mut values, 7);
            values
        };
        let taps = [0.0, 0.0, 1000.0, 0.0, 0.0, 0.0, 0.0].repeat(2);
        assert_eq!(fold(&light(), taps.clone()), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0].repeat(2));
        assert_eq!(fold(&light(), std::vec![3.0; 14]), [(1.0f64 / 7.0) as f32; 14]);
        assert_eq!(fold(&with(MixerConfig::new(Mixer::Dilated, 2)), taps.clone()), taps);
    }

    #[test]
    fn every_layer_weight_has_a_row_and_no_name_comes_twice_in_a_model() {
        for mixer in Mixer::ALL {
            let c = Config { norm: Norm::PreRms, ..with(MixerConfig::new(mixer, 2).with_heads(4)) };
            let mut names: Vec<String> = c.weights().map(|w| format!("{w}")).collect();
            assert!(c.weights().all(|w| c.row(w).is_some_and(|row| row.role == w.role())));
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", mixer.name());
        }
    }
}
