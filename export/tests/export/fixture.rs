//! Random checkpoints, written as the trainer writes them.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinglet::spec::{Config, Kernels, Mixer, MixerConfig, Norm, PerLayer, Pooling, Task, files};
use kinglet::tokenizer::{METASPACE, Table};
use kinglet_export::checkpoint::{Checkpoint, Weights};
use kinglet_export::onnx;
use kinglet_export::prepare::Prepared;
use kinglet_onnx::TractModel;
pub use kinglet_testing::Random;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::reference::{self, Precision};

/// A table of the pieces that every table has, and two words.
pub fn tokenizer() -> Vec<u8> {
    let words = ["alarm", "seven"].map(|word| (format!("{METASPACE}{word}"), -600));
    kinglet_testing::table(-800, -500, words, false).unwrap()
}

pub fn config(mixer: Mixer, norm: Norm, pooling: Pooling) -> Config {
    let parameters = match mixer {
        Mixer::Attention => MixerConfig::Attention { heads: 4, buckets: 16, max_distance: 20 },
        _ => MixerConfig::new(mixer, 2).with_heads(3),
    };
    let sizes = PerLayer::from_slice(&[4, 7]).unwrap();
    let mut kernels = Kernels::centred(sizes);
    if mixer == Mixer::Dilated {
        kernels.offsets = PerLayer::from_slice(&[0, 5]).unwrap();
    }
    Config {
        mixer: parameters.with_kernels(kernels).with_dilations(PerLayer::from_slice(&[1, 3]).unwrap()),
        norm,
        pooling,
        vocab_size: Table::new(&tokenizer()).unwrap().vocab_size(),
        intermediate_size: 40,
        num_labels: 5,
        ..Config::new(mixer, 2, 24)
    }
}

/// Every mixer with every norm it can have and both poolings.
pub fn configs() -> Vec<Config> {
    let mut out = Vec::new();
    for mixer in Mixer::ALL {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            for pooling in [Pooling::Mean, Pooling::Max] {
                let config = config(mixer, norm, pooling);
                out.extend(config.validate().is_ok().then_some(config));
            }
        }
    }
    let kinds = |mixer| out.iter().filter(|config| config.mixer.kind() == mixer).count();
    assert!(Mixer::convolutions().all(|mixer| kinds(mixer) == 4) && kinds(Mixer::Attention) == 2);
    out
}

pub fn weights(config: &Config, seed: u64) -> Weights {
    kinglet_testing::weights(config, &mut Random(seed), Random::normal)
}

/// Texts of the lengths where something changes: one token, around the kernel widths and around the shortest plan.
pub fn texts(config: &Config) -> Vec<Vec<u32>> {
    let mut random = Random(7);
    [1, 2, 3, 4, 7, 8, 15, 16, 17, 40].map(|n| (0..n).map(|_| random.below(config.vocab_size) as u32).collect()).into()
}

/// Ids and mask of texts, padded to one length.
pub fn padded(texts: &[Vec<u32>]) -> (usize, Vec<i64>, Vec<i64>) {
    let longest = texts.iter().map(Vec::len).max().unwrap();
    let cell = |f: fn(u32) -> i64| -> Vec<i64> {
        texts.iter().flat_map(|t| (0..longest).map(move |i| t.get(i).map_or(0, |&id| f(id)))).collect()
    };
    (longest, cell(i64::from), cell(|_| 1))
}

