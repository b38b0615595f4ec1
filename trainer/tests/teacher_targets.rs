//! `kinglet-train teacher`: the targets are the teacher's vectors in the order of the texts, and a stopped and resumed run writes the
//! same bytes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{at_most, rows, stderr, stdout};
use kinglet_data::dataset::ReadOptions;
use kinglet_train::interrupt::Interrupt;
use kinglet_train::targets::manifest::{MANIFEST, UNFINISHED};
use kinglet_train::targets::texts::survey;
use kinglet_train::targets::{Targets, Tokens, shard};
use kinglet_train::teacher::{Precision, Teacher};
use tch::Device;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A folder with text files.
struct Texts(TempDir);

impl Texts {
    fn new() -> Self {
        let texts = Texts(tempfile::tempdir().unwrap());
        texts.write("a.txt", "the owl\n\n  \nwren sees the tree house\nowls\n");
        texts.write("b.jsonl", &rows(20, 3));
        fs::write(texts.path("c.txt.zst"), zstd::encode_all(&b"the last tree\n"[..], 1).unwrap()).unwrap();
        texts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, model: &str, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet-train"));
        command.current_dir(self.0.path()).args(["teacher", "--device", "cpu", "--threads", "1", "--model"]);
        command.arg(golden(model)).args(["--out", out, "--precision", "f32"]).args(more);
        command
    }

    fn run(&self, model: &str, out: &str, more: &[&str]) -> Output {
        self.command(model, out, more).output().unwrap()
    }

    /// Runs the command to its successful end and returns its stdout.
    fn written(&self, out: &str, more: &[&str]) -> String {
        let output = self.run("bert", out, more);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    }

    fn refused(&self, out: &str, more: &[&str]) -> String {
        let output = self.run("bert", out, more);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{}", stderr(&output));
        stderr(&output)
    }

    /// Returns the texts of the three files.
    fn all(&self) -> Vec<String> {
        let mut all = ["the owl", "wren sees the tree house", "owls"].map(str::to_owned).to_vec();
        let text =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
        all.extend(rows(20, 3).lines().map(text));
        all.push("the last tree".to_owned());
        all
    }

    /// Returns the bytes of all files of a folder by name.
    fn bytes(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(out)).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }
}

const FILES: [&str; 3] = ["a.txt", "b.jsonl", "c.txt.zst"];

#[track_caller]
fn contains(message: &str, part: &str) {
    assert!(message.contains(part), "{message:?} does not contain {part:?}");
}

/// Returns the largest difference of the targets from the vectors that the teacher computes for the texts together.
fn apart(targets: &Targets, texts: &[String]) -> f64 {
    let teacher = Teacher::load(&golden("bert"), Device::Cpu, Precision::F32).unwrap();
    let vectors = Vec::<Vec<f32>>::try_from(teacher.embed(texts).unwrap()).unwrap();
    let mut row = vec![0.0; targets.dimension()];
    let mut most = 0f32;
    for (i, vector) in vectors.iter().enumerate() {
        targets.row(i, &mut row);
        most = row.iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(most, f32::max);
    }
    f64::from(most)
}

#[test]
fn targets_are_the_vectors_of_the_texts_of_all_files_in_order() {
    let texts = Texts::new();
    let said = texts.written("out", &[&FILES[..], &["--shard-texts", "5", "--batch-tokens", "40"]].concat());
    contains(&said, "24 texts, 16 channels");
    contains(&said, "wrote out (5 shards)");
    let targets = Targets::open(&texts.path("out")).unwrap();
    assert_eq!((targets.len(), targets.dimension()), (24, 16));
    // f16 has 11 bits, of numbers up to 1.
    at_most(3e-4, apart(&targets, &texts.all()), "f16 targets");
    let manifest = targets.manifest().unwrap();
    assert_eq!(manifest.files.iter().map(|file| file.texts).collect::<Vec<_>>(), [3, 20, 1]);
    let record = &manifest.teacher;
    let said =
        (record.name.as_str(), record.pooling.as_str(), record.normalized, record.prompt.as_str(), record.max_length);
    assert_eq!(said, ("bert", "mean", true, "", 16));
    let files =
        survey(&FILES.map(|name| texts.path(name)), &ReadOptions::default(), &Interrupt::default()).unwrap().files;
    targets.check(&files).unwrap();
    assert!(targets.check(&[files[1].clone(), files[0].clone(), files[2].clone()]).is_err());

    texts.written("bytes", &[&FILES[..], &["--dtype", "int8"]].concat());
    at_most(5e-3, apart(&Targets::open(&texts.path("bytes")).unwrap(), &texts.all()), "int8 targets");
}

