//! The native engine computes what `model.int8.onnx` says: the same models and texts through the bundle and through tract.
//!
//! Integer sums are exact in both. Norms, sigmoids and softmaxes round differently in the last bits, and tract multiplies by `1/s`
//! where the rule divides by `s`, so an activation that lies between two integers may fall on either side; such a step
//! of 1/127 of a row's largest value then runs through the rest of the model.

use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::multi_label::Decision;
use kinglet::spec::{Config, Kernels, Mixer, Norm, PerLayer, Pooling};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_export::{bundle, onnx};
use kinglet_onnx::{Precision, TractModel};

use crate::fixture::{self, Random};
use crate::reference;

/// Every convolutional kind of model in four shapes: widths even and odd and of one tap, wider than the texts, at any
/// offset; dilations where the mixer has them; channels that fill no panel.
fn configs() -> Vec<Config> {
    let mut out = Vec::new();
    for mixer in Mixer::convolutions() {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            for pooling in [Pooling::Mean, Pooling::Max] {
                let plain = fixture::config(mixer, norm, pooling);
                for (channels, widths, offsets, dilations) in [
                    (24, [4, 7], [2, 3], [1, 1]),
                    (24, [7, 4], [0, 3], [1, 3]),
                    (33, [1, 8], [0, 4], [4, 2]),
                    (18, [15, 2], [7, 1], [2, 1]),
                ] {
                    let list = |values: [u16; 2]| PerLayer::from_slice(&values).unwrap();
                    let config = Config {
                        hidden_size: channels,
                        mixer: plain
                            .mixer
                            .clone()
                            .with_kernels(Kernels { sizes: list(widths), offsets: list(offsets) })
                            .with_dilations(list(dilations)),
                        ..plain.clone()
                    };
                    config.validate().unwrap();
                    out.push(config);
                }
            }
        }
    }
    out
}

fn texts(config: &Config) -> Vec<Vec<u32>> {
    let mut random = Random(11);
    let mut text = |n| (0..n).map(|_| random.below(config.vocab_size) as u32).collect();
    [1, 2, 5, 16, 33, 48, 49, 64, 100].map(&mut text).into()
}

fn label(scores: &[f32]) -> usize {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

/// How far two sets of scores are apart, text by text.
#[derive(Default)]
struct Differences {
    each: Vec<f64>,
}

impl Differences {
    fn add(&mut self, a: &[f32], b: &[f64]) {
        self.each.push(a.iter().zip(b).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max));
    }

    /// At most one text in fifty differs by more than rounding, none by more than `bound`.
    fn check(&self, of: &str, bound: f64) {
        let apart = self.each.iter().filter(|&&d| d > 1e-5).count();
        let largest = self.each.iter().copied().fold(0.0, f64::max);
        println!("native and {of}: {apart} of {} texts differ, by up to {largest:.1e}", self.each.len());
        assert!(apart * 50 <= self.each.len(), "{of}: {apart} of {} texts differ", self.each.len());
        assert!(largest <= bound, "{of}: a text differs by {largest}");
    }
}

/// The bound is twice what was measured on these 432 texts, whose scores have a standard deviation of about 1.
#[test]
fn the_native_engine_gives_the_scores_and_labels_of_the_int8_file() {
    let (mut tract, mut formulas) = (Differences::default(), Differences::default());
    let (mut flips, mut deviation) = (0, 0.0);
    for (seed, config) in configs().into_iter().enumerate() {
        let weights = fixture::weights(&config, seed as u64);
        let dir = tempfile::tempdir().unwrap();
        fixture::write(dir.path(), &config, &weights);
        let (checkpoint, weights_read) = Checkpoint::read(dir.path()).unwrap();
        let model = Prepared::new(&config, weights_read);
        let bytes = Buffer::new(&bundle::file(&checkpoint, &model, Decision::default()).unwrap().unwrap());
        let mut scratch = vec![0; scratch_bytes(&config, DEFAULT_CHUNK)];
        let mut native = NativeEngine::new(Bundle::new(bytes.as_slice()).unwrap(), &mut scratch).unwrap();
        let mut other =
            TractModel::from_bytes(&onnx::file(&checkpoint, &model, Precision::Int8).unwrap()).unwrap().engine();
        for text in texts(&config) {
            let (mut got, mut want) = (vec![0.0; config.num_labels], vec![0.0; config.num_labels]);
            native.logits(&text, &mut got).unwrap();
            other.logits(&text, &mut want).unwrap();
            flips += usize::from(label(&got) != label(&want));
            tract.add(&got, &want.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            formulas.add(&got, &reference::logits(&config, &weights, &text, reference::Precision::Int8));
            let mean = got.iter().sum::<f32>() / got.len() as f32;
            deviation += got.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / got.len() as f32;
        }
    }
    println!("scores have a standard deviation of {:.2}", (deviation / tract.each.len() as f32).sqrt());
    println!("backend: {}", Backend::detect().name());
    tract.check("tract", 0.025);
    formulas.check("the formulas in f64", 0.025);
    assert_eq!(flips, 0, "labels differ");
}
