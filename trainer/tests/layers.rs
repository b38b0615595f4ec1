//! Compares layers with naive loops in f64, and tests properties of the whole model.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kinglet::spec::{Config, Kernels, LayerWeight, Mixer, MixerConfig, Norm, PerLayer, Pooling, Weight};
use kinglet_train::model::{
    Classifier, Mode,
    dilatedconv::DilatedConv,
    dynamicconv::{DynamicConv, dynamic},
    lightconv::LightConv,
    linear::Linear,
};
use tch::{Device, Kind, Tensor};

const TRAIN: Mode = Mode { train: true, dropout: 0.3, drop_connect: 0.3, bf16: false, recompute: false };

/// libtorch has one CPU generator for all threads: tests that seed it take turns.
fn generator() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns numbers between -1 and 1, different for each seed.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    // The first few numbers of neighbouring seeds are alike.
    for _ in 0..8 {
        next();
    }
    (0..n).map(|_| next()).collect()
}

fn tensor(values: &[f64], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).view(shape).set_requires_grad(true)
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= bound, "{what}: off by {worst:e}\n got {got:?}\nwant {want:?}");
    assert!(got.iter().all(|v| v.is_finite()), "{what}: not finite");
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

/// A convolution to test: B texts of T tokens, C channels, H heads, K taps.
#[derive(Clone, Copy, Debug)]
struct Case {
    b: usize,
    t: usize,
    c: usize,
    h: usize,
    k: usize,
    offset: usize,
    dilation: usize,
}

impl Case {
    fn all(dilations: &[usize], heads: &[usize]) -> Vec<Case> {
        let mut out = Vec::new();
        for (t, k) in [(1, 1), (1, 7), (3, 7), (6, 1), (6, 2), (6, 3), (9, 4), (9, 7), (18, 1), (35, 2), (49, 3)] {
            for offset in [0, (k - 1) / 2, k / 2, k - 1].into_iter().collect::<HashSet<_>>() {
                for &dilation in dilations {
                    out.extend(heads.iter().map(|&h| Case { b: 2, t, c: 8, h, k, offset, dilation }));
                }
            }
        }
        out
    }

    fn x(&self) -> Vec<f64> {
        numbers(self.b * self.t * self.c, 1)
    }

    fn shape(&self) -> [i64; 3] {
        [self.b as i64, self.t as i64, self.c as i64]
    }

    /// Convolves by the definition's loop; `tap(b, i, c, j)` returns the weight.
    fn convolve(&self, x: &[f64], tap: impl Fn(usize, usize, usize, usize) -> f64) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for b in 0..self.b {
            for i in 0..self.t {
                for c in 0..self.c {
                    for j in 0..self.k {
                        let from = i as i64 + (j as i64 - self.offset as i64) * self.dilation as i64;
                        if (0..self.t as i64).contains(&from) {
                            let from = from as usize;
                            y[(b * self.t + i) * self.c + c] += tap(b, i, c, j) * x[(b * self.t + from) * self.c + c];
                        }
                    }
                }
            }
        }
        y
    }

    fn light(&self, x: &[f64], kernel: &[f64]) -> Vec<f64> {
        let taps: Vec<f64> = kernel.chunks(self.k).flat_map(softmax).collect();
        self.convolve(x, |_, _, c, j| taps[(c * self.h / self.c) * self.k + j])
    }

    fn dilated(&self, x: &[f64], kernel: &[f64]) -> Vec<f64> {
        self.convolve(x, |_, _, c, j| kernel[c * self.k + j])
    }

    /// Convolves with taps computed from `input` by `projection`, `[H·K, C]`.
    fn dynamic(&self, x: &[f64], input: &[f64], projection: &[f64]) -> Vec<f64> {
        let scores: Vec<f64> = input
            .chunks(self.c)
            .flat_map(|row| projection.chunks(self.c).map(move |w| w.iter().zip(row).map(|(a, b)| a * b).sum()))
            .collect();
        let taps: Vec<f64> = scores.chunks(self.k).flat_map(softmax).collect();
        self.convolve(x, |b, i, c, j| taps[((b * self.t + i) * self.h + c * self.h / self.c) * self.k + j])
    }
}

