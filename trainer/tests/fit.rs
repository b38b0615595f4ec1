//! `fit`: one file of labelled texts becomes a model; the same seed, trainings and epochs make the same one, interrupted or not.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{Task, killed, seed, stderr};

/// Stands for the exporter, which is a program of another package: notes its arguments and reports an accuracy.
const EXPORTER: &str = "#!/bin/sh\necho \"$@\" >exported.txt\nmkdir -p \"$3\"\necho made >\"$3/model.kinglet\"\necho '{\"dev\": {\"accuracy_int8\": 0.5}}'\n";

/// Arguments of a search of three trainings from scratch.
const SEARCH: [&str; 8] = ["--from", "none", "--trials", "2", "--epochs", "6", "--device", "cpu"];

fn task() -> Task {
    let task = Task::new();
    let path = task.path("exporter");
    fs::write(&path, EXPORTER).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    task
}

fn fit(task: &Task, data: &str, out: &str, more: &[&str]) -> Command {
    let mut command = task.command(&["fit", data, "--out", out, "--threads", "1", "--seed", &seed().to_string()]);
    command.env("KINGLET_EXPORT", task.path("exporter")).args(more);
    command
}

fn made(task: &Task, data: &str, out: &str, more: &[&str]) -> Output {
    let output = fit(task, data, out, more).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

fn record(task: &Task, out: &str) -> serde_json::Value {
    let mut record: serde_json::Value = serde_json::from_slice(&task.bytes(out, "fit.json")).unwrap();
    for trial in record["trials"].as_array_mut().unwrap() {
        trial["minutes"] = 0.into();
    }
    record
}

#[test]
fn a_file_becomes_a_model_and_the_same_search_the_same_model() {
    let task = task();
    let output = made(&task, "train.jsonl", "one", &SEARCH);
    let (out, said) = (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output));
    for words in
        ["96 rows, 2 classes", "rows to train on", "3 trainings in 2 rounds", "dev accuracy", "learning a vocabulary"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(out.starts_with("accuracy  50.00% (") && out.contains("--trials 2 --epochs 6"), "{out}");
    assert!(out.trim_end().ends_with("kinglet classify --model one/model.kinglet \"some text\""), "{out}");
    let exported = String::from_utf8(task.bytes("", "exported.txt")).unwrap();
    assert_eq!(exported.trim_end(), "one/checkpoint --out one --search one/fit.json --force --json");
    assert!(!task.path("one/trials").exists());

    let record_of_one = record(&task, "one");
    let names: Vec<&str> =
        record_of_one["trials"].as_array().unwrap().iter().map(|trial| trial["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["words alone", "random weights", "from words"]);
    assert_eq!(names.len(), 4);
    assert!(!task.path("one/words").exists());
    made(&task, "train.jsonl", "two", &SEARCH);
    assert_eq!(record_of_one, record(&task, "two"));
    for file in ["checkpoint/model.safetensors", "data/dev.jsonl", "vocabulary/tokenizer.bin"] {
        assert_eq!(task.bytes("one", file), task.bytes("two", file), "{file}");
    }

    // A search of other data, or a folder with anything in it, is not continued by mistake.
    let refused = |data: &str, out: &str, more: &[&str]| {
        let output = fit(&task, data, out, &[&SEARCH[..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    assert!(refused("train.jsonl", "one", &[]).contains("is not empty"));
    assert!(refused("dev.jsonl", "one", &["--resume"]).contains("begun with another DATA"));
    assert!(refused("missing.csv", "three", &[]).contains("cannot read missing.csv"));
    assert!(refused("train.jsonl", "three", &["--minutes", "0"]).contains("must be above 0"));
    assert!(!task.path("three").exists());
}

#[test]
fn empty_texts_have_no_soft_label_and_do_no_harm() {
    let task = task();
    let mut rows = String::from_utf8(task.bytes("", "train.jsonl")).unwrap();
    let label = rows.lines().next().unwrap().parse::<serde_json::Value>().unwrap()["label"].clone();
    for text in ["", " \n"] {
        rows += &format!("{}\n", serde_json::json!({ "text": text, "label": label }));
    }
    fs::write(task.path("empty.jsonl"), rows).unwrap();
    let search = ["--from", "none", "--trials", "1", "--epochs", "1", "--device", "cpu"];
    let said = stderr(&made(&task, "empty.jsonl", "out", &search));
    assert!(said.contains("without a letter or digit") && said.contains("a linear classifier of"), "{said}");
}

#[test]
fn an_interrupted_search_continues_and_makes_the_same_model() {
    let task = task();
    let long = [&SEARCH[..5], &["40", "--device", "cpu"]].concat();
    made(&task, "train.jsonl", "whole", &long);
    let mut child = fit(&task, "train.jsonl", "stopped", &long).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // In the first training, whose log has a row.
    while !fs::read_to_string(task.path("stopped/trials/1-1/metrics.jsonl")).is_ok_and(|log| log.contains('\n')) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no row");
        sleep(Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).trim_end().ends_with("--resume"), "{}", stderr(&output));
    assert!(!task.path("stopped/checkpoint").exists());
    // As if killed before the state of a training was complete.
    fs::remove_file(task.path("stopped/trials/1-1/resume/progress.json")).unwrap();
    made(&task, "train.jsonl", "stopped", &[&long[..], &["--resume"]].concat());
    assert_eq!(record(&task, "whole"), record(&task, "stopped"));
    let weights = "checkpoint/model.safetensors";
    assert_eq!(task.bytes("whole", weights), task.bytes("stopped", weights));
}

#[test]
fn a_search_that_is_killed_again_and_again_makes_the_same_model() {
    let task = task();
    let long = [&SEARCH[..5], &["40", "--device", "cpu"]].concat();
    made(&task, "train.jsonl", "whole", &long);
    killed(&task.path("killed"), "fit.json", |more| fit(&task, "train.jsonl", "killed", &[&long[..], more].concat()));
    assert_eq!(record(&task, "whole"), record(&task, "killed"));
    let weights = "checkpoint/model.safetensors";
    assert_eq!(task.bytes("whole", weights), task.bytes("killed", weights));
}

#[test]
fn the_time_decides_how_long_is_trained_and_given_dev_data_are_used() {
    let task = task();
    let output = made(
        &task,
        "train.jsonl",
        "out",
        &["--from", "none", "--device", "cpu", "--minutes", "0.5", "--dev", "dev.jsonl"],
    );
    let record = record(&task, "out");
    assert_eq!(record["rows"], serde_json::json!([96, 30]), "{}", stderr(&output));
    assert!(record["plan"]["epochs"].as_f64().unwrap() > 0.0);
    assert!(!record["trials"].as_array().unwrap().is_empty());
}

#[test]
fn a_time_limit_shapes_a_decaying_learning_rate() {
    let task = Task::new();
    let long = [
        "--set",
        "train.epochs=3000",
        "--set",
        "train.schedule=cosine",
        "--set",
        "train.eval_every=1000000",
        "--set",
        "train.log_every=1",
    ];
    let said = task.train("out", &[&long[..], &["--max-minutes", "0.05"]].concat());
    assert!(said.contains("steps fit into"), "{said}");
    let config = String::from_utf8(task.bytes("out", "config.resolved.toml")).unwrap();
    let steps: u64 = config.lines().find_map(|line| line.strip_prefix("max_steps = ")).unwrap().parse().unwrap();
    assert!(steps > 0, "{config}");
    let rows = task.metrics("out");
    let last = rows.iter().rfind(|row| row["kind"] == "train").unwrap();
    // Measuring left no trace: the same steps without a limit end in the same loss, if the limit did not stop them first.
    if last["step"] == steps {
        let steps = format!("train.max_steps={steps}");
        task.train("same", &[&long[..], &["--set", &steps]].concat());
        assert_eq!(rows, task.metrics("same"));
        assert_eq!(task.bytes("out", "model.safetensors"), task.bytes("same", "model.safetensors"));
    }
}

#[test]
fn a_budget_decides_the_shape_before_training() {
    let task = task();
    let long = [&SEARCH[..], &["--budget", "flash=160K,ram=20K,ms=5"]].concat();
    let said = stderr(&made(&task, "train.jsonl", "small", &long));
    assert!(said.contains("within the budget: 2 layers of ") && said.contains(" ms for "), "{said}");
    let config = String::from_utf8(task.bytes("small", "checkpoint/config.resolved.toml")).unwrap();
    let shape = &record(&task, "small")["shape"];
    assert!(config.contains(&format!("hidden_size = {}", shape["hidden_size"])), "{shape}: {config}");
    assert!(shape["hidden_size"].as_u64().unwrap() < 96, "{shape}");
    // The words alone have that shape as well, and others start from them.
    let names: Vec<String> =
        record(&task, "small")["trials"].as_array().unwrap().iter().map(|trial| trial["name"].to_string()).collect();
    assert_eq!(names[..3], ["\"words alone\"", "\"from words\"", "\"random weights\""], "{said}");
    // What nothing fits is refused with numbers, and leaves no folder.
    let none = [&SEARCH[..], &["--budget", "flash=110K,ram=8K"]].concat();
    let output = fit(&task, "train.jsonl", "none", &none).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("nothing fits") && said.contains("bytes of RAM, 8,192 are there"), "{said}");
    assert_eq!((output.status.code(), task.path("none").exists()), (Some(2), false));
    let output = fit(&task, "train.jsonl", "small", &[&SEARCH[..], &["--resume"]].concat()).output().unwrap();
    assert!(stderr(&output).contains("begun with another --budget"), "{}", stderr(&output));
    // A budget that nothing fits any more costs a search nothing that it has: here the one above, as if it had chosen no shape.
    let path = task.path("small/fit.json");
    let mut search: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    search.as_object_mut().unwrap().remove("shape");
    search["inputs"]["budget"] = "ram=1024,clock=168000000".into();
    fs::write(&path, search.to_string()).unwrap();
    let lost = [&SEARCH[..], &["--budget", "ram=1K", "--resume"]].concat();
    let output = fit(&task, "train.jsonl", "small", &lost).output().unwrap();
    assert!(stderr(&output).contains("nothing fits"), "{}", stderr(&output));
    assert!(task.path("small/checkpoint/model.safetensors").exists() && path.exists());
}

#[test]
fn the_language_decides_what_is_tried_and_letters_in_two_forms_are_composed() {
    let task = task();
    let rooms = [
        "der Küche",
        "dem Wohnzimmer",
        "dem Büro",
        "dem Flur",
        "der Garage",
        "dem Gästezimmer",
        "dem Keller",
        "dem Bad",
    ];
    let mut rows = String::new();
    for room in rooms {
        for (text, label) in
            [("schalte bitte das Licht in ROOM ein", "licht"), ("wie warm ist es heute morgen in ROOM", "wärme")]
        {
            rows += &format!("{{\"text\":\"{}\",\"label\":\"{label}\"}}\n", text.replace("ROOM", room));
        }
    }
    fs::write(task.path("german.jsonl"), rows).unwrap();
    let search = ["--trials", "2", "--epochs", "2", "--device", "cpu"];
    let said = stderr(&made(&task, "german.jsonl", "out", &search));
    assert!(said.contains("languages: German 100%") && said.contains("encoder-en-small ("), "{said}");
    let names: Vec<String> =
        record(&task, "out")["trials"].as_array().unwrap().iter().map(|trial| trial["name"].to_string()).collect();
    // So few texts say nothing by their words alone.
    assert_eq!(names[..2], ["\"from scratch\"", "\"usual settings\""], "{said}");
    for folder in ["vocabulary", "checkpoint"] {
        let json = String::from_utf8(task.bytes(&format!("out/{folder}"), "tokenizer.json")).unwrap();
        assert!(json.contains("\"NFC\""), "{folder}");
    }
}
