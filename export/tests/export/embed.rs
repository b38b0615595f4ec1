//! Models that embed: what their files compute, what is measured of them, and which options they refuse.

use std::fs;

use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::Engine;
use kinglet::multi_label::Decision;
use kinglet::spec::{Config, Mixer, Norm, Pooling, Task, Weight, files, metadata};
use kinglet::vector::normalize;
use kinglet_export::VERIFICATION;
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_onnx::{Precision, TractModel, onnx};
use prost::Message;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::fixture::{self, Tensor, exported, exported_bytes, write_tensors};
use crate::program::{Run, names, stderr};
use crate::reference;

fn embeds(config: Config) -> Config {
    Config { task: Task::Embed, ..config }
}

fn config() -> Config {
    embeds(fixture::config(Mixer::Light, Norm::PreRms, Pooling::Mean))
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[test]
fn every_float32_graph_divides_the_scores_by_their_length() {
    for (seed, classifies) in fixture::configs().into_iter().enumerate() {
        let config = embeds(classifies.clone());
        let weights = fixture::weights(&config, seed as u64);
        let mut engine = exported(&config, &weights, Precision::Fp32).engine();
        let mut scores = exported(&classifies, &weights, Precision::Fp32).engine();
        let (mut got, mut ours) = (vec![0.0; 5], vec![0.0; 5]);
        for text in fixture::texts(&config).iter().step_by(3) {
            engine.logits(text, &mut got).unwrap();
            let want = reference::normalized(&reference::logits(&config, &weights, text, reference::Precision::Exact));
            for (&got, want) in got.iter().zip(&want) {
                assert!(
                    (f64::from(got) - want).abs() < 1e-4,
                    "{} {:?}: {got} {want}",
                    config.mixer.name(),
                    config.norm
                );
            }
            // The graph's normalization and ours agree.
            scores.logits(text, &mut ours).unwrap();
            normalize(&mut ours).unwrap();
            assert!(got.iter().zip(&ours).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {ours:?}");
            assert!((length(&got) - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn a_file_says_that_it_embeds_and_has_no_labels() {
    let config = config();
    for precision in [Precision::Fp32, Precision::Int8] {
        let bytes = exported_bytes(&config, &fixture::weights(&config, 1), precision);
        let model = onnx::ModelProto::decode(bytes.as_slice()).unwrap();
        let graph = model.graph.as_ref().unwrap();
        assert_eq!((graph.output.len(), graph.output[0].name.as_str()), (1, "embedding"));
        assert_eq!(graph.node.last().unwrap().output, ["embedding"]);
        let keys: Vec<&str> = model.metadata_props.iter().map(|entry| entry.key.as_str()).collect();
        assert!(!keys.contains(&metadata::LABELS) && !keys.contains(&metadata::CALIBRATION), "{keys:?}");
        let model = TractModel::from_bytes(&bytes).unwrap();
        assert_eq!((model.config().task, model.labels().len()), (Task::Embed, 0));
        assert!(model.classifier().err().unwrap().to_string().contains("embeds text into vectors of 5 values"));
        assert_eq!(model.embedder().unwrap().dimension(), 5);
        assert!((length(model.embedder().unwrap().embed("alarm seven").unwrap()) - 1.0).abs() < 1e-6);
    }
    let classifies = fixture::config(Mixer::Light, Norm::PreRms, Pooling::Mean);
    let model = exported(&classifies, &fixture::weights(&classifies, 1), Precision::Int8);
    assert!(model.embedder().err().unwrap().to_string().contains("classifies text into 5 labels"));
}

#[test]
fn a_vector_of_zeros_stays_zero_in_every_file() {
    let config = config();
    let mut weights = fixture::weights(&config, 1);
    weights.get_mut(&Weight::HeadWeight).unwrap().fill(0.0);
    weights.get_mut(&Weight::HeadBias).unwrap().fill(0.0);
    for precision in [Precision::Fp32, Precision::Int8] {
        let mut got = [1.0; 5];
        exported(&config, &weights, precision).engine().logits(&[9, 300], &mut got).unwrap();
        assert_eq!(got, [0.0; 5]);
    }
    let run = Run::of(&config);
    fixture::write(&run.path("checkpoint"), &config, &weights);
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let model = kinglet::model::open(&run.path("out"), true).unwrap();
    assert_eq!(model.embed("alarm").unwrap(), [0.0; 5]);
}

#[test]
fn a_good_checkpoint_is_exported_verified_and_reported() {
    let run = Run::of(&config());
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        names(&run.path("out")),
        [files::CARD, files::ONNX_INT8, files::BUNDLE, files::ONNX, files::REPORT, VERIFICATION]
    );
    let report = run.report();
    assert_eq!((&report["failures"], &report["dev"], &report["calibration"]), (&json!([]), &Value::Null, &Value::Null));
    assert_eq!(report["config"]["task"], "embed");
    let number = |value: &Value| value.as_f64().unwrap();
    let golden = &report["golden"];
    assert!(number(&golden["fp32"]["single"]) < 1e-4 && number(&golden["int8"]["single"]) > 1e-4, "{golden}");
    assert!(number(&golden["fp32"]["cosine"]["min"]) > 0.999_999, "{golden}");
    for cosine in [&golden["int8"]["cosine"], &report["native"]["cosine_to_pytorch"]] {
        assert!(number(&cosine["min"]) <= number(&cosine["mean"]), "{report}");
        assert!((0.99..0.999_999_9).contains(&number(&cosine["mean"])), "{report}");
    }
    assert!(golden["int8"]["labels_changed"].is_null() && report["native"]["golden"]["labels_changed"].is_null());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cosine to PyTorch 0.9") && !text.contains("labels"), "{text}");

    // What the bundle returns is what was measured, from the texts of the checkpoint.
    let model = kinglet::model::open(&run.path("out"), true).unwrap();
    let (checkpoint, _) = Checkpoint::read(&run.path("checkpoint")).unwrap();
    let mut worst = 1.0f64;
    model
        .engines()
        .with(|engine| {
            for (row, golden) in checkpoint.golden.logits.chunks(5).enumerate() {
                let mut got = [0.0; 5];
                engine.logits(&checkpoint.golden.text(row), &mut got).unwrap();
                normalize(&mut got).unwrap();
                worst = worst.min(got.iter().zip(golden).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
            }
        })
        .unwrap();
    let reported = number(&report["native"]["cosine_to_pytorch"]["min"]);
    assert!((worst - reported).abs() < 1e-6, "{worst} {reported}");

    let bytes = fs::read(run.path("out").join(VERIFICATION)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file.names();
    tensors.sort();
    assert_eq!(tensors, ["attention_mask", "embedding", "fp32_embedding", "input_ids", "int8_embedding"]);
}

#[test]
fn attention_embeds_without_a_bundle() {
    let run = Run::of(&embeds(fixture::config(Mixer::Attention, Norm::PreRms, Pooling::Mean)));
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(names(&run.path("out")), [files::CARD, files::ONNX_INT8, files::ONNX, files::REPORT, VERIFICATION]);
}

#[test]
fn vectors_of_another_model_fail_the_export() {
    let run = Run::of(&config());
    let golden = [
        Tensor::i64("input_ids", &[1, 2], &[4, 5]),
        Tensor::i64("attention_mask", &[1, 2], &[1, 1]),
        Tensor::f32("embedding", &[1, 5], &[1.0, 0.0, 0.0, 0.0, 0.0]),
    ];
    write_tensors(&run.path("checkpoint").join(files::GOLDEN), &golden);
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for said in [
        "off PyTorch's vectors (one by one)",
        "the vectors of the int8 model have",
        "the vectors of the native engine have",
    ] {
        assert!(stderr(&output).contains(said), "{said}: {}", stderr(&output));
    }
    assert_eq!(names(&run.path("out")), [files::REPORT]);
}

#[test]
fn what_needs_labels_is_refused() {
    let run = Run::of(&config());
    fs::write(run.path("dev.jsonl"), "{\"text\": \"alarm\", \"label\": \"class 0\"}\n").unwrap();
    for arguments in [
        &["--dev", "dev.jsonl"][..],
        &["--label-field", "fine"],
        &["--calibration", "dev.jsonl"],
        &["--error-rate", "0.05"],
        &["--coverage", "0.95"],
        &["--out-of-scope", "oos"],
        &["--custom-op"],
    ] {
        let output = run.export(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains("checkpoint embeds text and has no labels, so"), "{arguments:?}: {said}");
        assert!(said.contains(arguments[0]), "{arguments:?}: {said}");
    }
    assert!(!run.path("out").exists());
    let output = run.export(&["--no-dev"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn damaged_checkpoints_are_refused_as_what_they_are() {
    let says = |change: &dyn Fn(&std::path::Path)| {
        let run = Run::of(&config());
        change(&run.path("checkpoint"));
        format!("{:#}", Checkpoint::read(&run.path("checkpoint")).unwrap_err())
    };
    let labels = says(&|dir| fs::write(dir.join(files::LABELS), "[]").unwrap());
    assert!(labels.contains("labels.json: a model that embeds has no labels; remove the file"), "{labels}");
    let golden = |name: &'static str, values: [f32; 5]| {
        says(&move |dir| {
            let tensors = [
                Tensor::i64("input_ids", &[1, 2], &[4, 5]),
                Tensor::i64("attention_mask", &[1, 2], &[1, 1]),
                Tensor::f32(name, &[1, 5], &values),
            ];
            write_tensors(&dir.join(files::GOLDEN), &tensors);
        })
    };
    let long = golden("embedding", [2.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(long.contains("row 0 of embedding has length 2, not 1"), "{long}");
    let missing = golden("logits", [1.0, 0.0, 0.0, 0.0, 0.0]);
    assert!(missing.contains("tensor embedding is missing"), "{missing}");
    let infinite = golden("embedding", [f32::NAN, 0.0, 0.0, 0.0, 0.0]);
    assert!(infinite.contains("embedding has the value NaN"), "{infinite}");
}

#[test]
fn an_operator_for_scores_refuses_a_bundle_of_vectors() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path(), &config, &fixture::weights(&config, 3));
    let (checkpoint, weights) = Checkpoint::read(dir.path()).unwrap();
    let model = Prepared::new(&config, weights);
    let bundle = kinglet_export::bundle::file(&checkpoint, &model, Decision::default()).unwrap().unwrap();
    assert_eq!(Bundle::new(Buffer::new(&bundle).as_slice()).unwrap().config(), &config);
    let file = kinglet_export::custom_op::file(&checkpoint, &bundle).unwrap();
    let said = TractModel::from_bytes(&file).unwrap_err().to_string();
    assert!(said.contains("its outputs are [\"logits\"], not [\"embedding\"]"), "{said}");
}