/// Returns the gradient of `sum(weights · f(x))` by central differences in f64.
fn gradient(f: impl Fn(&[f64]) -> Vec<f64>, weights: &[f64], at: &[f64]) -> Vec<f64> {
    let loss = |x: &[f64]| f(x).iter().zip(weights).map(|(a, b)| a * b).sum::<f64>();
    let mut x = at.to_vec();
    (0..at.len())
        .map(|i| {
            let step = 1e-5;
            x[i] = at[i] + step;
            let up = loss(&x);
            x[i] = at[i] - step;
            let down = loss(&x);
            x[i] = at[i];
            (up - down) / (2.0 * step)
        })
        .collect()
}

fn backward(y: &Tensor, weights: &[f64]) {
    (y * Tensor::from_slice(weights).to_kind(Kind::Float).view_as(y)).sum(Kind::Float).backward();
}

#[test]
fn light_convolution_and_its_gradients_equal_a_naive_loop() {
    for case in Case::all(&[1], &[1, 2, 4]) {
        let (x, kernel) = (case.x(), numbers(case.h * case.k, 2));
        let (tx, tk) = (tensor(&x, &case.shape()), tensor(&kernel, &[case.h as i64, case.k as i64]));
        let y = LightConv::new(tk.shallow_clone(), case.offset as i64).forward(&tx, &Mode::eval());
        assert_close(&values(&y), &case.light(&x, &kernel), 1e-6, &format!("{case:?}"));
        let weights = numbers(x.len(), 3);
        backward(&y, &weights);
        let want = gradient(|x| case.light(x, &kernel), &weights, &x);
        assert_close(&values(&tx.grad()), &want, 1e-5, &format!("{case:?} input"));
        let want = gradient(|k| case.light(&x, k), &weights, &kernel);
        assert_close(&values(&tk.grad()), &want, 1e-5, &format!("{case:?} kernel"));
    }
}

#[test]
fn dilated_convolution_and_its_gradients_equal_a_naive_loop() {
    for case in Case::all(&[1, 2, 5], &[1]) {
        let (x, kernel) = (case.x(), numbers(case.c * case.k, 2));
        let (tx, tk) = (tensor(&x, &case.shape()), tensor(&kernel, &[case.c as i64, case.k as i64]));
        let conv = DilatedConv::new(tk.shallow_clone(), case.offset as i64, case.dilation as i64);
        let y = conv.forward(&tx, &Mode::eval());
        assert_close(&values(&y), &case.dilated(&x, &kernel), 1e-6, &format!("{case:?}"));
        let weights = numbers(x.len(), 3);
        backward(&y, &weights);
        let want = gradient(|x| case.dilated(x, &kernel), &weights, &x);
        assert_close(&values(&tx.grad()), &want, 1e-5, &format!("{case:?} input"));
        let want = gradient(|k| case.dilated(&x, k), &weights, &kernel);
        assert_close(&values(&tk.grad()), &want, 1e-5, &format!("{case:?} kernel"));
    }
}

#[test]
fn dynamic_convolution_and_its_gradients_equal_a_naive_loop() {
    for case in Case::all(&[1], &[1, 2, 4]) {
        let (x, input) = (case.x(), numbers(case.b * case.t * case.c, 4));
        let projection = numbers(case.h * case.k * case.c, 2);
        let (tx, ti) = (tensor(&x, &case.shape()), tensor(&input, &case.shape()));
        let tp = tensor(&projection, &[(case.h * case.k) as i64, case.c as i64]);
        let conv = DynamicConv::new(Linear::new(tp.shallow_clone()), case.h as i64, case.offset as i64);
        let y = conv.forward(&tx, &ti, &Mode::eval());
        assert_close(&values(&y), &case.dynamic(&x, &input, &projection), 2e-6, &format!("{case:?}"));
        let weights = numbers(x.len(), 3);
        backward(&y, &weights);
        let want = gradient(|x| case.dynamic(x, &input, &projection), &weights, &x);
        assert_close(&values(&tx.grad()), &want, 1e-5, &format!("{case:?} input"));
        let want = gradient(|i| case.dynamic(&x, i, &projection), &weights, &input);
        assert_close(&values(&ti.grad()), &want, 1e-5, &format!("{case:?} block input"));
        let want = gradient(|p| case.dynamic(&x, &input, p), &weights, &projection);
        assert_close(&values(&tp.grad()), &want, 1e-5, &format!("{case:?} projection"));
    }
}

