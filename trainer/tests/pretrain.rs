//! Tests pre-training: a run of the built program on a tiny corpus, stopped, resumed, in several processes, and
//! fine-tuned from.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{Task, at_most, close, killed, launch, make_old, other_seed, run_all, seeded, stderr};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const CONFIG: &str = r#"
[model]
num_decoder_layers = 1
num_attention_heads = 2
[model.encoder]
mixer = "light"
hidden_size = 16
num_hidden_layers = 1
intermediate_size = 32
kernel_sizes = [3]

[train]
steps = 40
batch_size = 8
inputs_length = 24
decay_after = 16
dropout = 0.1
drop_connect = 0.1
eval_every = 15
eval_examples = 16
log_every = 6
"#;

/// Enough steps that a signal always arrives in the middle.
const LONG: [&str; 2] = ["--set", "train.steps=400"];

/// The fine-tuning task with two corpora and a configuration for pre-training.
struct Pretraining(Task);

impl Pretraining {
    fn new() -> Self {
        let task = Task::new();
        fs::write(task.path("pretrain.toml"), seeded(CONFIG)).unwrap();
        fs::write(task.path("corpus.txt"), documents(60, 1)).unwrap();
        fs::write(task.path("valid.txt"), documents(12, 400)).unwrap();
        let pretraining = Pretraining(task);
        pretraining.corpus("corpus.txt", "corpus", "tokenizer");
        pretraining.corpus("valid.txt", "valid", "tokenizer");
        pretraining
    }

    fn corpus(&self, text: &str, out: &str, tokenizer: &str) {
        let output = self.0.run(&["corpus", "--tokenizer", tokenizer, "--out", out, text]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }

    /// Returns `pretrain` into `out`, with one thread, on the CPU; `shape` is `--config` or `--preset` with its value.
    fn shaped(&self, out: &str, shape: &[&str], more: &[&str]) -> Command {
        let mut command = self.0.command(&["pretrain", "--corpus", "corpus", "--valid", "valid"]);
        command.args(["--tokenizer", "tokenizer", "--device", "cpu", "--threads", "1", "--out", out]);
        command.args(shape).args(more);
        command
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        self.shaped(out, &["--config", "pretrain.toml"], more)
    }

    /// Runs to the successful end and returns its stderr.
    fn run(&self, out: &str, more: &[&str]) -> String {
        good(&self.command(out, more).output().unwrap())
    }

    /// Returns the message of a run that must end with exit code 2.
    fn refused(&self, out: &str, more: &[&str]) -> String {
        let output = self.command(out, more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    }

    /// Starts or resumes a long run and waits until its log has a new row.
    fn start(&self, mut command: Command, out: &str) -> Child {
        let log = self.0.path(out).join("metrics.jsonl");
        let rows = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let before = rows();
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while rows() <= before {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no row");
            sleep(Duration::from_millis(2));
        }
        child
    }

    /// Returns the losses of a run's training rows.
    fn losses(&self, out: &str) -> Vec<f64> {
        let rows = self.0.metrics(out);
        rows.iter().filter(|r| r["kind"] == "train").map(|r| r["loss"].as_f64().unwrap()).collect()
    }
}

fn good(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stderr(output)
}

/// Returns `n` documents of 30 to 70 words with a blank line between them.
fn documents(n: usize, seed: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "small", "wren", "in", "a", "very", "old", "green", "tree", "house", "and", "owl"];
    let sentence = |i: usize| {
        let words = 30 + (i * 13 + seed) % 41;
        let text: Vec<&str> = (0..words).map(|w| WORDS[(i * 5 + w * w * 3 + w + seed) % WORDS.len()]).collect();
        text.join(" ") + "\n\n"
    };
    (0..n).map(sentence).collect()
}

fn tensors(bytes: &[u8]) -> HashMap<String, (Dtype, Vec<usize>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec()))).collect()
}

