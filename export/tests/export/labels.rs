//! Tests models of which any number of labels may apply to a text: what is chosen, written and refused.

use std::fs;

use kinglet::classifier::Classifier;
use kinglet::multi_label::Decision;
use kinglet::spec::{Config, Mixer, Norm, Pooling, Task, files, metadata};
use kinglet_export::PAGE;
use kinglet_onnx::{TractModel, seal};
use prost::Message;
use serde_json::{Value, json};

use crate::fixture;
use crate::program::{Run, stderr};

fn run() -> Run {
    Run::of(&Config { task: Task::MultiLabel, ..fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean) })
}

/// Writes texts whose labels are those with a positive score; of the first `none`, none.
fn dev(run: &Run, texts: usize, none: usize) -> &'static str {
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let model = TractModel::open(&run.path("out").join(files::ONNX)).unwrap();
    let mut classifier = model.classifier().unwrap();
    let lines = (0..texts).map(|i| {
        let text = format!("alarm {i} seven {}", i * i);
        classifier.classify(&text).unwrap();
        let has = |place: &(usize, &f32)| *place.1 > 0.0 && i >= none;
        let labels: Vec<String> =
            classifier.logits().iter().enumerate().filter(has).map(|(label, _)| format!("class {label}")).collect();
        json!({ "text": text, "label": labels }).to_string() + "\n"
    });
    fs::write(run.path("dev.jsonl"), lines.collect::<String>()).unwrap();
    "dev.jsonl"
}