#[test]
fn a_kernel_with_one_tap_shifts_the_sequence() {
    let x = Tensor::arange(5, (Kind::Float, Device::Cpu)).view([1, 5, 1]);
    // Tap 0 of 4 with offset 1 reads the position to the left.
    let taps = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0]);
    let y = DilatedConv::new(taps.view([1, 4]), 1, 1).forward(&x, &Mode::eval());
    assert_eq!(values(&y), [0.0, 0.0, 1.0, 2.0, 3.0]);
    let y = DilatedConv::new(taps.view([1, 4]), 1, 3).forward(&x, &Mode::eval());
    assert_eq!(values(&y), [0.0, 0.0, 0.0, 0.0, 1.0]);
    let y = dynamic(&x, &taps.view([1, 1, 1, 4]).expand([1, 5, 1, 4], false), 1);
    assert_eq!(values(&y), [0.0, 0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn drop_connect_drops_whole_taps_for_a_whole_batch_and_scales_the_rest() {
    let _turn = generator();
    tch::manual_seed(5);
    let (heads, width) = (4, 7);
    let conv = LightConv::new(Tensor::zeros([heads, width], (Kind::Float, Device::Cpu)), 3);
    // An impulse in the middle of each text: the output is the mirrored kernel.
    let x = Tensor::zeros([3, 7, 8], (Kind::Float, Device::Cpu));
    let _ = x.narrow(1, 3, 1).fill_(1.0);
    let y = conv.forward(&x, &Mode { drop_connect: 0.5, ..TRAIN });
    assert_eq!(values(&y.get(0)), values(&y.get(1)));
    assert_eq!(values(&y.get(0)), values(&y.get(2)));
    let kept = 1.0 / 7.0 / 0.5;
    let (mut zeros, all) = (0, values(&y.get(0)));
    for v in &all {
        assert!(*v == 0.0 || (v - kept).abs() < 1e-6, "{v}");
        zeros += usize::from(*v == 0.0);
    }
    assert!((8..48).contains(&zeros), "{zeros} of {} dropped", all.len());
    let still = conv.forward(&x, &Mode { train: false, ..TRAIN });
    assert!(values(&still).iter().all(|v| (v - 1.0 / 7.0).abs() < 1e-6 || *v == 0.0));
    assert_eq!(values(&still.get(0)).iter().filter(|v| **v == 0.0).count(), 0);
}

fn config(mixer: Mixer, norm: Norm) -> Config {
    let parameters = match mixer {
        Mixer::Attention => MixerConfig::Attention { heads: 4, buckets: 8, max_distance: 12 },
        _ => MixerConfig::new(mixer, 3),
    };
    Config {
        mixer: parameters
            .with_kernels(Kernels::centred(PerLayer::from_slice(&[3, 4, 7]).unwrap()))
            .with_dilations(PerLayer::from_slice(&[1, 2, 3]).unwrap()),
        norm,
        vocab_size: 50,
        intermediate_size: 24,
        num_labels: 5,
        ..Config::new(mixer, 3, 16)
    }
}

/// Returns a model of `config` in the paper's dialect.
fn model(config: &Config, seed: i64) -> Classifier {
    Classifier::new(&config.clone().into(), seed, Device::Cpu).unwrap()
}

/// Returns all mixers with the norms they allow, and mean and max pooling.
fn models() -> Vec<(String, Classifier)> {
    let mut out = Vec::new();
    for mixer in Mixer::ALL {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            for pooling in [Pooling::Mean, Pooling::Max] {
                let config = Config { pooling, ..config(mixer, norm) };
                if mixer != Mixer::Attention || norm == Norm::PreRms {
                    let model = model(&config, 11);
                    out.push((format!("{} {norm:?} {pooling:?}", mixer.name()), model));
                }
            }
        }
    }
    out
}

/// Returns token ids of texts with 9, 4, and 1 tokens, and their mask, padded to `columns` with the id of a word.
fn batch(columns: usize) -> (Tensor, Tensor) {
    let cell = |row: usize, i: usize| if i < [9, 4, 1][row] { (7 * i + 3 * row + 5) as i64 % 50 } else { 33 };
    let ids: Vec<i64> = (0..3).flat_map(|row| (0..columns).map(move |i| cell(row, i))).collect();
    let mask: Vec<i64> = (0..3).flat_map(|row| (0..columns).map(move |i| i64::from(i < [9, 4, 1][row]))).collect();
    let shape = [3, columns as i64];
    (Tensor::from_slice(&ids).view(shape), Tensor::from_slice(&mask).view(shape))
}

#[test]
fn padding_does_not_change_logits() {
    // Some ten steps of f32 at the largest logits: how products are summed depends on the shape and on the processor.
    const BOUND: f64 = 1e-5;
    for (name, model) in models() {
        let (ids, mask) = batch(9);
        let together = model.forward(&ids, &mask, &Mode::eval());
        let (wide_ids, wide_mask) = batch(40);
        let wide = model.forward(&wide_ids, &wide_mask, &Mode::eval());
        assert_close(&values(&wide), &values(&together), BOUND, &format!("{name} padded to 40"));
        for (row, tokens) in [(0, 9), (1, 4), (2, 1)] {
            let narrow = |t: &Tensor| t.narrow(0, row, 1).narrow(1, 0, tokens);
            let alone = model.forward(&narrow(&ids), &narrow(&mask), &Mode::eval());
            assert_close(&values(&alone), &values(&together.get(row)), BOUND, &format!("{name} row {row}"));
        }
    }
}

#[test]
fn the_order_of_tokens_counts() {
    for (name, model) in models() {
        let (ids, mask) = (batch(9).0.narrow(0, 0, 1), batch(9).1.narrow(0, 0, 1));
        let (a, b) = (model.forward(&ids, &mask, &Mode::eval()), model.forward(&ids.flip([1]), &mask, &Mode::eval()));
        assert!((a - b).abs().max().double_value(&[]) > 1e-4, "{name}");
    }
}

#[test]
fn every_parameter_has_a_finite_gradient_that_is_not_zero() {
    let _turn = generator();
    for (name, model) in models() {
        for bf16 in [false, true] {
            let (ids, mask) = batch(9);
            let mode = Mode { bf16, ..TRAIN };
            tch::manual_seed(3);
            let logits = model.forward(&ids, &mask, &mode);
            assert_eq!((logits.size(), logits.kind()), (vec![3, 5], Kind::Float));
            logits.cross_entropy_for_logits(&Tensor::from_slice(&[0i64, 1, 2])).backward();
            for (weight, p) in model.parameters() {
                let mut g = p.grad();
                assert!(g.defined() && g.kind() == Kind::Float, "{name} {weight}");
                let norm = g.norm().double_value(&[]);
                assert!(norm.is_finite() && norm > 0.0, "{name} {weight} bf16 {bf16}: {norm}");
                let _ = g.zero_();
            }
        }
    }
}

#[test]
fn dropout_repeats_with_the_seed() {
    let _turn = generator();
    for (name, model) in models() {
        let (ids, mask) = batch(9);
        let run = |seed| {
            tch::manual_seed(seed);
            values(&model.forward(&ids, &mask, &TRAIN))
        };
        assert_eq!(run(1), run(1), "{name}");
        assert_ne!(run(1), run(2), "{name}");
        let quiet = Mode { dropout: 0.0, drop_connect: 0.0, ..TRAIN };
        assert_eq!(
            values(&model.forward(&ids, &mask, &quiet)),
            values(&model.forward(&ids, &mask, &Mode::eval())),
            "{name}"
        );
    }
}

#[test]
fn bf16_is_near_f32_but_is_not_f32() {
    for (name, model) in models() {
        let (ids, mask) = batch(9);
        let exact = model.forward(&ids, &mask, &Mode::eval());
        let near = model.forward(&ids, &mask, &Mode { bf16: true, ..Mode::eval() });
        let off = (&exact - near).abs().max().double_value(&[]);
        let size = exact.abs().max().double_value(&[]);
        assert!(off > 0.0 && off < 0.06 * size.max(1.0), "{name}: off by {off} of {size}");
    }
}

#[test]
fn weights_come_from_the_seed_alone() {
    let _turn = generator();
    let base = config(Mixer::Light, Norm::PostLayer);
    let all = |config: &Config, seed| -> Vec<Vec<f64>> {
        model(config, seed).parameters().iter().map(|(_, p)| values(p)).collect()
    };
    tch::manual_seed(1);
    let first = all(&base, 4);
    tch::manual_seed(2);
    assert_eq!(first, all(&base, 4));
    assert_ne!(first, all(&base, 5));
    let more = all(&Config { num_labels: 9, ..base.clone() }, 4);
    assert_eq!(first[..first.len() - 2], more[..more.len() - 2]);
    // Creating a model leaves libtorch's generator alone.
    let draw = || values(&Tensor::rand([3], (Kind::Float, Device::Cpu)));
    tch::manual_seed(7);
    let want = draw();
    tch::manual_seed(7);
    drop(model(&base, 4));
    assert_eq!(draw(), want);
}

#[test]
fn weights_have_the_spread_of_their_kind() {
    use LayerWeight as L;
    let wide = |mixer, norm| {
        let config = Config { vocab_size: 400, hidden_size: 128, intermediate_size: 256, ..config(mixer, norm) };
        model(&config, 4)
    };
    let c = 128f64;
    let cases = [
        (Mixer::Dynamic, Norm::PostLayer, Weight::Embedding, 1.0),
        (Mixer::Dynamic, Norm::PostLayer, Weight::Layer(0, L::In), c.powf(-0.5)),
        (Mixer::Dynamic, Norm::PostLayer, Weight::Layer(2, L::KernelProjection), c.powf(-0.5)),
        (Mixer::Dynamic, Norm::PostLayer, Weight::Layer(1, L::Down), 256f64.powf(-0.5)),
        (Mixer::Attention, Norm::PreRms, Weight::Layer(0, L::Query), (c * 32.0).powf(-0.5)),
        (Mixer::Attention, Norm::PreRms, Weight::Layer(0, L::Key), c.powf(-0.5)),
        (Mixer::Attention, Norm::PreRms, Weight::Layer(0, L::Out), c.powf(-0.5)),
        (Mixer::Dilated, Norm::PostLayer, Weight::Layer(2, L::Kernel), (1.0 / 7.0f64 / 3.0).sqrt()),
    ];
    for (mixer, norm, weight, want) in cases {
        let model = wide(mixer, norm);
        let (_, p) = model.parameters().iter().find(|(w, _)| *w == weight).unwrap();
        let (mean, deviation) = (p.mean(Kind::Float).double_value(&[]), p.std(true).double_value(&[]));
        assert!(
            (deviation / want - 1.0).abs() < 0.05 && mean.abs() < 0.06 * want,
            "{weight}: {mean} {deviation} {want}"
        );
    }
    let light = wide(Mixer::Light, Norm::PostLayer);
    let kernel = |i| light.parameters().iter().find(|(w, _)| *w == Weight::Layer(i, L::Kernel)).unwrap().1.abs();
    for (i, width) in [(0, 3.0f64), (1, 4.0), (2, 7.0)] {
        let (bound, top) = ((6.0 / (3.0 * width)).sqrt(), kernel(i).max().double_value(&[]));
        assert!(top <= bound && top > 0.5 * bound, "{top} {bound}");
    }
    let norms = [Weight::FinalNorm, Weight::Layer(0, L::MixerNorm), Weight::HeadBias];
    let attention = wide(Mixer::Attention, Norm::PreRms);
    for (weight, want) in norms.into_iter().zip([1.0, 1.0, 0.0]) {
        let (_, p) = attention.parameters().iter().find(|(w, _)| *w == weight).unwrap();
        assert!(values(p).iter().all(|v| *v == want), "{weight}");
    }
}

#[test]
fn an_encoder_is_taken_over_with_a_new_head() {
    let base = config(Mixer::Light, Norm::PostLayer);
    let from = model(&base, 1);
    let mut to = model(&Config { num_labels: 9, ..base.clone() }, 2);
    let head = values(&to.parameters().last().unwrap().1);
    to.copy_encoder(from.config(), from.parameters()).unwrap();
    let (ids, mask) = batch(9);
    assert_eq!(values(&to.encode(&ids, &mask, &Mode::eval())), values(&from.encode(&ids, &mask, &Mode::eval())));
    assert_eq!(values(&to.parameters().last().unwrap().1), head);
    assert!(to.parameters().iter().all(|(_, p)| p.requires_grad() && p.is_leaf()));

    let mut other = model(&Config { mixer: base.mixer.clone().with_heads(4), ..base }, 2);
    let error = format!("{:#}", other.copy_encoder(from.config(), from.parameters()).unwrap_err());
    assert!(error.contains("kernel_heads (4 against 2)"), "{error}");
}

#[test]
fn an_impossible_configuration_is_refused() {
    let good = config(Mixer::Light, Norm::PostLayer);
    let bad = Config { mixer: good.mixer.clone().with_heads(3), ..good };
    let error = format!("{:#}", Classifier::new(&bad.into(), 1, Device::Cpu).unwrap_err());
    assert!(error.contains("kernel_heads is 3"), "{error}");
}
