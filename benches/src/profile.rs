//! Time of each operation of the native engine, measured on the rows and weights of a forward pass, in turns with the
//! whole engine and with the processor's peak.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kinglet::backend::{Activation, Backend, PackedMatrix, Window};
use kinglet::bundle::{Bundle, BundleFile};
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, FETCHED_AHEAD, NativeEngine, inner_stride, scratch_bytes, stride};
use kinglet::spec::{Mixer, Norm, files};

use crate::machine::Provenance;
use crate::models::{IDS, Size, products_per_token};
use crate::pairs::{Effort, Quartiles};
use crate::results::Profile;
use crate::worker::{first_ids, timed};

/// Operations, in the order of the forward pass.
const OPERATIONS: [&str; 10] = [
    "embedding",
    "quantize, mixer",
    "products, in and gate",
    "gate",
    "convolution",
    "product, out",
    "norm and residual",
    "quantize, feed-forward",
    "products, feed-forward",
    "pooling",
];
const EMBEDDING: usize = 0;
const QUANTIZE_MIXER: usize = 1;
const PRODUCTS_IN: usize = 2;
const GATE: usize = 3;
const CONVOLUTION: usize = 4;
const PRODUCT_OUT: usize = 5;
const NORM: usize = 6;
const QUANTIZE_FFN: usize = 7;
const PRODUCTS_FFN: usize = 8;
const POOLING: usize = 9;

/// Measures the light model of a size at `tokens` tokens.
///
/// # Errors
/// If the model cannot be opened or this processor cannot run the backend.
pub fn measure(
    models: &Path,
    size: Size,
    tokens: usize,
    backend: Backend,
    effort: Effort,
    provenance: &Provenance,
) -> Result<Profile> {
    let path = size.folder(models, Mixer::Light).join(files::BUNDLE);
    let file = BundleFile::map(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bundle = Bundle::new(file.as_slice()).with_context(|| path.display().to_string())?;
    let config = &bundle.config().clone();
    ensure!(config.norm == Norm::PostLayer, "the profile is that of post_layer models");
    let ids = first_ids(&models.join(IDS), tokens)?;
    let mut scratch = vec![0; scratch_bytes(config, DEFAULT_CHUNK)];
    let mut engine = NativeEngine::with_backend(bundle.clone(), &mut scratch, backend)?;
    let mut scores = vec![0.0; config.num_labels];
    let mut pass = Pass::new(bundle, backend);

    let (done, _, wall) = timed(|| engine.logits(&ids, &mut scores));
    done?;
    pass.run(&ids);
    pass.log.clear();
    let runs = effort.runs(wall as f64 / 1e9);
    let pairs = effort.pairs(2.0 * runs as f64 * wall as f64 / 1e9);
    let macs = (tokens as u64 * products_per_token(config)) as f64;
    let (mut seconds, mut shares) = (Vec::new(), Vec::new());
    let mut passes = Vec::new();
    for _ in 0..pairs {
        let peak = peak(&backend);
        let (done, cpu, _) = timed(|| (0..runs).try_for_each(|_| engine.logits(&ids, &mut scores)));
        done?;
        seconds.push(cpu as f64 / 1e9 / runs as f64);
        for _ in 0..runs {
            pass.run(&ids);
            passes.push(std::mem::take(&mut pass.log));
        }
        if let (Some(peak), Some(seconds)) = (peak, seconds.last()) {
            shares.push((macs / seconds / peak, peak));
        }
    }
    let spent = by_operation(&passes);
    let multiplying = spent[PRODUCTS_IN] + spent[PRODUCT_OUT] + spent[PRODUCTS_FFN];
    let seconds = Quartiles::of(seconds).context("no pair")?.median;
    let peak = Quartiles::of(shares.iter().map(|s| s.1)).map(|peak| peak.median);
    let all: f64 = spent.iter().sum();
    ensure!(all > 0.0, "the clock stands still");
    let names = OPERATIONS.iter().map(|name| (*name).to_owned());
    Ok(Profile {
        provenance: provenance.clone(),
        size: size.name.to_owned(),
        backend: backend.name().to_owned(),
        tokens,
        shares: names.zip(spent.map(|s| s / all)).collect(),
        accounted: all / seconds,
        share_of_peak: Quartiles::of(shares.iter().map(|s| s.0)),
        products_share_of_peak: peak.map(|peak| macs / multiplying / peak),
    })
}

/// Returns the seconds of a pass by operation. Every step is measured in each pass and its median counts, because other
/// load affects single steps.
fn by_operation(passes: &[Vec<(usize, f64)>]) -> [f64; OPERATIONS.len()] {
    let mut spent = [0.0; OPERATIONS.len()];
    for (step, &(operation, _)) in passes.first().into_iter().flatten().enumerate() {
        let times = passes.iter().filter_map(|pass| pass.get(step)).map(|&(_, seconds)| seconds);
        spent[operation] += Quartiles::of(times).map_or(0.0, |q| q.median);
    }
    spent
}

/// The operations of a forward pass of a light model, chunk by chunk, each with its time. What the engine does between
/// them (rows that wait for their neighbours or for the next chunk) is omitted, so the computed numbers are
/// meaningless.
struct Pass<'a> {
    bundle: Bundle<'a>,
    backend: Backend,
    residual: Vec<f32>,
    gated: Vec<f32>,
    inner: Vec<f32>,
    branch: Vec<f32>,
    sums: Vec<i64>,
    q: Vec<u8>,
    scales: Vec<f32>,
    /// Operation and seconds of each step so far.
    log: Vec<(usize, f64)>,
}

