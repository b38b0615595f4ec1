//! Text to scores: the default model by number of words, `classify/native/intents/{words}`; many short texts, one after the other and together,
//! `classify/native/many/{how}`; and optionally another exported model. An int8 ONNX file is measured with many texts too, on Kinglet's
//! kernels and as it is written.
//!
//! ```sh
//! cargo bench -p kinglet-benches
//! KINGLET_BENCH_MODEL=runs/results/clinc150-light-onnx/model.onnx cargo bench -p kinglet-benches
//! ```
//!
//! The second form measures another model in the same run, so that the two can be compared.

use std::{path::Path, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kinglet::classifier::Classifier;
use kinglet::{Error, FileError, model};
use kinglet_onnx::{Precision, TractModel};

fn measure(c: &mut Criterion, name: &str, mut classifier: Classifier<'_>) {
    let mut group = c.benchmark_group(format!("classify/{name}"));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for words in [8, 64, 256, 1024] {
        let text = kinglet_benches::text(words);
        classifier.classify(&text).expect("the text is scored");
        group.throughput(Throughput::Elements(classifier.tokens() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(words), &text, |b, text| {
            b.iter(|| classifier.classify(text).map(|answer| answer.best()));
        });
    }
    group.finish();
}

/// Measures the texts of `firmware-examples/golden`, most of which have some ten words.
fn many(c: &mut Criterion, name: &str, mut classifier: Classifier<'_>) {
    let texts: Vec<&str> = include_str!("../../firmware-examples/golden/texts.txt").lines().cycle().take(256).collect();
    let mut group = c.benchmark_group(format!("classify/{name}/many"));
    group.sample_size(20).measurement_time(Duration::from_secs(3)).throughput(Throughput::Elements(texts.len() as u64));
    group.bench_function("one-by-one", |b| {
        b.iter(|| {
            texts.iter().map(|text| classifier.classify(text).map_or(0, |answer| answer.best().class)).sum::<usize>()
        });
    });
    group.bench_function("together", |b| {
        b.iter(|| {
            let mut sum = 0;
            classifier.classify_all(texts.iter().copied(), |_, answer, _| {
                sum += answer.map_or(0, |answer| answer.best().class)
            });
            sum
        });
    });
    group.finish();
}

fn classify(c: &mut Criterion) {
    let builtin = model::builtin().expect("the default model opens");
    measure(c, "native/intents", builtin.classifier().expect("the model opens"));
    many(c, "native", builtin.classifier().expect("the model opens"));
    let Ok(path) = std::env::var("KINGLET_BENCH_MODEL") else { return };
    match model::open(Path::new(&path), true) {
        Err(Error::File { path, error: FileError::NotBundle }) => {
            let model = TractModel::open(&path).expect("KINGLET_BENCH_MODEL names an exported model");
            let name = format!("tract/other-{}", model.precision());
            measure(c, &name, model.classifier().expect("the model opens"));
            if model.precision() == Precision::Int8 && !model.is_custom_op() {
                many(c, "tract", model.classifier().expect("the model opens"));
                let bytes = std::fs::read(path).expect("the file was read before");
                let written = TractModel::from_bytes_as_written(&bytes).expect("the file was opened before");
                many(c, "tract-as-written", written.classifier().expect("the model opens"));
            }
        }
        model => {
            let model = model.expect("KINGLET_BENCH_MODEL names an exported model");
            measure(c, "native/other-int8", model.classifier().expect("the model opens"));
        }
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
