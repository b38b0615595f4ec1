//! Nothing damaged goes on, nothing is lost: hashes of saved states and checkpoints, one writer per directory, `--force` that fails, and signals
//! at any moment.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{Task, stderr};
use kinglet_train::checkpoint;
use kinglet_train::model::Mode;
use kinglet_train::tensors::read_tensors;
use tch::Device;

/// Enough epochs that a signal always arrives in the middle.
const LONG: [&str; 4] = ["--set", "train.epochs=3000", "--set", "train.eval_every=7"];

/// Returns the message of a run that must end with exit code 2.
fn refused(task: &Task, out: &str, more: &[&str]) -> String {
    let output = task.finetune(out, more).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

/// Starts or resumes a run that is not over soon, and waits until its log has a new row and `file` is in its folder.
fn start(task: &Task, out: &str, more: &[&str], file: &str) -> Child {
    let log = task.path(out).join("metrics.jsonl");
    let rows = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let before = if more.contains(&"--force") { 0 } else { rows() };
    let child = task.finetune(out, &[&LONG[..], more].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // With --force, the log of the old run is moved away first.
    while more.contains(&"--force") && !task.path(out).join(".replaced/model.safetensors").exists() {
        assert!(Instant::now() < deadline, "nothing is moved aside");
    }
    while rows() <= before || !task.path(out).join(file).exists() {
        assert!(Instant::now() < deadline, "no row, or no {file}, after a minute");
        sleep(Duration::from_millis(2));
    }
    child
}

fn end(child: Child, signal: &str) -> String {
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    stderr(&output)
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Returns whether the golden logits in a run's folder are those of its weights, and record and card are there; an error if the folder does not
/// hold together.
fn of_a_piece(dir: &Path) -> anyhow::Result<bool> {
    let model = checkpoint::load(dir, Device::Cpu)?.model;
    if !dir.join("golden.safetensors").exists() {
        return Ok(false);
    }
    let golden = read_tensors(&dir.join("golden.safetensors"))?;
    tch::set_num_threads(1);
    let logits = tch::no_grad(|| model.forward(&golden["input_ids"], &golden["attention_mask"], &Mode::eval()));
    assert!(logits.allclose(&golden["logits"], 1e-5, 1e-6, false), "the logits are of other weights");
    Ok(dir.join("training.json").exists() && dir.join("README.md").exists())
}

#[test]
fn a_flipped_bit_in_the_state_is_noticed() {
    let task = Task::new();
    let child = start(&task, "run", &["--set", "train.save_minutes=0.0000001"], "resume/progress.json");
    end(child, "TERM");
    let folder = fs::read_dir(task.path("run/resume")).unwrap().flatten().map(|entry| entry.path());
    let folder = folder.into_iter().find(|path| path.is_dir()).unwrap();
    let files = ["model.safetensors", "optimizer.safetensors"].map(|name| folder.join(name));
    for path in files.iter().chain([&task.path("run/resume/progress.json")]) {
        let good = fs::read(path).unwrap();
        // In a name, a number, and the last byte: `}` of the progress.
        for at in [200, good.len() / 2, good.len() - 1] {
            flip(path, at);
            let said =
                refused(&task, "run", &[&LONG[..], &["--set", "train.save_minutes=0.0000001", "--resume"]].concat());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(said.contains(name), "byte {at} of {name}: {said}");
            fs::write(path, &good).unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_noticed() {
    let task = Task::new();
    task.train("run", &[]);
    assert!(of_a_piece(&task.path("run")).unwrap());
    let files = ["config.json", "labels.json", "model.safetensors", "tokenizer.json", "tokenizer.bin", "training.json"];
    for name in files.into_iter().chain(["golden.safetensors"]) {
        let path = task.path("run").join(name);
        let good = fs::read(&path).unwrap();
        for at in [good.len() / 3, good.len() - 2] {
            flip(&path, at);
            let said = format!("{:#}", of_a_piece(&task.path("run")).unwrap_err());
            assert!(said.contains(name) && said.contains("is damaged"), "{said}");
            let output = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl"]);
            assert_eq!(output.status.code(), Some(2));
            assert!(stderr(&output).contains(name), "{}", stderr(&output));
            fs::write(&path, &good).unwrap();
        }
    }
    let output = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_label_that_could_pass_for_another_answer_is_refused_before_training() {
    let task = Task::new();
    let rows = fs::read_to_string(task.path("train.jsonl")).unwrap();
    let label = rows.split("\"label\":").nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    fs::write(task.path("train.jsonl"), rows.replace(&format!("\"{label}\""), "\"one\\nother  0.9999\"")).unwrap();
    let said = refused(&task, "run", &[]);
    assert!(said.contains("has control characters") && said.contains(r#""one\nother  0.9999""#), "{said}");
    assert!(!task.path("run").exists());
}

#[test]
fn a_directory_has_one_writer() {
    let task = Task::new();
    let child = start(&task, "run", &[], "metrics.jsonl");
    let metrics = fs::read(task.path("run/metrics.jsonl")).unwrap();
    for more in [&["--force"][..], &["--resume"]] {
        let said = refused(&task, "run", &[&LONG[..], more].concat());
        assert!(said.contains("another process is writing to run"), "{said}");
    }
    assert!(fs::read(task.path("run/metrics.jsonl")).unwrap().starts_with(&metrics));
    // A process that was killed leaves no lock.
    end(child, "KILL");
    task.train("run", &["--force"]);
}

#[test]
fn force_that_fails_costs_nothing() {
    let task = Task::new();
    task.train("run", &[]);
    let all = || {
        let entries = fs::read_dir(task.path("run")).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = entries.map(|path| (path.clone(), fs::read(&path).unwrap_or_default())).collect();
        all.sort();
        all
    };
    let before = all();
    let words = "finetune --train train.jsonl --dev misspelt.jsonl --config config.toml --tokenizer tokenizer --out run --force";
    let output = task.run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("misspelt.jsonl"), "{said}");
    assert!(all() == before);
    // It fails when training has begun, before there are weights.
    let lost = ["--set", "train.lr=1e30", "--set", "train.clip_norm=0", "--set", "train.warmup_steps=0"];
    let said = refused(&task, "run", &[&["--force"], &lost[..], &["--set", "train.log_every=1"]].concat());
    assert!(said.contains("lower train.lr") && said.contains("run is as it was before --force"), "{said}");
    assert!(all() == before);

    // Killed before there are weights: the next --force sees the old run, and replaces it when there are.
    let more = ["--force", "--set", "train.eval_every=1000000000"];
    let child = start(&task, "run", &more, "metrics.jsonl");
    assert!(task.path("run/.replaced/model.safetensors").exists());
    end(child, "KILL");
    let said = refused(&task, "run", &[&["--force"], &lost[..], &["--set", "train.log_every=1"]].concat());
    assert!(said.contains("run is as it was before --force"), "{said}");
    assert!(all() == before);
    task.train("run", &["--force", "--seed", &fixture::other_seed()]);
    assert!(!task.path("run/.replaced").exists());
    assert!(
        task.bytes("run", "model.safetensors")
            != before.iter().find(|(p, _)| p.ends_with("model.safetensors")).unwrap().1
    );
}

#[test]
fn a_checkpoint_is_one_of_a_piece_whenever_training_ends() {
    let task = Task::new();
    // Under nohup, as a continuous integration may run, no child of this process stops at SIGHUP.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let hangup = if ignored.unwrap_or(0) & 1 == 1 { "TERM" } else { "HUP" };
    for (signal, more) in [("INT", &[][..]), (hangup, &["--resume"]), ("TERM", &["--resume"])] {
        let child = start(&task, "run", more, "model.safetensors");
        let said = end(child, signal);
        assert!(said.trim_end().ends_with("--resume"), "{signal}: {said}");
        // Weights, their golden logits, record and card belong together.
        assert!(of_a_piece(&task.path("run")).unwrap(), "{signal}");
    }
    // Killed at any moment: what is there belongs together, and the next run completes it.
    for wait in [0, 3, 10, 30, 60] {
        let child = start(&task, "run", &["--resume"], "model.safetensors");
        sleep(Duration::from_millis(wait));
        end(child, "KILL");
        of_a_piece(&task.path("run")).unwrap();
    }
    end(start(&task, "run", &["--resume"], "model.safetensors"), "INT");
    assert!(of_a_piece(&task.path("run")).unwrap());
}

#[test]
fn under_nohup_the_end_of_the_terminal_stops_nothing() {
    let task = Task::new();
    let finetune = task.finetune("run", &LONG);
    let mut command = Command::new("nohup");
    command.arg(finetune.get_program()).args(finetune.get_args()).current_dir(task.folder.path());
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !task.path("run/model.safetensors").exists() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(2));
    }
    let rows = || task.metrics("run").len();
    assert!(Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status().unwrap().success());
    let before = rows();
    while rows() < before + 20 {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline);
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
