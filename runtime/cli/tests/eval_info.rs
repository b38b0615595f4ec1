//! Tests `kinglet eval` and `kinglet info` as scripts read them.

mod fixture;

use std::io::Write;

use fixture::{Folder, run};
use serde_json::{Value, json};

fn object(out: &str) -> Value {
    serde_json::from_str(out.trim_end()).expect("one JSON object")
}

/// animal: two correct, one predicted as machine; machine: one correct.
const ROWS: [(&str, &str); 4] = [("cat", "animal"), ("dog", "animal"), ("a car", "animal"), ("train", "machine")];

#[test]
fn eval_counts_as_by_hand_on_every_kind_of_file() {
    let folder = Folder::new();
    let jsonl: String =
        ROWS.iter().map(|(text, label)| format!("{}\n", json!({"text": text, "label": label}))).collect();
    // Numbers count the names of a list beside the file, which may have another order than the model.
    let by_index: String = ROWS
        .iter()
        .map(|(text, label)| format!("{}\n", json!({"text": text, "label": usize::from(*label == "animal")})))
        .collect();
    std::fs::create_dir(folder.path().join("listed")).unwrap();
    folder.write("listed/MANIFEST.json", "{\"classes\": [\"machine\", \"animal\"]}");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(jsonl.as_bytes()).unwrap();
    let separated = |by: &str| {
        let rows: String = ROWS.iter().map(|(text, label)| format!("{label}{by}{text}\n")).collect();
        format!("label{by}text\n{rows}")
    };
    let files = [
        folder.write("a.jsonl", &jsonl),
        folder.write("listed/b.jsonl", by_index),
        folder.write("c.jsonl.gz", gz.finish().unwrap()),
        folder.write("d.jsonl.zst", zstd::encode_all(jsonl.as_bytes(), 1).unwrap()),
        folder.write("e.csv", separated(",")),
        folder.write("f.tsv", separated("\t")),
    ];
    let model = folder.path().to_str().unwrap();
    for file in files {
        let out = run(&["eval", "--model", model, "--data", file.to_str().unwrap(), "--json"]).answers();
        let got = object(&out);
        assert_eq!((&got["rows"], &got["accuracy"]), (&json!(4), &json!(0.75)), "{}", file.display());
        assert_eq!(got["labels"], json!(fixture::LABELS));
        let pair = |label, predicted, rows| json!({"label": label, "predicted": predicted, "rows": rows});
        let pairs = [pair("animal", "animal", 2), pair("animal", "machine", 1), pair("machine", "machine", 1)];
        assert_eq!(got["confusion"], json!(pairs));
        // animal: 2·2/(2·2 + 1) = 0.8; machine: 2·1/(2·1 + 1) = 2/3.
        assert!((got["binary_f1"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-12, "{out}");
        assert!((got["macro_f1"].as_f64().unwrap() - (0.8 + 2.0 / 3.0) / 2.0).abs() < 1e-12, "{out}");
        assert!(got["rows_per_second"].as_f64().unwrap() > 0.0, "{out}");
    }
}

#[test]
fn eval_measures_confidence() {
    let folder = Folder::calibrated(fixture::CALIBRATION);
    let rows: String = [("cat", "animal"), ("cat", "animal"), ("cat", "machine"), ("nothing", "animal")]
        .map(|(text, label)| format!("{}\n", json!({"text": text, "label": label})))
        .concat();
    let data = folder.write("d.jsonl", rows);
    let eval = |more: &[&str]| {
        let arguments = ["eval", "--model", folder.path().to_str().unwrap(), "--data", data.to_str().unwrap()];
        run(&[&arguments, more].concat()).answers()
    };
    let got = object(&eval(&["--json"]))["confidence"].take();
    let near = |name: &str, want: f64| {
        let value = got[name].as_f64().unwrap();
        assert!((value - want).abs() < 1e-6, "{name}: {value}, not {want}");
    };
    assert_eq!(got["calibrated"], true);
    // Three rows with confidence a, two of them correct; one with confidence b, wrong.
    let (a, b) = (1.0 / (1.0 + (-1.75f64).exp()), 1.0 / (1.0 + (-0.25f64).exp()));
    near("ece", 0.75 * (a - 2.0 / 3.0) + 0.25 * b);
    near("ece_adaptive", (2.0 * (1.0 - a) + a + b) / 4.0);
    near("nll", -(2.0 * a.ln() + (1.0 - a).ln() + (1.0 - b).ln()) / 4.0);
    near("brier", (4.0 * (1.0 - a).powi(2) + 2.0 * a * a + 2.0 * b * b) / 4.0);
    near("threshold", 0.7);
    near("answered", 0.75);
    near("accuracy_answered", 2.0 / 3.0);
    // The set of `cat` is {animal}; that of `nothing` has both labels.
    near("set_coverage", 0.75);
    near("mean_set_size", 1.25);
    let text = eval(&[]);
    assert!(text.contains("answered   0.7500  above 0.7000, accuracy 0.6667\n"), "{text}");
    assert!(text.contains("sets       0.7500  contain the correct label (target 0.9), mean size 1.25\n"), "{text}");
    assert!(eval(&["--threshold", "0"]).contains("answered   1.0000  above 0.0000, accuracy 0.5000\n"));
}

#[test]
fn eval_of_a_model_without_calibration_says_so() {
    let folder = Folder::new();
    let data = folder.write("d.csv", "label,text\nanimal,cat\n");
    let arguments = ["eval", "--model", folder.path().to_str().unwrap(), "--data", data.to_str().unwrap()];
    assert!(run(&arguments).answers().contains("(not calibrated)"));
    let got = object(&run(&[&arguments[..], &["--json"]].concat()).answers());
    assert_eq!(got["confidence"]["calibrated"], false);
    assert_eq!((&got["confidence"]["answered"], got["confidence"].get("set_coverage")), (&json!(1.0), None));
}

#[test]
fn info_says_how_a_model_was_calibrated() {
    let folder = Folder::calibrated(fixture::CALIBRATION);
    let path = folder.path().to_str().unwrap();
    let got = object(&run(&["info", "--json", path]).answers());
    assert_eq!(got["calibrated"], true);
    let wanted: Value = serde_json::from_str(fixture::CALIBRATION).unwrap();
    assert_eq!(got["calibration"]["threshold"], wanted["threshold"]);
    assert_eq!(got["calibration"]["rows"], wanted["rows"]);
    let text = run(&["info", path]).answers();
    assert!(text.contains("on 100 texts, temperature 2.000"), "{text}");
    assert!(text.contains("at or below 0.700: at most 5% of labels wrong"), "{text}");
    let plain = Folder::new();
    let path = plain.path().to_str().unwrap();
    assert_eq!(object(&run(&["info", "--json", path]).answers())["calibrated"], false);
    assert!(run(&["info", path]).answers().contains("calibrated       no"));
}

#[test]
fn eval_reports_for_people() {
    let folder = Folder::new();
    let file = folder.write("d.csv", "kind,text\nanimal,cat\nanimal,car\n");
    let model = folder.path().to_str().unwrap();
    let out =
        run(&["eval", "--model", model, "--data", file.to_str().unwrap(), "--label-field", "kind", "--confusion"])
            .answers();
    assert!(out.contains("rows       2\naccuracy   0.5000\n"), "{out}");
    assert!(out.contains("      1: animal > machine\n"), "{out}");
    assert!(out.ends_with("true\\predicted\tanimal\tmachine\nanimal\t1\t1\nmachine\t0\t0\n"), "{out}");
}

#[test]
fn info_gives_numbers_that_follow_from_the_model() {
    let folder = Folder::new();
    let config = fixture::config();
    let file = folder.path().join("model.onnx");
    let out = object(&run(&["info", "--json", folder.path().to_str().unwrap()]).answers());
    assert_eq!(out["model"], file.to_str().unwrap());
    assert_eq!(out["file_bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!((&out["precision"], &out["labels"]), (&json!("fp32"), &json!(2)));
    assert_eq!(out["config"]["mixer"], "light");
    assert_eq!((&out["receptive_field"], &out["look_ahead"]), (&json!(7), &json!(3)));
    assert_eq!(out["parameters"], config.parameters());
    let by_part: u64 = out["parameters_by_part"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(by_part, config.parameters() as u64);
    // f32: embedding [V, 2]; head [2, 2] and bias [2]; two axes in i64.
    let bytes = &out["tensor_bytes_by_part"];
    assert_eq!(bytes["embedding"], config.vocab_size * 8);
    assert_eq!((&bytes["head"], &bytes["graph constants"]), (&json!(24), &json!(16)));
    assert_eq!(out["tokenizer_bytes"], fixture::tokenizer().len());
    assert_eq!(out["memory"][0]["how"], "computed");
}

#[test]
fn info_without_a_model_is_of_the_built_in_one() {
    let out = object(&run(&["info", "--json"]).answers());
    assert_eq!((&out["model"], &out["labels"]), (&json!("built in"), &json!(151)));
    assert!(out["file_bytes"].as_u64().unwrap() <= 4 << 20, "{out}");
    let text = run(&["info"]).answers();
    for line in ["mixer", "receptive field", "weights: embedding", "memory beyond the file, computed"] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} in {text}");
    }
}

#[test]
fn info_names_every_section() {
    for (model, ngrams) in [("intents", None), ("requests-nano", Some("n-grams          1174 tokens and pairs"))] {
        let model = format!("{}/../../models/{model}", env!("CARGO_MANIFEST_DIR"));
        let text = run(&["info", &model]).answers();
        assert!(!text.contains("unknown:"), "{text}");
        assert!(ngrams.is_none_or(|line| text.contains(line)), "{text}");
        let out = object(&run(&["info", "--json", &model]).answers());
        let (names, bytes): (Vec<&str>, Vec<u64>) = out["sections"]
            .as_array()
            .unwrap()
            .iter()
            .map(|section| (section["name"].as_str().unwrap(), section["bytes"].as_u64().unwrap()))
            .unzip();
        assert_eq!(names.contains(&"n-grams"), ngrams.is_some());
        assert!(bytes.iter().all(|&bytes| bytes > 0));
    }
}

#[test]
fn data_of_another_task_is_refused_although_its_labels_are_small_integers() {
    let folder = Folder::new();
    let data = folder.write("d.jsonl", "{\"text\":\"cat\",\"label\":0}\n");
    folder.write("MANIFEST.json", "{\"classes\":[\"plant\",\"stone\"]}");
    let arguments = ["eval", "--model", folder.path().to_str().unwrap(), "--data", data.to_str().unwrap()];
    run(&arguments).fails_with(&["d.jsonl, row 1: label 0", "MANIFEST.json", "none of the 2 classes"]);
    folder.write("MANIFEST.json", "{\"classes\":[\"machine\",\"animal\"]}");
    assert!(run(&arguments).answers().contains("accuracy   0.0000"));
}