/// Returns the last weights and the optimizer's state.
fn state(task: &Task, out: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = fs::read_dir(task.path(out).join("resume")).unwrap().flatten().map(|e| e.path());
    let folder = folder.into_iter().find(|p| p.is_dir()).unwrap();
    (fs::read(folder.join("model.safetensors")).unwrap(), fs::read(folder.join("optimizer.safetensors")).unwrap())
}

#[test]
fn a_run_learns_and_leaves_all_its_files() {
    let p = Pretraining::new();
    let said = p.run("run", &["--set", "train.steps=90", "--set", "train.lr=0.07", "--set", "train.eval_every=5"]);
    assert!(said.contains("hidden_size = 16") && said.contains("90 steps") && said.contains("bits per byte"), "{said}");
    for file in [
        "config.resolved.toml",
        "environment.json",
        "loss.svg",
        "seq2seq.json",
        "encoder/tokenizer.json",
        "tensorboard",
    ] {
        assert!(p.0.path("run").join(file).exists(), "{file}");
    }
    assert!(!p.0.path("run/encoder/labels.json").exists());

    let losses = p.losses("run");
    assert_eq!(losses.len(), 15);
    let best = |losses: &[f64]| losses.iter().copied().fold(f64::INFINITY, f64::min);
    at_most(0.5, best(&losses) / losses[0], "loss against the first");
    let rows = p.0.metrics("run");
    let valid: Vec<&Value> = rows.iter().filter(|r| r["kind"] == "valid").collect();
    assert_eq!(valid.len(), 18);
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    let held_out: Vec<f64> = valid.iter().map(|row| number(row, "loss")).collect();
    at_most(0.6, best(&held_out) / held_out[0], "held-out loss against the first");
    // Bits per byte and nats per token differ by a constant of the held-out text.
    let ratio = |row: &Value| number(row, "bits_per_byte") / number(row, "loss");
    assert!((ratio(valid[0]) / ratio(valid[17]) - 1.0).abs() < 1e-9);
    // 90 steps of 8 examples of at most 24 ids.
    let tokens = number(rows.iter().rfind(|r| r["kind"] == "train").unwrap(), "tokens");
    assert!((90.0 * 8.0 * 20.0..=90.0 * 8.0 * 24.0).contains(&tokens), "{tokens}");

    // The encoder has the model's weights in f16, without the sentinels' rows.
    let config: Value = serde_json::from_slice(&p.0.bytes("run", "encoder/config.json")).unwrap();
    let seq2seq: Value = serde_json::from_slice(&p.0.bytes("run", "seq2seq.json")).unwrap();
    assert_eq!((&config["num_labels"], &config["vocab_size"]), (&0.into(), &380.into()));
    assert_eq!(seq2seq["encoder"]["vocab_size"], 512);
    let (whole, encoder) =
        (tensors(&p.0.bytes("run", "model.safetensors")), tensors(&p.0.bytes("run", "encoder/model.safetensors")));
    assert_eq!(encoder["embed.weight"], (Dtype::F16, vec![380, 16]));
    assert_eq!(whole["embed.weight"], (Dtype::F32, vec![512, 16]));
    let ours = whole.keys().filter(|name| !name.starts_with("decoder."));
    assert!(ours.clone().count() == encoder.len() && ours.clone().all(|name| encoder.contains_key(name)));
    assert_eq!(state(&p.0, "run").0, p.0.bytes("run", "model.safetensors"));

    // The card describes the encoder.
    let card = String::from_utf8(p.0.bytes("run", "encoder/README.md")).unwrap();
    for said in [
        "90 steps",
        "embedding of 380 token ids",
        "| `",
        "hidden_size = 16",
        "bits per masked byte",
        "finetune --from run/encoder",
    ] {
        assert!(card.contains(said), "{said}: {card}");
    }
    let training: Value = serde_json::from_slice(&p.0.bytes("run", "encoder/training.json")).unwrap();
    assert_eq!((&training["steps"], &training["finished"]), (&90.into(), &true.into()));
    assert_eq!(training["held_out"]["loss"], valid[17]["loss"]);
    assert!(training["corpus"]["sources"][0]["sha256"].is_string(), "{training}");
}

