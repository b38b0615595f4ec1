//! Fine-tuning on texts of any number of labels: what is learnt, in parts and processes, resumed, and what is refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fixture::{Task, at_least, at_most, close, npy, parts_and_processes, rows, stderr, stdout};
use kinglet_train::targets::Targets;
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
    parts_and_processes(&task, &["train.class_weights=[1.0, 3.0]", "train.batch_tokens=60"], 4, &[]);
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

const SOFT: [&str; 4] = ["--soft-labels", "soft.npy", "--soft-texts", "soft.txt"];

/// Writes the texts of labelled lines to `soft.txt`, and probabilities of both labels, `sure` of those that a text has, to `soft.npy`.
fn taught(task: &Task, lines: &str, sure: f32) {
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: String = rows.iter().map(|row| format!("{}\n", row["text"].as_str().unwrap())).collect();
    let of = |row: &Value, label: &str| row["label"].as_array().unwrap().contains(&json!(label));
    let row = |row: &Value| ["animal", "colour"].map(|label| if of(row, label) { sure } else { 1.0 - sure }).to_vec();
    fs::write(task.path("soft.txt"), texts).unwrap();
    fs::write(task.path("soft.npy"), npy(&rows.iter().map(row).collect::<Vec<_>>())).unwrap();
}

#[test]
fn texts_without_labels_teach_what_few_labels_do_not() {
    let task = task();
    taught(&task, &several(160, 1), 0.9);
    // Labels that say nothing: four texts, and the same ones with the other labels.
    let few = several(4, 1);
    let others = few.replace("[]", "[\"colour\",\"animal\"]").replace("[\"animal\"]", "[\"x\"]");
    let others = others.replace("[\"colour\"]", "[\"animal\"]").replace("[\"x\"]", "[\"colour\"]");
    fs::write(task.path("train.jsonl"), few + &others).unwrap();
    let more = ["--set", "train.epochs=20", "--set", "train.soft_temperature=2", "--set", "train.soft_weight=3"];
    let said = task.train("soft", &[&SOFT[..], &more].concat());
    assert!(said.contains("160 texts with soft labels (7 of them in the training file"), "{said}");
    let of = |out: &str| record(&task, out)["best"]["mean_average_precision"].as_f64().unwrap();
    at_least(0.9, of("soft"), "mean average precision with soft labels");
    task.train("hard", &more);
    at_most(0.85, of("hard"), "mean average precision without");
}

#[test]
fn soft_labels_that_say_what_the_labels_say_change_nothing() {
    let task = task();
    taught(&task, &several(160, 1), 1.0);
    let plain = ["--set", "train.label_smoothing=0", "--set", "train.class_weights=none", "--set", "train.epochs=3"];
    task.train("hard", &plain);
    let said = task.train("both", &[&plain[..], &SOFT, &["--set", "train.soft_weight=3"]].concat());
    assert!(said.contains("160 texts with soft labels (160 of them in the training file"), "{said}");
    for kind in ["train", "dev"] {
        close(&task.metrics("hard"), &task.metrics("both"), kind, &format!("{kind} losses"));
    }
}

#[test]
fn parts_and_processes_with_soft_labels_equal_one_step_in_one() {
    let task = task();
    taught(&task, &several(200, 1), 0.8);
    fs::write(task.path("train.jsonl"), several(60, 1)).unwrap();
    let settings = ["train.class_weights=[1.0, 3.0]", "train.batch_tokens=60", "train.soft_weight=2"];
    parts_and_processes(&task, &settings, 4, &SOFT);
}

