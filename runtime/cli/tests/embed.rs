//! Tests `kinglet embed`, and what models that embed and models that classify say to the other's commands.

mod fixture;

use std::path::Path;

use fixture::{Folder, Run, program, run, run_with};
use kinglet::backend::Backend;
use kinglet::bundle::BundleFile;
use kinglet::spec::metadata;
use kinglet_onnx::onnx::{ModelProto, StringStringEntryProto};
use prost::Message;
use serde_json::Value;

/// A folder with a model that embeds.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("model.kinglet", fixture::embedder());
    folder
}

fn path(folder: &Folder) -> &str {
    folder.path().to_str().expect("temporary paths are UTF-8")
}

fn embed(folder: &Folder, more: &[&str], stdin: &[u8]) -> Run {
    run_with(&[&["embed", "--model", path(folder)][..], more].concat(), stdin)
}

/// The vectors of an output, one JSON array per line.
fn vectors(out: &str) -> Vec<Vec<f32>> {
    out.lines().map(|line| serde_json::from_str(line).expect("a line is an array of numbers")).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn each_text_is_one_array_of_length_one_with_all_digits() {
    let folder = folder();
    let out = embed(&folder, &["a cat", "dogs", "a train"], b"").answers();
    let all = vectors(&out);
    let [cat, dogs, train] = all.as_slice() else { panic!("{out}") };
    assert!(all.iter().all(|v| v.len() == 2 && (cosine(v, v) - 1.0).abs() < 1e-6), "{out}");
    assert!(cosine(cat, dogs) > 0.99 && cosine(cat, train) < -0.9, "{out}");
    // The numbers are those of the library, to the last bit.
    let model = kinglet::model::Model::new(BundleFile::from_bytes(&fixture::embedder()), true).unwrap();
    assert_eq!(cat, &model.embed("a cat").unwrap());
    // By hand: the bias and the mean of </s>, zeros, and `train`, through the head, in int8.
    let (x, y) = (-1.0f32, 1.05);
    assert!((train[0] - x / x.hypot(y)).abs() < 0.02 && (train[1] - y / x.hypot(y)).abs() < 0.02, "{train:?}");
}

#[test]
fn lines_files_and_whole_texts_have_the_vectors_of_their_texts() {
    let folder = folder();
    let of = |text: &str| embed(&folder, &["--", text], b"").answers();
    let want = [of("a cat"), of(""), of("train")].concat();
    let lines = embed(&folder, &[], b"a cat\n\r\ntrain");
    assert!(lines.err.contains("note: line 2: empty input; its vector is that of no words"), "{lines:?}");
    assert_eq!(lines.answers(), want);
    assert_eq!(embed(&folder, &["-"], b"a cat\n\ntrain\n").answers(), want);
    let rows = folder.write("rows.jsonl", "{\"text\": \"a cat\"}\n{\"text\": \"\"}\n{\"text\": \"train\"}\n");
    assert_eq!(embed(&folder, &["--file", rows.to_str().unwrap()], b"").answers(), want);
    let letter = folder.write("letter.txt", "a cat\ntrain\n");
    let whole = embed(&folder, &["--whole", "--file", letter.to_str().unwrap()], b"").answers();
    assert_eq!(whole, of("a cat\ntrain"));
    assert_eq!(embed(&folder, &["--whole"], b"a cat\ntrain").answers(), whole);
    assert_eq!(embed(&folder, &["--truncate", "2", "cat train"], b"").answers(), of("cat"));
    let replaced = embed(&folder, &[], b"a cat\xFF\n");
    assert!(replaced.err.contains("warning: line 1: invalid UTF-8 was replaced"), "{replaced:?}");
}

#[test]
fn a_line_that_cannot_be_embedded_is_null_and_reported() {
    let folder = folder();
    let rows = folder.write("rows.jsonl", "{\"text\": \"cat\"}\n{\"txt\": \"cat\"}\n{\"text\": \"cat\"}\n");
    let run = embed(&folder, &["--file", rows.to_str().unwrap()], b"");
    assert_eq!(run.code, Some(1), "{run:?}");
    let lines: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]), (3, &Value::Null));
    assert_eq!(lines[0], lines[2]);
    assert!(run.err.contains("error: line 2: ") && run.err.contains("1 of 3 lines could not be embedded"), "{run:?}");
}

