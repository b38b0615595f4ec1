//! Fine-tuning of a BERT-type Transformer against transformers (`golden/bert_finetune.py`): losses, gradients and scores; what is written,
//! who reads it, and what is refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{at_most, close, launch, metrics, run_all, stderr, stdout};
use kinglet_train::teacher::{Options, Precision, Teacher};
use kinglet_train::tensors::read_tensors;
use serde_json::{Value, json};
use tch::Device;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A folder with the golden rows, whose manifest names the classes in the order of the golden classifier.
struct Rows {
    folder: TempDir,
    record: Value,
}

impl Rows {
    fn new() -> Self {
        let (folder, record) = (tempfile::tempdir().unwrap(), read_json(&golden("bert_finetune.json")));
        let lines: String = record["rows"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
        fs::create_dir(folder.path().join("sorted")).unwrap();
        for file in ["rows.jsonl", "sorted/rows.jsonl"] {
            fs::write(folder.path().join(file), &lines).unwrap();
        }
        fs::write(folder.path().join("MANIFEST.json"), json!({"classes": ["bird", "place", "other"]}).to_string())
            .unwrap();
        Rows { folder, record }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn texts(&self) -> Vec<&str> {
        self.record["rows"].as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap()).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet-train"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// Returns `finetune` from the golden model `from` on `data` into `out`.
    fn finetune(&self, from: &str, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command =
            self.command(&["finetune", "--train", data, "--dev", data, "--device", "cpu", "--threads", "1"]);
        command.arg("--from").arg(golden(from)).args(["--out", out]).args(more);
        command
    }

    fn good(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output) + &stdout(&output)
    }

    fn refused(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    }

    /// Returns `name` of a run's training rows.
    fn logged(&self, out: &str, name: &str) -> Vec<f64> {
        let rows = metrics(&self.path(out));
        rows.iter().filter(|row| row["kind"] == "train").map(|row| row[name].as_f64().unwrap()).collect()
    }
}

/// The settings of the golden run, evaluated once, at the end.
const GOLDEN: [&str; 12] = [
    "--set",
    "train.epochs=6",
    "--set",
    "train.batch_size=8",
    "--set",
    "train.lr=1e-3",
    "--set",
    "train.dropout=0",
    "--set",
    "train.log_every=1",
    "--set",
    "train.eval_every=1000",
];

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Asserts that two lists are as near as f32 computes them.
#[track_caller]
fn same(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max);
    at_most(1e-4, apart, what);
}

#[test]
fn losses_gradients_and_scores_are_those_of_transformers() {
    let rows = Rows::new();
    let want = &rows.record["kept_head"];
    for (out, more) in [("run", &[][..]), ("again", &["--set", "train.gradient_checkpointing=true"][..])] {
        rows.good(rows.finetune("bert_classifier", "rows.jsonl", out, &[&GOLDEN[..], more].concat()));
        same(&rows.logged(out, "loss"), &numbers(&want["losses"]), "losses");
        same(&rows.logged(out, "grad_norm"), &numbers(&want["norms"]), "norms of gradients");
    }
    assert_eq!(
        fs::read(rows.path("run/model.safetensors")).unwrap(),
        fs::read(rows.path("again/model.safetensors")).unwrap()
    );

    // The teacher reads what was written.
    let options = Options { classifier: true, ..Options::default() };
    let teacher = Teacher::with(&rows.path("run"), Device::Cpu, Precision::F32, &options).unwrap();
    assert_eq!(teacher.classes(), ["bird", "place", "other"]);
    let got = Vec::<Vec<f32>>::try_from(teacher.classify(&rows.texts()).unwrap()).unwrap();
    let got: Vec<f64> = got.concat().into_iter().map(f64::from).collect();
    let expected: Vec<f64> = want["probabilities"].as_array().unwrap().iter().flat_map(numbers).collect();
    same(&got, &expected, "probabilities");

    // Other labels, in order: a new head, which begins at zero, on the same pooler.
    let zero = [&GOLDEN[..], &["--set", "train.zero_head=true"]].concat();
    rows.good(rows.finetune("bert_classifier", "sorted/rows.jsonl", "zero", &zero));
    let want = &rows.record["zero_head"];
    same(&rows.logged("zero", "loss"), &numbers(&want["losses"]), "losses from a head of zero");
    same(&rows.logged("zero", "grad_norm"), &numbers(&want["norms"]), "norms from a head of zero");
}

