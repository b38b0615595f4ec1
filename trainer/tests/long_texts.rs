//! Fine-tuning on texts that are longer than a step sees: windows of them, drawn anew in each epoch, and evaluation of all of them.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;

use fixture::{Task, at_least, at_most, config, parts_and_processes, rows, stderr};
use kinglet::spec::{Mixer, Pooling};
use kinglet_train::batch::Batch;
use kinglet_train::model::{Classifier, Mode};
use serde_json::Value;
use tch::{Device, Kind};

/// Texts that say their label only far behind their beginning, where fillers stand.
fn long(n: usize, seed: usize) -> String {
    let filler = "the and of to in ".repeat(12);
    let label = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let row = |line: &str| {
        let mut row = label(line);
        let text = row["text"].as_str().unwrap().to_owned();
        row["text"] = format!("{filler}{}", [text.as_str(); 8].join(" ")).into();
        row.to_string() + "\n"
    };
    rows(n, seed).lines().map(row).collect()
}

fn task() -> Task {
    let task = Task::new();
    fs::write(task.path("train.jsonl"), long(96, 1)).unwrap();
    fs::write(task.path("dev.jsonl"), long(30, 50)).unwrap();
    task
}

const WINDOWS: [&str; 4] = ["--set", "train.max_length=32", "--set", "train.epochs=12"];

fn accuracy(task: &Task, out: &str) -> f64 {
    let training: Value = serde_json::from_slice(&task.bytes(out, "training.json")).unwrap();
    training["best"]["accuracy"].as_f64().unwrap()
}

#[test]
fn windows_see_what_a_cut_does_not() {
    let task = task();
    let said = task.train("windows", &WINDOWS);
    assert!(said.contains("of 96 longer than 32 tokens a window per step, another in each"), "{said}");
    at_least(0.8, accuracy(&task, "windows"), "accuracy with windows");
    let said = task.train("cut", &[&WINDOWS[..], &["--set", "train.long_texts=\"cut\""]].concat());
    assert!(said.contains("(96 cut to 32 tokens)"), "{said}");
    at_most(0.7, accuracy(&task, "cut"), "accuracy of texts that are cut");
    // The same windows in a run that is interrupted, in parts, and in several processes.
    parts_and_processes(&task, &["train.max_length=32"], 2, &[]);
    // A text of many tokens among short ones.
    let very = "{\"text\": \"".to_owned() + &"the and of to in ".repeat(20_000) + "\", \"label\": \"animal\"}\n";
    fs::write(task.path("train.jsonl"), rows(20, 1) + &very).unwrap();
    let said = task.train("very", &["--set", "train.max_length=32", "--set", "train.epochs=1"]);
    assert!(said.contains("of 1 longer than 32 tokens"), "{said}");
    let output = task.finetune("refused", &["--set", "train.long_texts=\"whole\""]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("windows") && stderr(&output).contains("cut"), "{}", stderr(&output));
}

#[test]
fn a_long_text_in_parts_has_the_vector_of_the_text_at_once() {
    for mixer in Mixer::convolutions() {
        for pooling in [Pooling::Mean, Pooling::Max] {
            let mut config = config(mixer);
            config.pooling = pooling;
            let model = Classifier::new(&config, 3, Device::Cpu).unwrap();
            for length in [1usize, 100, 8192, 8193, 20_000] {
                let ids: Vec<u32> = (0..length).map(|i| ((i * 7919 + i / 3) % config.vocab_size) as u32).collect();
                let batch = Batch::new(&[&ids[..]], Device::Cpu);
                let (whole, parts) =
                    tch::no_grad(|| (model.pooled(&batch.ids, &batch.mask, &Mode::eval()), model.pooled_of(&ids)));
                let apart = (&whole - &parts).abs().max() / whole.abs().max();
                let apart = apart.to_kind(Kind::Double).double_value(&[]);
                assert!(apart < 1e-5, "{mixer:?} {pooling:?} {length}: {apart}");
            }
        }
    }
}
