//! Fine-tuning on texts of any number of labels: what is learnt, in parts and processes, resumed, and what is refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fixture::{Task, at_least, close, launch, rows, run_all, stderr, stdout};
use serde_json::{Value, json};

/// Texts of animals, colours, both or neither: of pairs of rows, the first, the second, both, and the first without its animal.
fn several(n: usize, seed: usize) -> String {
    let lines: Vec<Value> = rows(2 * n, seed).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |row: usize| lines[row]["text"].as_str().unwrap();
    (0..n)
        .map(|i| {
            let (animal, colour) = (text(2 * i), text(2 * i + 1));
            let (text, labels) = match i % 4 {
                0 => (animal.to_owned(), json!(["animal"])),
                1 => (colour.to_owned(), json!(["colour"])),
                2 => (format!("{animal} {colour}"), json!(["colour", "animal"])),
                _ => {
                    let both = animal.split(' ').zip(colour.split(' '));
                    (both.filter(|(a, b)| a == b).map(|(a, _)| a).collect::<Vec<_>>().join(" "), json!([]))
                }
            };
            json!({ "text": text, "label": labels }).to_string() + "\n"
        })
        .collect()
}

fn task() -> Task {
    let task = Task::new();
    fs::write(task.path("train.jsonl"), several(160, 1)).unwrap();
    fs::write(task.path("dev.jsonl"), several(40, 51)).unwrap();
    task
}

const SETTINGS: [&str; 6] =
    ["--set", "train.class_weights=none", "--set", "train.label_smoothing=0.02", "--set", "train.epochs=20"];

fn record(task: &Task, out: &str) -> Value {
    serde_json::from_slice(&task.bytes(out, "training.json")).unwrap()
}

