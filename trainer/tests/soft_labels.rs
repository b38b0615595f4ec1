//! Fine-tuning with soft labels: what they teach, with labels and without, in parts and processes, and which are refused.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{Task, at_least, at_most, close, npy, parts_and_processes, rows, stderr};
use kinglet_data::dataset::ReadOptions;
use kinglet_train::interrupt::Interrupt;
use kinglet_train::targets::Targets;
use kinglet_train::tasks::classify::soft::{Soft, Source};
use serde_json::Value;
use tch::Device;

/// Returns the texts of labelled lines, one per line, and the teacher's probabilities, `sure` of the label.
fn taught(lines: &str, sure: f32) -> (String, Vec<Vec<f32>>) {
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts = rows.iter().map(|row| format!("{}\n", row["text"].as_str().unwrap())).collect();
    let row = |row: &Value| if row["label"] == "animal" { vec![sure, 1.0 - sure] } else { vec![1.0 - sure, sure] };
    (texts, rows.iter().map(row).collect())
}

/// The task with the texts of `lines` in `soft.txt` and the probabilities in `soft.npy`.
fn task(lines: &str, sure: f32) -> Task {
    let task = Task::new();
    let (texts, probabilities) = taught(lines, sure);
    fs::write(task.path("soft.txt"), texts).unwrap();
    fs::write(task.path("soft.npy"), npy(&probabilities)).unwrap();
    task
}

const SOFT: [&str; 4] = ["--soft-labels", "soft.npy", "--soft-texts", "soft.txt"];

#[track_caller]
fn refused(task: &Task, more: &[&str], part: &str) {
    let output = task.finetune("refused", more).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(part), "{said:?} does not contain {part:?}");
    assert!(!task.path("refused").exists());
}

#[test]
fn texts_without_labels_teach_what_few_labels_do_not() {
    let task = task(&rows(96, 1), 0.9);
    // Labels that say nothing: of two texts and the same ones the other way round.
    let two = rows(2, 1);
    fs::write(
        task.path("train.jsonl"),
        two.clone() + &two.replace("animal", "x").replace("colour", "animal").replace("\"x\"", "\"colour\""),
    )
    .unwrap();
    let accuracy = |out: &str| -> f64 {
        let training: Value = serde_json::from_slice(&task.bytes(out, "training.json")).unwrap();
        training["best"]["accuracy"].as_f64().unwrap()
    };
    let more = ["--set", "train.epochs=20", "--set", "train.soft_temperature=2"];
    let said = task.train("soft", &[&SOFT[..], &more].concat());
    assert!(
        said.contains("4 training texts")
            && said.contains(
                "96 texts with soft labels (2 of them in the training file, 0 others cut, 0 not valid UTF-8)"
            ),
        "{said}"
    );
    at_least(0.9, accuracy("soft"), "accuracy with soft labels");
    task.train("hard", &more);
    at_most(0.7, accuracy("hard"), "accuracy without");

    let record: Value = serde_json::from_slice(&task.bytes("soft", "training.json")).unwrap();
    let soft = &record["soft_labels"];
    assert_eq!(
        (&soft["name"], &soft["labelled_texts"], &soft["texts"][0]["texts"]),
        (&"soft.npy".into(), &2.into(), &96.into())
    );
    let card = String::from_utf8(task.bytes("soft", "README.md")).unwrap();
    assert!(card.contains("The probabilities of a file for 96 texts, of which 2 are in the train file"), "{card}");
    let hard: Value = serde_json::from_slice(&task.bytes("hard", "training.json")).unwrap();
    assert!(hard.get("soft_labels").is_none());
}

