//! `kinglet classify`, as people and scripts use it.
#![cfg(feature = "cli")]

mod fixture;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use fixture::{Folder, program, run, run_with};
use serde_json::Value;

/// `kinglet classify --model FOLDER` with more arguments.
fn classify<'a>(folder: &'a Folder, more: &[&'a str]) -> Vec<&'a str> {
    let path = folder.path().to_str().expect("temporary paths are UTF-8");
    [&["classify", "--model", path], more].concat()
}

fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("each line is a JSON object")).collect()
}

#[test]
fn the_built_in_model_answers_without_any_file() {
    let out = run(&["classify", "wake me at seven tomorrow"]).answers();
    let (label, score) = out.trim().split_once("  ").expect("label and score");
    assert!(label.contains("alarm") || label.contains("reminder"), "{out}");
    assert!(score.parse::<f32>().is_ok_and(|score| score > 0.0 && score <= 1.0), "{out}");
}

#[test]
fn one_text_gives_label_and_score() {
    let folder = Folder::new();
    // logits (2, -2 + 0.5): 1 / (1 + exp(-3.5)) = 0.9707
    assert_eq!(run(&classify(&folder, &["the Cat"])).answers(), "animal  0.9707\n");
    assert_eq!(run(&classify(&folder, &["--", "-car"])).code, Some(0));
}

#[test]
fn top_gives_bars_and_never_more_than_there_are_labels() {
    let folder = Folder::new();
    for top in ["2", "3", "18446744073709551615"] {
        let out = run(&classify(&folder, &["cat", "--top", top])).answers();
        assert_eq!(out, format!("animal   0.9707  {}\nmachine  0.0293  █\n", "█".repeat(29)), "--top {top}");
    }
}

#[test]
fn json_has_label_score_and_top() {
    let folder = Folder::new();
    let out = run(&classify(&folder, &["cat", "--top", "9", "--json"])).answers();
    let object = &objects(&out)[0];
    assert_eq!(object["label"], "animal");
    assert!((object["score"].as_f64().unwrap() - 0.970_687_8).abs() < 1e-6, "{out}");
    assert_eq!(object["top"].as_array().unwrap().len(), 2);
    assert_eq!(object["top"][1]["label"], "machine");
    let sum: f64 = object["top"].as_array().unwrap().iter().map(|one| one["score"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{out}");
}

#[test]
fn a_pipe_is_answered_line_by_line() {
    let folder = Folder::new();
    let lines = b"a cat\r\n\ntrain\tcar\nnothing";
    let wanted = "animal\t0.9707\ta cat\nmachine\t0.6225\t\nmachine\t0.9998\ttrain\tcar\nmachine\t0.6225\tnothing\n";
    assert_eq!(run_with(&classify(&folder, &[]), lines).answers(), wanted);
    assert_eq!(run_with(&classify(&folder, &["-"]), lines).answers(), wanted);
    assert_eq!(run_with(&classify(&folder, &["--file", "-"]), lines).answers(), wanted);
    let file = folder.write("lines.txt", lines);
    assert_eq!(run(&classify(&folder, &["--file", file.to_str().unwrap()])).answers(), wanted);
    let json = run_with(&classify(&folder, &["--json"]), lines).answers();
    let labels: Vec<_> = objects(&json).iter().map(|o| (o["line"].clone(), o["label"].clone())).collect();
    assert_eq!(labels[3], (4.into(), "machine".into()));
    assert_eq!(labels.len(), 4);
}

#[test]
fn no_lines_give_no_answers() {
    let folder = Folder::new();
    assert_eq!(run(&classify(&folder, &[])).answers(), "");
}

#[test]
fn each_line_is_answered_before_the_next_is_sent() {
    let folder = Folder::new();
    let mut child = program(&classify(&folder, &[])).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for (text, label) in [("cat", "animal"), ("car", "machine"), ("dog", "animal")] {
        writeln!(stdin, "{text}").unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        assert!(answer.starts_with(label), "{answer}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn whole_takes_all_lines_as_one_text() {
    let folder = Folder::new();
    assert_eq!(run_with(&classify(&folder, &["--whole"]), b"cat\ncar\ncar\n").answers(), "machine  0.9890\n");
    let file = folder.write("letter.txt", "cat\nnot much\n");
    assert_eq!(run(&classify(&folder, &["--whole", "-f", file.to_str().unwrap()])).answers(), "animal  0.9707\n");
}

#[test]
fn data_files_are_read_by_their_field_text() {
    let folder = Folder::new();
    let rows = "{\"text\":\"cat\",\"label\":0}\n{\"text\":\"car\"}\n";
    let packed = zstd::encode_all(rows.as_bytes(), 1).unwrap();
    let files = [
        folder.write("d.jsonl", rows),
        folder.write("d.jsonl.zst", packed),
        folder.write("d.csv", "id,text\n1,cat\n2,car\n"),
    ];
    for file in files {
        let out = run(&classify(&folder, &["--file", file.to_str().unwrap()])).answers();
        assert_eq!(out, "animal\t0.9707\tcat\nmachine\t0.9890\tcar\n", "{}", file.display());
    }
}

#[test]
fn a_directory_gives_its_int8_model_unless_a_file_is_named() {
    let folder = Folder::new();
    let mut other = fixture::model();
    let names = other.metadata_props.iter_mut().find(|entry| entry.key == "kinglet.labels").unwrap();
    names.value = "[\"from int8\",\"machine\"]".into();
    folder.write("model.int8.onnx", prost::Message::encode_to_vec(&other));
    assert_eq!(run(&classify(&folder, &["cat"])).answers(), "from int8  0.9707\n");
    let file = folder.path().join("model.onnx");
    assert_eq!(run(&["classify", "cat", "--model", file.to_str().unwrap()]).answers(), "animal  0.9707\n");
}

#[test]
fn truncate_reads_the_first_tokens_only() {
    let folder = Folder::new();
    let text = "cat car car car";
    assert_eq!(run(&classify(&folder, &[text])).answers(), "machine  0.9998\n");
    // Tokens: ▁cat </s>.
    assert_eq!(run(&classify(&folder, &[text, "--truncate", "2"])).answers(), "animal  0.9707\n");
    let json = run(&classify(&folder, &[text, "--truncate", "2", "--json"])).answers();
    assert_eq!((&objects(&json)[0]["truncated"], &objects(&json)[0]["tokens"]), (&true.into(), &5.into()));
    let json = run(&classify(&folder, &[text, "--truncate", "5", "--json"])).answers();
    assert_eq!(objects(&json)[0].get("truncated"), None);
    assert_eq!(run(&classify(&folder, &[text, "--truncate", "1"])).answers(), "machine  0.6225\n");
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let folder = Folder::new();
    let lines = folder.write("many.txt", "cat\n".repeat(20_000));
    for command in [classify(&folder, &["--file", lines.to_str().unwrap()]), vec!["classify", "--help"], vec!["info"]] {
        let mut child = program(&command).stdin(Stdio::null()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut first = [0];
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{command:?}");
    }
}
