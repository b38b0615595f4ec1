//! Text to scores: the default model by number of words, `classify/native/intents/{words}`, and optionally another
//! exported model.
//!
//! ```sh
//! cargo bench -p kinglet-benches
//! KINGLET_BENCH_MODEL=runs/results/clinc150-light-onnx/model.onnx cargo bench -p kinglet-benches
//! ```
//!
//! The second form measures another model in the same run, so that the two can be compared.

use std::{path::Path, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kinglet::{
    classifier::Classifier,
    model::{self, Model},
};

fn measure(c: &mut Criterion, name: &str, model: &Model) {
    let mut group = c.benchmark_group(format!("classify/{name}"));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for words in [8, 64, 256, 1024] {
        let text = kinglet_benches::text(words);
        let mut classifier = Classifier::new(model).expect("the model opens");
        classifier.scores(&text).expect("the text is scored");
        group.throughput(Throughput::Elements(classifier.tokens() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(words), &text, |b, text| {
            b.iter(|| classifier.scores(text).map(<[f32]>::len));
        });
    }
    group.finish();
}

fn classify(c: &mut Criterion) {
    measure(c, "native/intents", &model::builtin().expect("the default model opens"));
    if let Ok(path) = std::env::var("KINGLET_BENCH_MODEL") {
        let model = model::open(Path::new(&path), true).expect("KINGLET_BENCH_MODEL names an exported model");
        let engine = if matches!(model, Model::Onnx(_)) { "tract" } else { "native" };
        measure(c, &format!("{engine}/other-{}", model.precision().name()), &model);
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
