//! Tests the program as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use kinglet::classifier::Classifier;
use kinglet::spec::{Config, Mixer, Norm, Pooling, files};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_export::{PAGE, VERIFICATION};
use kinglet_onnx::{Precision, TractModel};
use serde_json::{Value, json};

use crate::fixture::{self, Tensor, write_tensors};

pub struct Run {
    dir: tempfile::TempDir,
}

impl Run {
    pub fn new() -> Self {
        Self::of(&fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean))
    }

    pub fn of(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("checkpoint")).unwrap();
        fixture::write(&dir.path().join("checkpoint"), config, &fixture::weights(config, 3));
        Run { dir }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn export(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet-export"));
        command
            .current_dir(self.dir.path())
            .args(["checkpoint", "--out", "out", "--force"])
            .args(args)
            .output()
            .unwrap()
    }

    pub fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("out/report.json")).unwrap()).unwrap()
    }

    /// Returns dev data labelled by the float32 model itself, so that its accuracy is known to be 1.
    pub fn dev(&self, texts: usize, wrong: usize) -> &'static str {
        let (checkpoint, weights) = Checkpoint::read(&self.path("checkpoint")).unwrap();
        let model = Prepared::new(&checkpoint.config, weights).with_ngrams(checkpoint.ngrams.clone());
        let bytes = kinglet_export::onnx::file(&checkpoint, &model, Precision::Fp32).unwrap();
        let model = TractModel::from_bytes(&bytes).unwrap();
        let mut classifier = model.classifier().unwrap();
        let texts: Vec<String> = (0..texts).map(|i| format!("alarm {i} seven {}", i * i)).collect();
        let labels: Vec<usize> = texts.iter().map(|text| classifier.classify(text).unwrap().best().class).collect();
        fixture::write_dev(&self.path("dev.jsonl"), &texts, |i| (labels[i] + usize::from(i < wrong)) % 5);
        "dev.jsonl"
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_good_checkpoint_is_exported_verified_and_reported() {
    let run = Run::new();
    let output = run.export(&["--dev", run.dev(40, 10)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let wanted = [files::CARD, files::ONNX_INT8, files::BUNDLE, files::ONNX, PAGE, files::REPORT, VERIFICATION];
    assert_eq!(names(&run.path("out")), wanted);
    let page = fs::read_to_string(run.path("out").join(PAGE)).unwrap();
    assert!(page.contains("75.00%") && page.contains("Most surely wrong") && !page.contains("http"), "{page}");
    let card = fs::read_to_string(run.path("out").join(files::CARD)).unwrap();
    assert!(card.contains("kinglet classify --model model.kinglet"), "{card}");

    let report = run.report();
    assert_eq!(report["failures"], json!([]));
    assert_eq!(report["golden"]["rows"], 10);
    assert!(report["golden"]["fp32"]["single"].as_f64().unwrap() < 1e-4);
    assert!(report["golden"]["int8"]["single"].as_f64().unwrap() > 1e-4, "int8 cannot be this good: {report}");
    assert_eq!(report["dev"]["rows"], 40);
    assert_eq!(report["dev"]["accuracy_fp32"], 0.75);
    assert_eq!(report["weights"].as_array().unwrap().len(), 12);
    for file in report["files"].as_array().unwrap() {
        let bytes = fs::read(run.path("out").join(file["name"].as_str().unwrap())).unwrap();
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["sha256"], kinglet_data::digest::sha256(&bytes));
    }
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("dev accuracy on 40 texts: fp32 75.00%"), "{text}");
    for name in [files::ONNX, files::ONNX_INT8] {
        TractModel::open(&run.path("out").join(name)).unwrap();
    }
}

