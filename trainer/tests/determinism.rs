//! The same seed produces the same run, another seed a different one.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use fixture::{Task, at_least, other_seed};

#[test]
fn the_same_seed_gives_the_same_weights_and_metrics() {
    let task = Task::new();
    task.train("a", &[]);
    task.train("b", &[]);
    task.train("c", &["--seed", &other_seed()]);
    assert_eq!(task.bytes("a", "model.safetensors"), task.bytes("b", "model.safetensors"));
    assert_eq!(task.metrics("a"), task.metrics("b"));
    assert_ne!(task.bytes("a", "model.safetensors"), task.bytes("c", "model.safetensors"));
    assert_ne!(task.metrics("a"), task.metrics("c"));
}

#[test]
fn gradient_checkpointing_changes_no_bit_of_a_run() {
    let task = Task::new();
    task.train("plain", &[]);
    let said = task.train("recomputed", &["--set", "train.gradient_checkpointing=true"]);
    assert!(said.contains("gradient_checkpointing = true"), "{said}");
    assert_eq!(task.bytes("plain", "model.safetensors"), task.bytes("recomputed", "model.safetensors"));
    assert_eq!(task.metrics("plain"), task.metrics("recomputed"));
}

#[test]
fn a_model_of_each_dialect_trains_and_is_scored() {
    let task = Task::new();
    for (compat, norm, mixer) in [("mesh", "pre_rms", "dynamic"), ("fairseq", "post_layer", "light")] {
        let (compat, norm) = (format!("model.compat={compat}"), format!("model.norm={norm}"));
        let mixer = format!("model.mixer={mixer}");
        task.train("run", &["--force", "--set", &compat, "--set", &norm, "--set", &mixer, "--set", "train.epochs=12"]);
        let best = task.metrics("run").iter().filter_map(|row| row["accuracy"].as_f64()).fold(0.0, f64::max);
        // Chance would reach half.
        at_least(0.75, best, &format!("accuracy, {compat}"));
        let data = ["--data", "dev.jsonl", "--device", "cpu"];
        let output = task.run(&[&["eval", "--checkpoint", "run"], &data[..]].concat());
        assert!(output.status.success(), "{}", fixture::stderr(&output));
    }
    let output = task.finetune("bad", &["--set", "model.compat=mesh"]).output().unwrap();
    assert!(fixture::stderr(&output).contains("compat \"mesh\" needs norm = \"pre_rms\""));
}

#[test]
fn dropout_changes_the_losses() {
    let task = Task::new();
    task.train("with", &[]);
    task.train("without", &["--set", "train.dropout=0", "--set", "train.drop_connect=0"]);
    assert_ne!(task.metrics("with"), task.metrics("without"));
}

#[test]
fn words_are_cut_into_other_pieces_by_seed_and_step() {
    let task = Task::new();
    let more = ["--set", "train.subword_sampling=0.5"];
    task.train("plain", &[]);
    task.train("sampled", &more);
    assert_ne!(task.metrics("plain"), task.metrics("sampled"));
    task.train("again", &more);
    assert_eq!(task.bytes("sampled", "model.safetensors"), task.bytes("again", "model.safetensors"));
}
