//! Fine-tuning with n-grams beside the network: what is added, kept, left out, and scored again.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;

use fixture::{Task, at_least, rows, stderr, stdout};
use kinglet::spec::{Config, files};
use kinglet_train::model::ngrams::NGrams;
use serde_json::{Value, json};

/// Texts whose label only the order of two words says: a network that hardly learns does not see it.
fn ordered(n: usize, seed: usize) -> String {
    let line = |(i, line): (usize, &str)| {
        let row: Value = serde_json::from_str(line).unwrap();
        let (pair, label) = [("wren violet", "colour"), ("violet wren", "animal")][i % 2];
        json!({ "text": format!("{pair} {}", row["text"].as_str().unwrap()), "label": label }).to_string() + "\n"
    };
    rows(n, seed).lines().enumerate().map(line).collect()
}

fn task() -> Task {
    let task = Task::new();
    fs::write(task.path("train.jsonl"), ordered(96, 1)).unwrap();
    fs::write(task.path("dev.jsonl"), ordered(30, 50)).unwrap();
    task
}

fn record(task: &Task, out: &str) -> Value {
    serde_json::from_slice(&task.bytes(out, files::TRAINING)).unwrap()
}

#[test]
fn what_the_network_does_not_see_is_added_and_scored_again() {
    let task = task();
    // A network that learns nothing.
    const STILL: [&str; 4] = ["--set", "train.lr=1e-9", "--set", "train.epochs=2"];
    let with = |out: &str, more: &[&str]| task.train(out, &[&STILL, more].concat());
    let said = with("run", &["--set", "train.ngrams=50"]);
    assert!(said.contains("n-grams: with 50 of them the dev accuracy is"), "{said}");
    let training = record(&task, "run");
    at_least(0.9, training["best"]["accuracy"].as_f64().unwrap(), "accuracy with n-grams");
    let ngrams = &training["ngrams"];
    assert_eq!((&ngrams["count"], &ngrams["both"]), (&json!(50), &training["best"]["accuracy"]));
    assert!(ngrams["network"].as_f64().unwrap() < 0.9 && ngrams["factor"].as_f64().unwrap() > 0.0, "{ngrams}");
    let card = String::from_utf8(task.bytes("run", files::CARD)).unwrap();
    assert!(card.contains("the scores of 50 tokens and pairs of tokens were added"), "{card}");
    let config: Config = serde_json::from_slice(&task.bytes("run", files::CONFIG)).unwrap();
    assert_eq!(config.ngrams, 50);
    assert_eq!(NGrams::read(&task.path("run"), &config).unwrap().len(), 50);
    let evaluated = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl", "--json", "--device", "cpu"]);
    let found: Value = serde_json::from_str(&stdout(&evaluated)).unwrap();
    assert_eq!(found["accuracy"], training["best"]["accuracy"]);

    // The same in every run, and again when a complete one is asked to go on.
    with("again", &["--set", "train.ngrams=50"]);
    for file in [files::NGRAMS, files::CONFIG, files::GOLDEN, files::WEIGHTS] {
        assert_eq!(task.bytes("run", file), task.bytes("again", file), "{file}");
    }
    let resumed = task.finetune("again", &[&STILL[..], &["--set", "train.ngrams=50", "--resume"]].concat()).output();
    assert_eq!(resumed.unwrap().status.code(), Some(0));
    assert_eq!(task.bytes("run", files::NGRAMS), task.bytes("again", files::NGRAMS));
    // What was killed while its files were completed is completed.
    let (golden, before) = (task.bytes("again", files::GOLDEN), record(&task, "again"));
    [files::CARD, files::TRAINING, files::GOLDEN]
        .iter()
        .for_each(|name| fs::remove_file(task.path("again").join(name)).unwrap());
    let resumed = task.finetune("again", &[&STILL[..], &["--set", "train.ngrams=50", "--resume"]].concat()).output();
    assert!(stderr(&resumed.unwrap()).contains("its files are completed"));
    assert_eq!((task.bytes("again", files::GOLDEN), record(&task, "again")), (golden, before));
    assert_eq!(task.bytes("run", files::NGRAMS), task.bytes("again", files::NGRAMS));

    // A classifier that starts from it has its own.
    let from = ["finetune", "--config", "config.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--from", "run"];
    let more = ["--device", "cpu", "--threads", "1", "--out", "from", "--set", "train.lr=1e-9"];
    fs::write(task.path("config.toml"), "[train]\nepochs = 1\n").unwrap();
    let output = task.run(&[&from[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!task.path("from").join(files::NGRAMS).exists());
    // What is damaged is named.
    let path = task.path("run").join(files::NGRAMS);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl", "--device", "cpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(files::NGRAMS), "{}", stderr(&output));
}

#[test]
fn what_helps_nothing_is_left_out() {
    let task = task();
    // Dev texts that the network gets all wrong whatever is added: labels that no text says.
    let swapped = ordered(30, 50).replace("\"animal\"", "\"x\"").replace("\"colour\"", "\"animal\"");
    fs::write(task.path("dev.jsonl"), swapped.replace("\"x\"", "\"colour\"")).unwrap();
    let said = task.train("run", &["--set", "train.ngrams=1000", "--set", "train.lr=1e-9", "--set", "train.epochs=1"]);
    assert!(said.contains("n-grams:") && said.contains("; left out"), "{said}");
    assert!(!task.path("run").join(files::NGRAMS).exists());
    assert!(record(&task, "run")["ngrams"].is_null());
    let output = task.finetune("refused", &["--set", "train.ngrams=2000000"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("train.ngrams is 2000000, must be at most 1048576"), "{}", stderr(&output));
}