#[test]
fn unusable_arguments_are_refused() {
    let folder = folder();
    embed(&folder, &["--whole", "cat"], b"").fails_with(&["--whole reads stdin or --file"]);
    embed(&folder, &["--file", "absent.txt"], b"").fails_with(&["cannot read absent.txt"]);
    embed(&folder, &["--file", "absent.txt", "cat"], b"").fails_with(&["cannot be used with"]);
    embed(&folder, &["--truncate", "0", "cat"], b"").fails_with(&["--truncate"]);
}

#[test]
fn an_onnx_file_embeds_with_tract_alike() {
    let folder = Folder::new();
    let onnx = folder.write("embedder.onnx", fixture::embedder_onnx());
    let all = vectors(&run(&["embed", "--model", onnx.to_str().unwrap(), "a cat", "dogs", "a train"]).answers());
    assert!(all.iter().all(|v| v.len() == 2 && (cosine(v, v) - 1.0).abs() < 1e-6), "{all:?}");
    assert!(cosine(&all[0], &all[1]) > 0.99 && cosine(&all[0], &all[2]) < -0.9, "{all:?}");
    let info = run(&["info", onnx.to_str().unwrap()]).answers();
    assert!(info.contains("into vectors of 2 values, of length 1") && !info.contains("calibrated"), "{info}");
    run(&["classify", "--model", onnx.to_str().unwrap(), "cat"]).fails_with(&["use `kinglet embed`"]);

    // Labels and a calibration are refused as what they are.
    for (key, value) in [(metadata::LABELS, "[]"), (metadata::CALIBRATION, fixture::CALIBRATION)] {
        let mut model = ModelProto::decode(fixture::embedder_onnx().as_slice()).unwrap();
        model.metadata_props.push(StringStringEntryProto { key: key.into(), value: value.into() });
        let path = folder.write("forged.onnx", fixture::forged(model));
        run(&["info", path.to_str().unwrap()]).fails_with(&[key, "a model that embeds, which has no classes"]);
    }
}

#[test]
fn commands_that_need_labels_refuse_a_model_that_embeds() {
    let folder = folder();
    let model = path(&folder);
    let said = ["this model embeds text into vectors of 2 values and has no labels", "use `kinglet embed`"];
    run(&["classify", "--model", model, "cat"]).fails_with(&said);
    run_with(&["classify", "--model", model], b"cat\n").fails_with(&said);
    run_with(&["classify", "--model", model, "--stream"], b"cat\n").fails_with(&said);
    run(&["eval", "--model", model, "--data", "unread.jsonl"]).fails_with(&said);
}

#[test]
fn a_model_that_classifies_has_no_vectors() {
    let said = ["and has no sentence vectors", "kinglet classify", "--model", "kinglet-train distill"];
    run(&["embed", "cat"]).fails_with(&said);
    let folder = Folder::new();
    run(&["embed", "--model", path(&folder), "cat"]).fails_with(&said);
    folder.write("model.kinglet", fixture::bundle());
    run_with(&["embed", "--model", path(&folder)], b"cat\n").fails_with(&said);
}

#[test]
fn info_and_fingerprint_know_models_that_embed() {
    let folder = folder();
    let model = folder.path().join("model.kinglet");
    let info = run(&["info", model.to_str().unwrap()]).answers();
    assert!(info.contains("into vectors of 2 values, of length 1"), "{info}");
    assert!(info.contains("mark: the model embeds") && !info.contains("softmax"), "{info}");
    let json: Value = serde_json::from_str(&run(&["info", "--json", model.to_str().unwrap()]).answers()).unwrap();
    assert_eq!(
        (&json["config"]["task"], &json["config"]["num_labels"], &json["labels"]),
        (&"embed".into(), &2.into(), &0.into())
    );

    let texts = folder.write("texts.txt", "a cat\ntrain\n");
    let fingerprint = |model: &Path, backend: &str| {
        let arguments = ["fingerprint", "--model", model.to_str().unwrap(), "--file", texts.to_str().unwrap()];
        let out = program(&arguments).env("KINGLET_BACKEND", backend).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let lines = fingerprint(&model, "scalar");
    let kinglet = kinglet::model::Model::new(BundleFile::from_bytes(&fixture::embedder()), true).unwrap();
    let hash = kinglet::engine::fingerprint(&kinglet.embed("a cat").unwrap());
    assert!(lines.starts_with(&format!("vector\t{hash:08x}\nvector\t")) && lines.lines().count() == 3, "{lines}");
    for backend in Backend::all() {
        assert_eq!(fingerprint(&model, backend.name()), lines, "{}", backend.name());
    }
}
