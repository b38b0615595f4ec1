//! Tests each kind of model file, with a program that has tract and with one that does not; the gate builds both.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TEXT: &str = "wake me at seven tomorrow";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/intents")
}

fn kinglet(arguments: &[&str]) -> Output {
    let runner = std::env::var("KINGLET_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().chain([env!("CARGO_BIN_EXE_kinglet")]);
    let program = words.next().expect("the program itself is a word");
    Command::new(program).args(words).args(arguments).output().expect("the program starts")
}

/// Runs `classify`, `info`, and `eval` on a model; asserts exit code 2, empty stdout, and one line that contains
/// `words`.
fn refused(model: &Path, words: &[&str]) {
    let model = model.to_str().expect("paths here are UTF-8");
    for arguments in [
        vec!["classify", "--model", model, TEXT],
        vec!["info", model],
        vec!["eval", "--model", model, "--data", "unread.jsonl"],
    ] {
        let output = kinglet(&arguments);
        let said = String::from_utf8(output.stderr).expect("stderr is UTF-8");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
    }
}

#[test]
fn a_bundle_and_a_directory_answer_with_and_without_tract() {
    let models = models();
    for model in [models.clone(), models.join("model.kinglet")] {
        let output = kinglet(&["classify", "--model", model.to_str().unwrap(), TEXT]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.starts_with(b"alarm  "), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn an_onnx_file_answers_with_tract_and_is_refused_with_advice_without() {
    let model = models().join("model.int8.onnx");
    if cfg!(feature = "tract") {
        let output = kinglet(&["classify", "--model", model.to_str().unwrap(), TEXT]);
        assert!(output.stdout.starts_with(b"alarm  "), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let beside = models().join("model.kinglet");
    let beside = format!("use {} instead", beside.display());
    refused(
        &model,
        &["without tract", &beside, "cargo build --release -p kinglet-cli --features tract", "kinglet-small"],
    );

    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("model.onnx");
    fs::copy(&model, &alone).unwrap();
    refused(&alone, &["without tract", "the model.kinglet that kinglet-export writes next to it"]);
    refused(folder.path(), &["without tract", "model.onnx"]);
}

#[test]
fn other_files_are_refused_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("README.md");
    fs::write(&page, "# Not a model\n").unwrap();
    refused(&page, &["README.md"]);
    refused(&folder.path().join("absent.onnx"), &["cannot read", "absent.onnx"]);
    let cut = folder.path().join("model.kinglet");
    fs::write(&cut, &fs::read(models().join("model.kinglet")).unwrap()[..700_000]).unwrap();
    refused(&cut, &["700000"]);
}
