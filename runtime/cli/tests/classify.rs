//! Tests `kinglet classify` as people and scripts use it.

mod fixture;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use fixture::{Folder, program, run, run_with};
use serde_json::Value;

/// Returns the arguments of `kinglet classify --model FOLDER` and `more`.
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
fn a_calibrated_model_gives_calibrated_scores_and_says_when_it_is_unsure() {
    let folder = Folder::calibrated(fixture::CALIBRATION);
    assert_eq!(run(&classify(&folder, &["cat"])).answers(), "animal  0.8520\n");
    assert_eq!(run(&classify(&folder, &["nothing"])).answers(), "unsure (machine)  0.5622\n");
    let lines = run_with(&classify(&folder, &["--top", "2"]), b"cat\nnothing\n").answers();
    assert_eq!(lines, "animal\t0.8520\tmachine\t0.1480\tcat\nunsure (machine)\t0.5622\tanimal\t0.4378\tnothing\n");
    let bars = run(&classify(&folder, &["nothing", "--top", "2"])).answers();
    assert!(
        bars.starts_with("unsure (machine)  0.5622  █") && bars.contains("\nanimal            0.4378  █"),
        "{bars}"
    );

    let json = |text: &str| objects(&run(&classify(&folder, &[text, "--top", "2", "--json"])).answers()).remove(0);
    let sure = json("cat");
    assert_eq!((&sure["label"], &sure["calibrated"]), (&"animal".into(), &true.into()));
    assert_eq!(sure["set"], serde_json::json!(["animal"]));
    let unsure = json("nothing");
    assert_eq!(unsure["label"], Value::Null);
    assert_eq!(unsure["set"], serde_json::json!(["machine", "animal"]));
    assert_eq!(unsure["top"][0]["label"], "machine");
    assert!((unsure["score"].as_f64().unwrap() - 0.562_176_5).abs() < 1e-6, "{unsure}");
}

#[test]
fn threshold_overrides_the_models_own() {
    let folder = Folder::calibrated(fixture::CALIBRATION);
    assert_eq!(run(&classify(&folder, &["nothing", "--threshold", "0"])).answers(), "machine  0.5622\n");
    assert_eq!(run(&classify(&folder, &["cat", "--threshold", "0.9"])).answers(), "unsure (animal)  0.8520\n");
    assert_eq!(run(&classify(&folder, &["cat", "--threshold", "1"])).answers(), "unsure (animal)  0.8520\n");
    let plain = Folder::new();
    assert_eq!(run(&classify(&plain, &["cat", "--threshold", "0.98"])).answers(), "unsure (animal)  0.9707\n");
    for wrong in ["-0.1", "1.1", "NaN", "half"] {
        run(&classify(&plain, &["cat", "--threshold", wrong])).fails_with(&["--threshold", "between 0 and 1"]);
    }
}

#[test]
fn a_model_without_calibration_is_never_unsure_and_says_that_it_is_not_calibrated() {
    let folder = Folder::new();
    let object = objects(&run(&classify(&folder, &["nothing", "--json"])).answers()).remove(0);
    assert_eq!((&object["label"], &object["calibrated"]), (&"machine".into(), &false.into()));
    assert_eq!(object.get("set"), None);
}

#[test]
fn a_calibration_that_cannot_be_is_refused() {
    let of = |from: &str, to: &str| Folder::calibrated(&fixture::CALIBRATION.replace(from, to));
    let cases = [
        (of("\"temperature\": 2", "\"temperature\": 0"), "temperature is 0, must be 0.01 to 100"),
        (of("\"threshold\": 0.7", "\"threshold\": 1.5"), "threshold is 1.5, must be 0 to 1"),
        (of("\"threshold\": 0.7", "\"threshold\": 1e99"), "kinglet.calibration"),
        (of("\"rows\": 100", "\"rows\": 0"), "rows is 0"),
        (of("\"rows\": 100", "\"rows\": 100, \"more\": 1"), "unknown field"),
        (Folder::calibrated("{"), "kinglet.calibration"),
    ];
    for (folder, words) in cases {
        run(&classify(&folder, &["cat"])).fails_with(&["kinglet.calibration", words]);
    }
}

#[test]
fn a_pipe_is_answered_line_by_line() {
    let folder = Folder::new();
    let lines = b"a cat\r\n\ntrain\tcar\nnothing";
    let wanted = "animal\t0.9707\ta cat\nunsure\t0.0000\t\nmachine\t0.9890\ttrain\\tcar\nmachine\t0.6225\tnothing\n";
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
    assert_eq!(run_with(&classify(&folder, &["--whole"]), b"cat\ncar\ncar\n").answers(), "machine  0.6225\n");
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
    folder.write("model.int8.onnx", fixture::forged(other));
    assert_eq!(run(&classify(&folder, &["cat"])).answers(), "from int8  0.9707\n");
    let file = folder.path().join("model.onnx");
    assert_eq!(run(&["classify", "cat", "--model", file.to_str().unwrap()]).answers(), "animal  0.9707\n");
}

#[test]
fn truncate_reads_the_first_tokens_only() {
    let folder = Folder::new();
    let text = "cat car car car";
    assert_eq!(run(&classify(&folder, &[text])).answers(), "machine  0.6225\n");
    // Tokens: ▁cat </s>.
    assert_eq!(run(&classify(&folder, &[text, "--truncate", "2"])).answers(), "animal  0.9707\n");
    let json = run(&classify(&folder, &[text, "--truncate", "2", "--json"])).answers();
    assert_eq!((&objects(&json)[0]["truncated"], &objects(&json)[0]["tokens"]), (&true.into(), &2.into()));
    let json = run(&classify(&folder, &[text, "--truncate", "5", "--json"])).answers();
    assert_eq!(objects(&json)[0].get("truncated"), None);
    assert_eq!(run(&classify(&folder, &[text, "--truncate", "1"])).answers(), "unsure  0.0000\n");
}

/// The standard library opens `/dev/null` in place of a stdout that is not there: what is written is lost without an error.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn without_a_stdout_nothing_is_answered_and_that_is_said() {
    let folder = Folder::new();
    let model = folder.path().to_str().unwrap();
    let program = env!("CARGO_BIN_EXE_kinglet");
    let run = |command: &str| {
        let out = std::process::Command::new("sh").args(["-c", command, program, model]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    for command in [
        r#""$0" classify --model "$1" cat >&-"#,
        r#""$0" info "$1" >&-"#,
        r#"echo cat | "$0" classify --model "$1" >&-"#,
    ] {
        let (code, said) = run(command);
        assert_eq!(code, Some(2), "{command}: {said}");
        assert!(said.contains("cannot write to stdout: it is closed"), "{command}: {said}");
    }
    // Somebody who wants no answer gets none.
    assert_eq!(run(r#""$0" classify --model "$1" cat >/dev/null"#), (Some(0), String::new()));
    assert_eq!(run(r#""$0" classify --model "$1" cat <>/dev/null 1<>/dev/null"#), (Some(0), String::new()));
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