#[test]
fn a_sentence_encoder_teaches_any_number_of_labels() {
    let task = task();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    fs::write(task.path("more.jsonl"), several(40, 7)).unwrap();
    let teach = |out: &str, labelled: &str, more: &[&str]| {
        let teacher =
            ["teacher", "--device", "cpu", "--precision", "f32", "--model", golden.to_str().unwrap(), "more.jsonl"];
        let output = task.run(&[&teacher[..], &["--out", out, "--labelled", labelled], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let said = teach("soft", "train.jsonl", &[]);
    assert!(said.contains("fitting 2 labels, any number per text, to 160 labelled texts"), "{said}");
    assert!(said.contains("log likelihood -0."), "{said}");
    let targets = Targets::open(&task.path("soft")).unwrap();
    assert!(targets.manifest().unwrap().multi_label);
    let (mut row, mut right) = ([0f32; 2], 0);
    for (i, line) in several(40, 7).lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        targets.probabilities(i, &mut row);
        let has = |label: &str| line["label"].as_array().unwrap().contains(&json!(label));
        right += ["animal", "colour"].iter().zip(row).filter(|(label, p)| has(label) == (*p > 0.5)).count();
    }
    at_least(72.0, right as f64, "right ones of 80 labels");

    let soft = ["--soft-labels", "soft", "--soft-texts", "more.jsonl", "--set", "train.epochs=1"];
    task.train("run", &soft);
    let card = String::from_utf8(task.bytes("run", "README.md")).unwrap();
    assert!(card.contains("of a label of held-out texts"), "{card}");
    // Labels that exclude each other are no labels of which any number may apply, and the other way round.
    fs::write(task.path("one.jsonl"), rows(60, 3)).unwrap();
    teach("one", "one.jsonl", &[]);
    let refused = |train: &str, soft: &str, part: &str| {
        let all = ["finetune", "--config", "config.toml", "--train", train, "--out", "refused", "--soft-labels", soft];
        let output = task.run(&[&all[..], &["--soft-texts", "more.jsonl", "--tokenizer", "tokenizer"]].concat());
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains(part), "{said}");
    };
    refused(
        "train.jsonl",
        "one",
        "of which one applies to a text, the training file has labels any number of which may apply",
    );
    refused(
        "one.jsonl",
        "soft",
        "any number of which may apply to a text, the training file has labels of which one applies",
    );
    teach("said", "one.jsonl", &["--multi-label"]);
    refused("one.jsonl", "said", "any number of which may apply");
}

#[test]
fn a_transformer_learns_and_teaches_any_number_of_labels() {
    let task = task();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    fs::write(task.path("bert.toml"), "[train]\nepochs = 8\nbatch_size = 16\nlr = 3e-3\noptimizer = \"adamw\"\n")
        .unwrap();
    let good = |arguments: &[&str]| {
        let output = task.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let from = ["finetune", "--config", "bert.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--from"];
    good(&[&from[..], &[golden.to_str().unwrap(), "--out", "bert", "--device", "cpu", "--threads", "1"]].concat());
    let found = good(&["eval", "--checkpoint", "bert", "--data", "dev.jsonl", "--json", "--device", "cpu"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    let best = record(&task, "bert")["best"]["micro_f1"].as_f64().unwrap();
    assert!((found["micro_f1"].as_f64().unwrap() - best).abs() < 1e-6, "{found} {best}");

    good(&[
        "teacher",
        "--model",
        "bert",
        "--probabilities",
        "--device",
        "cpu",
        "--precision",
        "f32",
        "--out",
        "soft",
        "dev.jsonl",
    ]);
    let targets = Targets::open(&task.path("soft")).unwrap();
    assert!(targets.manifest().unwrap().multi_label);
    // Read as a classifier of classes that exclude each other, it says the softmax of the same scores.
    let config = String::from_utf8(task.bytes("bert", "config.json")).unwrap();
    fs::write(
        task.path("bert/config.json"),
        config.replace("multi_label_classification", "single_label_classification"),
    )
    .unwrap();
    good(&[
        "teacher",
        "--model",
        "bert",
        "--probabilities",
        "--device",
        "cpu",
        "--precision",
        "f32",
        "--out",
        "one",
        "dev.jsonl",
    ]);
    let one = Targets::open(&task.path("one")).unwrap();
    let (mut several, mut alone) = ([0f32; 2], [0f32; 2]);
    for i in 0..targets.len() {
        targets.probabilities(i, &mut several);
        one.probabilities(i, &mut alone);
        let scores = several.map(|p| f64::from(p / (1.0 - p)).ln());
        let expected = f64::from(alone[0] / alone[1]).ln();
        assert!((scores[0] - scores[1] - expected).abs() < 1e-3, "{several:?} {alone:?}");
    }
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
    assert!(said.contains("a linear classifier of tokens") && !said.contains("dev accuracy"), "{said}");
    assert!(said.contains("words alone in") && said.contains("dev micro F1"), "{said}");
    assert!(out.contains("F1        micro 75.00%, macro 50.00%, all labels right 25.00%"), "{out}");
    assert!(out.contains("sets hold 90.0% of a text's labels on average"), "{out}");
    // Rows of one label each are of any number if that is said.
    fs::write(task.path("one.jsonl"), rows(160, 3)).unwrap();
    let said = [&["fit", "one.jsonl", "--multi-label", "--out", "one"], &search[..]].concat();
    let output = task.command(&said).env("KINGLET_EXPORT", task.path("exporter")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("a linear classifier of tokens: dev micro F1") && !said.contains("accuracy"), "{said}");
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
    fs::write(task.path("soft.npy"), npy(&[vec![0.5, 1.5]])).unwrap();
    refused(&SOFT, "row 0 (from 0) has values that are no probabilities: [0.5, 1.5]");
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
