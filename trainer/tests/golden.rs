//! Compares layers, models, and optimizers with PyTorch, transformers, and fairseq. `trainer/tests/golden/make`
//! regenerates the files; the versions used stand in `golden/versions.json`.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, fs, path::PathBuf};

use kinglet::spec::{LayerWeight, Mixer, Weight};
use kinglet_train::{
    model::{Classifier, Mode, ModelConfig, dynamicconv::DynamicConv, lightconv::LightConv, linear::Linear},
    optim::{AdafactorConfig, AdamWConfig, OptimizerConfig},
    tensors::read_tensors,
};
use tch::{Device, Kind, Tensor};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(name: &str) -> HashMap<String, Tensor> {
    read_tensors(&folder().join(name)).unwrap()
}

/// Returns the numbers of `numbers` in `golden/make.py`.
fn numbers(shape: &[i64], seed: i64) -> Tensor {
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| ((i + 1) * 2_654_435_761 + (seed + 1) * 974_711 * (i % 1009 + 7)) % (1 << 32))
        .map(|mixed| (mixed as f64 / f64::from(1u32 << 31) - 1.0) as f32)
        .collect();
    Tensor::from_slice(&values).view(shape)
}

/// Returns the largest difference, relative to the largest reference value if that is above 1.
fn difference(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    assert!(want.isfinite().all().int64_value(&[]) == 1);
    let size = want.abs().max().double_value(&[]).max(1.0);
    let off = (got - want).abs().max().double_value(&[]) / size;
    if off.is_nan() { f64::INFINITY } else { off }
}

#[track_caller]
fn assert_near(got: &Tensor, want: &Tensor, bound: f64, what: &str) {
    let off = difference(&got.detach(), want);
    assert!(off <= bound, "{what}: off by {off:e}");
}

#[test]
fn convolutions_and_their_gradients_are_those_of_fairseq() {
    let golden = read("convolutions.safetensors");
    for (tokens, width, heads) in [(5, 3, 1), (9, 7, 2), (4, 7, 4), (60, 3, 2)] {
        let leaf = |t: Tensor| t.set_requires_grad(true);
        let (shape, offset) = ([2, tokens, 8], width / 2);
        let weights = numbers(&shape, 3);
        let check = |name: &str, y: Tensor, leaves: &[(&str, &Tensor)]| {
            let case = format!("{name}.{tokens}.{width}.{heads}");
            assert_near(&y, &golden[&format!("{case}.y")], 1e-6, &case);
            (y * &weights).sum(Kind::Float).backward();
            for (leaf, tensor) in leaves {
                let name = format!("{case}.grad.{leaf}");
                assert_near(&tensor.grad(), &golden[&name], 2e-6, &name);
            }
        };
        let (x, kernel) = (leaf(numbers(&shape, 1)), leaf(numbers(&[heads, width], 4) * 2.0));
        let y = LightConv::new(kernel.shallow_clone(), offset).forward(&x, &Mode::eval());
        check("light", y, &[("x", &x), ("kernel", &kernel)]);

        let (x, query) = (leaf(numbers(&shape, 1)), leaf(numbers(&shape, 2)));
        let projection = leaf(numbers(&[heads * width, 8], 5));
        let conv = DynamicConv::new(Linear::new(projection.shallow_clone()), heads, offset);
        let y = conv.forward(&x, &query, &Mode::eval());
        check("dynamic", y, &[("x", &x), ("query", &query), ("projection", &projection)]);
    }
    assert_eq!(golden.len(), 4 * (3 + 4));
}

#[test]
fn models_and_their_gradients_are_those_of_pytorch_and_of_transformers_t5() {
    let configs = fs::read(folder().join("models.json")).unwrap();
    let configs: HashMap<String, ModelConfig> = serde_json::from_slice(&configs).unwrap();
    let has = |mixer| configs.values().any(|config| config.mixer.kind() == mixer);
    assert!(configs.len() >= 6 && Mixer::ALL.into_iter().all(has), "every mixer has a model");
    for (name, config) in configs {
        let config = config.resolve();
        let golden = read(&format!("model_{name}.safetensors"));
        let weights = config.weights().map(|(w, _)| (w, golden[&w.to_string()].shallow_clone())).collect();
        let model = Classifier::from_weights(&config, weights, Device::Cpu).unwrap();
        assert_eq!(golden.len(), 3 + 2 * model.parameters().len(), "{name}: every weight is used");
        let logits = model.forward(&golden["input_ids"], &golden["attention_mask"], &Mode::eval());
        assert_near(&logits, &golden["logits"], 2e-6, &name);
        logits.cross_entropy_for_logits(&Tensor::from_slice(&[0i64, 1, 2])).backward();
        for (weight, p) in model.parameters() {
            assert_near(&p.grad(), &golden[&format!("grad.{weight}")], 5e-6, &format!("{name} gradient of {weight}"));
        }
    }
}

/// Follows the parameters, rates, and gradients of `optimizers` in `golden/make.py`.
fn follow(name: &str, config: OptimizerConfig) {
    let golden = read("optimizers.safetensors");
    let leaf = |t: Tensor| t.set_requires_grad(true);
    let params = [
        (Weight::Layer(0, LayerWeight::Up), leaf(numbers(&[130, 150], 1) * 0.2)),
        (Weight::Layer(0, LayerWeight::MixerNorm), leaf(numbers(&[7], 2) * 1e-4)),
        (Weight::HeadBias, leaf(numbers(&[7], 3))),
    ];
    let mut optimizer = config.build(&params);
    for (step, rate) in [0.1, 0.05, 0.2, 0.01, 0.03, 0.02].into_iter().enumerate() {
        for (seed, (_, p)) in params.iter().enumerate() {
            let mut p = p.shallow_clone();
            if p.grad().defined() {
                p.zero_grad();
            }
            let g = numbers(&p.size(), (100 + 10 * step + seed) as i64);
            (&p * (&g * &g * &g * (1.0 + step as f64))).sum(Kind::Float).backward();
        }
        optimizer.step(rate);
        let [matrix, small, vector] = params.each_ref().map(|(_, p)| p.detach());
        for (part, got) in [("matrix", matrix.view([-1]).slice(0, 0, None, 97)), ("small", small), ("vector", vector)] {
            let want = &golden[&format!("{name}.{step}.{part}")];
            // Relative to the parameter's own size: the small one is 1e-4.
            let size = want.abs().max().double_value(&[]).min(1.0);
            let off = (got - want).abs().max().double_value(&[]) / size;
            assert!(off <= 2e-6, "{name} {part} after step {step}: off by {off:e}");
        }
    }
}

#[test]
fn adafactor_is_that_of_transformers() {
    follow("adafactor", OptimizerConfig::Adafactor(AdafactorConfig { weight_decay: 0.0 }));
    follow("adafactor_decay", OptimizerConfig::Adafactor(AdafactorConfig { weight_decay: 0.1 }));
}

#[test]
fn adamw_is_that_of_pytorch() {
    follow("adamw", OptimizerConfig::AdamW(AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() }));
}
