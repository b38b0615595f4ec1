//! Random models and texts, the same on every machine: integers from a seeded generator, and of floats only what IEEE 754
//! rounds correctly.

use std::collections::HashMap;

use kinglet::backend::Backend;
use kinglet::bundle::{self, Buffer, NGramTable, Parts};
use kinglet::engine::native::{BorrowedEngine, NativeEngine, scratch_bytes};
use kinglet::multi_label::Decision;
use kinglet::spec::{
    Config, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Pooling, Role, Storage, Task, Weight,
};
use kinglet::tokenizer::{Normalization, Table};
pub use kinglet_testing::Random;

/// A table of the pieces that every table has, and a few words.
pub fn tokenizer() -> Vec<u8> {
    let mut pieces: Vec<(String, i16)> = (b'!'..=b'~')
        .filter(|byte| !byte.is_ascii_uppercase())
        .map(|byte| (char::from(byte).to_string(), -800))
        .chain([("\u{2581}".to_owned(), -500)])
        .chain(["wake", "me", "at", "seven", "the"].map(|word| (format!("\u{2581}{word}"), -600)))
        .chain(["en", "er", "ch", "ß", "字"].map(|piece| (piece.to_owned(), -700)))
        .collect();
    pieces.sort();
    Table::write(&pieces, Normalization::LOWERCASE).unwrap()
}

pub fn vocab_size() -> usize {
    Table::new(&tokenizer()).unwrap().vocab_size()
}

/// A model: its configuration and its weights as the trainer has them, but for light kernels, which are after softmax.
#[derive(Debug)]
pub struct Model {
    pub config: Config,
    pub ngrams: Option<NGramTable>,
    pub weights: HashMap<Weight, Vec<f32>>,
}

impl Model {
    /// Random weights of the size that trained ones have.
    pub fn random(config: Config, seed: u64) -> Self {
        config.validate().unwrap();
        let mut random = Random(seed);
        let weights = config
            .weights()
            .map(|weight| {
                let shape = config.shape(weight).unwrap();
                let inner = shape.dims().last().copied().unwrap();
                let (mean, size) = match (weight.role(), weight) {
                    (Role::Linear, _) => (0.0, 1.7 / (inner as f32).sqrt()),
                    (Role::Norm, Weight::Layer(_, LayerWeight::MixerNormBias | LayerWeight::FfnNormBias)) => (0.0, 0.2),
                    (Role::Norm, _) => (1.0, 0.2),
                    _ => (0.0, 1.0),
                };
                let mut values: Vec<f32> = (0..shape.len()).map(|_| mean + size * random.uniform()).collect();
                if config.row(weight).unwrap().storage == Storage::F32Softmax {
                    for kernel in values.chunks_mut(inner) {
                        kernel.iter_mut().for_each(|tap| *tap = tap.abs() + 0.01);
                        let sum: f32 = kernel.iter().sum();
                        kernel.iter_mut().for_each(|tap| *tap /= sum);
                    }
                }
                (weight, values)
            })
            .collect();
        let ngrams = (config.ngrams > 0).then(|| ngrams(&config, seed));
        Model { config, ngrams, weights }
    }

    /// The model as a bundle.
    pub fn bundle(&self) -> Buffer {
        let classes = if self.config.task == Task::Embed { 0 } else { self.config.num_labels };
        let labels: Vec<String> = (0..classes).map(|i| format!("class {i}")).collect();
        let (tokenizer, decision) = (tokenizer(), Decision::default());
        let parts = Parts {
            config: &self.config,
            tokenizer: &tokenizer,
            labels: &labels,
            decision,
            ngrams: self.ngrams.as_ref(),
        };
        Buffer::new(&bundle::write(&parts, |weight| self.weights.get(&weight).map_or(&[], Vec::as_slice)).unwrap())
    }
}

