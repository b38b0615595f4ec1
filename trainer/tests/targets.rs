//! Targets: folders round trip, files of other programs (`golden/targets.py`) have the same rows, and what cannot be used is refused.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};

use fixture::at_most;
use kinglet_data::dataset::ReadOptions;
use kinglet_train::interrupt::Interrupt;
use kinglet_train::targets::manifest::{MANIFEST, UNFINISHED, VERSION};
use kinglet_train::targets::shard::{self, ShardData};
use kinglet_train::targets::texts::survey;
use kinglet_train::targets::{Dtype, Manifest, Targets, TeacherRecord, TextFile, Tokens};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/targets").join(name)
}

fn refused(path: &Path) -> String {
    format!("{:#}", Targets::open(path).unwrap_err())
}

#[track_caller]
fn contains(message: &str, part: &str) {
    assert!(message.contains(part), "{message:?} does not contain {part:?}");
}

/// Returns the record of 5 texts in shards of 2.
fn manifest(dtype: Dtype, token_vectors: bool, classes: &[&str]) -> Manifest {
    Manifest {
        version: VERSION,
        teacher: TeacherRecord {
            name: "small".to_owned(),
            weights_sha256: "1".repeat(64),
            tokenizer_sha256: "2".repeat(64),
            pooling: "mean".to_owned(),
            normalized: true,
            prompt: String::new(),
            max_length: 128,
            precision: "f32".to_owned(),
            batch_tokens: 1024,
        },
        dimension: 3,
        dtype,
        token_vectors,
        classes: classes.iter().map(|&name| name.to_owned()).collect(),
        multi_label: false,
        labelled: None,
        texts: 5,
        rows_per_shard: 2,
        files: vec![text_file("a.txt", 3, 'a'), text_file("b.txt", 2, 'b')],
    }
}

fn text_file(file: &str, texts: u64, digit: char) -> TextFile {
    TextFile { file: file.to_owned(), texts, sha256: digit.to_string().repeat(64) }
}

/// Returns a number that f16 has exactly, and row maxima that int8 does not round.
fn number(row: usize, column: usize) -> f32 {
    (3 * row + column) as f32 / 8.0 - 0.875
}

/// Returns text `i` with `i` tokens, so that the first has none.
fn tokens(i: usize) -> Tokens {
    Tokens {
        ids: (0..i as u32).map(|t| 10 * i as u32 + t).collect(),
        spans: (0..i as u32).map(|t| (2 * t, 2 * t + 2)).collect(),
        vectors: (0..3 * i).map(|x| x as f32 / 4.0 - 1.0).collect(),
    }
}

/// Writes the shards and, last, the record of `manifest`.
fn write(dir: &Path, manifest: &Manifest) {
    for index in 0..manifest.shards().unwrap() {
        let rows = 2 * index as usize..2 * index as usize + manifest.rows_of(index);
        let data = ShardData {
            vectors: rows.clone().flat_map(|i| (0..3).map(move |j| number(i, j))).collect(),
            probabilities: rows.clone().flat_map(|i| [i as f32 / 8.0, 1.0 - i as f32 / 8.0]).collect(),
            tokens: rows.map(tokens).collect(),
        };
        let data = ShardData {
            probabilities: if manifest.classes.is_empty() { Vec::new() } else { data.probabilities },
            tokens: if manifest.token_vectors { data.tokens } else { Vec::new() },
            ..data
        };
        shard::write(dir, index, manifest, &data).unwrap();
    }
    fs::write(dir.join(MANIFEST), serde_json::to_string(manifest).unwrap()).unwrap();
}

/// Returns the largest difference of a row from [`number`].
fn apart(targets: &Targets) -> f64 {
    let mut row = [0.0; 3];
    let mut most = 0f32;
    for i in 0..targets.len() {
        targets.row(i, &mut row);
        most = (0..3).map(|j| (row[j] - number(i, j)).abs()).fold(most, f32::max);
    }
    f64::from(most)
}

