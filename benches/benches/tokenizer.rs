//! Text to ids with the default model's vocabulary and one of 8,192 made-up words: `tokenizer/device/{vocabulary}`.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kinglet::bundle::ReadBundle;
use kinglet::model;
use kinglet::tokenizer::Table;
use kinglet_benches::models;
use kinglet_testing::Random;

fn tokenizer(c: &mut Criterion) {
    let made = models::table().expect("a table is written");
    let made = Table::new(&made).expect("a table is read");
    let text = made.decode(&models::ids(&mut Random(1), 10_000)).expect("ids are of the table");
    let builtin = model::builtin().expect("the default model opens");
    let intents = builtin.bundle().tokenizer();
    let mut group = c.benchmark_group("tokenizer/device");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for (name, table, text) in [("intents", intents, kinglet_benches::text(10_000)), ("v8192", made, text)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut ids = 0;
                table.encode_with(text.as_bytes(), &mut |_| ids += 1);
                ids
            });
        });
    }
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
