//! Tests optimizers: state is restored bit for bit, and what they leave alone stays.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use kinglet::spec::{LayerWeight, Weight};
use kinglet_train::{
    optim::{Adafactor, AdafactorConfig, AdamWConfig, Optimizer, OptimizerConfig, clear_gradients, clip_gradients},
    tensors::{read_tensors, write_tensors},
};
use tch::{Device, Kind, Tensor};

/// Returns a factored matrix, an unfactored one, a vector, and kernel taps.
fn parameters() -> Vec<(Weight, Tensor)> {
    let make = |n: i64, shape: &[i64]| {
        let t = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 0.7).sin() * 0.3;
        t.view(shape).set_requires_grad(true)
    };
    vec![
        (Weight::Layer(0, LayerWeight::Up), make(130 * 128, &[130, 128])),
        (Weight::Layer(0, LayerWeight::In), make(16, &[4, 4])),
        (Weight::Layer(0, LayerWeight::MixerNorm), make(5, &[5])),
        (Weight::Layer(0, LayerWeight::Kernel), make(14, &[2, 7])),
    ]
}

/// Sets each gradient to something that depends on the weight and on `round`.
fn set_gradients(params: &[(Weight, Tensor)], round: i64) {
    for (_, p) in params {
        let mut p = p.shallow_clone();
        if p.grad().defined() {
            p.zero_grad();
        }
        ((&p * (3 + round)).cos() * &p).sum(Kind::Float).backward();
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.detach().to_kind(Kind::Float).contiguous().view([-1])).unwrap()
}

fn all(params: &[(Weight, Tensor)]) -> Vec<Vec<f32>> {
    params.iter().map(|(_, p)| values(p)).collect()
}

fn configs() -> [OptimizerConfig; 2] {
    [
        OptimizerConfig::Adafactor(AdafactorConfig { weight_decay: 0.1 }),
        OptimizerConfig::AdamW(AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() }),
    ]
}