/// One tensor for [`write_tensors`].
pub struct Tensor {
    pub name: String,
    pub kind: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: impl ToString, shape: &[usize], data: &[f32]) -> Self {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor { name: name.to_string(), kind: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Says the same twice.
    pub fn double(&mut self) {
        self.shape[0] *= 2;
        self.bytes.extend_from_within(..);
    }

    pub fn i64(name: impl ToString, shape: &[usize], data: &[i64]) -> Self {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor { name: name.to_string(), kind: Dtype::I64, shape: shape.to_vec(), bytes }
    }
}

pub fn write_tensors(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.kind, t.shape.clone(), &t.bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub fn weight_tensors(config: &Config, weights: &Weights) -> Vec<Tensor> {
    config.weights().map(|w| Tensor::f32(w, config.shape(w).unwrap().dims(), &weights[&w])).collect()
}

/// Scores of n-grams: their tokens, weights, norms and bias.
fn ngrams(config: &Config) -> (Vec<[i64; 2]>, Vec<f32>, Vec<f32>, Vec<f32>) {
    let (mut random, vocab) = (Random(11), config.vocab_size);
    let mut tokens = std::collections::BTreeSet::new();
    while tokens.len() < config.ngrams {
        let first = if random.below(2) == 0 { vocab } else { random.below(vocab) };
        // The texts have every token: among few seconds, pairs occur as well.
        tokens.insert([first as i64, random.below(vocab) as i64]);
    }
    // Pairs that occur in the texts.
    for text in texts(config).iter().rev().take(3) {
        for pair in text.windows(2).take(8) {
            if tokens.insert([i64::from(pair[0]), i64::from(pair[1])]) {
                let other = *tokens.iter().find(|other| other[0] != i64::from(pair[0])).unwrap();
                tokens.remove(&other);
            }
        }
    }
    let tokens: Vec<[i64; 2]> =
        tokens.into_iter().map(|[first, second]| [if first == vocab as i64 { -1 } else { first }, second]).collect();
    let mut numbers = |count| -> Vec<f32> { (0..count).map(|_| random.normal()).collect() };
    let (weight, norm) = (numbers(tokens.len() * config.num_labels), numbers(tokens.len()));
    (tokens, weight, norm.into_iter().map(|x| x.abs() + 0.1).collect(), numbers(config.num_labels))
}

pub fn ngram_tensors(config: &Config) -> Vec<Tensor> {
    let (tokens, weight, norm, bias) = ngrams(config);
    vec![
        Tensor::i64("tokens", &[tokens.len(), 2], tokens.as_flattened()),
        Tensor::f32("weight", &[tokens.len(), config.num_labels], &weight),
        Tensor::f32("norm", &[norm.len()], &norm),
        Tensor::f32("bias", &[config.num_labels], &bias),
    ]
}

/// The scores with those of the n-grams, by the formula of `kinglet::spec`.
pub fn with_ngrams(config: &Config, ids: &[u32], mut scores: Vec<f64>) -> Vec<f64> {
    if config.ngrams == 0 {
        return scores;
    }
    let (tokens, weight, norm, bias) = ngrams(config);
    let singles = ids.iter().map(|&id| [-1, i64::from(id)]);
    let pairs = ids.windows(2).map(|pair| [i64::from(pair[0]), i64::from(pair[1])]);
    let rows: Vec<usize> = singles.chain(pairs).filter_map(|pair| tokens.iter().position(|&t| t == pair)).collect();
    let root = rows.iter().map(|&row| f64::from(norm[row])).sum::<f64>().max(1e-30).sqrt();
    for (label, score) in scores.iter_mut().enumerate() {
        let sum: f64 = rows.iter().map(|&row| f64::from(weight[row * config.num_labels + label])).sum();
        *score += sum / root + f64::from(bias[label]);
    }
    scores
}

/// Makes the hashes those of a changed graph.
pub fn rehash(model: &mut kinglet_onnx::onnx::ModelProto) {
    use prost::Message;
    let hash = kinglet_data::digest::sha256(&model.graph.as_ref().unwrap().encode_to_vec());
    let entry = model.metadata_props.iter_mut().find(|e| e.key == kinglet::spec::metadata::GRAPH_SHA256).unwrap();
    entry.value = hash;
    kinglet_onnx::seal(model);
}

/// A checkpoint whose golden logits are the reference's, or whose golden vectors are those logits divided by their length.
pub fn write(dir: &Path, config: &Config, weights: &Weights) {
    let json = |name: &str, value: serde_json::Value| fs::write(dir.join(name), value.to_string()).unwrap();
    json(files::CONFIG, serde_json::to_value(config).unwrap());
    if config.task.has_labels() {
        json(files::LABELS, (0..config.num_labels).map(|i| format!("class {i}")).collect());
    }
    fs::write(dir.join(files::TOKENIZER_TABLE), tokenizer()).unwrap();
    write_tensors(&dir.join(files::WEIGHTS), &weight_tensors(config, weights));
    if config.ngrams > 0 {
        write_tensors(&dir.join(files::NGRAMS), &ngram_tensors(config));
    }

    let texts = texts(config);
    let (longest, ids, mask) = padded(&texts);
    let output = |text: &Vec<u32>| {
        let logits = with_ngrams(config, text, reference::logits(config, weights, text, Precision::Exact));
        if config.task == Task::Embed { reference::normalized(&logits) } else { logits }
    };
    let logits: Vec<f32> = texts.iter().flat_map(output).map(|x| x as f32).collect();
    let golden = [
        Tensor::i64("input_ids", &[texts.len(), longest], &ids),
        Tensor::i64("attention_mask", &[texts.len(), longest], &mask),
        Tensor::f32(config.task.output(), &[texts.len(), config.num_labels], &logits),
    ];
    write_tensors(&dir.join(files::GOLDEN), &golden);
}

/// Dev data that the float32 model labels as the data say: `gold` picks each text's class.
pub fn write_dev(path: &Path, texts: &[String], gold: impl Fn(usize) -> usize) {
    let lines: Vec<String> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| serde_json::json!({ "text": text, "label": format!("class {}", gold(i)) }).to_string() + "\n")
        .collect();
    fs::write(path, lines.concat()).unwrap();
}

/// The exported file of a random checkpoint.
pub fn exported_bytes(config: &Config, weights: &Weights, precision: kinglet_onnx::Precision) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config, weights);
    let (checkpoint, weights) = Checkpoint::read(dir.path()).unwrap();
    let prepared = Prepared::new(config, weights).with_ngrams(checkpoint.ngrams.clone());
    onnx::file(&checkpoint, &prepared, precision).unwrap()
}

/// The exported model of a random checkpoint.
pub fn exported(config: &Config, weights: &Weights, precision: kinglet_onnx::Precision) -> TractModel {
    TractModel::from_bytes(&exported_bytes(config, weights, precision)).unwrap()
}

/// A sound table with fewer ids than [`tokenizer`]'s.
pub fn other_tokenizer_base64() -> String {
    STANDARD.encode(kinglet_testing::table(-800, -500, [], false).unwrap())
}
