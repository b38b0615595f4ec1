//! Tests when `--resume` is rejected, and the messages of a finished or early-stopped run.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;

use fixture::{Task, change_state, other_seed, rows, seed, stderr};

/// Returns the message of a run that must end with exit code 2.
fn refused(task: &Task, out: &str, more: &[&str]) -> String {
    let output = task.finetune(out, more).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn resume_names_what_differs_from_the_run() {
    let task = Task::new();
    task.train("run", &[]);
    let other = other_seed();
    let said = refused(&task, "run", &["--resume", "--set", "train.lr=0.5", "--seed", &other]);
    assert!(said.contains("now `train.lr = 0.5`, was `train.lr = 0.02`"), "{said}");
    assert!(said.contains(&format!("now `train.seed = {other}`, was `train.seed = {}`", seed())), "{said}");
    assert!(!said.contains("the training file's bytes"), "{said}");

    fs::write(task.path("train.jsonl"), rows(96, 2)).unwrap();
    let said = refused(&task, "run", &["--resume"]);
    assert!(said.contains("the training file's bytes") && !said.contains("config:"), "{said}");
}

#[test]
fn an_old_run_is_not_overwritten_unless_forced() {
    let task = Task::new();
    task.train("run", &[]);
    let before = task.bytes("run", "model.safetensors");
    let said = refused(&task, "run", &["--seed", &other_seed()]);
    assert!(said.contains("--resume") && said.contains("--force"), "{said}");
    assert_eq!(task.bytes("run", "model.safetensors"), before);
    task.train("run", &["--seed", &other_seed(), "--force"]);
    assert_ne!(task.bytes("run", "model.safetensors"), before);
}

#[test]
fn a_finished_run_says_so_and_is_left_alone() {
    let task = Task::new();
    task.train("run", &[]);
    let (weights, metrics) = (task.bytes("run", "model.safetensors"), task.bytes("run", "metrics.jsonl"));
    let said = task.train("run", &["--resume"]);
    assert!(said.contains("finished"), "{said}");
    assert_eq!((task.bytes("run", "model.safetensors"), task.bytes("run", "metrics.jsonl")), (weights, metrics));
}

#[test]
fn a_run_with_parameters_that_its_mixer_does_not_have_goes_on() {
    let task = Task::new();
    // Older versions saved them as given.
    let odd = ["kernel_heads = 5", "num_attention_heads = 3", "relative_attention_num_buckets = 6"];
    let sets = odd.map(|line| format!("model.{}", line.replace(' ', "")));
    let mut more = vec!["--set", "model.mixer=dilated"];
    sets.iter().for_each(|set| more.extend(["--set", set]));
    task.train("run", &more);
    change_state(&task.path("run"), |state| {
        let mut config = state["fingerprint"]["config"].as_str().unwrap().to_owned();
        for line in odd {
            let (key, _) = line.split_once(" = ").unwrap();
            let written = config.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
            assert_ne!(written, line);
            config = config.replace(&written, line);
        }
        state["fingerprint"]["config"] = config.into();
    });
    more.push("--resume");
    assert!(task.train("run", &more).contains("finished"));
    // Values that it has are compared all the same.
    more.extend(["--set", "model.kernel_sizes=5"]);
    let said = refused(&task, "run", &more);
    assert!(said.contains("model.kernel_sizes") && !said.contains("heads") && !said.contains("buckets"), "{said}");
}

#[test]
fn there_must_be_something_to_resume() {
    let task = Task::new();
    let said = refused(&task, "nowhere", &["--resume"]);
    assert!(said.contains("nothing to resume in nowhere"), "{said}");
}

#[test]
fn patience_ends_training_early_and_keeps_the_best_weights() {
    let task = Task::new();
    // A learning rate too small to change a weight: no evaluation beats the first.
    let more = ["--set", "train.lr=1e-30", "--set", "train.patience=2", "--set", "train.epochs=50"];
    let said = task.train("run", &more);
    assert!(said.contains("stopped early"), "{said}");
    let dev: Vec<bool> = task.metrics("run").iter().filter_map(|row| row["best"].as_bool()).collect();
    assert_eq!(dev, [true, false, false]);
}
