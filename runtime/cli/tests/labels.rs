//! Tests the program on a model of which any number of labels may apply to a text.

mod fixture;

use std::fs;
use std::path::Path;

use fixture::{Folder, run, run_with};
use serde_json::{Value, json};

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}

/// A folder with the bundle, in which `cat` and `car` together are both, and other words nothing.
fn folder() -> (Folder, String) {
    let folder = Folder::new();
    let path = text(&folder.write("model.kinglet", fixture::several())).to_string();
    (folder, path)
}

#[test]
fn each_text_has_any_number_of_labels() {
    let (folder, model) = folder();
    let classify = |more: &[&str]| run(&[&["classify", "--model", &model], more].concat()).answers();
    assert!(classify(&["cat"]).starts_with("animal  0."));
    let both = classify(&["cat car"]);
    assert!(both.lines().count() == 2 && both.contains("animal") && both.contains("machine"), "{both}");
    assert!(classify(&["the"]).starts_with("no label (machine)  0."));
    assert!(classify(&["--top", "2", "cat"]).lines().nth(1).is_some_and(|line| line.starts_with("(machine)")));
    assert!(classify(&["--threshold", "0", "the"]).lines().count() == 2);
    let answer: Value = serde_json::from_str(&classify(&["--json", "cat car"])).expect("JSON");
    assert_eq!(answer["labels"].as_array().map(Vec::len), Some(2));
    assert_eq!((&answer["calibrated"], answer["top"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    let answer: Value = serde_json::from_str(&classify(&["--json", "?!"])).expect("JSON");
    assert_eq!((&answer["labels"], &answer["empty"], &answer["label"]), (&json!([]), &json!(true), &Value::Null));

    // Whatever the door: lines, a stream in parts, threads, fingerprints.
    let lines = run_with(&["classify", "--model", &model], b"cat car\nthe\n").answers();
    let rows: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((rows[0][0], rows[0][2], rows[1][0]), ("machine,animal", "cat car", "no label (machine)"), "{lines}");
    let stream = run_with(&["classify", "--model", &model, "--stream"], b"cat car").answers();
    assert!(stream.ends_with("final\n") && stream.contains("machine,animal\t"), "{stream}");
    let input = folder.write("in.csv", "id,text\n1,cat car\n2,the\n3,dog\n");
    for threads in ["1", "3"] {
        let output = folder.path().join(format!("out-{threads}.csv"));
        let copied =
            run(&["classify", "--model", &model, "--file", text(&input), "--output", text(&output), "-j", threads]);
        assert_eq!(copied.code, Some(0), "{copied:?}");
        let written = fs::read_to_string(&output).expect("it is there");
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[0], "id,text,predicted_labels,predicted_scores");
        assert!(lines[1].starts_with("1,cat car,\"machine,animal\",\"0."), "{written}");
        assert!(lines[2] == "2,the,," && lines[3].starts_with("3,dog,animal,0."), "{written}");
    }
    let texts = folder.write("texts.txt", b"cat car\nthe\n");
    let fingerprints = run(&["fingerprint", "--model", &model, "--file", text(&texts)]).answers();
    let lines: Vec<&str> = fingerprints.lines().collect();
    assert!(lines[0].starts_with("animal,machine\t") && lines[1].starts_with('\t'), "{fingerprints}");
    let info = run(&["info", &model]).answers();
    assert!(
        info.contains("2, any number of which may apply to a text") && info.contains("0.400 to 0.600, one per label"),
        "{info}"
    );
    let explained = run(&["explain", "--model", &model, "--label", "machine", "cat car"]).answers();
    let effect = |line: usize| {
        explained.lines().nth(line).and_then(|line| line.split('\t').nth(1)).and_then(|e| e.parse::<f64>().ok())
    };
    assert!(effect(1) < Some(0.0) && effect(2) > Some(0.0), "{explained}");
}

#[test]
fn labelled_data_are_measured() {
    let (folder, model) = folder();
    let rows = [
        ("cat car", json!(["animal", "machine"])),
        ("the", json!([])),
        ("dog", json!(["animal", "machine"])),
        ("train", json!("machine")),
    ];
    let lines: String =
        rows.iter().map(|(text, label)| json!({ "text": text, "label": label }).to_string() + "\n").collect();
    let data = folder.write("dev.jsonl", lines);
    let (report, errors) = (folder.path().join("labels.csv"), folder.path().join("errors.jsonl"));
    let eval = ["eval", "--model", &model, "--data", text(&data)];
    let more = ["--json", "--report", text(&report), "--errors", text(&errors)];
    let found: Value = serde_json::from_str(&run(&[&eval[..], &more].concat()).answers()).expect("JSON");
    let near = |name: &str, want: f64| {
        assert!((found[name].as_f64().unwrap_or_default() - want).abs() < 1e-9, "{name}: {found}")
    };
    near("micro_f1", 8.0 / 9.0);
    near("macro_f1", (1.0 + 0.8) / 2.0);
    near("exact_match", 0.75);
    assert_eq!((&found["rows"], &found["labels"]), (&json!(4), &json!(["animal", "machine"])));
    assert!(found["confidence"]["set_coverage"].is_number(), "{found}");
    let written = fs::read_to_string(&report).expect("it is there");
    assert!(
        written.starts_with("label,precision,recall,f1,rows,predicted,threshold\nanimal,1.0,1.0,1.0,2,2,0.4"),
        "{written}"
    );
    let wrong = fs::read_to_string(&errors).expect("it is there");
    assert!(wrong.lines().count() == 1 && wrong.contains("\"predicted\": [\"animal\"]"), "{wrong}");
    let shown = run(&eval).answers();
    assert!(shown.contains("micro F1     0.8889") && shown.contains("most often wrong"), "{shown}");
    run(&[&eval[..], &["--confusion"]].concat()).fails_with(&["--confusion"]);
    // A model of one label refuses such data, and says why.
    let one = text(&folder.write("one.kinglet", fixture::bundle())).to_string();
    run(&["eval", "--model", &one, "--data", text(&data)])
        .fails_with(&["row 1: it has 2 labels; the model gives one per text"]);
}
