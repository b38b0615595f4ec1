use super::*;
use crate::digest::sha256;
use std::{fs, io::Write, vec};

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

const JSONL: &str = "{\"text\":\"a \\\"b\\\"\",\"label\":1}\n\n{\"text\":\"c\",\"label\":\"0\"}\n";

#[test]
fn every_kind_of_file_gives_the_same_rows() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(JSONL.as_bytes()).unwrap();
    let cases: [(&str, Vec<u8>); 5] = [
        ("d.jsonl", JSONL.into()),
        ("d.jsonl.gz", gz.finish().unwrap()),
        ("d.jsonl.zst", zstd::encode_all(JSONL.as_bytes(), 1).unwrap()),
        ("d.csv", b"label,text\n1,\"a \"\"b\"\"\"\n0,c\n".to_vec()),
        ("d.tsv", b"text\tlabel\n\"a \"\"b\"\"\"\t1\r\nc\t0\r\n".to_vec()),
    ];
    for (name, bytes) in cases {
        let (_dir, path) = written(name, &bytes);
        let data = Dataset::read(&path, "label", None).unwrap();
        assert_eq!(data.sha256, sha256(&bytes), "{name}");
        assert_eq!(data.texts, ["a \"b\"", "c"], "{name}");
        assert_eq!((data.labels, data.names), (vec![1, 0], vec!["0".into(), "1".into()]), "{name}");
    }
}

#[test]
fn names_come_from_the_model_then_the_manifest_then_the_labels() {
    let (dir, path) = written("d.csv", b"text,label,fine\na,dog,1\nb,cat,0\n");
    assert_eq!(Dataset::read(&path, "label", None).unwrap().names, ["cat", "dog"]);
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","cat"],"fine_classes":["x","y","z"]}"#).unwrap();
    assert_eq!(Dataset::read(&path, "label", None).unwrap().labels, [0, 1]);
    assert_eq!(Dataset::read(&path, "fine", None).unwrap().names, ["x", "y", "z"]);
    let model = ["bird", "cat", "dog"].map(String::from);
    assert_eq!(Dataset::read(&path, "label", Some(&model)).unwrap().labels, [2, 1]);
}

