//! Matrix products of the native engine on every backend of this machine, and their share of its peak.
//!
//! ```sh
//! cargo bench -p kinglet-benches --bench backend
//! ```
//!
//! The shares come first: `dpbusd` on registers alone and the product in turn, so that both see the same clock, and the
//! median of the pairs. Sizes are `{rows}x{inputs}x{outputs}`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kinglet::backend::{Activation, Backend, PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix};

/// Inputs and outputs of the products in models of 256 and 128 channels.
const SIZES: [(usize, usize); 6] = [(256, 256), (256, 1024), (1024, 256), (128, 128), (128, 256), (256, 128)];

/// A buffer that begins with a cache line, like those of the engine and the bundle.
struct Buffer<T> {
    values: Vec<T>,
    from: usize,
}

impl<T: Copy> Buffer<T> {
    fn new(value: T, len: usize) -> Self {
        const LINE: usize = 64;
        let values = vec![value; len + LINE / size_of::<T>()];
        // If the offset is unknown, the bench is slower, not wrong.
        let from = values.as_ptr().align_offset(LINE).min(values.len() - len);
        Buffer { values, from }
    }

    fn get(&self) -> &[T] {
        &self.values[self.from..]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.values[self.from..]
    }
}

/// One product with its operands.
struct Product {
    rows: usize,
    inputs: usize,
    outputs: usize,
    q: Buffer<u8>,
    scales: Vec<f32>,
    weights: Buffer<i8>,
    channels: Vec<f32>,
    corrections: Vec<i32>,
    out: Buffer<f32>,
}

impl Product {
    /// `inputs` and `outputs` fill whole panels.
    fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        assert!(inputs.is_multiple_of(PANEL_INPUTS) && outputs.is_multiple_of(PANEL_OUTPUTS));
        Product {
            rows,
            inputs,
            outputs,
            q: Buffer::new(131, rows * inputs),
            scales: vec![0.01; rows],
            weights: Buffer::new(2, inputs * outputs),
            channels: vec![0.02; outputs],
            corrections: vec![-128 * 2 * inputs as i32; outputs],
            out: Buffer::new(0.0, rows * outputs),
        }
    }

    fn name(&self) -> String {
        format!("{}x{}x{}", self.rows, self.inputs, self.outputs)
    }

    /// Returns the number of int8 products that are summed.
    fn products(&self) -> u64 {
        (self.rows * self.inputs * self.outputs) as u64
    }

    fn run(&mut self, backend: &Backend) {
        let w = PackedMatrix {
            outputs: self.outputs,
            inputs: self.inputs,
            values: &self.weights.get()[..self.inputs * self.outputs],
            scales: &self.channels,
            corrections: &self.corrections,
        };
        let out = self.out.get_mut();
        backend.matmul(self.q.get(), self.inputs, &self.scales, &w, Activation::Identity, out, self.outputs);
        black_box(&out[0]);
    }
}

/// Returns the time of one int8 product, in seconds.
fn each(mut run: impl FnMut() -> u64) -> f64 {
    let start = Instant::now();
    let products = run();
    start.elapsed().as_secs_f64() / products as f64
}

/// Prints each product's share of the peak, if the peak of the machine is known.
#[cfg(target_arch = "x86_64")]
fn shares() {
    use kinglet::backend::x86::peak;
    const PAIRS: usize = 200;
    const ROUNDS: u32 = 2_000;
    if peak(1).is_none() {
        return println!("no AVX-512 VNNI: no shares of its peak");
    }
    for backend in Backend::all().skip(1) {
        for (inputs, outputs) in SIZES {
            for rows in [1, 8, 32, 48, 64] {
                let mut product = Product::new(rows, inputs, outputs);
                let times = 1 + (u64::from(ROUNDS) * 1536 / product.products()) as usize;
                let mut ratios: Vec<f64> = (0..PAIRS)
                    .map(|_| {
                        let fastest = each(|| peak(ROUNDS).unwrap_or(1));
                        let ours = each(|| {
                            (0..times).for_each(|_| product.run(&backend));
                            times as u64 * product.products()
                        });
                        fastest / ours
                    })
                    .collect();
                ratios.sort_by(f64::total_cmp);
                println!("share of the peak: {} {} {:.3}", backend.name(), product.name(), ratios[PAIRS / 2]);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn shares() {}

fn matmul(c: &mut Criterion) {
    // `--test` and `--list` measure nothing.
    if std::env::args().any(|arg| arg == "--bench") {
        shares();
    }
    for backend in Backend::all() {
        let mut group = c.benchmark_group(format!("matmul/{}", backend.name()));
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        for (inputs, outputs) in SIZES {
            let mut product = Product::new(48, inputs, outputs);
            group.throughput(Throughput::Elements(product.products()));
            group.bench_function(BenchmarkId::from_parameter(product.name()), |b| b.iter(|| product.run(&backend)));
        }
        group.finish();
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