#[test]
fn a_folder_has_the_rows_that_were_written_in_order_across_shards() {
    let dir = tempfile::tempdir().unwrap();
    let written = manifest(Dtype::F16, true, &["no", "yes"]);
    write(dir.path(), &written);
    let targets = Targets::open(dir.path()).unwrap();
    assert_eq!((targets.len(), targets.dimension(), targets.manifest()), (5, 3, Some(&written)));
    assert_eq!(apart(&targets), 0.0);
    assert_eq!(targets.classes(), ["no", "yes"]);
    let (mut read, mut probabilities) = (Tokens::default(), [0.0; 2]);
    for i in (0..5).rev() {
        targets.tokens(i, &mut read);
        assert_eq!(read, tokens(i));
        targets.probabilities(i, &mut probabilities);
        assert_eq!(probabilities, [i as f32 / 8.0, 1.0 - i as f32 / 8.0]);
    }
}

#[test]
fn int8_rows_are_apart_by_half_a_step_of_their_scale_at_most() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &manifest(Dtype::Int8, true, &[]));
    let targets = Targets::open(dir.path()).unwrap();
    at_most(0.51 * f64::from(number(4, 2)) / 127.0, apart(&targets), "int8 row");
    let mut read = Tokens::default();
    targets.tokens(4, &mut read);
    assert_eq!(read.ids, tokens(4).ids);
    let error = read.vectors.iter().zip(tokens(4).vectors).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    at_most(0.51 * 1.75 / 127.0, f64::from(error), "int8 token vector");
    targets.probabilities(0, &mut []);
}

#[test]
fn rows_are_read_from_several_threads() {
    let targets = Targets::open(&golden("float16.npy")).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| apart(&targets))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 0.0));
    });
}

#[test]
fn numpy_safetensors_and_parquet_files_have_the_same_rows() {
    let names = ["float16.npy", "float32.npy", "float64.npy", "one.safetensors"];
    for name in names.into_iter().chain(["float32.parquet", "float64.parquet", "float16.parquet"]) {
        let targets = Targets::open(&golden(name)).unwrap();
        assert_eq!((targets.len(), targets.dimension()), (5, 3), "{name}");
        assert_eq!(apart(&targets), 0.0, "{name}");
        assert!(targets.manifest().is_none() && !targets.has_tokens() && targets.classes().is_empty());
    }
}

#[test]
fn files_that_are_no_table_of_vectors_are_refused() {
    for (name, part) in [
        ("fortran.npy", "order is Fortran's"),
        ("int64.npy", "\"<i8\""),
        ("flat.npy", "its shape is (3,), must be (texts, channels)"),
        ("empty.npy", "the table is empty: its shape is [0, 3]"),
        ("nan.npy", "row 2 (from 0) has a number that is not finite"),
        ("two.safetensors", "has 2 tensors [\"a\", \"b\"]"),
        ("ragged.parquet", "row 2 (from 0) has 1 numbers, the rows before it 2"),
        ("null.parquet", "has a null or an empty list"),
        ("columns.parquet", "has 2 columns of lists"),
        ("versions.json", "targets are a folder of kinglet-train teacher or a file named .npy"),
        ("missing.npy", "cannot open the file"),
    ] {
        let message = refused(&golden(name));
        contains(&message, part);
        contains(&message, name);
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["float32.npy", "one.safetensors", "float32.parquet"] {
        let whole = fs::read(golden(name)).unwrap();
        let path = dir.path().join(name);
        for length in [0, 7, 40, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            contains(&refused(&path), name);
        }
    }
}

#[test]
fn a_folder_that_is_unfinished_or_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    contains(&refused(dir.path()), "the folder has no targets.json");
    let written = manifest(Dtype::F16, true, &[]);
    write(dir.path(), &written);
    let record = dir.path().join(MANIFEST);
    fs::rename(&record, dir.path().join(UNFINISHED)).unwrap();
    contains(&refused(dir.path()), "--resume");

    let refuse = |change: &dyn Fn(&mut Manifest), part: &str| {
        let mut changed = written.clone();
        change(&mut changed);
        fs::write(&record, serde_json::to_string(&changed).unwrap()).unwrap();
        contains(&refused(dir.path()), part);
    };
    refuse(&|m| m.version = 9, "version 9 of the format, this program reads 1");
    refuse(&|m| m.dimension = 4, "tensor vectors is F16 of shape [2, 3], F16 of shape [2, 4] is expected");
    refuse(&|m| m.dtype = Dtype::Int8, "I8 of shape [2, 3] is expected");
    refuse(&|m| m.rows_per_shard = 0, "none of them may be 0");
    refuse(&|m| m.texts = 6, "has 6 texts, but its files have");
    refuse(&|m| m.classes = vec!["a".to_owned()], "tensor probabilities is missing");
    fs::write(&record, serde_json::to_string(&written).unwrap()).unwrap();
    fs::remove_file(dir.path().join(shard::file_name(1))).unwrap();
    contains(&refused(dir.path()), "vectors-00001.safetensors: cannot open the file");
}