#[test]
fn the_same_seed_gives_the_same_weights_and_metrics() {
    let p = Pretraining::new();
    p.run("a", &[]);
    p.run("b", &[]);
    p.run("c", &["--seed", &other_seed()]);
    assert_eq!(p.0.bytes("a", "model.safetensors"), p.0.bytes("b", "model.safetensors"));
    assert_eq!(p.0.metrics("a"), p.0.metrics("b"));
    assert_ne!(p.losses("a"), p.losses("c"));
}

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let p = Pretraining::new();
    p.run("whole", &LONG);
    let mut more: Vec<&str> = Vec::new();
    for name in ["TERM", "INT"] {
        let child = p.start(p.command("stopped", &[&LONG[..], &more].concat()), "stopped");
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
        let said = good(&child.wait_with_output().unwrap());
        assert!(said.contains("the state is saved in stopped; to go on, run"), "{said}");
        assert!(said.trim_end().ends_with("--resume"), "{said}");
        let (rows, all) = (p.0.metrics("stopped"), p.0.metrics("whole"));
        assert!(rows.len() < all.len() && rows == all[..rows.len()], "{} of {} rows", rows.len(), all.len());
        assert!(p.0.path("stopped/encoder/model.safetensors").exists());
        more = vec!["--resume"];
    }
    let said = p.run("stopped", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step"), "{said}");
    for file in ["model.safetensors", "seq2seq.json", "encoder/model.safetensors", "config.resolved.toml"] {
        assert_eq!(p.0.bytes("whole", file), p.0.bytes("stopped", file), "{file}");
    }
    assert_eq!(p.0.metrics("whole"), p.0.metrics("stopped"));
    assert!(state(&p.0, "whole") == state(&p.0, "stopped"), "the optimizer's memory differs");

    let said = p.run("stopped", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("finished"), "{said}");
}