/// Random n-grams: as many as the configuration says, or as there are in steps of a few ids.
fn ngrams(config: &Config, seed: u64) -> NGramTable {
    let (mut random, vocab) = (Random(!seed), config.vocab_size as i32);
    let mut tokens: Vec<[i32; 2]> = Vec::new();
    while tokens.len() < config.ngrams {
        let (single, second) = (random.below(4) == 0, random.below(vocab as usize) as i32);
        tokens.push([if single { vocab } else { random.below(vocab as usize) as i32 }, second]);
        if tokens.len() == config.ngrams {
            tokens.sort_unstable();
            tokens.dedup();
        }
    }
    tokens.iter_mut().filter(|pair| pair[0] == vocab).for_each(|pair| pair[0] = -1);
    let weight: Vec<f32> = (0..tokens.len() * config.num_labels).map(|_| random.uniform()).collect();
    let norm: Vec<f32> = tokens.iter().map(|_| random.uniform().abs() * 9.0 + 0.01).collect();
    NGramTable::quantize(&tokens, &weight, &norm, config.num_labels)
}

/// Scratch for an engine of `config` with chunks of `chunk` rows, filled with bytes that are no zeros.
pub fn scratch(config: &Config, chunk: usize) -> Vec<u8> {
    vec![0x5a; scratch_bytes(config, chunk)]
}

/// Runs `f` on an engine over a bundle's bytes.
pub fn with_engine<R>(
    bundle: &Buffer,
    backend: Backend,
    chunk: usize,
    f: impl FnOnce(&mut BorrowedEngine<'_>) -> R,
) -> R {
    let bundle = bundle::Bundle::new(bundle.as_slice()).unwrap();
    let mut scratch = scratch(bundle.config(), chunk);
    f(&mut NativeEngine::with_chunk(bundle, scratch.as_mut_slice(), backend, chunk).unwrap())
}

/// A small configuration; `layers` has width, offset and dilation of each layer.
pub fn config(mixer: Mixer, norm: Norm, pooling: Pooling, channels: usize, layers: &[[u16; 3]]) -> Config {
    let list = |i: usize| PerLayer::from_slice(&layers.iter().map(|l| l[i]).collect::<Vec<_>>()).unwrap();
    let parameters = MixerConfig::new(mixer, layers.len())
        .with_heads(if channels.is_multiple_of(3) { 3 } else { 1 })
        .with_kernels(Kernels { sizes: list(0), offsets: list(1) })
        .with_dilations(list(2));
    Config {
        mixer: parameters,
        norm,
        pooling,
        vocab_size: vocab_size(),
        intermediate_size: 2 * channels + 1,
        num_labels: 5,
        ..Config::new(mixer, layers.len(), channels)
    }
}

/// Every convolutional mixer with every norm and every pooling.
pub fn kinds() -> Vec<(Mixer, Norm, Pooling)> {
    let mut out = Vec::new();
    for mixer in Mixer::convolutions() {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            for pooling in [Pooling::Mean, Pooling::Max] {
                out.push((mixer, norm, pooling));
            }
        }
    }
    out
}

/// A random configuration of any kind: widths from 1, even and odd, any offset, dilations where the mixer has them, sizes that
/// fill no panel and no vector, 1 to 4 layers.
pub fn any_config(random: &mut Random) -> Config {
    let (mixer, norm, pooling) = random.pick(&kinds());
    let layers: Vec<[u16; 3]> = (0..1 + random.below(4))
        .map(|_| {
            let width = 1 + random.below(9) as u16;
            let dilation = if mixer == Mixer::Dilated { 1 + random.below(5) as u16 } else { 1 };
            [width, random.below(usize::from(width)) as u16, dilation]
        })
        .collect();
    let channels = random.pick(&[1, 2, 3, 6, 12, 15, 16, 18, 24, 33]);
    let mut config = config(mixer, norm, pooling, channels, &layers);
    let heads: Vec<usize> = (1..=channels).filter(|heads| channels.is_multiple_of(*heads)).collect();
    config.mixer = config.mixer.with_heads(random.pick(&heads));
    config.intermediate_size = 1 + random.below(50);
    config.num_labels = 2 + random.below(20);
    // Every other model has n-grams.
    config.ngrams = if config.num_labels.is_multiple_of(2) { 1 + 7 * config.intermediate_size } else { 0 };
    config
}

pub fn ids(random: &mut Random, tokens: usize) -> Vec<u32> {
    (0..tokens).map(|_| random.below(vocab_size()) as u32).collect()
}

/// The bits, so that a comparison tells −0 from 0.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}