#[test]
fn what_is_written_has_the_layout_of_a_bert_for_sequence_classification() {
    let rows = Rows::new();
    // An encoder alone: pooler and head are new.
    let said = rows.good(rows.finetune("bert", "sorted/rows.jsonl", "run", &[]));
    assert!(said.contains("3 classes") && said.contains("epochs = 3") && said.contains("max_length = 16"), "{said}");
    // Two texts are longer than the model's 16 tokens.
    assert!(said.contains("8 training texts (2 cut to 16 tokens)"), "{said}");
    let layout = |path: &Path| {
        let tensors = read_tensors(path).unwrap();
        let mut layout: Vec<_> = tensors.into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        layout.sort();
        layout
    };
    assert_eq!(layout(&rows.path("run/model.safetensors")), layout(&golden("bert_classifier/model.safetensors")));
    let config = read_json(&rows.path("run/config.json"));
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "bird", "1": "other", "2": "place"}));
    assert_eq!(config["label2id"], json!({"bird": 0, "other": 1, "place": 2}));
    assert_eq!((&config["dtype"], &config["layer_norm_eps"]), (&json!("float32"), &json!(1e-6)));
    for file in ["tokenizer.json", "tokenizer_config.json", "training.json", "README.md", "resume/progress.json"] {
        assert!(rows.path("run").join(file).exists(), "{file}");
    }
    let card = fs::read_to_string(rows.path("run/README.md")).unwrap();
    assert!(card.contains("library_name: transformers") && card.contains("BERT, 2 layers × 16 channels"), "{card}");

    let said =
        rows.good(rows.command(&["eval", "--checkpoint", "run", "--data", "rows.jsonl", "--device", "cpu", "--json"]));
    let scores: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(scores["accuracy"], read_json(&rows.path("run/training.json"))["best"]["accuracy"]);
    let teacher = ["teacher", "--model", "run", "--probabilities", "--device", "cpu", "--out", "soft", "rows.jsonl"];
    rows.good(rows.command(&teacher));
    // A Transformer learns from soft labels too, here from a fine-tuned folder and its own.
    let mut command =
        rows.finetune("bert", "rows.jsonl", "second", &["--soft-labels", "soft", "--soft-texts", "rows.jsonl"]);
    command.args(["--set", "train.epochs=1"]);
    assert!(rows.good(command).contains("8 texts with soft labels (8 of them in the training file"));
}

/// A run with dropout, long enough to be stopped.
const LONG: [&str; 8] = [
    "--set",
    "train.epochs=150",
    "--set",
    "train.batch_size=4",
    "--set",
    "train.log_every=3",
    "--set",
    "train.eval_every=7",
];

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let rows = Rows::new();
    let command =
        |out: &str, more: &[&str]| rows.finetune("bert_classifier", "rows.jsonl", out, &[&LONG[..], more].concat());
    rows.good(command("whole", &[]));
    let child = command("stopped", &[]).stderr(Stdio::piped()).spawn().unwrap();
    let (log, deadline) = (rows.path("stopped/metrics.jsonl"), Instant::now() + Duration::from_secs(60));
    while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 5 {
        assert!(Instant::now() < deadline, "no rows after a minute");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(rows.good(command("stopped", &["--resume"])).contains("resuming after step"));
    assert_eq!(metrics(&rows.path("whole")), metrics(&rows.path("stopped")));
    let weights = |out: &str| fs::read(rows.path(out).join("model.safetensors")).unwrap();
    assert!(weights("whole") == weights("stopped"));
}

#[test]
fn parts_and_processes_equal_one_step_in_one() {
    let rows = Rows::new();
    let command =
        |out: &str, more: &[&str]| rows.finetune("bert_classifier", "rows.jsonl", out, &[&GOLDEN[..], more].concat());
    rows.good(command("one", &[]));
    rows.good(command("parts", &["--set", "train.accumulate=4"]));
    run_all(launch(2, || command("two", &[])));
    for run in ["parts", "two"] {
        for kind in ["train", "dev"] {
            close(&metrics(&rows.path("one")), &metrics(&rows.path(run)), kind, &format!("{kind} losses, {run}"));
        }
    }
}

#[test]
fn what_a_transformer_cannot_do_is_refused() {
    let rows = Rows::new();
    let refused = |from: &str, more: &[&str], part: &str| {
        let said = rows.refused(rows.finetune(from, "rows.jsonl", "refused", more));
        assert!(said.contains(part), "{said:?} does not contain {part:?}");
        assert!(!rows.path("refused").exists());
    };
    let shape = ["mixer=light", "hidden_size=16", "num_hidden_layers=1", "intermediate_size=32"]
        .map(|key| format!("model.{key}"));
    let shape: Vec<&str> = shape.iter().flat_map(|key| ["--set", key]).collect();
    refused("bert", &shape, "leave [model] out");
    refused("bert", &["--set", "train.frozen=true"], "train.frozen is true, which is for Kinglet's encoders");
    refused("bert", &["--set", "train.subword_sampling=0.1"], "train.subword_sampling is 0.1, must be 0");
    refused("bert", &["--set", "train.drop_connect=0.1"], "train.drop_connect is 0.1, must be 0");
    let other = rows.path("other");
    fs::create_dir(&other).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(golden("bert").join(file), other.join(file)).unwrap();
    }
    let mut config = read_json(&other.join("config.json"));
    config["model_type"] = "roberta".into();
    fs::write(other.join("config.json"), config.to_string()).unwrap();
    let other = other.to_str().unwrap();
    refused(other, &[], "--from: ");
    refused(other, &[], "model_type is \"roberta\", only \"bert\" is read");
    config["model_type"] = "bert".into();
    fs::write(rows.path("other/config.json"), config.to_string()).unwrap();
    fs::write(rows.path("other/model.safetensors"), b"damaged").unwrap();
    refused(other, &[], "is not safetensors");
    let said = rows.refused(rows.command(&["eval", "--checkpoint", other, "--data", "rows.jsonl", "--device", "cpu"]));
    assert!(said.contains("is not safetensors"), "{said}");
}
