//! Tests gradient checkpointing: the same bits, less memory, and failures inside stay errors.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fixture::config;
use kinglet::spec::{Mixer, Norm};
use kinglet_train::batch::{Batch, Seq2SeqBatch};
use kinglet_train::memory::PeakMemory;
use kinglet_train::model::seq2seq::{Seq2Seq, Seq2SeqConfig};
use kinglet_train::model::{Classifier, Mode};
use kinglet_train::optim::clear_gradients;
use kinglet_train::recompute::{Recomputable, checkpoint};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// libtorch has one CPU generator for all threads: tests take turns.
fn generator() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn leaf(seed: i64, shape: &[i64]) -> Tensor {
    tch::manual_seed(seed);
    (Tensor::randn(shape, F32) * 0.2).set_requires_grad(true)
}

/// A residual layer with dropout: `inputs` are `x` and a bias that all layers share.
fn layer(inputs: &[Tensor], up: &Tensor, down: &Tensor) -> Tensor {
    let inside = (inputs[0].matmul(up) + &inputs[1]).relu().dropout(0.3, true);
    &inputs[0] + inside.matmul(down).dropout(0.3, true)
}

struct Stack {
    x: Tensor,
    bias: Tensor,
    weights: Vec<[Tensor; 2]>,
}

impl Stack {
    fn new(layers: i64, width: i64, inside: i64) -> Self {
        let pair = |i| [leaf(10 + i, &[width, inside]), leaf(50 + i, &[inside, width])];
        Stack { x: leaf(1, &[32, width]), bias: leaf(2, &[inside]), weights: (0..layers).map(pair).collect() }
    }

    /// Returns the gradients of all leaves, one number from the generator after the backward pass, and the peak memory.
    fn run(&self, recompute: bool) -> (Vec<Tensor>, f64, u64) {
        tch::manual_seed(99);
        let peak = PeakMemory::start(Device::Cpu).unwrap();
        // Not a leaf, like a relative bias.
        let bias = self.bias.tanh();
        let mut x = self.x.shallow_clone();
        for pair in &self.weights {
            let inputs = [x, bias.shallow_clone()];
            let [up, down] = pair.each_ref().map(Tensor::shallow_clone);
            let run = move |inputs: &[Tensor]| layer(inputs, &up, &down);
            x = if recompute { checkpoint(run, &inputs).unwrap() } else { run(&inputs) };
        }
        x.square().sum(Kind::Float).backward();
        drop(x);
        let bytes = peak.bytes().unwrap();
        drop(peak);
        let next = Tensor::rand([1], F32).double_value(&[0]);
        let leaves = self.weights.iter().flatten().chain([&self.x, &self.bias]);
        let taken = leaves.map(|leaf| {
            let gradient = leaf.grad().copy();
            let _ = leaf.grad().zero_();
            gradient
        });
        (taken.collect(), next, bytes)
    }
}

#[test]
fn gradients_equal_the_plain_ones_bit_for_bit() {
    let _turn = generator();
    let stack = Stack::new(6, 16, 48);
    let (plain, next, _) = stack.run(false);
    let (recomputed, next_too, _) = stack.run(true);
    for (i, (a, b)) in plain.iter().zip(&recomputed).enumerate() {
        assert!(a.abs().max().double_value(&[]) > 0.0, "leaf {i} has no gradient");
        assert!(a == b, "leaf {i} of {}", plain.len());
    }
    assert_eq!(next, next_too, "the generator stands elsewhere");
}

#[test]
fn the_peak_of_memory_falls() {
    let _turn = generator();
    let stack = Stack::new(8, 32, 2048);
    stack.run(false); // Gradients are there from now on.
    let ((_, _, plain), (_, _, recomputed)) = (stack.run(false), stack.run(true));
    // Inside, a layer holds 32·2048 numbers several times; eight layers keep them, one recomputes them.
    assert!(plain > 8 * 2 * 32 * 2048 * 4, "{plain} bytes");
    assert!(recomputed * 3 < plain, "{recomputed} bytes against {plain}");
}