#[test]
fn texts_other_than_the_teachers_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let written = manifest(Dtype::F16, false, &[]);
    write(dir.path(), &written);
    let targets = Targets::open(dir.path()).unwrap();
    targets.check(&written.files).unwrap();
    let error = |files: &[TextFile]| format!("{:#}", targets.check(files).unwrap_err());
    contains(&error(&written.files[..1]), "3 texts, but targets for 5");
    contains(&error(&[text_file("c.txt", 3, 'a'), text_file("d.txt", 2, 'c')]), "the 2 texts of b.txt");
    contains(&error(&[text_file("a.txt", 2, 'a'), text_file("b.txt", 3, 'b')]), "a.txt has 2 texts");
    let table = Targets::open(&golden("float16.npy")).unwrap();
    table.check(&[text_file("any.txt", 5, 'x')]).unwrap();
    contains(&format!("{:#}", table.check(&[text_file("any.txt", 4, 'x')]).unwrap_err()), "4 texts, but targets for 5");
}

#[test]
fn the_digest_of_texts_depends_neither_on_compression_nor_on_blank_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let survey =
        |path: PathBuf| survey(&[path], &ReadOptions::default(), &Interrupt::default()).map(|survey| survey.files);
    let plain = survey(file("a.txt", b"one\n\n two words \n  \nthree")).unwrap();
    let zstd = survey(file("b.txt.zst", &zstd::encode_all(&b"one\r\n two words \nthree\n"[..], 1).unwrap())).unwrap();
    let jsonl = b"{\"text\":\"one\"}\n{\"text\":\" two words \",\"label\":1}\n{\"text\":\"three\"}\n";
    let rows = survey(file("c.jsonl", jsonl)).unwrap();
    // python3 -c 'import hashlib,struct; print(hashlib.sha256(b"".join(struct.pack("<Q",len(t))+t for t in [b"one",b" two words ",b"three"])).hexdigest())'
    let digest = "c2197ddf954e4cc2eb568223d698834276b2009e3173e70dd6b8abf65b0f0534";
    for (files, name) in [(plain, "a.txt"), (zstd, "b.txt.zst"), (rows, "c.jsonl")] {
        assert_eq!(files, [TextFile { file: name.to_owned(), texts: 3, sha256: digest.to_owned() }]);
    }
    contains(
        &format!("{:#}", survey(file("empty.txt", b"\n \n")).unwrap_err()),
        "empty.txt has no texts; leave it out",
    );
}

#[test]
fn rows_that_f16_cannot_hold_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let written = manifest(Dtype::F16, false, &[]);
    let mut data = ShardData { vectors: vec![0.0; 6], ..ShardData::default() };
    data.vectors[4] = 1e6;
    let error = format!("{:#}", shard::write(dir.path(), 0, &written, &data).unwrap_err());
    contains(&error, "1000000 in row 1 of the shard is not finite as F16");
    data.vectors.pop();
    let error = format!("{:#}", shard::write(dir.path(), 0, &written, &data).unwrap_err());
    contains(&error, "shard 0 has (5, 0, 0)");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
