//! Compares the count of operations with PyTorch's own (`golden/flops.py`), for the paper's base models.
#![allow(clippy::unwrap_used)]

use kinglet::spec::Mixer;
use kinglet_train::flops;
use kinglet_train::model::seq2seq::Seq2SeqConfig;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    mixer: Mixer,
    inputs: usize,
    targets: usize,
    forward: u64,
    step: u64,
}

#[test]
fn operations_are_those_that_pytorch_counts() {
    let golden: Golden = serde_json::from_str(include_str!("golden/flops.json")).unwrap();
    // The paper's four mixers at four lengths; of any other, src/flops.rs compares the count with the table of weights.
    assert_eq!(golden.cases.len(), 16);
    for case in golden.cases {
        let config = Seq2SeqConfig::preset("base", case.mixer, 32_128).unwrap();
        let flops = flops::seq2seq(&config, case.inputs, case.targets);
        assert_eq!(flops.total(), case.forward, "{}, {} ids", case.mixer.name(), case.inputs);
        // PyTorch counts the backward pass of a grouped convolution as if it had one group.
        if matches!(case.mixer, Mixer::Dynamic | Mixer::Attention) {
            assert_eq!(flops.training(), case.step, "{}, {} ids", case.mixer.name(), case.inputs);
        } else {
            assert!(flops.training() < case.step);
        }
    }
}