#[test]
fn a_limit_keeps_the_most_certain_texts() {
    let (lines, texts) = (rows(8, 1), ["one owl", "two owls", "three", "four"]);
    let task = task(&lines, 0.9);
    let (some, mut probabilities) = taught(&rows(2, 1), 0.6);
    fs::write(task.path("soft.txt"), some + &texts.join("\n") + "\n").unwrap();
    probabilities.extend([0.7f32, 0.8, 0.8, 0.95].map(|p| vec![1.0 - p, p]));
    fs::write(task.path("soft.npy"), npy(&probabilities)).unwrap();
    fs::write(task.path("train.jsonl"), &lines).unwrap();
    let said =
        task.train("limited", &[&SOFT[..], &["--set", "train.soft_limit=2", "--set", "train.epochs=1"]].concat());
    assert!(said.contains("4 texts with soft labels (2 of them in the training file, 0 others cut, 0 not valid UTF-8; 2 less certain ones left out)"), "{said}");
    let card = String::from_utf8(task.bytes("limited", "README.md")).unwrap();
    assert!(card.contains("were learnt as well, the most certain ones of: `soft.txt` (6 texts"), "{card}");

    // One of the three that are not the most certain, the same one in every run.
    let drawn = ["--set", "train.soft_limit=1", "--set", "train.soft_unsure=1", "--set", "train.epochs=1"];
    let said = [1, 2].map(|run| task.train(&format!("drawn-{run}"), &[&SOFT[..], &drawn].concat()));
    assert!(said[0].contains("4 texts with soft labels (2 of them in the training file, 0 others cut, 0 not valid UTF-8; 1 less certain ones drawn, 2 left out)"), "{}", said[0]);
    let card = String::from_utf8(task.bytes("drawn-1", "README.md")).unwrap();
    assert!(card.contains("the most certain ones and 1 drawn from the others of: `soft.txt`"), "{card}");
    assert_eq!(task.metrics("drawn-1"), task.metrics("drawn-2"));
    let output = task.finetune("refused", &[&SOFT[..], &["--set", "train.soft_unsure=1"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("train.soft_unsure is 1, but train.soft_limit is 0"), "{}", stderr(&output));
}

#[test]
fn soft_labels_that_say_what_the_labels_say_change_nothing() {
    let task = task(&rows(96, 1), 1.0);
    let plain = ["--set", "train.label_smoothing=0", "--set", "train.class_weights=none", "--set", "train.lr=0.005"];
    task.train("hard", &plain);
    // A row of the training file keeps its place, in either form of the file.
    for (run, texts) in [("both", "soft.txt"), ("same", "train.jsonl")] {
        let soft = ["--soft-labels", "soft.npy", "--soft-texts", texts, "--set", "train.soft_weight=3"];
        let said = task.train(run, &[&plain[..], &soft].concat());
        assert!(said.contains("96 texts with soft labels (96 of them in the training file"), "{said}");
        for kind in ["train", "dev"] {
            close(&task.metrics("hard"), &task.metrics(run), kind, &format!("{kind} losses, {run}"));
        }
    }
}

#[test]
fn parts_and_processes_equal_one_step_in_one() {
    let task = task(&(rows(20, 1) + &rows(40, 3)), 0.8);
    let settings = ["train.class_weights=[1.0, 3.0]", "train.batch_tokens=60", "train.soft_weight=2"];
    parts_and_processes(&task, &settings, 4, &SOFT);
}

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let task = task(&rows(60, 3), 0.8);
    let more = [&SOFT[..], &["--set", "train.epochs=60", "--set", "train.eval_every=7"]].concat();
    task.train("whole", &more);
    let child = task.finetune("stopped", &more).stderr(Stdio::piped()).spawn().unwrap();
    let (log, deadline) = (task.path("stopped/metrics.jsonl"), Instant::now() + Duration::from_secs(60));
    while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 4 {
        assert!(Instant::now() < deadline, "no rows after a minute");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    let resume = [&more[..], &["--resume"]].concat();
    assert!(task.train("stopped", &resume).contains("resuming after step"));
    assert_eq!(task.metrics("whole"), task.metrics("stopped"));
    assert!(task.bytes("whole", "model.safetensors") == task.bytes("stopped", "model.safetensors"));

    // Other probabilities are another run.
    fs::write(task.path("soft.npy"), npy(&taught(&rows(60, 3), 0.7).1)).unwrap();
    let output = task.finetune("stopped", &resume).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("differ from the run's: the soft labels"), "{}", stderr(&output));
}

#[test]
fn classes_are_matched_by_name() {
    let task = Task::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert_classifier");
    let golden = golden.to_str().unwrap();
    fs::write(task.path("soft.txt"), "the owl\nthe tree\nwren, wren\n").unwrap();
    let teacher = ["teacher", "--device", "cpu", "--precision", "f32", "--model", golden, "soft.txt", "--out"];
    let run = |more: &[&str]| assert_eq!(task.run(&[&teacher[..], more].concat()).status.code(), Some(0));
    run(&["soft", "--probabilities"]);
    let (targets, files) = (task.path("soft"), [task.path("soft.txt")]);
    let source = Source {
        targets: &targets,
        texts: &files,
        several: false,
        read: &ReadOptions::default(),
        temperature: 1.0,
        limit: 0,
        unsure: 0,
        seed: 1,
    };
    let encode = |_: &str, _: &mut usize| Ok(vec![1]);
    let read = |labels: &[&str], train: &[&str]| {
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Soft::read(source, &strings(labels), &strings(train), &encode, &Interrupt::default())
    };
    // Row 0 of the training file has no soft labels, row 1 has those of the last text; then come the texts without labels.
    let soft = read(&["other", "bird", "place"], &["an owl", "wren, wren"]).unwrap();
    assert_eq!((soft.texts(), soft.both, soft.ids.len()), (3, 1, 2));
    assert_eq!([0, 1, 2, 3, 4].map(|text| soft.has(text)), [false, true, true, true, false]);
    let got = Vec::<Vec<f32>>::try_from(soft.batch(&[0, 1, 2, 3], Device::Cpu)).unwrap();
    assert_eq!(got[0], [0.0; 3]);
    let (stored, mut row) = (Targets::open(&targets).unwrap(), [0.0; 3]);
    for (text, index) in [(1, 2), (2, 0), (3, 1)] {
        stored.probabilities(index, &mut row);
        // The classes of the targets are bird, place, other.
        let want = [row[2], row[0], row[1]];
        let apart = got[text].iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        at_most(1e-6, f64::from(apart), "probabilities by name");
    }

    let said = format!("{:#}", read(&["animal", "colour"], &[]).unwrap_err());
    assert!(said.contains("is of the classes bird, place, other, the training file has animal, colour"), "{said}");
    assert!(read(&["bird", "place"], &[]).is_err());
    run(&["vectors"]);
    refused(
        &task,
        &["--soft-labels", "vectors", "--soft-texts", "soft.txt"],
        "vectors: has vectors, but no probabilities",
    );
}

#[test]
fn unusable_soft_labels_are_refused() {
    let task = task(&rows(10, 3), 0.8);
    for alone in [&SOFT[..2], &SOFT[2..]] {
        refused(&task, alone, "required arguments");
    }
    refused(&task, &[&SOFT[..], &["--set", "train.soft_weight=0"]].concat(), "train.soft_weight is 0, must be above 0");
    task.train("first", &["--set", "train.epochs=1"]);
    fs::write(task.path("frozen.toml"), "[train]\nfrozen = true\n").unwrap();
    let mut command =
        task.command(&["finetune", "--config", "frozen.toml", "--train", "train.jsonl", "--dev", "dev.jsonl"]);
    let output = command.args(["--from", "first", "--out", "refused", "--device", "cpu"]).args(SOFT).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("which fits the head to labels alone: leave --soft-labels out"),
        "{}",
        stderr(&output)
    );
    let write = |rows: &[Vec<f32>]| fs::write(task.path("soft.npy"), npy(rows)).unwrap();
    let mut probabilities = taught(&rows(10, 3), 0.8).1;
    write(&probabilities[..9]);
    refused(&task, &SOFT, "--soft-labels: 10 texts, but targets for 9");
    for bad in [[0.8, 0.3], [-0.5, 1.5]] {
        probabilities[7] = bad.to_vec();
        write(&probabilities);
        refused(&task, &SOFT, "row 7 (from 0) is no distribution");
    }
    write(&vec![vec![0.25; 4]; 10]);
    refused(
        &task,
        &SOFT,
        "has 4 columns, the training file has 2 classes, whose probabilities must be in this order: animal, colour",
    );
    write(&taught(&rows(10, 3), 0.8).1);
    fs::write(task.path("soft.txt"), "\n").unwrap();
    refused(&task, &SOFT, "--soft-texts: soft.txt has no texts; leave it out");
}
