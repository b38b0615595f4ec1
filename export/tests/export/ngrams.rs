//! Tests models with n-grams: the formula, both files, all engines; what is refused.

use std::fs;
use std::path::Path;

use kinglet::engine::Engine;
use kinglet::spec::{Config, Mixer, Norm, Pooling, Task, files};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_onnx::{ModelError, Precision, TractModel, onnx};
use prost::Message;
use serde_json::json;

use crate::fixture::{self, Tensor, write_tensors};
use crate::program::{Run, stderr};
use crate::reference;

fn config(mixer: Mixer) -> Config {
    let norm = if mixer == Mixer::Attention { Norm::PreRms } else { Norm::PostLayer };
    Config { ngrams: 600, ..fixture::config(mixer, norm, Pooling::Mean) }
}

#[test]
fn every_mixer_adds_the_scores_of_the_formula() {
    for (seed, mixer) in Mixer::ALL.into_iter().enumerate() {
        let config = config(mixer);
        let weights = fixture::weights(&config, seed as u64);
        let mut got = vec![0.0; config.num_labels];
        let without = |text: &[u32]| reference::logits(&config, &weights, text, reference::Precision::Exact);
        for (precision, most) in [(Precision::Fp32, 1e-4), (Precision::Int8, 0.3)] {
            let mut engine = fixture::exported(&config, &weights, precision).engine();
            let mut apart = 0.0f64;
            for text in fixture::texts(&config) {
                engine.logits(&text, &mut got).unwrap();
                let want = fixture::with_ngrams(&config, &text, without(&text));
                let difference = got.iter().zip(&want).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
                assert!(difference < most, "{}: {got:?} is not {want:?}", mixer.name());
                let more = want.iter().zip(without(&text)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                apart = apart.max(more);
            }
            assert!(apart > 1.0, "the n-grams say something: {apart}");
        }
    }
}

#[test]
fn both_files_have_them_and_agree() {
    for mixer in Mixer::ALL {
        let run = Run::of(&config(mixer));
        let output = run.export(&["--dev", run.dev(60, 3)]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", mixer.name(), stderr(&output));
        let report = run.report();
        assert_eq!(
            (&report["dev"]["accuracy_fp32"], report["native"]["golden"]["labels_changed"] != json!(null)),
            (&json!(0.95), mixer.is_conv()),
            "{report}"
        );
        let error =
            report["weights"].as_array().unwrap().iter().find(|weight| weight["name"] == "ngrams.weight").unwrap();
        assert!(error["relative_rms"].as_f64().unwrap() < 0.02, "{error}");
        let files = report["files"].to_string();
        assert_eq!(files.contains("GRAM"), mixer.is_conv(), "{files}");
    }
    let run = Run::of(&Config { task: Task::MultiLabel, ..config(Mixer::Light) });
    assert_eq!(run.export(&["--no-dev", "--custom-op"]).status.code(), Some(0));
}

/// Damages a good checkpoint and gives the error.
fn error(damage: impl FnOnce(&Path, &mut Vec<Tensor>)) -> String {
    let config = config(Mixer::Light);
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path(), &config, &fixture::weights(&config, 3));
    let mut tensors = fixture::ngram_tensors(&config);
    damage(dir.path(), &mut tensors);
    if dir.path().join(files::NGRAMS).exists() {
        write_tensors(&dir.path().join(files::NGRAMS), &tensors);
    }
    format!("{:#}", Checkpoint::read(dir.path()).unwrap_err())
}

#[test]
fn every_wrong_tensor_is_named() {
    let set = |tensors: &mut Vec<Tensor>, name: &str, at: usize, bytes: &[u8]| {
        let tensor = tensors.iter_mut().find(|t| t.name == name).unwrap();
        tensor.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let cases = [
        ("ngrams.safetensors", error(|dir, _| fs::remove_file(dir.join(files::NGRAMS)).unwrap())),
        ("tensor norm is missing", error(|_, t| t.retain(|t| t.name != "norm"))),
        ("tensor weight is F32 [1200, 5]", error(|_, t| t.iter_mut().find(|t| t.name == "weight").unwrap().double())),
        ("outside the vocabulary of", error(|_, t| set(t, "tokens", 0, &(1i64 << 40).to_le_bytes()))),
        ("n-gram 3 is not above the one before", error(|_, t| set(t, "tokens", 48, &0i64.to_le_bytes()))),
        ("weight is NaN at element 1", error(|_, t| set(t, "weight", 4, &f32::NAN.to_le_bytes()))),
        ("bias is inf at element 0", error(|_, t| set(t, "bias", 0, &f32::INFINITY.to_le_bytes()))),
        ("norm is 0 at element 2, must be above 0", error(|_, t| set(t, "norm", 8, &[0; 4]))),
    ];
    for (words, said) in cases {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn graphs_whose_lookups_lead_elsewhere_are_refused() {
    let config = config(Mixer::Light);
    let good = fixture::exported_bytes(&config, &fixture::weights(&config, 1), Precision::Int8);
    let error = |name: &str, at: usize, value: i32| {
        let mut model = onnx::ModelProto::decode(good.as_slice()).unwrap();
        let graph = model.graph.as_mut().unwrap();
        let tensor = graph.initializer.iter_mut().find(|t| t.name == name).unwrap();
        tensor.raw_data[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        fixture::rehash(&mut model);
        TractModel::from_bytes(&model.encode_to_vec())
    };
    assert!(error("ngrams.row", 0, 0).is_ok());
    for (name, value) in [("ngrams.row", 600), ("ngrams.row", -1), ("ngrams.offset", 1 << 20), ("ngrams.offset", -1)] {
        let said = error(name, 1, value).unwrap_err();
        assert!(matches!(said, ModelError::Graph { .. }), "{said}");
        assert!(said.to_string().contains("leads out of the tables of the n-grams"), "{said}");
    }
}
