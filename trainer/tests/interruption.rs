//! SIGTERM, Ctrl-C, and the time limit: training stops cleanly, says how to resume, and a resumed run equals an
//! uninterrupted one.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{Task, killed, make_old, stderr};

/// Enough epochs that a signal always arrives in the middle; words are cut into other pieces in each step.
const LONG: [&str; 6] =
    ["--set", "train.epochs=60", "--set", "train.eval_every=7", "--set", "train.subword_sampling=0.3"];

/// Starts or resumes a long run and waits until its log has a new row.
fn start(task: &Task, out: &str, more: &[&str]) -> Child {
    let log = task.path(out).join("metrics.jsonl");
    let rows = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let before = rows();
    let child = task.finetune(out, &[&LONG[..], more].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows() <= before {
        assert!(Instant::now() < deadline, "no row after a minute");
        sleep(Duration::from_millis(2));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// A signal's handler in a thread that computes would write where a product has its workspace.
#[cfg(target_os = "linux")]
#[test]
fn one_thread_alone_takes_signals_and_computes_nothing() {
    let task = Task::new();
    let child = start(&task, "run", &[]);
    let mut open = Vec::new();
    let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().collect();
    for thread in &threads {
        let status = fs::read_to_string(thread.as_ref().unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let blocked = u64::from_str_radix(&field("SigBlk:"), 16).unwrap();
        // SIGINT and SIGTERM.
        if [2, 15].iter().any(|number| blocked >> (number - 1) & 1 == 0) {
            open.push(field("Name:"));
        }
    }
    assert!(threads.len() > 1);
    assert_eq!(open, ["signals"]);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let task = Task::new();
    task.train("whole", &LONG);

    let mut more: Vec<&str> = Vec::new();
    for name in ["TERM", "INT"] {
        let child = start(&task, "stopped", &more);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("the state is saved in stopped; to go on, run"), "{said}");
        assert!(said.trim_end().ends_with("--resume"), "{said}");
        assert!(task.path("stopped/resume/progress.json").exists());
        let (rows, all) = (task.metrics("stopped"), task.metrics("whole"));
        assert!(rows.len() < all.len() && rows == all[..rows.len()], "{} of {} rows", rows.len(), all.len());
        more = vec!["--resume"];
    }
    let said = task.train("stopped", &[&LONG[..], &["--resume"]].concat());
    assert!(said.contains("resuming after step"), "{said}");

    for file in ["model.safetensors", "golden.safetensors", "config.json", "labels.json", "config.resolved.toml"] {
        assert_eq!(task.bytes("whole", file), task.bytes("stopped", file), "{file}");
    }
    assert_eq!(task.metrics("whole"), task.metrics("stopped"));
    let state = |out: &str| {
        let folder = fs::read_dir(task.path(out).join("resume")).unwrap().flatten().map(|e| e.path());
        let folder = folder.into_iter().find(|p| p.is_dir()).unwrap();
        (fs::read(folder.join("model.safetensors")).unwrap(), fs::read(folder.join("optimizer.safetensors")).unwrap())
    };
    assert!(state("whole") == state("stopped"), "the last weights or the optimizer's memory differ");
}

#[test]
fn a_killed_run_resumes_from_its_last_saved_state() {
    let task = Task::new();
    task.train("whole", &LONG);
    // Saves the state at every step; the kill loses what came after the last one.
    let mut child = start(&task, "killed", &["--set", "train.save_minutes=0.0000001"]);
    sleep(Duration::from_millis(50));
    child.kill().unwrap();
    child.wait().unwrap();
    let more = ["--set", "train.save_minutes=0.0000001", "--resume"];
    task.train("killed", &[&LONG[..], &more].concat());
    assert_eq!(task.bytes("whole", "model.safetensors"), task.bytes("killed", "model.safetensors"));
    assert_eq!(task.metrics("whole"), task.metrics("killed"));
}

#[test]
fn a_run_that_is_killed_again_and_again_equals_one_that_never_was() {
    let task = Task::new();
    let often = [&LONG[..], &["--set", "train.save_minutes=0.0000001"]].concat();
    task.train("whole", &often);
    killed(&task.path("killed"), "resume/progress.json", |more| task.finetune("killed", &[&often[..], more].concat()));
    for file in ["model.safetensors", "golden.safetensors", "labels.json", "config.resolved.toml"] {
        assert_eq!(task.bytes("whole", file), task.bytes("killed", file), "{file}");
    }
    assert_eq!(task.metrics("whole"), task.metrics("killed"));
}

#[test]
fn a_run_that_an_older_version_began_goes_on() {
    let task = Task::new();
    let config = fs::read_to_string(task.path("config.toml")).unwrap();
    assert!(config.contains("optimizer = \"adamw\""));
    fs::write(task.path("config.toml"), config.replace("optimizer", "optimiser")).unwrap();
    task.train("whole", &LONG);
    let child = start(&task, "stopped", &[]);
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    let progress = task.bytes("stopped", "resume/progress.json");
    let state: serde_json::Value = serde_json::from_slice(&progress).unwrap();
    let (step, mut place) = (state["step"].as_u64().unwrap(), state["place"].clone());
    (place["epoch"], place["batch"]) = ((step / 6).into(), (step % 6).into());
    make_old(&task.path("stopped"), &["accumulate", "tf32", "gradient_checkpointing"], place);

    task.train("stopped", &[&LONG[..], &["--resume"]].concat());
    assert_eq!(task.bytes("whole", "model.safetensors"), task.bytes("stopped", "model.safetensors"));
    assert_eq!(task.metrics("whole"), task.metrics("stopped"));
}

#[test]
fn the_time_limit_ends_training_with_a_usable_checkpoint() {
    let task = Task::new();
    // A decaying learning rate would be shortened to the time (tests/fit.rs).
    let more = [
        "--set",
        "train.schedule=constant",
        "--set",
        "train.epochs=100000",
        "--set",
        "train.eval_every=1000000",
        "--max-minutes",
        "0.02",
    ];
    let begun = Instant::now();
    let said = task.train("limited", &more);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(said.contains("time is up") && said.trim_end().ends_with("--resume"), "{said}");
    for file in ["model.safetensors", "golden.safetensors", "training.json", "README.md", "resume/progress.json"] {
        assert!(task.path("limited").join(file).exists(), "{file}");
    }
    let last = task.metrics("limited").pop().unwrap();
    assert_eq!((&last["kind"], &last["best"]), (&"dev".into(), &true.into()));
}
