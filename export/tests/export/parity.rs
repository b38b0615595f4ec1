//! Exported models compute the formulas, whatever surrounds a text.

use kinglet::engine::Engine;
use kinglet::spec::{Config, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Pooling, Weight};
use kinglet_onnx::{Precision, SHORTEST_PLAN};

use crate::fixture::{self, exported};
use crate::reference;

fn name(config: &Config) -> String {
    format!("{} {:?} {:?}", config.mixer.name(), config.norm, config.pooling)
}

fn max_difference(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max)
}

/// Differences between int8 scores of texts that should be equal.
#[derive(Default)]
struct Differences(Vec<f64>);

impl Differences {
    fn add(&mut self, difference: f64) {
        self.0.push(difference);
    }

    /// Asserts close agreement for nine texts in ten and rough agreement for all: one activation off by one step moves
    /// a score by about 0.01.
    fn check(&self) {
        let apart = self.0.iter().filter(|&&d| d > 1e-5).count();
        let largest = self.0.iter().copied().fold(0.0, f64::max);
        println!("{apart} of {} texts differ, by up to {largest:.1e}", self.0.len());
        assert!(apart * 10 <= self.0.len(), "{apart} of {} texts differ", self.0.len());
        assert!(largest < 0.05, "a text differs by {largest}");
    }
}

/// The smallest possible model, worked out by hand: one channel, one layer, two tokens, a kernel of one tap.
#[test]
fn a_model_of_one_channel_gives_the_number_worked_out_by_hand() {
    let mut config = fixture::config(Mixer::Dilated, Norm::PreRms, Pooling::Mean);
    config.hidden_size = 1;
    config.intermediate_size = 1;
    config.num_hidden_layers = 1;
    config.num_labels = 2;
    config.mixer = MixerConfig::new(Mixer::Dilated, 1).with_kernels(Kernels::centred(PerLayer::repeat(1, 1)));
    config.validate().unwrap();
    let mut weights = fixture::weights(&config, 0);
    for (weight, values) in &mut weights {
        values.fill(match weight {
            Weight::Embedding => 3.0,
            Weight::Layer(_, LayerWeight::In) => 2.0,
            Weight::Layer(_, LayerWeight::Gate) => 0.0,
            Weight::Layer(_, LayerWeight::Kernel) => 5.0,
            Weight::HeadBias => 0.25,
            _ => 1.0,
        });
    }
    // One channel: RmsNorm returns 1. Mixer: 1·2·sigmoid(0)·5 = 5. A = 3 + 5 = 8; Y = 8 + relu(1) = 9; the final norm
    // returns 1 again; the head adds 0.25.
    let mut got = [0.0; 2];
    exported(&config, &weights, Precision::Fp32).engine().logits(&[9, 300], &mut got).unwrap();
    assert!(got.iter().all(|x| (x - 1.25).abs() < 1e-6), "{got:?}");
}

#[test]
fn every_float32_model_computes_the_formulas() {
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let weights = fixture::weights(&config, seed as u64);
        let mut engine = exported(&config, &weights, Precision::Fp32).engine();
        let mut got = vec![0.0; config.num_labels];
        for text in fixture::texts(&config) {
            engine.logits(&text, &mut got).unwrap();
            let want = reference::logits(&config, &weights, &text, reference::Precision::Exact);
            let difference = max_difference(&got, &want);
            assert!(difference < 1e-4, "{}, {} tokens: {got:?} is not {want:?}", name(&config), text.len());
        }
    }
}

/// Integer sums are exact in both, but norms, sigmoids, and softmaxes round differently in f32 and f64, so an
/// activation between two integers occasionally falls on the other side.
#[test]
fn every_int8_model_computes_the_int8_rule() {
    let mut differences = Differences::default();
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let weights = fixture::weights(&config, seed as u64);
        let mut engine = exported(&config, &weights, Precision::Int8).engine();
        let mut got = vec![0.0; config.num_labels];
        for text in fixture::texts(&config) {
            engine.logits(&text, &mut got).unwrap();
            let want = reference::logits(&config, &weights, &text, reference::Precision::Int8);
            differences.add(max_difference(&got, &want));
        }
    }
    differences.check();
}

/// Compares texts in one batch, with more padding than an engine would add, with each text alone. Sums of another
/// length and vectors split elsewhere round differently in the last bit, which can push an int8 activation over an
/// edge.
#[test]
fn neither_padding_nor_other_texts_change_the_answer() {
    let mut differences = Differences::default();
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let weights = fixture::weights(&config, seed as u64);
        let mut texts = fixture::texts(&config);
        texts.push(vec![5; 70]);
        let (_, ids, mask) = fixture::padded(&texts);
        for precision in [Precision::Fp32, Precision::Int8] {
            let mut engine = exported(&config, &weights, precision).engine();
            let together = engine.logits_batch(&ids, &mask, texts.len()).unwrap();
            for (text, together) in texts.iter().zip(together.chunks(config.num_labels)) {
                let mut alone = vec![0.0; config.num_labels];
                engine.logits(text, &mut alone).unwrap();
                let together: Vec<f64> = together.iter().map(|&x| f64::from(x)).collect();
                let difference = max_difference(&alone, &together);
                if precision == Precision::Fp32 {
                    assert!(difference < 1e-5, "{}: {alone:?}, together {together:?}", name(&config));
                } else {
                    differences.add(difference);
                }
            }
        }
    }
    differences.check();
}

/// Padding is not read: other ids there produce the same bits.
#[test]
fn ids_behind_the_mask_are_not_read() {
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let weights = fixture::weights(&config, seed as u64);
        let mut mask = vec![1; 5];
        mask.resize(SHORTEST_PLAN, 0);
        let mut ids: Vec<i64> = (3..3 + SHORTEST_PLAN as i64).collect();
        for precision in [Precision::Fp32, Precision::Int8] {
            let mut engine = exported(&config, &weights, precision).engine();
            let first = engine.logits_batch(&ids, &mask, 1).unwrap();
            ids[5..].fill(77);
            assert_eq!(first, engine.logits_batch(&ids, &mask, 1).unwrap(), "{} {precision}", name(&config));
        }
    }
}