#[test]
fn any_number_of_labels_is_learnt_and_scored() {
    let task = task();
    let said = task.train("run", &SETTINGS);
    for words in ["any number of labels per text", "40 texts without one", "2 labels", "micro F1"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let training = record(&task, "run");
    let best = &training["best"];
    for name in ["micro_f1", "macro_f1", "mean_average_precision", "accuracy"] {
        at_least(0.6, best[name].as_f64().unwrap(), name);
    }
    assert_eq!(training["config"]["train"]["metric"], "micro_f1");
    assert_eq!(training["dev"]["read"]["per_text"], "any");
    let config: Value = serde_json::from_slice(&task.bytes("run", "config.json")).unwrap();
    assert_eq!((&config["task"], &config["num_labels"]), (&json!("multi_label"), &json!(2)));
    let card = String::from_utf8(task.bytes("run", "README.md")).unwrap();
    assert!(card.contains("| micro F1 |") && card.contains("of any number of labels"), "{card}");

    let evaluated = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl", "--json", "--device", "cpu"]);
    let found: Value = serde_json::from_str(&stdout(&evaluated)).unwrap();
    assert_eq!(found["rows"], 40);
    assert!((found["micro_f1"].as_f64().unwrap() - best["micro_f1"].as_f64().unwrap()).abs() < 1e-9, "{found}");
    let shown = stdout(&task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl", "--device", "cpu"]));
    assert!(shown.contains("micro F1") && shown.contains("mAP"), "{shown}");

    // From it, with one label per text, and the other way round: the head is of the other kind, and begins anew.
    fs::write(task.path("one.jsonl"), rows(60, 3)).unwrap();
    let from = |train: &str, from: &str, out: &str, more: &[&str]| {
        let all = ["finetune", "--config", "from.toml", "--train", train, "--from", from, "--out", out];
        let output = task.run(&[&all[..], &["--device", "cpu", "--threads", "1"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        record(&task, out)
    };
    fs::write(task.path("from.toml"), "[train]\nepochs = 1\nbatch_size = 16\nlr = 1e-3\n").unwrap();
    assert_eq!(from("one.jsonl", "run", "one", &[])["config"]["train"]["metric"], "accuracy");
    assert_eq!(from("train.jsonl", "one", "back", &[])["config"]["train"]["metric"], "micro_f1");
    // Rows of one label each are of any number if that is said.
    let said = from("one.jsonl", "run", "said", &["--multi-label"]);
    assert_eq!(
        (&said["config"]["train"]["metric"], &said["dev"]["read"]["per_text"]),
        (&json!("micro_f1"), &json!("any"))
    );

    // An encoder that stays frozen has a regression per label.
    let frozen = ["--set", "train.frozen=true", "--set", "train.metric=\"mean_average_precision\""];
    let frozen = from("train.jsonl", "run", "frozen", &frozen);
    at_least(0.6, frozen["best"]["mean_average_precision"].as_f64().unwrap(), "mean average precision, frozen");
}

#[test]
fn parts_and_processes_equal_one_step_in_one() {
    let task = task();
    let still =
        ["train.dropout=0", "train.drop_connect=0", "train.optimizer=adafactor", "train.lr=0.003", "train.epochs=2"];
    let still = still.iter().chain(&["train.class_weights=[1.0, 3.0]", "train.batch_tokens=60"]);
    let more: Vec<&str> = still.flat_map(|set| ["--set", set]).collect();
    task.train("one", &more);
    task.train("parts", &[&more[..], &["--set", "train.accumulate=4"]].concat());
    run_all(launch(2, || task.finetune("two", &more)));
    for run in ["parts", "two"] {
        for kind in ["train", "dev"] {
            close(&task.metrics("one"), &task.metrics(run), kind, &format!("{kind} losses, {run}"));
        }
    }
}

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let task = task();
    let more = [&SETTINGS[..], &["--set", "train.epochs=60", "--set", "train.eval_every=7"]].concat();
    task.train("whole", &more);
    let child = task.finetune("stopped", &more).stderr(Stdio::piped()).spawn().unwrap();
    let (log, deadline) = (task.path("stopped/metrics.jsonl"), Instant::now() + Duration::from_secs(60));
    while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 4 {
        assert!(Instant::now() < deadline, "no rows after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = std::process::Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert!(task.train("stopped", &[&more[..], &["--resume"]].concat()).contains("resuming after step"));
    assert_eq!(task.metrics("whole"), task.metrics("stopped"));
    assert!(task.bytes("whole", "model.safetensors") == task.bytes("stopped", "model.safetensors"));
}

#[test]
fn a_file_of_several_labels_becomes_a_search() {
    use std::os::unix::fs::PermissionsExt;
    let task = task();
    let report = json!({
        "dev": { "accuracy_int8": 0.5 },
        "labels": { "int8": { "measured": { "micro_f1": 0.75, "macro_f1": 0.5, "exact_match": 0.25, "set_coverage": 0.9 } } },
    });
    let exporter = format!("#!/bin/sh\nmkdir -p \"$3\"\necho made >\"$3/model.kinglet\"\necho '{report}'\n");
    fs::write(task.path("exporter"), exporter).unwrap();
    fs::set_permissions(task.path("exporter"), fs::Permissions::from_mode(0o755)).unwrap();
    let search = ["--from", "none", "--trials", "1", "--epochs", "2", "--device", "cpu", "--threads", "1"];
    let mut command = task.command(&[&["fit", "train.jsonl", "--out", "fit"], &search[..]].concat());
    let output = command.env("KINGLET_EXPORT", task.path("exporter")).output().unwrap();
    let (said, out) = (stderr(&output), stdout(&output));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("labels per text: 1.00 on average, at most 2, 40 texts without one"), "{said}");
    assert!(said.contains("dev micro F1"), "{said}");
    assert!(out.contains("F1        micro 75.00%, macro 50.00%, all labels right 25.00%"), "{out}");
    assert!(out.contains("sets hold 90.0% of a text's labels on average"), "{out}");
    let fit: Value = serde_json::from_slice(&task.bytes("fit", "fit.json")).unwrap();
    assert_eq!(fit["multi_label"], true);
    let dev = String::from_utf8(task.bytes("fit", "data/dev.jsonl")).unwrap();
    assert!(dev.lines().all(|line| line.starts_with("{\"label\":[")) && dev.contains("[]"), "{dev}");
}

#[test]
fn what_does_not_go_with_several_labels_is_refused() {
    let task = task();
    let refused = |more: &[&str], part: &str| {
        let output = task.finetune("refused", more).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said:?} does not contain {part:?}");
        assert!(!task.path("refused").exists());
    };
    refused(&["--set", "train.metric=\"binary_f1\""], "for texts of one label of two");
    refused(&["--set", "train.class_weights=[1.0]"], "has 1 values, must have one for each of 2 classes");
    fs::write(task.path("soft.txt"), "x\n").unwrap();
    refused(&["--soft-labels", "soft.npy", "--soft-texts", "soft.txt"], "leave them out");
    // A label of the dev file that no training text has.
    fs::write(task.path("dev.jsonl"), "{\"text\": \"x\", \"label\": [\"animal\", \"colours\"]}\n").unwrap();
    refused(&[], "row 1: label \"colours\" is none of the 2 classes; did you mean \"colour\"?");
    fs::write(task.path("train.jsonl"), rows(20, 1)).unwrap();
    refused(&[], "row 1: it has 2 labels; the model gives one per text");
    fs::write(task.path("dev.jsonl"), rows(4, 1)).unwrap();
    refused(&["--set", "train.metric=\"micro_f1\""], "which is for texts of any number of labels");
    fs::write(task.path("train.jsonl"), "{\"text\": \"x\", \"label\": 0.5}\n").unwrap();
    refused(&[], "which regression would predict");
}