#[test]
fn an_integer_means_the_manifests_class_whatever_the_models_order() {
    let (dir, path) = written("d.jsonl", b"{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"label\":1}\n");
    let model = ["bird", "cat", "dog"].map(String::from);
    assert_eq!(Dataset::read(&path, "label", Some(&model)).unwrap().labels, [0, 1]);
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","cat"]}"#).unwrap();
    assert_eq!(Dataset::read(&path, "label", Some(&model)).unwrap().labels, [2, 1]);
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","fish"]}"#).unwrap();
    let error = Dataset::read(&path, "label", Some(&model)).unwrap_err().to_string();
    assert!(error.contains("row 2: label 1, counted as in MANIFEST.json, is none of the 3"), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_its_row() {
    let message = |name: &str, bytes: &str, field: &str| {
        let (_dir, path) = written(name, bytes.as_bytes());
        Dataset::read(&path, field, Some(&["x".into(), "y".into()])).unwrap_err().to_string()
    };
    assert!(message("d.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":", "label").contains("row 2: not a JSON"));
    assert!(message("d.jsonl", "{\"text\":1,\"label\":0}", "label").contains("\"text\" is not a string"));
    assert!(message("d.jsonl", "{\"label\":0}", "label").contains("no field \"text\""));
    assert!(message("d.jsonl", "{\"text\":\"a\",\"label\":0}", "fine").contains("--label-field"));
    assert!(message("d.jsonl", "{\"text\":\"a\",\"label\":2}", "label").contains("label 2 is neither"));
    assert!(message("d.jsonl", "{\"text\":\"a\",\"label\":\"z\"}", "label").contains("label \"z\" is neither"));
    assert!(message("d.jsonl", "{\"text\":\"a\",\"label\":-1}", "label").contains("label -1"));
    assert!(message("d.csv", "a,b\n1,2\n", "label").contains("no column \"text\""));
    assert!(message("d.csv", "text,label\na,x,y\n", "label").contains("row 2"));
    assert!(message("d.jsonl", "", "label").contains("holds no rows"));
    assert!(message("d.jsonl.zst", "not zstd", "label").contains("cannot read"));
    assert!(message("d.txt", "a\nb\n", "label").contains("no field \"label\""));
    let missing = Dataset::read(Path::new("no/such.jsonl"), "label", None).unwrap_err().to_string();
    assert!(missing.contains("cannot read no/such.jsonl"), "{missing}");
}

#[test]
fn text_files_give_their_lines() {
    let (_dir, path) = written("d.txt", b"one\r\n\nthr\xffee");
    let got: Vec<String> = texts(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(got, ["one", "", "thr\u{fffd}ee"]);
}

#[test]
fn a_blank_line_ends_a_document_of_a_text_file() {
    let (_dir, path) = written("d.txt", b"\n \nTitle\r\none\r\n\t\n\n\ntwo\nthree");
    let all = |end| documents(&path, "text", end).unwrap().map(Result::unwrap).collect::<Vec<String>>();
    assert_eq!(all(DocumentEnd::BlankLine), ["Title\none", "two\nthree"]);
    assert_eq!(all(DocumentEnd::Line), ["Title", "one", "two", "three"]);
    let mut some = documents(&path, "text", DocumentEnd::BlankLine).unwrap();
    some.next();
    assert_eq!(some.sha256().unwrap(), sha256(&fs::read(&path).unwrap()));
}

#[test]
fn rows_are_documents_with_the_text_in_any_field() {
    let (_dir, path) =
        written("d.jsonl", b"{\"body\":\"a\\n\\nb\"}\n{\"body\":\" \"}\n{\"body\":\"c\"}\n{\"text\":\"d\"}");
    let got: Vec<_> = documents(&path, "body", DocumentEnd::BlankLine).unwrap().collect();
    assert_eq!(got.len(), 3);
    assert_eq!([got[0].as_ref().unwrap(), got[1].as_ref().unwrap()], ["a\n\nb", "c"]);
    let error = got[2].as_ref().unwrap_err().to_string();
    assert!(error.contains("row 4: no field \"body\"; name the text's field with --text-field"), "{error}");
    let (_dir, path) = written("d.csv", b"id,body\n1,a\n");
    let got: Vec<_> = documents(&path, "body", DocumentEnd::BlankLine).unwrap().map(Result::unwrap).collect();
    assert_eq!(got, ["a"]);
    assert!(documents(&path, "text", DocumentEnd::BlankLine).err().unwrap().to_string().contains("--text-field"));
}

#[test]
fn pairs_have_both_texts_or_an_error_with_its_row() {
    let (_dir, path) = written("d.jsonl", b"{\"source\":\"a\",\"target\":\"b c\"}\n{\"source\":\"d\",\"target\":1}\n");
    let error = pairs(&path, "source", "target").unwrap_err().to_string();
    assert!(error.contains("row 2: \"target\" is not a string; name the target's field"), "{error}");
    let error = pairs(&path, "source", "goal").unwrap_err().to_string();
    assert!(error.contains("row 1: no field \"goal\"") && error.contains("--target-field"), "{error}");
    assert!(pairs(&path, "text", "target").unwrap_err().to_string().contains("--text-field"));
    let (_dir, path) = written("d.tsv", b"source\ttarget\na\tb c\n");
    let read = pairs(&path, "source", "target").unwrap();
    assert_eq!(read.pairs, [("a".to_string(), "b c".to_string())]);
    assert_eq!(read.sha256, sha256(b"source\ttarget\na\tb c\n"));
    let (_dir, path) = written("d.tsv", b"source\ttarget\n");
    assert!(pairs(&path, "source", "target").unwrap_err().to_string().contains("holds no rows"));
}

#[test]
fn lines_that_are_not_utf_8_are_counted() {
    let (_dir, path) = written("a.txt", b"caf\xe9\nplain\n\n\xff\xfe\ncaf\xc3\xa9\n");
    let mut documents = documents(&path, "text", DocumentEnd::Line).unwrap();
    let texts: Vec<String> = documents.by_ref().map(Result::unwrap).collect();
    assert_eq!(texts, ["caf\u{fffd}", "plain", "\u{fffd}\u{fffd}", "caf\u{e9}"]);
    assert_eq!(documents.replaced(), 2);
}