#[test]
fn thresholds_are_chosen_written_and_measured() {
    let run = run();
    let output = run.export(&["--dev", dev(&run, 120, 20), "--coverage", "0.8", "--custom-op"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (report, said) = (run.report(), String::from_utf8(output.stdout).unwrap());
    let labels = &report["labels"];
    assert_eq!(
        (&labels["rows"], &labels["coverage"], &report["calibration"]),
        (&json!(120), &json!(0.8), &Value::Null)
    );
    assert!(report["dev"]["labels"][1]["micro_f1"].as_f64().unwrap() > 0.7, "{report}");
    assert!(labels["int8"]["measured"]["set_coverage"].as_f64().unwrap() > 0.7, "{labels}");
    for words in [
        "dev F1 on 120 texts, micro and macro",
        "thresholds of 5 labels chosen on 120 texts",
        "sets for a coverage of 80%",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let page = fs::read_to_string(run.path("out").join(PAGE)).unwrap();
    assert!(page.contains("micro F1") && page.contains("Most surely wrong") && !page.contains("http"), "{page}");
    let card = fs::read_to_string(run.path("out").join(files::CARD)).unwrap();
    assert!(card.contains("Classifies a text into any number of 5 classes") && card.contains("Micro F1"), "{card}");

    // The bundle and the ONNX files say the same labels.
    let bundle = kinglet::model::open(&run.path("out").join(files::BUNDLE), true).unwrap();
    let onnx =
        [files::ONNX_INT8, files::ONNX_CUSTOM_OP].map(|name| TractModel::open(&run.path("out").join(name)).unwrap());
    let Decision::Any(values) = bundle.decision() else { panic!("{:?}", bundle.decision()) };
    let thresholds: Vec<f64> = values.thresholds.iter().map(|&threshold| f64::from(threshold)).collect();
    let reported = labels["int8"]["values"]["thresholds"].as_array().unwrap();
    assert!(thresholds.iter().zip(reported).all(|(a, b)| (a - b.as_f64().unwrap()).abs() < 1e-6), "{reported:?}");
    let given = |classifier: &mut Classifier<'_>, text: &str| -> Vec<usize> {
        classifier.classify(text).unwrap().labels().map(|one| one.class).collect()
    };
    let mut classifiers: Vec<Classifier<'_>> = onnx.iter().map(|model| model.classifier().unwrap()).collect();
    classifiers.insert(0, bundle.classifier().unwrap());
    let mut sizes = std::collections::BTreeSet::new();
    for i in 0..40 {
        let text = format!("alarm {i} seven {}", i * i);
        let all: Vec<Vec<usize>> = classifiers.iter_mut().map(|classifier| given(classifier, &text)).collect();
        sizes.insert(all[0].len());
        assert!(all.iter().all(|one| *one == all[0]), "{text}: {all:?}");
    }
    assert!(sizes.len() > 1, "{sizes:?}");
    assert!(onnx.iter().all(|model| model.decision() == bundle.decision()));
}

#[test]
fn without_data_a_label_is_given_above_one_half() {
    let run = run();
    let output = run.export(&["--no-dev"]);
    assert!(stderr(&output).contains("note: no data to choose thresholds with"), "{}", stderr(&output));
    let bundle = kinglet::model::open(&run.path("out").join(files::BUNDLE), true).unwrap();
    let Decision::Any(values) = bundle.decision() else { panic!("{:?}", bundle.decision()) };
    assert_eq!((values.thresholds, values.calibration), (&[0.5; 5][..], None));
    assert!(!run.path("out").join(PAGE).exists());
}

#[test]
fn what_is_for_one_label_is_refused() {
    let run = run();
    let dev = dev(&run, 40, 0);
    for (more, flag) in [(["--error-rate", "0.1"], "--error-rate"), (["--out-of-scope", "class 1"], "--out-of-scope")] {
        let output = run.export(&[&["--dev", dev], &more[..]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(&format!("so {flag} cannot be used")), "{}", stderr(&output));
    }
    // A label that no text has, and rows too few for the coverage, are said.
    fs::write(
        run.path("few.jsonl"),
        "{\"text\":\"alarm\",\"label\":[\"class 0\"]}\n{\"text\":\"seven\",\"label\":[]}\n",
    )
    .unwrap();
    let output = run.export(&["--dev", "few.jsonl"]);
    let said = stderr(&output);
    assert!(said.contains("4 of 5 labels apply to no text of few.jsonl, such as \"class 1\""), "{said}");
    assert!(said.contains("sets hold all labels"), "{said}");
    fs::write(run.path("bad.jsonl"), "{\"text\":\"alarm\",\"label\":[\"class 0\",\"class 9\"]}\n").unwrap();
    let output = run.export(&["--dev", "bad.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("row 1: label \"class 9\" is none of the 5 classes"), "{}", stderr(&output));
}

#[test]
fn thresholds_that_were_changed_are_refused() {
    let run = run();
    assert_eq!(run.export(&["--no-dev"]).status.code(), Some(0));
    let bytes = fs::read(run.path("out").join(files::ONNX_INT8)).unwrap();
    let model = kinglet_onnx::onnx::ModelProto::decode(&bytes[..]).unwrap();
    let with = |value: Option<&str>, key: &str| {
        let mut model = model.clone();
        model.metadata_props.retain(|entry| entry.key != key);
        if let Some(value) = value {
            let entry = kinglet_onnx::onnx::StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
            model.metadata_props.push(entry);
        }
        seal(&mut model);
        TractModel::from_bytes(&model.encode_to_vec()).map(|_| ()).unwrap_err().to_string()
    };
    let key = metadata::MULTI_LABEL;
    assert!(with(None, key).contains("kinglet.multi_label"));
    assert!(with(Some("{\"thresholds\": [0.5]}"), key).contains("1 thresholds for 5 labels"));
    assert!(with(Some("{\"thresholds\": [0.5, 0.5, 0.5, 0.5, 2.0]}"), key).contains("must be 0 to 1"));
    assert!(with(Some("[]"), key).contains("kinglet.multi_label"));
    assert!(with(Some("{}"), metadata::CALIBRATION).contains("of any number of labels per text"));
}

#[test]
fn other_data_separate_labels_as_training_did() {
    let run = run();
    let dev = dev(&run, 40, 5);
    let rows: Vec<Value> =
        fs::read_to_string(run.path(dev)).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines = rows.iter().map(|row| {
        let labels: Vec<&str> = row["label"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
        format!("{},{}\n", row["text"].as_str().unwrap(), labels.join(";"))
    });
    fs::write(run.path("other.csv"), format!("text,labels\n{}", lines.collect::<String>())).unwrap();
    let training =
        json!({ "dev": { "file": "gone.csv", "read": { "label_separator": ";" } }, "label_field": "labels" });
    fs::write(run.path("checkpoint/training.json"), training.to_string()).unwrap();
    let output = run.export(&["--dev", "other.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let read = run.report()["dev"]["labels"].clone();
    fs::remove_file(run.path("checkpoint/training.json")).unwrap();
    let output = run.export(&["--dev", dev]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(run.report()["dev"]["labels"], read);
}