#[test]
fn the_peak_of_memory_is_that_of_the_tensors() {
    let peak = PeakMemory::start(Device::Cpu).unwrap();
    for _ in 0..3 {
        let _ = Tensor::zeros([1000, 1000], F32);
    }
    let bytes = peak.bytes().unwrap();
    assert!((4_000_000..4_001_000).contains(&bytes), "{bytes}");
    assert!(format!("{:#}", PeakMemory::start(Device::Cpu).unwrap_err()).contains("being measured already"));
    drop(peak);
    assert_eq!(PeakMemory::start(Device::Cpu).unwrap().bytes().unwrap(), 0);
}

/// Returns a batch of texts of different lengths.
fn texts(lengths: &[usize]) -> Vec<Vec<u32>> {
    let text = |(row, &length)| (0..length).map(|i: usize| ((7 * i + 3 * row + 5) % 50) as u32).collect();
    lengths.iter().enumerate().map(text).collect()
}

/// Returns the gradients of `parameters` after the backward pass of `loss` under `mode`, from one state of the
/// generator, and the next number of the generator.
fn gradients<P>(parameters: &[(P, Tensor)], mode: &Mode, loss: impl Fn(&Mode) -> Tensor) -> (Vec<Tensor>, f64) {
    clear_gradients(parameters);
    tch::manual_seed(5);
    loss(mode).backward();
    let next = Tensor::rand([1], F32).double_value(&[0]);
    (parameters.iter().map(|(_, weight)| weight.grad().copy()).collect(), next)
}

/// Asserts that recomputing blocks changes no bit of the gradients, with dropout, and in bf16.
fn same_gradients<P: std::fmt::Display>(name: &str, parameters: &[(P, Tensor)], loss: impl Fn(&Mode) -> Tensor) {
    for bf16 in [false, true] {
        let plain = Mode { train: true, dropout: 0.2, drop_connect: 0.2, bf16, recompute: false };
        let (want, stands) = gradients(parameters, &plain, &loss);
        let (got, stands_too) = gradients(parameters, &Mode { recompute: true, ..plain }, &loss);
        for (((weight, _), want), got) in parameters.iter().zip(&want).zip(&got) {
            assert!(want.abs().max().double_value(&[]) > 0.0, "{name} {weight} has no gradient");
            assert!(want == got, "{name} {weight}, bf16 {bf16}");
        }
        assert_eq!(stands, stands_too, "{name}: the generator stands elsewhere");
        let (other, _) = gradients(parameters, &Mode { dropout: 0.0, ..plain }, &loss);
        assert!(want[0] != other[0], "{name}: dropout does nothing");
    }
}

#[test]
fn a_classifier_of_every_mixer_gets_the_plain_gradients() {
    let _turn = generator();
    let texts = texts(&[9, 4, 9, 1]);
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let batch = Batch::new(&texts, Device::Cpu);
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
    for mixer in Mixer::ALL {
        let model = Classifier::new(&config(mixer), 3, Device::Cpu).unwrap();
        same_gradients(mixer.name(), model.parameters(), |mode| {
            let logits = model.forward(&batch.ids, &batch.mask, mode);
            logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0)
        });
    }
}

#[test]
fn an_encoder_decoder_of_every_mixer_and_norm_gets_the_plain_gradients() {
    let _turn = generator();
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = texts(&[9, 4, 1]).into_iter().zip(texts(&[3, 6, 8])).collect();
    let batch = Seq2SeqBatch::new(&pairs, Device::Cpu);
    for mixer in Mixer::ALL {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            if mixer == Mixer::Attention && norm == Norm::PostLayer {
                continue;
            }
            // Four decoder layers read the encoder's output and share a relative bias: the order of sums matters.
            let mut config = Seq2SeqConfig::preset("nano", mixer, 50).unwrap();
            (config.encoder.hidden_size, config.encoder.intermediate_size) = (16, 24);
            config.encoder.norm = norm;
            let model = Seq2Seq::new(&config, 3, Device::Cpu).unwrap();
            let name = format!("{} {norm:?}", mixer.name());
            same_gradients(&name, model.parameters(), |mode| model.loss(&batch, 1e-2, mode).sum);
        }
    }
}