#[test]
fn a_loaded_state_goes_on_bit_for_bit() {
    for config in configs() {
        let params = parameters();
        let mut optimizer = config.build(&params);
        for round in 0..5 {
            set_gradients(&params, round);
            optimizer.step(0.01);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        write_tensors(&path, &optimizer.state()).unwrap();

        let copies: Vec<(Weight, Tensor)> =
            params.iter().map(|(w, p)| (*w, p.detach().copy().set_requires_grad(true))).collect();
        let mut resumed = config.build(&copies);
        resumed.load_state(&read_tensors(&path).unwrap()).unwrap();
        for round in 5..9 {
            for (params, optimizer) in [(&params, &mut optimizer), (&copies, &mut resumed)] {
                set_gradients(params, round);
                optimizer.step(0.02);
            }
            assert_eq!(all(&params), all(&copies), "{config:?} round {round}");
        }
        let fresh = config.build(&copies);
        let (a, b) = (resumed.state(), fresh.state());
        assert!(a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1.size() == b.1.size()));
        assert!(a.iter().zip(&b).all(|(a, b)| values(&a.1) != values(&b.1)), "every part of the state is used");
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    for config in configs() {
        let params = parameters();
        let mut optimizer = config.build(&params);
        let whole: HashMap<String, Tensor> = optimizer.state().into_iter().collect();
        for name in whole.keys() {
            let mut part: HashMap<String, Tensor> =
                whole.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
            part.insert(name.clone(), Tensor::zeros([3, 3, 3], (Kind::Float, Device::Cpu)));
            assert!(optimizer.load_state(&part).unwrap_err().to_string().contains(name.as_str()));
            part.remove(name);
            assert!(optimizer.load_state(&part).unwrap_err().to_string().contains(name.as_str()));
        }
    }
}

#[test]
fn only_large_matrices_are_factored() {
    let state = Adafactor::new(AdafactorConfig::default(), &parameters()).state();
    let named: Vec<(&str, Vec<i64>)> = state.iter().map(|(name, t)| (name.as_str(), t.size())).collect();
    assert_eq!(
        named,
        [
            ("step", vec![1]),
            ("layers.0.ffn.up.weight.rows", vec![130]),
            ("layers.0.ffn.up.weight.columns", vec![128]),
            ("layers.0.mixer.in_proj.weight.v", vec![4, 4]),
            ("layers.0.mixer_norm.weight.v", vec![5]),
            ("layers.0.mixer.kernel.v", vec![2, 7]),
        ]
    );
}

#[test]
fn decay_takes_matrices_and_leaves_norms_and_taps() {
    for config in configs() {
        let params = parameters();
        let before = all(&params);
        let mut optimizer = config.build(&params);
        for (_, p) in &params {
            // With a gradient of zero, only the decay moves a weight.
            (p * 0.0).sum(Kind::Float).backward();
        }
        optimizer.step(0.5);
        for (((weight, p), before), decays) in params.iter().zip(&before).zip([true, true, false, false]) {
            let shrunk = values(p).iter().zip(before).all(|(a, b)| a.abs() <= b.abs());
            assert!(shrunk && (values(p) != *before) == decays, "{weight} {config:?}");
        }
    }
}

#[test]
fn a_weight_without_gradient_is_left_alone() {
    for config in configs() {
        let params = parameters();
        let before = all(&params);
        config.build(&params).step(0.5);
        assert_eq!(all(&params), before);
    }
}

#[test]
fn optimizers_find_the_minimum_of_a_bowl() {
    for config in configs() {
        let x = Tensor::from_slice(&[3.0f32, -2.0]).set_requires_grad(true);
        let params = vec![(Weight::HeadBias, x.shallow_clone())];
        let mut optimizer = config.build(&params);
        for step in 0..2000 {
            let mut x = x.shallow_clone();
            if x.grad().defined() {
                x.zero_grad();
            }
            ((&x - 1.0) * (&x - 1.0) * Tensor::from_slice(&[1.0f32, 30.0])).sum(Kind::Float).backward();
            optimizer.step(0.05 * (1.0 - f64::from(step) / 2000.0));
        }
        assert!(values(&x).iter().all(|v| (v - 1.0).abs() < 1e-2), "{config:?} {:?}", values(&x));
    }
}

#[test]
fn cleared_gradients_are_gone_and_the_next_ones_are_not_added_to_them() {
    let x = Tensor::from_slice(&[3.0f32, -2.0]).set_requires_grad(true);
    let params = vec![(Weight::HeadBias, x.shallow_clone())];
    clear_gradients(&params);
    for _ in 0..2 {
        (&x * &x * 0.5).sum(Kind::Float).backward();
        let held = x.grad();
        assert_eq!(values(&held), [3.0, -2.0]);
        clear_gradients(&params);
        assert!(!x.grad().defined());
        assert_eq!(values(&held), [3.0, -2.0]);
    }
}

#[test]
fn clipping_scales_all_gradients_to_the_norm() {
    let params: Vec<(Weight, Tensor)> = [3.0f32, 4.0]
        .map(|v| (Weight::HeadBias, Tensor::from_slice(&[v]).set_requires_grad(true)))
        .into_iter()
        .chain([(Weight::FinalNorm, Tensor::from_slice(&[1.0f32]).set_requires_grad(true))])
        .collect();
    // The gradient of x²/2 is x; the last parameter has none.
    params[..2].iter().for_each(|(_, p)| (p * p * 0.5).sum(Kind::Float).backward());
    let gradients = || params[..2].iter().map(|(_, p)| f64::from(values(&p.grad())[0])).collect::<Vec<_>>();
    assert_eq!(clip_gradients(&params, 10.0), 5.0);
    assert_eq!(gradients(), [3.0, 4.0]);
    assert_eq!(clip_gradients(&params, f64::INFINITY), 5.0);
    assert_eq!(clip_gradients(&params, 1.0), 5.0);
    assert!(gradients().iter().zip([0.6, 0.8]).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", gradients());
    assert!((clip_gradients(&params, 0.0) - 1.0).abs() < 1e-6);
    assert_eq!(clip_gradients(&params[2..], 1.0), 0.0);
}

#[test]
fn a_rate_is_scaled_per_parameter() {
    for config in configs() {
        let (scaled, plain) = (parameters(), parameters());
        let mut optimizer = config.build(&scaled);
        optimizer.scale_rates(&[0.5, 1.0, 0.0, 1.0]);
        // In steps of their own, each with the rate of one of the parameters.
        let mut steps = plain.chunks(1).map(|one| config.build(one)).collect::<Vec<_>>();
        for round in 0..3 {
            set_gradients(&scaled, round);
            optimizer.step(0.02);
            set_gradients(&plain, round);
            for (optimizer, rate) in steps.iter_mut().zip([0.01, 0.02, 0.0, 0.02]) {
                optimizer.step(rate);
            }
        }
        assert_eq!(all(&scaled), all(&plain), "{config:?}");
        assert_eq!(values(&scaled[2].1), values(&parameters()[2].1), "a rate of zero leaves a weight as it is");
    }
}

#[test]
fn adafactor_does_not_depend_on_the_number_of_threads() {
    let threads = tch::get_num_threads();
    let run = |threads| {
        tch::set_num_threads(threads);
        let params = parameters();
        let mut optimizer = OptimizerConfig::Adafactor(AdafactorConfig { weight_decay: 0.1 }).build(&params);
        for round in 0..4 {
            set_gradients(&params, round);
            optimizer.step(0.01);
        }
        all(&params)
    };
    let (one, three) = (run(1), run(3));
    tch::set_num_threads(threads);
    assert_eq!(one, three);
}
