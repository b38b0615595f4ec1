//! Classification and text-to-text training in parts and in several processes; pre-training's are in `pretrain.rs`.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::process::{Command, Stdio};

use fixture::{ENCODER_DECODER, Task, close, launch, run_all, seeded, stderr};

/// Without dropout, whose stream depends on the process, and in small steps, so that differences in rounding stay small. Classes of
/// different weights, and batches so small that some have fewer texts than processes.
const STILL: [&str; 14] = [
    "--set",
    "train.dropout=0",
    "--set",
    "train.drop_connect=0",
    "--set",
    "train.optimizer=adafactor",
    "--set",
    "train.lr=0.003",
    "--set",
    "train.class_weights=[1.0, 3.0]",
    "--set",
    "train.batch_tokens=60",
    "--set",
    "train.epochs=2",
];

#[test]
fn classification_in_parts_and_processes_equals_one_step_in_one() {
    let task = Task::new();
    task.train("one", &STILL);
    let one = task.metrics("one");
    task.train("parts", &[&STILL[..], &["--set", "train.accumulate=4"]].concat());
    run_all(launch(2, || task.finetune("two", &STILL)));
    run_all(launch(2, || task.finetune("both", &[&STILL[..], &["--set", "train.accumulate=2"]].concat())));
    for run in ["parts", "two", "both"] {
        close(&one, &task.metrics(run), "train", &format!("training losses, {run}"));
        close(&one, &task.metrics(run), "dev", &format!("dev losses, {run}"));
        for file in ["golden.safetensors", "training.json", "README.md"] {
            assert!(task.path(run).join(file).exists(), "{run}/{file}");
        }
    }
    let refused = task.finetune("odd", &["--set", "train.accumulate=5"]).output().unwrap();
    assert!(stderr(&refused).contains("must be a multiple of 5"), "{}", stderr(&refused));
}

#[test]
fn one_process_resumes_what_two_began() {
    let task = Task::new();
    let more = [&STILL[..], &["--set", "train.epochs=60", "--set", "train.eval_every=9"]].concat();
    task.train("one", &more);
    let mut children: Vec<_> = launch(2, || task.finetune("two", &more))
        .iter_mut()
        .map(|command| command.stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let log = task.path("two/metrics.jsonl");
    while fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 3 {
        assert!(children[0].try_wait().unwrap().is_none(), "the run has ended before its third row");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // One process's signal stops both.
    assert!(Command::new("kill").args(["-s", "TERM", &children[1].id().to_string()]).status().unwrap().success());
    for child in &mut children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert!(task.train("two", &[&more[..], &["--resume"]].concat()).contains("resuming after step"));
    close(&task.metrics("one"), &task.metrics("two"), "train", "losses of one process after two");
}

const PAIRS: &str = r#"
[train]
epochs = 2
batch_size = 16
bucket_batches = 2
lr = 3e-3
dropout = 0.0
log_every = 3
"#;

#[test]
fn text_to_text_in_parts_and_processes_equals_one_step_in_one() {
    let task = Task::new();
    fs::write(task.path("pairs.toml"), seeded(&format!("{ENCODER_DECODER}{PAIRS}"))).unwrap();
    let command = |out: &str, more: &[&str]| {
        let mut command = task.command(&["text2text", "--config", "pairs.toml", "--tokenizer", "tokenizer"]);
        command.args(["--train", "train.jsonl", "--dev", "dev.jsonl", "--label-field", "label", "--out", out]);
        command.args(["--device", "cpu", "--threads", "1"]).args(more);
        command
    };
    run_all(vec![command("one", &[])]);
    run_all(vec![command("parts", &["--set", "train.accumulate=4"])]);
    run_all(launch(2, || command("two", &[])));
    let one = task.metrics("one");
    for run in ["parts", "two"] {
        close(&one, &task.metrics(run), "train", &format!("training losses, {run}"));
        close(&one, &task.metrics(run), "dev", &format!("dev losses, {run}"));
        let lines = |run: &str| String::from_utf8(task.bytes(run, "predictions.jsonl")).unwrap().lines().count();
        assert_eq!((lines(run), lines("one")), (30, 30), "{run}");
    }
}