#[test]
fn the_peak_of_memory_of_every_encoder_decoder_falls() {
    let _turn = generator();
    let batch = Seq2SeqBatch::new(&[(vec![7; 128], vec![9; 64]), (vec![8; 128], vec![5; 64])], Device::Cpu);
    for mixer in Mixer::ALL {
        // Twelve layers of each and little else: a small vocabulary, and gradients that are small next to the
        // activations.
        let mut config = Seq2SeqConfig::preset("base", mixer, 50).unwrap();
        (config.encoder.hidden_size, config.encoder.intermediate_size) = (16, 64);
        config.num_attention_heads = 4;
        let model = Seq2Seq::new(&config.resolve(), 3, Device::Cpu).unwrap();
        let peak = |recompute: bool| {
            clear_gradients(model.parameters());
            let mode = Mode { train: true, dropout: 0.1, recompute, ..Mode::eval() };
            let peak = PeakMemory::start(Device::Cpu).unwrap();
            model.loss(&batch, 0.0, &mode).sum.backward();
            peak.bytes().unwrap()
        };
        let (plain, recomputed) = (peak(false), peak(true));
        assert!(recomputed * 3 < plain, "{}: {recomputed} bytes against {plain}", mixer.name());
    }
}

#[test]
fn what_fails_in_a_block_goes_on_as_a_panic() {
    let layer = Recomputable::new(leaf(8, &[3]));
    let run = |again| layer.run(again, &[leaf(9, &[4])], |layer, inputs| layer + &inputs[0]);
    for again in [false, true] {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(again))).unwrap_err();
        let said = failed.downcast::<String>().unwrap();
        assert!(said.contains("size of tensor"), "{said}");
    }
}

#[test]
fn without_gradients_the_function_runs_once() {
    let _turn = generator();
    let (calls, w) = (Arc::new(AtomicUsize::new(0)), leaf(3, &[4]));
    let run = |calls: &Arc<AtomicUsize>| {
        let (calls, w) = (Arc::clone(calls), w.shallow_clone());
        move |x: &[Tensor]| {
            calls.fetch_add(1, Ordering::Relaxed);
            &x[0] * &w
        }
    };
    let x = leaf(4, &[4]);
    let y = no_grad(|| checkpoint(run(&calls), &[x.shallow_clone()]).unwrap());
    assert!(!y.requires_grad() && y == x.detach() * w.detach());
    // The closure is dropped: without a graph, nothing keeps it.
    assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&calls)), (1, 1));

    let y = checkpoint(run(&calls), &[x.detach()]).unwrap();
    assert_eq!(Arc::strong_count(&calls), 2);
    y.sum(Kind::Float).backward();
    assert!(w.grad() == x.detach(), "the weight's gradient, although the input needs none");
    drop(y);
    assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&calls)), (3, 1));
}

#[test]
fn a_panic_inside_is_an_error_and_goes_no_further() {
    let _turn = generator();
    let x = leaf(6, &[3]);
    let failed = checkpoint(|_| panic!("no wren"), &[x.shallow_clone()]).unwrap_err();
    assert!(format!("{failed:#}").contains("no wren"), "{failed:#}");

    // tch turns an exception in libtorch into a panic.
    let failed = checkpoint(|x| x[0].matmul(&Tensor::zeros([7, 7], F32)), &[x.shallow_clone()]).unwrap_err();
    assert!(format!("{failed:#}").contains("shapes cannot be multiplied"), "{failed:#}");

    let calls = AtomicUsize::new(0);
    let second = move |x: &[Tensor]| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) == 0, "no second owl");
        &x[0] * 2.0
    };
    let y = checkpoint(second, &[x.shallow_clone()]).unwrap().sum(Kind::Float);
    let failed = Tensor::f_run_backward(&[&y], &[&x], false, false).unwrap_err();
    assert!(failed.to_string().contains("no second owl"), "{failed}");
}

#[test]
fn a_second_derivative_is_refused() {
    let _turn = generator();
    let x = leaf(7, &[3]);
    let y = checkpoint(|x| x[0].square(), &[x.shallow_clone()]).unwrap().sum(Kind::Float);
    let failed = Tensor::f_run_backward(&[&y], &[&x], true, true).unwrap_err();
    assert!(failed.to_string().contains("no second derivative"), "{failed}");
}
