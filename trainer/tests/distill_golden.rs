//! Compares the numbers of distillation with PyTorch and numpy: `trainer/tests/golden/make` regenerates the file
//! (tests/golden/distill.py).
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use kinglet_train::tasks::distill::loss::{Similarity, distance};
use kinglet_train::tasks::distill::pca::{principal_components, ridge};
use kinglet_train::tensors::read_tensors;
use tch::Tensor;

fn golden() -> HashMap<String, Tensor> {
    read_tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/distill.safetensors")).unwrap()
}

/// Asserts that no value is off by more than `bound` of the largest.
#[track_caller]
fn near(got: &Tensor, want: &Tensor, bound: f64, what: &str) {
    assert_eq!(got.size(), want.size(), "{what}");
    let off = (got.detach() - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
    assert!(off <= bound, "{what}: off by {off:e}");
}

#[test]
fn loss_and_gradient_are_those_of_pytorch() {
    let golden = golden();
    let similarity = Similarity { weight: 0.2, temperature: 0.05, texts: 4 };
    for case in ["whole", "rest", "single"] {
        let of = |name: &str| golden[&format!("{case}.{name}")].shallow_clone();
        let student = of("student").set_requires_grad(true);
        let (loss, cosines) = distance(&student, &of("teacher"), &similarity);
        near(&loss.view([1]), &of("loss"), 2e-6, case);
        near(&cosines, &of("cosines"), 1e-6, case);
        assert!(!cosines.requires_grad());
        loss.backward();
        near(&student.grad(), &of("grad"), 2e-5, case);
    }
}

#[test]
fn a_loss_of_groups_is_the_sum_of_its_parts() {
    let golden = golden();
    let similarity = Similarity { weight: 0.2, temperature: 0.05, texts: 4 };
    let (student, teacher) = (&golden["whole.student"], &golden["whole.teacher"]);
    let loss = |start, texts| {
        let part = |x: &Tensor| x.narrow(0, start, texts);
        distance(&part(student), &part(teacher), &similarity).0.double_value(&[])
    };
    assert!((loss(0, 8) - loss(0, 4) - loss(4, 4)).abs() < 1e-5);
    // Parts that cut a group lose similarities.
    assert!((loss(0, 8) - loss(0, 2) - loss(2, 6)).abs() > 1e-3);
}

#[test]
fn principal_components_are_those_of_numpy() {
    let golden = golden();
    let x = &golden["pca.x"];
    near(&principal_components(x, 3).unwrap(), &golden["pca.components"], 2e-6, "components");
    let said = principal_components(x, 8).unwrap_err().to_string();
    assert_eq!(said, "8 principal components of rows of 7 values");
    let said = principal_components(&(x / 0.0), 2).unwrap_err().to_string();
    assert!(said.contains("not finite"), "{said}");
}

#[test]
fn the_ridge_regression_is_that_of_numpy() {
    let golden = golden();
    let (weight, bias) = ridge(&golden["pca.x"], &golden["ridge.y"]).unwrap();
    near(&weight, &golden["ridge.weight"], 5e-6, "weight");
    near(&bias, &golden["ridge.bias"], 5e-6, "bias");
}
