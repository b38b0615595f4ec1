//! The native engine by length and backend, on a model of random weights: `engine/{backend}/{size}/{tokens}`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::multi_label::Decision;
use kinglet::spec::Mixer;
use kinglet_benches::models::{self, Size};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_testing::Random;

fn engine(c: &mut Criterion) {
    for size in [Size::ALL[0], Size::ALL[1]] {
        let folder = tempfile::tempdir().expect("there is room for files");
        models::write_checkpoint(folder.path(), &size.config(Mixer::Light), 1).expect("a checkpoint is written");
        let (checkpoint, weights) = Checkpoint::read(folder.path()).expect("a checkpoint is read");
        let model = Prepared::new(&checkpoint.config, weights);
        let bytes =
            kinglet_export::bundle::file(&checkpoint, &model, Decision::One(None)).expect("a bundle is written");
        let buffer = Buffer::new(&bytes.expect("light models have a bundle"));
        let bundle = Bundle::new(buffer.as_slice()).expect("a bundle is read");
        for backend in Backend::all() {
            let mut group = c.benchmark_group(format!("engine/{}/{}", backend.name(), size.name));
            group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
            let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
            let mut engine =
                NativeEngine::with_backend(bundle.clone(), &mut scratch, backend).expect("the scratch is enough");
            let mut scores = vec![0.0; engine.num_labels()];
            for tokens in [32, 512] {
                let ids = models::ids(&mut Random(1), tokens);
                group.throughput(Throughput::Elements(tokens as u64));
                group.bench_with_input(BenchmarkId::from_parameter(tokens), &ids, |b, ids| {
                    b.iter(|| engine.logits(ids, &mut scores).expect("the text is scored"));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