/// Runs a step and logs its time.
fn clock(log: &mut Vec<(usize, f64)>, operation: usize, step: impl FnOnce()) {
    let start = Instant::now();
    step();
    log.push((operation, start.elapsed().as_secs_f64()));
}

impl<'a> Pass<'a> {
    fn new(bundle: Bundle<'a>, backend: Backend) -> Self {
        let config = bundle.config();
        let (c, ff, rows) = (config.hidden_size, config.intermediate_size, DEFAULT_CHUNK);
        let span =
            (0..config.num_hidden_layers).filter_map(|i| config.convolution(i)).map(|c| c.taps).max().unwrap_or(1);
        Pass {
            bundle,
            backend,
            residual: vec![0.0; rows * c],
            gated: vec![0.0; (rows + span) * c],
            inner: vec![0.0; rows * inner_stride(ff).max(c)],
            branch: vec![0.0; rows * c],
            sums: vec![0; c],
            q: vec![0; rows * stride(ff.max(c)).max(stride(c))],
            scales: vec![0.0; rows],
            log: Vec::new(),
        }
    }

    fn run(&mut self, ids: &[u32]) {
        for ids in ids.chunks(DEFAULT_CHUNK) {
            self.chunk(ids);
        }
    }

    fn chunk(&mut self, ids: &[u32]) {
        let Pass { bundle, backend, residual, gated, inner, branch, sums, q, scales, log } = self;
        let (config, weights) = (bundle.config(), bundle.weights());
        let (c, ff, n) = (config.hidden_size, config.intermediate_size, ids.len());
        let x = &mut residual[..n * c];
        let scales = &mut scales[..n];
        let product = |q: &[u8], inputs: usize, scales: &[f32], w: &PackedMatrix<'_>, activation, out: &mut [f32]| {
            backend.matmul(q, stride(inputs), scales, w, activation, &mut out[..n * w.outputs], w.outputs);
        };
        clock(log, EMBEDDING, || {
            for (i, (&id, x)) in ids.iter().zip(x.chunks_exact_mut(c)).enumerate() {
                if let Some((row, _)) = ids.get(i + FETCHED_AHEAD).and_then(|&id| weights.embedding(id)) {
                    backend.prefetch(row);
                }
                if let Some((row, scale)) = weights.embedding(id) {
                    backend.dequantize(row, scale, x);
                }
            }
        });
        for i in 0..config.num_hidden_layers {
            let layer = weights.layer(i);
            let Some(convolution) = config.convolution(i) else { break };
            let k = convolution.taps;
            clock(log, QUANTIZE_MIXER, || backend.quantize(x, c, c, &mut q[..n * stride(c)], stride(c), scales));
            clock(log, PRODUCTS_IN, || {
                product(q, c, scales, &layer.input, Activation::Identity, &mut gated[(k - 1) * c..]);
                product(q, c, scales, &layer.gate, Activation::Identity, inner);
            });
            clock(log, GATE, || backend.glu(&mut gated[(k - 1) * c..][..n * c], &inner[..n * c]));
            let window = Window { channels: c, taps: k, dilation: convolution.dilation };
            let rows = &gated[..(n + k - 1) * c];
            clock(log, CONVOLUTION, || {
                let out = &mut inner[..n * c];
                // Only light models are profiled.
                backend.convolve_shared(rows, window, layer.kernel, 0, config.mixer.kernel_heads(), out)
            });
            let mixed = &inner[..n * c];
            clock(log, QUANTIZE_MIXER, || backend.quantize(mixed, c, c, &mut q[..n * stride(c)], stride(c), scales));
            clock(log, PRODUCT_OUT, || product(q, c, scales, &layer.output, Activation::Identity, branch));
            let norm = &layer.mixer_norm;
            clock(log, NORM, || backend.layer_norm(&branch[..n * c], norm.gain, norm.shift, x));
            clock(log, QUANTIZE_FFN, || backend.quantize(x, c, c, &mut q[..n * stride(c)], stride(c), scales));
            let inner_stride = inner_stride(ff);
            clock(log, PRODUCTS_FFN, || {
                let out = &mut inner[..n * inner_stride];
                backend.matmul(q, stride(c), scales, &layer.up, Activation::Relu, out, inner_stride);
            });
            let wide = &inner[..n * inner_stride];
            clock(log, QUANTIZE_FFN, || {
                backend.quantize(wide, ff, inner_stride, &mut q[..n * stride(ff)], stride(ff), scales)
            });
            clock(log, PRODUCTS_FFN, || product(q, ff, scales, &layer.down, Activation::Identity, branch));
            let norm = &layer.ffn_norm;
            clock(log, NORM, || backend.layer_norm(&branch[..n * c], norm.gain, norm.shift, x));
        }
        clock(log, POOLING, || backend.pool_mean(x, sums));
    }
}

/// Returns the products per second of the backend's multiply instruction, on registers alone, if there is a bench for
/// it.
fn peak(backend: &Backend) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if backend.name() == "x86-avx512vnni" {
        let (products, cpu, _) = timed(|| kinglet::backend::x86::peak(1 << 20));
        return products.map(|products| products as f64 * 1e9 / cpu as f64);
    }
    let _ = backend;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_disturbed_does_not_count() {
        let pass = |conv| vec![(EMBEDDING, 1.0), (CONVOLUTION, conv), (CONVOLUTION, 2.0)];
        let spent = by_operation(&[pass(3.0), pass(1000.0), pass(3.5)]);
        assert_eq!((spent[EMBEDDING], spent[CONVOLUTION], spent[GATE]), (1.0, 5.5, 0.0));
        assert_eq!(by_operation(&[]), [0.0; OPERATIONS.len()]);
    }
}