#[test]
fn a_file_of_one_operator_is_written_when_asked_for() {
    let run = Run::new();
    let output = run.export(&["--no-dev", "--custom-op"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let path = run.path("out").join(files::ONNX_CUSTOM_OP);
    let bytes = fs::read(&path).unwrap();
    let report = run.report();
    let file = report["files"].as_array().unwrap().iter().find(|file| file["name"] == files::ONNX_CUSTOM_OP).unwrap();
    assert_eq!(file["sha256"], kinglet_data::digest::sha256(&bytes));
    let class = |mut classifier: Classifier<'_>| classifier.classify("alarm seven").unwrap().best().class;
    let operator = TractModel::open(&path).unwrap();
    let bundle = kinglet::model::open(&run.path("out").join(files::BUNDLE), true).unwrap();
    assert_eq!(class(operator.classifier().unwrap()), class(bundle.classifier().unwrap()));

    let config = fixture::config(Mixer::Attention, Norm::PreRms, Pooling::Mean);
    fixture::write(&run.path("checkpoint"), &config, &fixture::weights(&config, 3));
    // The flag by its old name.
    let output = run.export(&["--no-dev", "--fused"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("only convolutional models can be one operator"), "{}", stderr(&output));
}

#[test]
fn exporting_twice_gives_the_same_bytes() {
    let run = Run::new();
    let read =
        || names(&run.path("out")).iter().map(|n| fs::read(run.path("out").join(n)).unwrap()).collect::<Vec<_>>();
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let first = read();
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    assert!(first == read());
}

#[test]
fn json_on_stdout_is_the_report() {
    let run = Run::new();
    let output = run.export(&["--no-dev", "--json"]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, run.report());
    assert_eq!(printed["dev"], Value::Null);
}

#[test]
fn wrong_golden_logits_fail_the_export_and_leave_the_old_files() {
    let run = Run::new();
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let before = fs::read(run.path("out/model.onnx")).unwrap();
    let golden = [
        Tensor::i64("input_ids", &[1, 2], &[4, 5]),
        Tensor::i64("attention_mask", &[1, 2], &[1, 1]),
        Tensor::f32("logits", &[1, 5], &[1.0; 5]),
    ];
    write_tensors(&run.path("checkpoint").join(files::GOLDEN), &golden);
    let output = run.export(&["--no-dev"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("off PyTorch's logits (one by one), at most 1e-4 is allowed"),
        "{}",
        stderr(&output)
    );
    // The older files keep their report.
    let failed: Value = serde_json::from_slice(&fs::read(run.path("out/report.failed.json")).unwrap()).unwrap();
    assert_eq!(failed["failures"].as_array().unwrap().len(), 2);
    assert_eq!(run.report()["failures"], json!([]));
    assert!(before == fs::read(run.path("out/model.onnx")).unwrap());
}

#[test]
fn what_an_older_export_had_and_this_one_has_not_is_removed() {
    let run = Run::new();
    assert_eq!(run.export(&["--no-dev", "--custom-op"]).status.code(), Some(0));
    fs::write(run.path("out/report.failed.json"), "{}").unwrap();
    fs::write(run.path("out/mine.txt"), "stays").unwrap();
    assert!(run.path("out/model.custom-op.onnx").exists());
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let left = names(&run.path("out"));
    assert!(left.contains(&"mine.txt".to_owned()) && left.contains(&"model.kinglet".to_owned()), "{left:?}");
    assert!(!left.iter().any(|name| name.contains("custom-op") || name.contains("failed")), "{left:?}");
}

#[test]
fn flips_are_listed_and_too_large_a_drop_fails() {
    let run = Run::new();
    // All classes have nearly the same weights, so the scores depend on the last digits and int8 decides otherwise.
    let config = fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean);
    let mut weights = fixture::weights(&config, 3);
    let head = weights.get_mut(&kinglet::spec::Weight::HeadWeight).unwrap();
    let (first, rest) = head.split_at_mut(config.hidden_size);
    for row in rest.chunks_mut(config.hidden_size) {
        row.iter_mut().zip(&*first).for_each(|(x, &f)| *x = f + *x * 0.01);
    }
    weights.get_mut(&kinglet::spec::Weight::HeadBias).unwrap().fill(0.0);
    fixture::write(&run.path("checkpoint"), &config, &weights);
    let output = run.export(&["--dev", run.dev(40, 0)]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("points of accuracy on dev.jsonl (")
            && stderr(&output).contains("at most 0.5 are allowed"),
        "{}",
        stderr(&output)
    );
    let dev = &run.report()["dev"];
    let flips = dev["flips"].as_array().unwrap();
    assert!(!flips.is_empty());
    for flip in flips {
        assert_eq!(flip["gold"], flip["fp32"]);
        assert_ne!(flip["fp32"], flip["int8"]);
        assert!(flip["text"].as_str().unwrap().starts_with("alarm "));
    }
    assert_eq!(dev["accuracy_int8"].as_f64().unwrap(), 1.0 - flips.len() as f64 / 40.0);
    assert_eq!(names(&run.path("out")), [files::REPORT]);
}

#[test]
fn the_dev_data_that_training_recorded_are_used() {
    let run = Run::new();
    let dev = run.dev(8, 0);
    let sha256 = kinglet_data::digest::sha256(&fs::read(run.path(dev)).unwrap());
    let record = |sha256: &str| {
        let training =
            json!({ "dev": { "file": dev, "rows": 8, "sha256": sha256 }, "label_field": "label", "seed": 1 });
        fs::write(run.path("checkpoint").join(files::TRAINING), training.to_string()).unwrap();
    };
    record(&sha256);
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(run.report()["dev"]["sha256"], sha256);

    record(&"0".repeat(64));
    let output = run.export(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("dev.jsonl is not the file that the model was trained with"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_cannot_be_exported_ends_with_code_2_and_says_why() {
    let run = Run::new();
    let says = |args: &[&str], text: &str| {
        let output = run.export(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    };
    says(&[], "does not name its dev data; give the dev data with --dev FILE");
    says(&["--dev", "absent.jsonl"], "cannot read the dev data absent.jsonl; give the dev data with --dev FILE, or");
    says(&["--dev", run.dev(8, 0), "--label-field", "fine"], "fine");
    says(&["--dev", "dev.jsonl", "--no-dev"], "cannot be used with");
    fs::write(run.path("empty.jsonl"), "").unwrap();
    says(&["--dev", "empty.jsonl"], "empty.jsonl");
    fs::write(run.path("out"), "a file").unwrap();
    says(&["--no-dev"], "out is not a directory");
    fs::remove_file(run.path("out")).unwrap();
    fs::remove_file(run.path("checkpoint").join(files::WEIGHTS)).unwrap();
    says(&["--no-dev"], "model.safetensors");
}

#[test]
fn the_tract_that_reports_name_is_the_one_that_is_pinned() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let pinned = format!("tract-onnx = {{ version = \"={}\"", kinglet_onnx::TRACT_VERSION);
    assert!(fs::read_to_string(manifest).unwrap().contains(&pinned), "{pinned}");
}

#[test]
fn an_exported_model_is_replaced_only_when_asked() {
    let run = Run::new();
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let before = fs::read(run.path("out/model.kinglet")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet-export"));
    let output = command.current_dir(run.path("")).args(["checkpoint", "--out", "out", "--no-dev"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("out/model.kinglet exists; choose another name, or replace it with --force"));
    assert_eq!(fs::read(run.path("out/model.kinglet")).unwrap(), before);
}

#[test]
fn an_encoder_is_called_one() {
    let run = Run::new();
    let path = run.path("checkpoint/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["num_labels"] = 0.into();
    fs::write(&path, config.to_string()).unwrap();
    let output = run.export(&["--no-dev"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("it is that of an encoder, which has no labels"), "{}", stderr(&output));
}
