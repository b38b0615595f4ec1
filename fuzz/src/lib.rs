//! Small models for the fuzz targets.

use kinglet::bundle::{NGramTable, Parts, write};
use kinglet::multi_label::{Decision, LabelCalibration, MultiLabel};
use kinglet::spec::{Config, Kernels, Mixer, MixerConfig, Norm, PerLayer, Pooling, Task};
use kinglet::tokenizer::{Normalization, Table};

/// Returns a table with some words.
pub fn tokenizer() -> Vec<u8> {
    let mut pieces: Vec<(String, i16)> = ('!'..='~').chain(['▁']).map(|c| (c.into(), -9000)).collect();
    pieces.push(("▁wake".into(), -3000));
    pieces.push(("字".into(), -4000));
    pieces.sort();
    Table::write(&pieces, Normalization::default()).unwrap_or_default()
}

/// What the models give.
const TASKS: [Task; 3] = [Task::Classify, Task::MultiLabel, Task::Embed];

/// Returns name and bytes of one bundle per mixer and task.
pub fn models() -> Result<Vec<(String, Vec<u8>)>, Box<dyn std::error::Error>> {
    let tokenizer = tokenizer();
    let mut out = Vec::new();
    for mixer in Mixer::convolutions() {
        for task in TASKS {
            let norm = if task == Task::Embed { Norm::PreRms } else { Norm::PostLayer };
            let mixer_config = MixerConfig::new(mixer, 2)
                .with_kernels(Kernels::centred(PerLayer::from_slice(&[3, 4]).unwrap_or(PerLayer::EMPTY)))
                .with_dilations(PerLayer::repeat(2, 2));
            let labels: &[&str] = if task == Task::Embed { &[] } else { &["no", "yes"] };
            let calibration = LabelCalibration { temperature: 1.5, set_threshold: 0.25, coverage: 0.9, rows: 40 };
            let decision = match task {
                Task::MultiLabel => {
                    Decision::Any(MultiLabel { thresholds: &[0.5, 0.25], calibration: Some(calibration) })
                }
                _ => Decision::default(),
            };
            let ngrams = (task != Task::Embed).then(ngrams);
            let config = Config {
                ngrams: ngrams.as_ref().map_or(0, |table| table.tokens.len()),
                task,
                mixer: mixer_config,
                norm,
                pooling: if norm == Norm::PreRms { Pooling::Max } else { Pooling::Mean },
                vocab_size: Table::new(&tokenizer)?.vocab_size(),
                intermediate_size: 5,
                num_labels: 2,
                ..Config::new(mixer, 2, 4)
            };
            let values: Vec<f32> = (0..1 << 14).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let parts = Parts { config: &config, tokenizer: &tokenizer, labels, decision, ngrams: ngrams.as_ref() };
            let bytes = write(&parts, |weight| config.shape(weight).map_or(&[], |shape| &values[..shape.len()]))?;
            out.push((format!("{}-{task:?}", mixer.name()), bytes));
        }
    }
    Ok(out)
}

/// Returns scores of a few n-grams for two labels.
fn ngrams() -> NGramTable {
    let tokens: Vec<[i32; 2]> =
        (3..40).flat_map(|a| [[a, a + 1], [a, a + 7]]).chain((3..40).map(|a| [-1, a])).collect();
    let (values, norms) =
        ((0..2 * tokens.len()).map(|i| (i * 29 % 253) as i8), (0..tokens.len()).map(|i| 1 + (i * 7 % 255) as u8));
    // Not -128, which no model has.
    let values = values.map(|value: i8| value.max(-127)).collect();
    NGramTable { values, norms: norms.collect(), tokens, scales: vec![0.01, 0.02] }
}

/// Cuts `text` into parts whose lengths come from `lengths`, cyclically.
pub fn cut<'t>(mut text: &'t [u8], lengths: &[u8]) -> Vec<&'t [u8]> {
    let mut out = Vec::new();
    // A length of 0 gives an empty part; the first of each round takes something.
    let mut lengths = lengths.iter().enumerate().map(|(i, &n)| usize::from(n).max(usize::from(i == 0))).cycle();
    while !text.is_empty() {
        let (part, rest) = text.split_at(lengths.next().unwrap_or(1).min(text.len()));
        out.push(part);
        text = rest;
    }
    out
}