#[test]
fn texts_that_are_cut_or_not_utf_8_are_counted() {
    let texts = Texts::new();
    contains(&texts.written("none", &["a.txt"]), "0 of 3 texts cut to 16 tokens, 0 not valid UTF-8");
    let long = "owl ".repeat(14) + "\n" + &"owl ".repeat(15) + "\n";
    fs::write(texts.path("d.txt"), [long.as_bytes(), b"caf\xe9\n"].concat()).unwrap();
    contains(&texts.written("some", &["a.txt", "d.txt"]), "1 of 6 texts cut to 16 tokens, 1 not valid UTF-8");
    let said = texts.written("json", &["a.txt", "d.txt", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
    let counts = ["texts_computed", "texts_cut", "texts_not_utf8"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [Some(6), Some(1), Some(1)]);
}

#[test]
fn token_vectors_are_aligned_with_the_bytes_of_the_text() {
    let texts = Texts::new();
    texts.write("d.txt", "the owls, déjà\n");
    texts.written("out", &["a.txt", "d.txt", "--token-vectors", "--prompt", "query: "]);
    let targets = Targets::open(&texts.path("out")).unwrap();
    let mut tokens = Tokens::default();
    targets.tokens(3, &mut tokens);
    let parts: Vec<&str> = tokens.spans.iter().map(|&(a, b)| &"the owls, déjà"[a as usize..b as usize]).collect();
    assert_eq!(parts, ["", "", "", "the", "owl", "s", ",", "d", "é", "j", "à", ""]);
    assert_eq!(tokens.vectors.len(), parts.len() * 16);
    // The mean of the tokens' vectors, scaled to length 1, is the text's vector.
    let mean: Vec<f32> = (0..16).map(|c| tokens.vectors.iter().skip(c).step_by(16).sum()).collect();
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut row = [0.0; 16];
    targets.row(3, &mut row);
    let error = row.iter().zip(&mean).map(|(a, b)| (a - b / length).abs()).fold(0.0, f32::max);
    at_most(2e-3, f64::from(error), "mean of token vectors");
}

#[test]
fn a_classifier_writes_its_probabilities() {
    let texts = Texts::new();
    let output = texts.run("bert_classifier", "out", &["a.txt", "--probabilities"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let targets = Targets::open(&texts.path("out")).unwrap();
    assert_eq!(targets.classes(), ["bird", "place", "other"]);
    let mut probabilities = [0.0; 3];
    for i in 0..3 {
        targets.probabilities(i, &mut probabilities);
        at_most(1e-5, f64::from((probabilities.iter().sum::<f32>() - 1.0).abs()), "sum of probabilities");
    }
    contains(&texts.refused("bad", &["a.txt", "--probabilities"]), "weight pooler.dense.weight is missing");
}

#[test]
fn a_sentence_encoder_has_the_classes_of_labelled_texts() {
    let texts = Texts::new();
    texts.write("labelled.jsonl", &rows(60, 1));
    let labelled = ["b.jsonl", "--labelled", "labelled.jsonl", "--shard-texts", "6"];
    let output = texts.run("bert", "out", &labelled);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    contains(&said, "fitting 2 classes to 60 labelled texts");
    let targets = Targets::open(&texts.path("out")).unwrap();
    assert_eq!(targets.classes(), ["animal", "colour"]);
    let record = targets.manifest().unwrap().labelled.as_ref().unwrap();
    assert_eq!((record.file.as_str(), record.texts), ("labelled.jsonl", 60));
    contains(&said, &format!("{:.1}% right on held-out texts", record.held_out));
    let all = |targets: &Targets| -> Vec<[f32; 2]> {
        let row = |i| {
            let mut row = [0.0; 2];
            targets.probabilities(i, &mut row);
            row
        };
        (0..targets.len()).map(row).collect()
    };
    let probabilities = all(&targets);
    for (i, row) in probabilities.iter().enumerate() {
        at_most(1e-5, f64::from((row[0] + row[1] - 1.0).abs()), "sum of probabilities");
        // The texts of rows() have the two classes in turn.
        assert!(row[i % 2] > 0.5, "row {i}: {row:?}");
    }

    // The vectors of an earlier run; f16 has 11 bits of them.
    texts.written("vectors", &["b.jsonl"]);
    texts.written("again", &[&labelled[..], &["--vectors", "vectors"]].concat());
    for (a, b) in all(&Targets::open(&texts.path("again")).unwrap()).iter().zip(&probabilities) {
        at_most(5e-3, f64::from((a[0] - b[0]).abs()), "probability from stored vectors");
    }
    // What can be refused is refused before the regression, which takes minutes.
    let early = |out: &str, more: &[&str]| {
        let said = texts.refused(out, &[more, &["--labelled", "labelled.jsonl"]].concat());
        assert!(!said.contains("fitting"), "{said}");
        said
    };
    let vectors = |more: &[&str]| early("bad", &[more, &["--vectors", "vectors"]].concat());
    contains(&early("bad", &["missing.txt"]), "cannot read missing.txt");
    contains(&early("out", &["b.jsonl"]), "--resume continues them, --force replaces them");
    contains(
        &vectors(&["b.jsonl", "--prompt", "x"]),
        "of another teacher or other settings: prompt was \"\", is now \"x\"",
    );
    contains(&vectors(&["a.txt"]), "3 texts, but targets for 20");
    contains(&texts.refused("bad", &["a.txt", "--vectors", "vectors"]), "--labelled <FILE>");

    // A resumed run fits the same classifier.
    fs::remove_file(texts.path("out").join(shard::file_name(2))).unwrap();
    fs::rename(texts.path("out").join(MANIFEST), texts.path("out").join(UNFINISHED)).unwrap();
    texts.written("out", &[&labelled[..], &["--resume"]].concat());
    assert_eq!(all(&Targets::open(&texts.path("out")).unwrap()), probabilities);
    texts.write("one.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n");
    contains(
        &texts.refused("bad", &["a.txt", "--labelled", "one.jsonl"]),
        "--labelled: the labelled texts have 1 class, at least 2",
    );
    assert!(!texts.path("bad").exists());
}

#[test]
fn targets_resumed_after_some_shards_have_the_bytes_of_an_uninterrupted_run() {
    let texts = Texts::new();
    let more = [&FILES[..], &["--shard-texts", "5", "--token-vectors"]].concat();
    texts.written("whole", &more);
    for kept in [0, 3] {
        texts.written("out", &[&more[..], if kept == 0 { &[] } else { &["--force"] }].concat());
        for index in kept..5 {
            fs::remove_file(texts.path("out").join(shard::file_name(index))).unwrap();
        }
        fs::rename(texts.path("out").join(MANIFEST), texts.path("out").join(UNFINISHED)).unwrap();
        contains(
            &texts.refused("out", &more),
            "the folder holds targets: --resume continues them, --force replaces them",
        );
        texts.written("out", &[&more[..], &["--resume"]].concat());
        assert_eq!(texts.bytes("out"), texts.bytes("whole"), "{kept} shards were kept");
    }
}

#[test]
fn a_signal_stops_after_a_batch_and_resuming_equals_not_stopping() {
    let texts = Texts::new();
    texts.write("long.jsonl", &rows(6000, 7));
    let more = ["long.jsonl", "--shard-texts", "40"];
    texts.written("whole", &more);
    let child = texts.command("bert", "out", &more).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !texts.path("out").join(shard::file_name(0)).exists() {
        assert!(Instant::now() < deadline, "no shard after a minute");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    contains(&said, "of 6000 texts are in out; to go on, run");
    contains(&said, "--resume");
    assert!(format!("{:#}", Targets::open(&texts.path("out")).unwrap_err()).contains("the targets are unfinished"));
    texts.written("out", &[&more[..], &["--resume"]].concat());
    assert_eq!(texts.bytes("out"), texts.bytes("whole"));
}

#[test]
fn targets_of_other_settings_or_texts_are_not_continued() {
    let texts = Texts::new();
    texts.written("out", &["a.txt"]);
    let resumed = |more: &[&str], part: &str| contains(&texts.refused("out", &[more, &["--resume"]].concat()), part);
    resumed(&["b.jsonl"], "files was [");
    resumed(&["a.txt", "--dtype", "int8"], "dtype was \"f16\", is now \"int8\"; --force replaces them");
    resumed(&["a.txt", "--prompt", "x"], "teacher.prompt was \"\", is now \"x\"");
    contains(&texts.refused("out", &["a.txt"]), "--resume continues them, --force replaces them");
    texts.written("out", &["b.jsonl", "--force", "--shard-texts", "50"]);
    assert_eq!(Targets::open(&texts.path("out")).unwrap().len(), 20);
    fs::create_dir(texts.path("other")).unwrap();
    texts.write("other/keep", "");
    for how in ["--force", "--resume"] {
        contains(&texts.refused("other", &["a.txt", how]), "the folder is not empty and holds no targets");
    }
    assert!(texts.path("other/keep").exists());
}

#[test]
fn texts_and_models_that_cannot_be_used_leave_nothing_behind() {
    let texts = Texts::new();
    texts.write("empty.txt", "\n  \n");
    contains(&texts.refused("out", &["a.txt", "empty.txt"]), "empty.txt has no texts; leave it out");
    contains(&texts.refused("out", &["missing.txt"]), "cannot read missing.txt");
    texts.write("bad.jsonl", "{\"text\":\"a\"}\n{\"body\":\"b\"}\n");
    contains(
        &texts.refused("out", &["bad.jsonl"]),
        "row 2: no field \"text\"; name the text's field with --text-field",
    );
    let output = texts.run(".", "out", &["a.txt"]);
    assert_eq!(output.status.code(), Some(2));
    contains(&stderr(&output), "is no model folder of Hugging Face");
    assert!(!texts.path("out").exists());
    contains(&texts.refused("a.txt", &["a.txt"]), "--out a.txt is not a directory");
    contains(&texts.refused("a.txt/out", &["a.txt"]), "--out a.txt/out cannot be made: a.txt is not a directory");
    assert!(Command::new("mkfifo").arg(texts.path("pipe")).status().unwrap().success());
    contains(&texts.refused("out", &["a.txt", "pipe"]), "pipe is not a regular file, but it is read twice");
    assert!(!texts.path("out").exists());
}