#[test]
fn gradient_checkpointing_changes_no_bit_of_a_run_or_of_its_resumption() {
    let p = Pretraining::new();
    p.run("plain", &LONG);
    let again = [&LONG[..], &["--set", "train.gradient_checkpointing=true"]].concat();
    let child = p.start(p.command("stopped", &again), "stopped");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    good(&child.wait_with_output().unwrap());
    let said = p.refused("stopped", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("was `train.gradient_checkpointing = true`"), "{said}");
    let said = p.run("stopped", &[&again[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step") && said.contains("gradient_checkpointing = true"), "{said}");
    assert_eq!(p.0.bytes("plain", "model.safetensors"), p.0.bytes("stopped", "model.safetensors"));
    assert_eq!(p.0.metrics("plain"), p.0.metrics("stopped"));
    assert!(state(&p.0, "plain") == state(&p.0, "stopped"), "the optimizer's memory differs");
}

#[test]
fn a_killed_run_resumes_from_its_last_saved_state() {
    let p = Pretraining::new();
    // Saves the state at every step; the kill loses what came after the last one.
    let often = ["--set", "train.steps=80", "--set", "train.save_minutes=0.0000001"];
    p.run("whole", &often);
    let mut child = p.start(p.command("killed", &often), "killed");
    child.kill().unwrap();
    child.wait().unwrap();
    p.run("killed", &[&often[..], &["--resume"]].concat());
    assert_eq!(p.0.bytes("whole", "model.safetensors"), p.0.bytes("killed", "model.safetensors"));
    assert_eq!(p.0.metrics("whole"), p.0.metrics("killed"));
}

#[test]
fn a_run_that_is_killed_again_and_again_equals_one_that_never_was() {
    let p = Pretraining::new();
    let often = ["--set", "train.steps=80", "--set", "train.save_minutes=0.0000001"];
    p.run("whole", &often);
    killed(&p.0.path("killed"), "resume/progress.json", |more| p.command("killed", &[&often[..], more].concat()));
    for file in ["model.safetensors", "seq2seq.json", "encoder/model.safetensors", "config.resolved.toml"] {
        assert_eq!(p.0.bytes("whole", file), p.0.bytes("killed", file), "{file}");
    }
    assert_eq!(p.0.metrics("whole"), p.0.metrics("killed"));
}

#[test]
fn a_run_that_an_older_version_began_goes_on() {
    let p = Pretraining::new();
    p.run("whole", &LONG);
    let child = p.start(p.command("stopped", &LONG), "stopped");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    good(&child.wait_with_output().unwrap());
    make_old(&p.0.path("stopped"), &["patience", "gradient_checkpointing"], Value::Null);
    let said = p.run("stopped", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step"), "{said}");
    assert_eq!(p.0.bytes("whole", "model.safetensors"), p.0.bytes("stopped", "model.safetensors"));
    assert_eq!(p.losses("whole"), p.losses("stopped"));
}

#[test]
fn patience_ends_training_early() {
    let p = Pretraining::new();
    // A learning rate too small to change a weight: no evaluation beats the first.
    let more = ["--set", "train.lr=1e-30", "--set", "train.patience=2", "--set", "train.eval_every=5"];
    let said = p.run("run", &[&LONG[..], &more].concat());
    assert!(said.contains("stopped early"), "{said}");
    let rows = p.0.metrics("run");
    let best: Vec<bool> = rows.iter().filter_map(|row| row["best"].as_bool()).collect();
    assert_eq!(best, [true, false, false]);
    assert_eq!(rows.last().unwrap()["step"], 15);
    let said = p.run("run", &[&LONG[..], &more, &["--resume"]].concat());
    assert!(said.contains("is finished"), "{said}");
}

#[test]
fn the_time_limit_ends_training_with_an_evaluated_checkpoint() {
    let p = Pretraining::new();
    let more = ["--set", "train.steps=100000000", "--set", "train.eval_every=0", "--max-minutes", "0.02"];
    let begun = Instant::now();
    let said = p.run("limited", &more);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(said.contains("time is up") && said.trim_end().ends_with("--resume"), "{said}");
    assert_eq!(p.0.metrics("limited").pop().unwrap()["kind"], "valid");
    for file in ["model.safetensors", "encoder/model.safetensors", "resume/progress.json"] {
        assert!(p.0.path("limited").join(file).exists(), "{file}");
    }
}

/// No dropout, whose random stream depends on the process, and small steps, so that differences in rounding stay small.
const STILL: [&str; 6] = ["--set", "train.dropout=0", "--set", "train.drop_connect=0", "--set", "train.lr=0.01"];

#[test]
fn a_step_in_parts_equals_a_whole_one() {
    let p = Pretraining::new();
    p.run("whole", &STILL);
    p.run("parts", &[&STILL[..], &["--set", "train.accumulate=4"]].concat());
    close(&p.0.metrics("whole"), &p.0.metrics("parts"), "train", "losses of steps in parts");
}

#[test]
fn two_processes_equal_one_and_one_resumes_what_two_began() {
    let p = Pretraining::new();
    p.run("one", &STILL);
    run_all(launch(2, || p.command("two", &STILL)));
    close(&p.0.metrics("one"), &p.0.metrics("two"), "train", "losses of two processes");

    // When the first process ends, all end.
    let long = [&STILL[..], &LONG].concat();
    p.run("long", &long);
    let mut commands = launch(2, || p.command("begun", &long));
    let other = commands.pop().unwrap().stderr(Stdio::null()).spawn().unwrap();
    let first = p.start(commands.pop().unwrap(), "begun");
    assert!(Command::new("kill").args(["-s", "TERM", &first.id().to_string()]).status().unwrap().success());
    for child in [first, other] {
        good(&child.wait_with_output().unwrap());
    }
    p.run("begun", &[&long[..], &["--resume"]].concat());
    close(&p.0.metrics("long"), &p.0.metrics("begun"), "train", "losses of one process after two");
}

#[test]
fn a_killed_process_stops_the_others_with_a_state_to_resume() {
    let p = Pretraining::new();
    let mut commands = launch(2, || p.command("run", &LONG));
    let mut other = commands.pop().unwrap().stderr(Stdio::null()).spawn().unwrap();
    let first = p.start(commands.pop().unwrap(), "run");
    other.kill().unwrap();
    other.wait().unwrap();
    let output = first.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("another process of the run has gone") && said.contains("is saved"), "{said}");
    let said = p.run("run", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step"), "{said}");
}

#[test]
fn every_preset_mixer_and_option_trains() {
    let p = Pretraining::new();
    let train = "[train]\nsteps = 4\nbatch_size = 2\ninputs_length = 24\neval_examples = 2\nlog_every = 1\n";
    fs::write(p.0.path("train.toml"), train).unwrap();
    for (mixer, set) in [
        ("light", "train.bf16=true"),
        ("dynamic", "train.clip_norm=1"),
        ("dilated", "train.optimizer=adamw"),
        ("attention", "train.merge=false"),
    ] {
        let more = ["--mixer", mixer, "--config", "train.toml", "--set", set, "--set", "train.lr=0.001"];
        good(&p.shaped(mixer, &["--preset", "nano"], &more).output().unwrap());
        assert_eq!(p.losses(mixer).len(), 4, "{mixer}");
        assert!(p.losses(mixer).iter().all(|loss| *loss > 0.0 && *loss < 20.0), "{mixer}: {:?}", p.losses(mixer));
    }
    for (compat, norm) in [("mesh", "pre_rms"), ("fairseq", "post_layer")] {
        let sets = [format!("model.encoder.compat={compat}"), format!("model.encoder.norm={norm}")];
        let more = ["--mixer", "dynamic", "--config", "train.toml", "--set", &sets[0], "--set", &sets[1]];
        let lr = ["--set", "train.lr=0.001"];
        good(&p.shaped(compat, &["--preset", "nano"], &[&more[..], &lr].concat()).output().unwrap());
        assert!(p.losses(compat).iter().all(|loss| *loss > 0.0 && *loss < 20.0), "{compat}: {:?}", p.losses(compat));
    }
}

#[test]
fn fine_tuning_starts_from_a_run_or_its_encoder() {
    let p = Pretraining::new();
    p.run("run", &[]);
    fs::write(p.0.path("second.toml"), "[train]\nepochs = 1\nlr = 1e-12\noptimizer = \"adamw\"\n").unwrap();
    let base =
        ["finetune", "--config", "second.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--device", "cpu"];
    for (from, out) in [("run", "a"), ("run/encoder", "b")] {
        good(&p.0.run(&[&base[..], &["--threads", "1", "--from", from, "--out", out]].concat()));
    }
    assert_eq!(p.0.bytes("a", "model.safetensors"), p.0.bytes("b", "model.safetensors"));
    assert_eq!(p.0.bytes("a", "tokenizer.bin"), p.0.bytes("run", "encoder/tokenizer.bin"));

    // The encoder is that of the run, to the precision of f16.
    let (tuned, run) = (p.0.bytes("a", "model.safetensors"), p.0.bytes("run", "model.safetensors"));
    let (tuned, run) = (SafeTensors::deserialize(&tuned).unwrap(), SafeTensors::deserialize(&run).unwrap());
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    for (name, view) in tuned.iter().filter(|(name, _)| !name.starts_with("head.")) {
        let (tuned, run) = (floats(view.data()), floats(run.tensor(name).unwrap().data()));
        assert!(tuned.iter().zip(&run).all(|(a, b)| (a - b).abs() <= b.abs() * 1e-3 + 1e-7), "{name}");
    }

    // A configured shape must be the encoder's; anything but a checkpoint is rejected.
    let refused = |more: &[&str]| {
        let output = p.0.run(&[&base[..], &["--out", "refused"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    fs::write(p.0.path("second.toml"), fs::read_to_string(p.0.path("config.toml")).unwrap().replace("= 32", "= 64"))
        .unwrap();
    let said = refused(&["--from", "run"]);
    assert!(
        said.contains("[model] differs") && said.contains("intermediate_size is 64, in the checkpoint 32"),
        "{said}"
    );
    let said = refused(&["--from", "corpus"]);
    assert!(said.contains("corpus is no checkpoint and no run of pre-training or distillation"), "{said}");
    fs::remove_file(p.0.path("run/encoder/tokenizer.bin")).unwrap();
    let said = refused(&["--from", "run"]);
    assert!(said.contains("tokenizer.bin"), "{said}");
}

#[test]
fn resume_names_what_differs_from_the_run() {
    let p = Pretraining::new();
    p.run("run", &[]);
    let said = p.refused("run", &["--resume", "--set", "train.z_loss=0.5", "--set", "model.encoder.hidden_size=32"]);
    assert!(said.contains("now `train.z_loss = 0.5`, was `train.z_loss = 0.0001`"), "{said}");
    assert!(said.contains("now `model.encoder.hidden_size = 32`, was `model.encoder.hidden_size = 16`"), "{said}");
    p.corpus("valid.txt", "other", "tokenizer");
    let said = p.refused("run", &["--resume", "--corpus", "other"]);
    assert!(said.contains("cannot be used multiple times") || said.contains("the corpus"), "{said}");
    let said = p.refused("run", &[]);
    assert!(said.contains("--resume") && said.contains("--force"), "{said}");
    assert!(p.refused("nowhere", &["--resume"]).contains("nothing to resume in nowhere"));
    p.0.train("tuned", &["--set", "train.epochs=1"]);
    let said = p.refused("tuned", &["--resume"]);
    assert!(said.contains("is not a saved state of this command"), "{said}");
}

#[test]
fn bad_input_is_refused() {
    let p = Pretraining::new();
    for (more, expect) in [
        (&["--set", "train.nothing=1"][..], "nothing"),
        (&["--set", "train.accumulate=3"], "must be a multiple of 3"),
        (&["--set", "objective.noise_density=1.5"], "noise_density"),
        (&["--set", "model.encoder.vocab_size=380"], "needs 512"),
        (&["--set", "model.num_attention_heads=3"], "num_attention_heads is 3"),
        (&["--preset", "nano"], "has a section [model], too"),
        (&["--mixer", "attention"], "--preset"),
        (&["--max-minutes", "-1"], "-1"),
    ] {
        let said = p.refused("refused", more);
        assert!(said.contains(expect), "{more:?}: {said}");
    }
    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(refused(&mut p.shaped("refused", &["--preset", "huge"], &[])).contains("nano, small or base"));
    assert!(refused(&mut p.shaped("refused", &["--preset", "nano", "--mixer", "lite"], &[])).contains("dynamic"));
    assert!(refused(&mut p.shaped("refused", &[], &[])).contains("--config"));
    assert!(refused(p.command("refused", &[]).env("WORLD_SIZE", "0")).contains("not set in the environment"));

    // Corpora: one of another tokenizer, and none.
    let more = ["--vocab-size", "390", "--input", "train.jsonl", "--out", "other"];
    good(&p.0.run(&[&["tokenizer"], &more[..]].concat()));
    fs::remove_dir_all(p.0.path("valid")).unwrap();
    let said = p.refused("refused", &[]);
    assert!(said.contains("valid"), "{said}");
    p.corpus("valid.txt", "valid", "other");
    let said = p.refused("refused", &[]);
    assert!(said.contains("valid") && said.contains("tokenizer"), "{said}");
    assert!(!p.0.path("refused").exists());
}

#[test]
fn a_loss_that_is_not_finite_stops_training_with_advice() {
    let p = Pretraining::new();
    let said = p.refused("run", &["--set", "train.lr=1e30", "--set", "train.log_every=1"]);
    assert!(said.contains("lower train.lr"), "{said}");
    assert!(!p.0.path("run/model.safetensors").exists());
}
