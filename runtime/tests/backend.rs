//! Compares every backend of this machine with the scalar one, bit for bit. `KINGLET_LONG=1` runs 20 times as many
//! cases.

use kinglet::backend::{Activation, Backend, PANEL_INPUTS, PANEL_OUTPUTS, PackedMatrix, Window};
use proptest::prelude::*;

mod random;

use random::{Kind, Random};

/// Returns `n` numbers of a kind.
fn floats(random: &mut Random, kind: Kind, n: usize) -> Vec<f32> {
    let mut x = vec![0.0; n];
    random.fill(kind, &mut x);
    x
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Ordinary),
        2 => Just(Kind::Wide),
        2 => Just(Kind::Extreme),
        1 => Just(Kind::Zero),
        2 => Just(Kind::Halves)
    ]
}

/// Returns lengths near the widths of registers, and others.
fn length() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 256, 257];
    prop_oneof![prop::sample::select(edges.to_vec()), 0usize..300]
}

fn cases() -> ProptestConfig {
    let long = std::env::var_os("KINGLET_LONG").is_some_and(|v| v == "1");
    ProptestConfig { cases: if long { 8_000 } else { 400 }, failure_persistence: None, ..ProptestConfig::default() }
}

/// Returns all backends except the specification.
fn others() -> impl Iterator<Item = Backend> {
    Backend::all().skip(1)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Marks memory that must not be written.
const UNTOUCHED: f32 = -7.125e-12;

/// Runs `f` on a copy of `out` with the scalar backend and with every other, and compares the copies.
fn compare(out: &[f32], f: impl Fn(&Backend, &mut [f32])) -> Result<(), TestCaseError> {
    let mut want = out.to_vec();
    f(&Backend::SCALAR, &mut want);
    for backend in others() {
        let mut got = out.to_vec();
        f(&backend, &mut got);
        if let Some(i) = (0..want.len()).find(|&i| want[i].to_bits() != got[i].to_bits()) {
            let name = backend.name();
            return Err(TestCaseError::fail(format!("{name} at {i}: {:e}, scalar {:e}", got[i], want[i])));
        }
    }
    Ok(())
}

/// A matrix with the arrays that [`PackedMatrix`] borrows.
struct Matrix {
    outputs: usize,
    inputs: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

impl Matrix {
    fn new(outputs: usize, inputs: usize, scales: &[f32], mut w: impl FnMut(usize, usize) -> i8) -> Self {
        let (n, k) = (outputs.next_multiple_of(PANEL_OUTPUTS), inputs.next_multiple_of(PANEL_INPUTS));
        let mut values = vec![0i8; n * k];
        let mut corrections = vec![0i32; n];
        for o in 0..outputs {
            for i in 0..inputs {
                let v = w(o, i);
                let at = o / PANEL_OUTPUTS * PANEL_OUTPUTS * k + i / PANEL_INPUTS * PANEL_OUTPUTS * PANEL_INPUTS;
                values[at + o % PANEL_OUTPUTS * PANEL_INPUTS + i % PANEL_INPUTS] = v;
                corrections[o] -= 128 * i32::from(v);
            }
        }
        let mut padded = vec![0.0; n];
        padded[..outputs].copy_from_slice(&scales[..outputs]);
        Matrix { outputs, inputs, values, scales: padded, corrections }
    }

    fn panels(&self) -> PackedMatrix<'_> {
        PackedMatrix {
            outputs: self.outputs,
            inputs: self.inputs,
            values: &self.values,
            scales: &self.scales,
            corrections: &self.corrections,
        }
    }
}

/// `q` as the backend stores it.
fn encode(backend: &Backend, q: &[i8]) -> Vec<u8> {
    q.iter().map(|&v| v as u8 ^ backend.decode(0) as u8).collect()
}

#[test]
fn the_backends_of_this_machine_are_tested() {
    let names: Vec<_> = Backend::all().map(|k| k.name()).collect();
    let target: Vec<_> = Backend::names().collect();
    println!("backends tested: {}", names.join(" "));
    println!("backends of the target: {}", target.join(" "));
    assert_eq!(names[0], "scalar");
    assert!(target.iter().filter(|name| names.contains(name)).eq(&names));
    assert!(target.iter().all(|name| Backend::by_name(name).is_some() == names.contains(name)));
    assert_eq!(names.last(), Some(&Backend::detect().name()));
    for name in names {
        assert_eq!(Backend::by_name(name).unwrap().name(), name);
    }
    assert!(Backend::by_name("no-such").is_none());
    #[cfg(target_arch = "aarch64")]
    {
        let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
        assert!(Backend::by_name("aarch64-neon").is_some());
        assert_eq!(Backend::by_name("aarch64-dotprod").is_some(), dotprod);
    }
    #[cfg(target_arch = "arm")]
    assert_eq!(Backend::by_name("cortex-m-dsp").is_some(), cfg!(feature = "cortex-m-dsp"));
    #[cfg(target_arch = "x86_64")]
    {
        let has = |name| Backend::by_name(name).is_some();
        assert_eq!(has("x86-avx2"), is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
        assert_eq!(
            has("x86-avx512vnni"),
            is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
        );
    }
}

#[test]
fn one_row_times_one_output() {
    for backend in Backend::all() {
        let (mut q, mut scales, mut y) = ([0u8; 4], [0.0f32], [0.0f32]);
        backend.quantize(&[1.0, -2.0, 0.5, 0.25], 4, 4, &mut q, 4, &mut scales);
        assert_eq!(q.map(|b| backend.decode(b)), [64, -127, 32, 16], "{}", backend.name());
        let matrix = Matrix::new(1, 4, &[0.5], |_, i| [1, 2, 3, 4][i]);
        backend.matmul(&q, 4, &scales, &matrix.panels(), Activation::Identity, &mut y, 1);
        assert_eq!(y[0], ((64 - 254 + 96 + 64) as f32 * scales[0]) * 0.5, "{}", backend.name());
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let k = 65_536;
    // One row, and enough rows that a backend may compute them differently.
    for (rows, (x, w)) in [1, 14]
        .into_iter()
        .flat_map(|rows| [(127, 127), (-127, 127), (127, -127), (-127, -127), (-127, 0)].map(|values| (rows, values)))
    {
        let matrix = Matrix::new(17, k, &[1.0; 17], |_, _| w);
        let q = vec![x; rows * k];
        let scales = vec![1.0; rows];
        for backend in Backend::all() {
            let mut out = vec![0.0f32; rows * 17];
            let q = encode(&backend, &q);
            backend.matmul(&q, k, &scales, &matrix.panels(), Activation::Identity, &mut out, 17);
            let want = (i32::from(x) * i32::from(w) * k as i32) as f32;
            assert!(out.iter().all(|&y| y == want), "{}: {out:?}, not {want}", backend.name());
        }
    }
}

/// Uses sizes near those at which backends divide the work: tiles and blocks of rows, blocks of inputs, panels.
#[test]
fn every_division_of_a_product_is_like_scalar() {
    let mut random = Random(7);
    for inputs in [512, 516, 1_101] {
        for outputs in [16, 41] {
            let matrix = Matrix::new(outputs, inputs, &vec![0.5; outputs], |_, _| random.int8());
            let q_stride = inputs.next_multiple_of(4);
            for rows in [11, 14, 49, 63] {
                let q: Vec<i8> = (0..rows * q_stride).map(|_| random.int8()).collect();
                let scales = vec![0.25; rows];
                for activation in [Activation::Identity, Activation::Relu] {
                    let run = |backend: &Backend| {
                        let mut out = vec![UNTOUCHED; rows * outputs];
                        let q = encode(backend, &q);
                        backend.matmul(&q, q_stride, &scales, &matrix.panels(), activation, &mut out, outputs);
                        bits(&out)
                    };
                    let want = run(&Backend::SCALAR);
                    for backend in others() {
                        let at = want.iter().zip(run(&backend)).position(|(&a, b)| a != b);
                        assert_eq!(at, None, "{}: {rows} x {inputs} x {outputs}", backend.name());
                    }
                }
            }
        }
    }
}

#[test]
fn short_slices_are_left_alone_without_panic() {
    let matrix = Matrix::new(40, 24, &[1.0; 40], |o, i| (o * 3 + i) as i8);
    for backend in Backend::all() {
        let panels = matrix.panels();
        for cut in 0..100 {
            let mut out = vec![UNTOUCHED; 120];
            let mut scales = [1.0; 3];
            let mut q = [1u8; 90];
            let q = &mut q[..90 - cut.min(90)];
            backend.quantize(&vec![1.0; 72 - cut.min(72)], 24, 24, q, 30, &mut scales);
            backend.matmul(q, 30, &scales, &panels, Activation::Relu, &mut out, 40);
            backend.matmul(&[1; 90], 30, &scales, &panels, Activation::Relu, &mut out[cut..], 40);
            let short = PackedMatrix { values: &panels.values[10 * cut..], ..panels };
            backend.matmul(&[1; 90], 30, &scales, &short, Activation::Relu, &mut out, 40);
            let short = PackedMatrix { scales: &panels.scales[cut.min(48)..], ..panels };
            backend.matmul(&[1; 90], 30, &scales, &short, Activation::Relu, &mut out, 40);
            let short = PackedMatrix { corrections: &panels.corrections[cut.min(48)..], ..panels };
            backend.matmul(&[1; 90], 30, &scales, &short, Activation::Relu, &mut out, 40);
            // More rows, which a backend may compute differently.
            let (q, scales, mut many) = ([1; 420], [1.0; 14], vec![UNTOUCHED; 560]);
            backend.matmul(&q[4 * cut..], 30, &scales, &panels, Activation::Relu, &mut many, 40);
            backend.matmul(&q, 30, &scales, &panels, Activation::Relu, &mut many[5 * cut..], 40);
            let short = PackedMatrix { values: &panels.values[10 * cut..], ..panels };
            backend.matmul(&q, 30, &scales, &short, Activation::Relu, &mut many, 40);
            let x = vec![0.5; 120 - cut];
            let window = Window { channels: 20, taps: 3, dilation: 1 };
            backend.convolve_shared(&x, window, &[1.0; 6][..6 - cut % 7], 0, 2, &mut out);
            backend.convolve_channels(&x, window, &x[..60.min(120 - cut)], &mut out);
            backend.layer_norm(&x, &[1.0; 40], &x[..40.min(120 - cut)], &mut out);
            backend.rms_norm(&x, &[1.0; 40], &mut out[..120 - cut / 2]);
            backend.glu(&mut out, &x);
            backend.add(&mut out, &x);
            backend.softmax(&mut out, 7);
            backend.dequantize(&[1; 50], 0.5, &mut out[..cut]);
            backend.pool_mean(&x, &mut [0; 40]);
            backend.pool_max(&x, &mut out[..50]);
        }
    }
}

#[test]
fn every_backend_quantizes_all_halves_like_scalar() {
    let mut random = Random(7);
    for step in 0..400 {
        // A row whose scale is `most / 127`, with all numbers half-way between two steps and their neighbours.
        let most = random.unit().abs() * f32::powi(2.0, random.below(180) as i32 - 90) + 1e-30;
        let mut x = vec![most];
        for half in 0..127 {
            let v = (f64::from(most / 127.0) * (f64::from(half) + 0.5)) as f32;
            x.extend((-3i32..=3).map(|d| f32::from_bits(v.to_bits().wrapping_add_signed(d)).min(most)));
        }
        x.iter_mut().skip(1).step_by(2).for_each(|v| *v = -*v);
        let columns = x.len().next_multiple_of(4);
        let quantized = |backend: &Backend| {
            let (mut q, mut scales) = (vec![0; columns], [0.0]);
            backend.quantize(&x, x.len(), x.len(), &mut q, columns, &mut scales);
            (q.iter().map(|&b| backend.decode(b)).collect::<Vec<_>>(), scales[0].to_bits())
        };
        let want = quantized(&Backend::SCALAR);
        for backend in others() {
            assert!(quantized(&backend) == want, "{} with magnitude {most:e}, step {step}", backend.name());
        }
    }
}

#[test]
fn every_backend_reduces_exponents_like_scalar() {
    // Where `x·log₂e` is half-way between two integers, one extra rounding selects another polynomial.
    let mut gate = Vec::new();
    for n in -127..128 {
        let half = ((f64::from(n) + 0.5) * std::f64::consts::LN_2) as f32;
        gate.extend((-200..=200).map(|d| f32::from_bits(half.to_bits().wrapping_add_signed(d))));
    }
    let run = |backend: &Backend| {
        let mut value = vec![1.0; gate.len()];
        backend.glu(&mut value, &gate);
        bits(&value)
    };
    let want = run(&Backend::SCALAR);
    for backend in others() {
        assert!(run(&backend) == want, "{}", backend.name());
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_backend_quantizes_like_scalar(
        rows in 0usize..20, columns in length(), (more, gap) in (0usize..70, 0usize..70), kind in kind(), seed in any::<u64>()
    ) {
        // The last row ends with the slice.
        let x_stride = columns + gap;
        let x = floats(&mut Random(seed), kind, (rows * x_stride).saturating_sub(gap));
        let stride = columns.next_multiple_of(4) + more;
        let run = |backend: &Backend| {
            let mut q = encode(backend, &vec![99; rows * stride]);
            let mut scales = vec![UNTOUCHED; rows];
            backend.quantize(&x, columns, x_stride, &mut q, stride, &mut scales);
            (q.iter().map(|&b| backend.decode(b)).collect::<Vec<_>>(), bits(&scales))
        };
        let want = run(&Backend::SCALAR);
        for backend in others() {
            let got = run(&backend);
            let at = want.0.iter().zip(&got.0).position(|(a, b)| a != b);
            prop_assert!(at.is_none() && got.1 == want.1, "{} at {at:?}", backend.name());
        }
    }

    #[test]
    fn every_backend_multiplies_like_scalar(
        rows in 0usize..40, inputs in length(), outputs in length(),
        (more, gap, relu) in (0usize..70, 0usize..70, any::<bool>()), kind in kind(), seed in any::<u64>()
    ) {
        let mut random = Random(seed);
        let channel = floats(&mut random, kind, outputs);
        let matrix = Matrix::new(outputs, inputs, &channel, |_, _| random.int8());
        let q_stride = inputs.next_multiple_of(4) + more;
        let q: Vec<i8> = (0..rows * q_stride).map(|_| random.int8()).collect();
        let scales: Vec<f32> = floats(&mut random, Kind::Ordinary, rows).iter().map(|v| v.abs()).collect();
        let activation = if relu { Activation::Relu } else { Activation::Identity };
        let stride = outputs + gap;
        // The last row ends with the slice.
        let out = vec![UNTOUCHED; (rows * stride).saturating_sub(gap)];
        compare(&out, |k, out| k.matmul(&encode(k, &q), q_stride, &scales, &matrix.panels(), activation, out, stride))?;
    }

    #[test]
    fn every_backend_gates_like_scalar(n in length(), kind in kind(), short in 0usize..3, seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut gate = floats(&mut random, kind, n);
        let wide = floats(&mut random, Kind::Ordinary, n);
        gate.iter_mut().zip(wide).step_by(3).for_each(|(g, w)| *g = w * 25.0);
        let value = floats(&mut random, Kind::Ordinary, n.saturating_sub(short));
        compare(&value, |k, value| k.glu(value, &gate))?;
    }

    #[test]
    fn every_backend_takes_the_softmax_like_scalar(
        runs in 0usize..12, width in 0usize..70, rest in 0usize..5, kind in kind(), seed in any::<u64>()
    ) {
        let x = floats(&mut Random(seed), kind, runs * width + rest);
        compare(&x, |k, x| k.softmax(x, width))?;
    }

    #[test]
    fn every_backend_convolves_with_shared_kernels_like_scalar(
        (rows, channels, taps, dilation) in (0usize..14, 1usize..150, 1usize..12, 1usize..4),
        (heads, own) in (1usize..9, any::<bool>()), kind in kind(), seed in any::<u64>()
    ) {
        let mut random = Random(seed);
        let window = Window { channels, taps, dilation };
        let heads = heads.min(channels);
        let x = floats(&mut random, kind, (rows + (taps - 1) * dilation) * channels);
        let weights = floats(&mut random, Kind::Ordinary, heads * taps * rows.max(1));
        let stride = if own { heads * taps } else { 0 };
        let out = vec![UNTOUCHED; rows * channels];
        compare(&out, |k, out| k.convolve_shared(&x, window, &weights, stride, heads, out))?;
    }

    #[test]
    fn every_backend_convolves_channels_like_scalar(
        (rows, channels, taps, dilation) in (0usize..14, 1usize..150, 1usize..12, 1usize..4),
        kind in kind(), seed in any::<u64>()
    ) {
        let mut random = Random(seed);
        let window = Window { channels, taps, dilation };
        let x = floats(&mut random, kind, (rows + (taps - 1) * dilation) * channels);
        let weights = floats(&mut random, Kind::Ordinary, channels * taps);
        compare(&vec![UNTOUCHED; rows * channels], |k, out| k.convolve_channels(&x, window, &weights, out))?;
    }

    #[test]
    fn every_backend_normalises_like_scalar(
        rows in 0usize..9, columns in length(), kind in kind(), seed in any::<u64>()
    ) {
        let mut random = Random(seed);
        let x = floats(&mut random, kind, rows * columns);
        let (gain, shift) = (floats(&mut random, Kind::Ordinary, columns), floats(&mut random, Kind::Ordinary, columns));
        let out = floats(&mut random, Kind::Ordinary, rows * columns);
        compare(&out, |k, out| k.layer_norm(&x, &gain, &shift, out))?;
        compare(&out, |k, out| k.rms_norm(&x, &gain, out))?;
    }

    #[test]
    fn every_backend_adds_and_dequantizes_like_scalar(
        n in length(), short in 0usize..3, kind in kind(), seed in any::<u64>()
    ) {
        let mut random = Random(seed);
        let (a, b) = (floats(&mut random, kind, n), floats(&mut random, kind, n.saturating_sub(short)));
        let q: Vec<i8> = (0..n).map(|_| random.int8()).collect();
        let scale = random.unit();
        compare(&a, |k, a| k.add(a, &b))?;
        compare(&b, |k, b| k.dequantize(&q, scale, b))?;
    }

    #[test]
    fn every_backend_pools_like_scalar(rows in 0usize..9, columns in length(), kind in kind(), seed in any::<u64>()) {
        let mut random = Random(seed);
        let mut x = floats(&mut random, kind, rows * columns);
        // Half-way between two steps, and beyond the limit.
        x.iter_mut().step_by(5).for_each(|v| *v = (random.below(4_000) as f32 - 2_000.5) / 2_097_152.0);
        x.iter_mut().skip(1).step_by(7).for_each(|v| *v *= 700.0);
        compare(&floats(&mut random, Kind::Ordinary, columns), |k, most| k.pool_max(&x, most))?;
        let start: Vec<i64> = (0..columns).map(|_| random.next() as i64).collect();
        let mut want = start.clone();
        Backend::SCALAR.pool_mean(&x, &mut want);
        for backend in others() {
            let mut sums = start.clone();
            backend.pool_mean(&x, &mut sums);
            prop_assert!(sums == want, "{}", backend.name());
        }
    }
}
