use super::*;
use crate::digest::sha256;
use std::fs;
use std::io::Write;

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
        let data = Dataset::read(&path, &ReadOptions::labelled("label"), None).unwrap();
        assert_eq!(data.sha256, sha256(&bytes), "{name}");
        assert_eq!(data.texts, ["a \"b\"", "c"], "{name}");
        assert_eq!((data.labels, data.names), (Labels::One(vec![1, 0]), vec!["0".into(), "1".into()]), "{name}");
    }
}

#[test]
fn names_come_from_the_model_then_the_manifest_then_the_labels() {
    let (dir, path) = written("d.csv", b"text,label,fine\na,dog,1\nb,cat,0\n");
    assert_eq!(Dataset::read(&path, &ReadOptions::labelled("label"), None).unwrap().names, ["cat", "dog"]);
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","cat"],"fine_classes":["x","y","z"]}"#).unwrap();
    assert_eq!(Dataset::read(&path, &ReadOptions::labelled("label"), None).unwrap().labels, Labels::One(vec![0, 1]));
    assert_eq!(Dataset::read(&path, &ReadOptions::labelled("fine"), None).unwrap().names, ["x", "y", "z"]);
    let model = ["bird", "cat", "dog"].map(String::from);
    assert_eq!(
        Dataset::read(&path, &ReadOptions::labelled("label"), Some(&model)).unwrap().labels,
        Labels::One(vec![2, 1])
    );
}

#[test]
fn an_integer_means_the_manifests_class_whatever_the_models_order() {
    let (dir, path) = written("d.jsonl", b"{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"label\":1}\n");
    let model = ["bird", "cat", "dog"].map(String::from);
    assert!(Dataset::read(&path, &ReadOptions::labelled("label"), Some(&model)).is_err(), "no list says what 0 counts");
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","cat"]}"#).unwrap();
    assert_eq!(
        Dataset::read(&path, &ReadOptions::labelled("label"), Some(&model)).unwrap().labels,
        Labels::One(vec![2, 1])
    );
    fs::write(dir.path().join(MANIFEST), r#"{"classes":["dog","fish"]}"#).unwrap();
    let error = Dataset::read(&path, &ReadOptions::labelled("label"), Some(&model)).unwrap_err().to_string();
    assert!(error.contains("row 2: label 1, counted as in MANIFEST.json, is none of the 3"), "{error}");
}

#[test]
fn what_is_wrong_is_said_with_its_row() {
    let message = |name: &str, bytes: &[u8], field: &str| {
        let (_dir, path) = written(name, bytes);
        let names = ["x".into(), "y".into()];
        Dataset::read(&path, &ReadOptions::labelled(field), Some(&names)).unwrap_err().to_string()
    };
    for (name, bytes, field, wanted) in [
        ("d.jsonl", &b"{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":"[..], "label", "row 2: not a JSON"),
        ("d.jsonl", b"{\"text\":1,\"label\":0}", "label", "--text-field"),
        (
            "d.jsonl",
            b"{\"text\":\"a\",\"label\":0}\n{\"text\":1,\"label\":0}",
            "label",
            "row 2: \"text\" is not a string",
        ),
        (
            "d.jsonl",
            b"{\"text\":\"a\",\"label\":0}\n{\"text\":\"a\"}",
            "label",
            "row 2: it has no label in \"label\"; name another field",
        ),
        ("d.jsonl", b"{\"label\":0}", "label", "called text, sentence"),
        (
            "d.jsonl",
            b"{\"text\":\"a\",\"label\":0}",
            "fine",
            "no field \"fine\"; name the label's field with --label-field; it has \"label\", \"text\"",
        ),
        ("d.jsonl", b"{\"text\":\"a\",\"label\":2}", "label", "label 2 is none of the 2 classes; numbers count"),
        ("d.jsonl", b"{\"text\":\"a\",\"label\":\"z\"}", "label", "label \"z\" is none"),
        ("d.jsonl", b"{\"text\":\"a\",\"label\":0.5}", "label", "has decimals"),
        ("d.jsonl", b"{\"text\":\"a\",\"label\":[[\"x\",\"y\"]]}", "label", "list of lists"),
        ("d.jsonl", b"__label__x a\n", "label", "--format fasttext"),
        ("d.jsonl", b"caf\xe9, caf\xe9", "label", "not valid UTF-8, perhaps Windows-1252"),
        ("d.json", b"[{\"text\":\"a\",\"label\":\"x\"}", "label", "row 2: the array is not closed"),
        ("d.json", b"[{\"text\":\"a\",\"label\":\"x\"},\n3]", "label", "row 2: it is not a JSON object"),
        ("d.json", b"[{\"text\":\"a\",\"label\":\"x\"}]x", "label", "something follows"),
        ("d.json", b"[]", "label", "holds no rows"),
        ("d.csv", b"a,b\n1,2\n", "label", "row 1: no field \"label\""),
        ("d.csv", b"text,label\na,x,y\n", "label", "row 2: it has 3 fields, the first row 2"),
        ("d.csv", b"text,label\n\"a, b,x\nc,y\n", "label", "row 2: the quotation mark that opens here is never closed"),
        ("d.csv", b"text,label\ncaf\xe9 au lait,x\n", "label", "row 2: it is not valid UTF-8, perhaps Windows-1252"),
        ("d.csv", b"\xff\xfet\0e\0", "label", "it is UTF-16; save it as UTF-8"),
        ("d.csv", b"text,label\n", "label", "holds no rows"),
        ("d.jsonl", b"", "label", "holds no rows"),
        ("d.jsonl.zst", b"not zstd", "label", "cannot read"),
        ("d.txt", b"a\nb\n", "label", "a text file has no labels"),
        ("d.xlsx", b"PK\x03\x04\x14\0\x06\0", "label", "save the sheet as CSV"),
        ("d.data", b"a b\nc d\n", "label", "name the format with --format"),
        ("d.parquet", b"PAR1 and no more", "label", "Parquet"),
    ] {
        let error = message(name, bytes, field);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    let missing = Dataset::read(Path::new("no/such.jsonl"), &ReadOptions::default(), None).unwrap_err().to_string();
    assert!(missing.contains("cannot read no/such.jsonl"), "{missing}");
}

#[test]
fn text_files_give_their_lines() {
    let (_dir, path) = written("d.txt", b"one\r\n\nthr\xffee");
    let got: Vec<String> = texts(&path, &ReadOptions::default()).unwrap().map(|text| text.unwrap().text).collect();
    assert_eq!(got, ["one", "", "thr\u{fffd}ee"]);
}

#[test]
fn a_blank_line_ends_a_document_of_a_text_file() {
    let (_dir, path) = written("d.txt", b"\n \nTitle\r\none\r\n\t\n\n\ntwo\nthree");
    let all =
        |end| documents(&path, &ReadOptions::text("text"), end).unwrap().map(Result::unwrap).collect::<Vec<String>>();
    assert_eq!(all(DocumentEnd::BlankLine), ["Title\none", "two\nthree"]);
    assert_eq!(all(DocumentEnd::Line), ["Title", "one", "two", "three"]);
    let mut some = documents(&path, &ReadOptions::text("text"), DocumentEnd::BlankLine).unwrap();
    some.next();
    assert_eq!(some.sha256().unwrap(), sha256(&fs::read(&path).unwrap()));
}

#[test]
fn rows_are_documents_with_the_text_in_any_field() {
    let (_dir, path) =
        written("d.jsonl", b"{\"body\":\"a\\n\\nb\"}\n{\"body\":\" \"}\n{\"body\":\"c\"}\n{\"text\":\"d\"}");
    let got: Vec<_> = documents(&path, &ReadOptions::text("body"), DocumentEnd::BlankLine).unwrap().collect();
    assert_eq!(got.len(), 3);
    assert_eq!([got[0].as_ref().unwrap(), got[1].as_ref().unwrap()], ["a\n\nb", "c"]);
    let error = got[2].as_ref().unwrap_err().to_string();
    assert!(error.contains("row 4: no field \"body\"; name the text's field with --text-field"), "{error}");
    let (_dir, path) = written("d.csv", b"id,body\n1,a\n");
    let got: Vec<_> =
        documents(&path, &ReadOptions::text("body"), DocumentEnd::BlankLine).unwrap().map(Result::unwrap).collect();
    assert_eq!(got, ["a"]);
    assert!(
        documents(&path, &ReadOptions::text("text"), DocumentEnd::BlankLine)
            .err()
            .unwrap()
            .to_string()
            .contains("--text-field")
    );
}

#[test]
fn pairs_have_both_texts_or_an_error_with_its_row() {
    let (_dir, path) = written("d.jsonl", b"{\"source\":\"a\",\"target\":\"b c\"}\n{\"source\":\"d\",\"target\":1}\n");
    let error = pairs(&path, &ReadOptions::text("source"), "target").unwrap_err().to_string();
    assert!(error.contains("row 2: \"target\" is not a string; name the target's field"), "{error}");
    let error = pairs(&path, &ReadOptions::text("source"), "goal").unwrap_err().to_string();
    assert!(error.contains("row 1: no field \"goal\"") && error.contains("--target-field"), "{error}");
    assert!(pairs(&path, &ReadOptions::text("text"), "target").unwrap_err().to_string().contains("--text-field"));
    let (_dir, path) = written("d.tsv", b"source\ttarget\na\tb c\n");
    let read = pairs(&path, &ReadOptions::text("source"), "target").unwrap();
    assert_eq!(read.pairs, [("a".to_string(), "b c".to_string())]);
    assert_eq!(read.sha256, sha256(b"source\ttarget\na\tb c\n"));
    let (_dir, path) = written("d.tsv", b"source\ttarget\n");
    assert!(pairs(&path, &ReadOptions::text("source"), "target").unwrap_err().to_string().contains("holds no rows"));
}

#[test]
fn lines_that_are_not_utf_8_are_counted() {
    let (_dir, path) = written("a.txt", b"caf\xe9\nplain\n\n\xff\xfe\ncaf\xc3\xa9\n");
    let mut documents = documents(&path, &ReadOptions::text("text"), DocumentEnd::Line).unwrap();
    let texts: Vec<String> = documents.by_ref().map(Result::unwrap).collect();
    assert_eq!(texts, ["caf\u{fffd}", "plain", "\u{fffd}\u{fffd}", "caf\u{e9}"]);
    assert_eq!(documents.replaced(), 2);
}

fn read(name: &str, bytes: &[u8]) -> Dataset {
    let (_dir, path) = written(name, bytes);
    Dataset::read(&path, &ReadOptions::default(), None).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Texts with the names of their labels.
fn rows(data: &Dataset) -> Vec<(&str, &str)> {
    let labels = data.labels.one().unwrap();
    data.texts.iter().zip(labels).map(|(text, &label)| (text.as_str(), data.names[label].as_str())).collect()
}

#[test]
fn the_same_rows_come_from_every_format() {
    let wanted = [("track it", "parcel"), ("where, \"now\"", "parcel"), ("pay me back", "refund")];
    let files: [(&str, &[u8]); 9] = [
        ("a.jsonl", b"\xEF\xBB\xBF{\"sentence\":\"track it\",\"intent\":\"parcel\"}\n\n{\"sentence\":\"where, \\\"now\\\"\",\"intent\":\"parcel\"}\r\n{\"sentence\":\"pay me back\",\"intent\":\"refund\"}"),
        ("a.json", b" [ {\"text\": \"track it\", \"label\": \"parcel\"},\n{\"text\":\"where, \\\"now\\\"\",\"label\":\"parcel\"} ,{\"text\":\"pay me back\",\"label\":\"refund\"}]\n"),
        ("a.csv", b"id,text,category\n1,track it,parcel\n2,\"where, \"\"now\"\"\",parcel\n3,pay me back,refund\n"),
        ("excel.csv", b"\xEF\xBB\xBFtext;label\r\ntrack it;parcel\r\n\"where, \"\"now\"\"\";parcel\r\npay me back;refund\r\n"),
        ("bar.csv", b"Text|Class\ntrack it|parcel\nwhere, \"now\"|parcel\npay me back|refund\n"),
        ("glue.tsv", b"sentence\tlabel\ntrack it\tparcel\nwhere, \"now\"\tparcel\npay me back\trefund\n"),
        ("spark.csv", b"text,label\ntrack it,parcel\n\"where, \\\"now\\\"\",parcel\npay me back,refund\n"),
        ("a.train", b"__label__parcel track it\n__label__parcel where, \"now\"\n__label__refund pay me back\n"),
        ("ft.txt", b"__label__parcel track it\n__label__parcel where, \"now\"\n__label__refund pay me back\n"),
    ];
    for (name, bytes) in files {
        let data = read(name, bytes);
        assert_eq!(rows(&data), wanted, "{name}");
        assert_eq!(data.names, ["parcel", "refund"], "{name}");
        let (_dir, path) = written(name, bytes);
        let alone: Vec<String> =
            texts(&path, &ReadOptions::default()).unwrap().map(|text| text.unwrap().text).collect();
        assert_eq!(alone, data.texts, "{name}");
    }
}

#[test]
fn a_folder_of_texts_per_class_is_a_data_set() {
    let dir = tempfile::tempdir().unwrap();
    for (class, file, text) in [("pos", "2.txt", "fine\n"), ("pos", "10.txt", "good"), ("neg", "1.txt", "two\nlines")] {
        fs::create_dir_all(dir.path().join(class)).unwrap();
        fs::write(dir.path().join(class).join(file), text).unwrap();
    }
    let data = Dataset::read(dir.path(), &ReadOptions::default(), None).unwrap();
    assert_eq!(rows(&data), [("two\nlines", "neg"), ("good", "pos"), ("fine", "pos")]);
    fs::write(dir.path().join("pos/2.txt"), "other").unwrap();
    assert_ne!(Dataset::read(dir.path(), &ReadOptions::default(), None).unwrap().sha256, data.sha256);
    let empty = tempfile::tempdir().unwrap();
    let error = Dataset::read(empty.path(), &ReadOptions::default(), None).unwrap_err().to_string();
    assert!(error.contains("no folder of texts per class"), "{error}");
}

#[test]
fn options_name_what_cannot_be_found_out() {
    let (_dir, path) = written("d.data", b"title,body,kind,id\nHello,world,a,1\n,alone,b,2\n");
    let options = ReadOptions {
        format: Some(Format::Csv),
        text_fields: vec!["title".into(), "body".into()],
        ..ReadOptions::labelled("kind")
    };
    let data = Dataset::read(&path, &options, None).unwrap();
    assert_eq!(rows(&data), [("Hello world", "a"), ("alone", "b")]);
    assert_eq!((data.label_field.as_str(), data.read.text_fields.len()), ("kind", 2));
    assert!(data.notes.iter().any(|note| note.contains("\"title\" and \"body\"")), "{:?}", data.notes);
    let (_dir, path) = written("d.csv", b"text,label\na,x\nb,\nc, y\n");
    let data = Dataset::read(&path, &ReadOptions { skip_unlabelled: true, ..ReadOptions::default() }, None).unwrap();
    assert_eq!(rows(&data), [("a", "x"), ("c", "y")]);
    assert!(data.notes.iter().any(|note| note.starts_with("1 row without a label")), "{:?}", data.notes);
    assert!(data.notes.iter().any(|note| note.starts_with("1 label had outer white space")), "{:?}", data.notes);
    let (_dir, path) = written("d.csv", b"text,label\n\"a\" b,x\n");
    let read = |quoting| {
        Dataset::read(&path, &ReadOptions { quoting, ..ReadOptions::default() }, None).map(|data| data.texts[0].clone())
    };
    assert_eq!(read(None).unwrap(), "\"a\" b");
    assert_eq!(read(Some(Quoting::None)).unwrap(), "\"a\" b");
    assert!(read(Some(Quoting::Double)).unwrap_err().to_string().contains("row 2: a quotation mark within"));
}

#[test]
fn no_class_is_made_up_and_none_is_merged() {
    let names = |bytes: &str| read("d.csv", format!("text,label\n{bytes}").as_bytes()).names;
    assert_eq!(names("a,0101\nb,0102\nc,101\n"), ["0101", "101", "0102"]);
    assert_eq!(names("a,4040\nb,1010\nc,500\n"), ["500", "1010", "4040"]);
    assert_eq!(names("a, x\nb,x \nc,y\n"), ["x", "y"]);
    let data = read(
        "d.jsonl",
        b"{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"label\":\"other\"}\n{\"text\":\"c\",\"label\":\"login\"}",
    );
    assert_eq!(rows(&data), [("a", "0"), ("b", "other"), ("c", "login")]);
}

#[test]
fn rows_of_several_labels_come_from_every_format() {
    let read = |name: &str, bytes: &[u8], options: &ReadOptions| {
        let (_dir, path) = written(name, bytes);
        let data = Dataset::read(&path, options, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let names = |set: &[usize]| set.iter().map(|&label| data.names[label].as_str()).collect::<Vec<_>>().join("+");
        assert_eq!(data.read.per_text, PerText::Any, "{name}");
        assert!(data.notes.iter().any(|note| note == "any number of labels per text"), "{:?}", data.notes);
        let again = data.json_lines(&[0, 1, 2]);
        (
            data.texts
                .iter()
                .map(String::as_str)
                .zip(data.labels.iter().map(names))
                .map(|(t, l)| format!("{t}:{l}"))
                .collect::<Vec<_>>(),
            again,
        )
    };
    let wanted = ["send it back:parcel+refund", "locked out:login", "x:"];
    let (free, comma) =
        (ReadOptions::default(), ReadOptions { label_separator: Some(",".into()), ..ReadOptions::default() });
    let jsonl = b"{\"text\":\"send it back\",\"label\":[\"refund\",\"parcel\"]}\n{\"text\":\"locked out\",\"label\":\"login\"}\n{\"text\":\"x\",\"label\":[]}\n";
    let (rows, again) = read("a.jsonl", jsonl, &free);
    assert_eq!(rows, wanted);
    assert_eq!(read("b.jsonl", again.as_bytes(), &free), (rows, again));
    assert_eq!(read("a.csv", b"text,label\nsend it back,\"refund, parcel\"\nlocked out,login\nx,\n", &comma).0, wanted);
    let (rows, _) = read("a.txt", b"__label__parcel __label__refund send it back\n__label__login locked out\n", &free);
    assert_eq!(rows, wanted[..2]);
    // Where each row has one, an option says that there might be more.
    let any = ReadOptions { per_text: PerText::Any, ..ReadOptions::default() };
    assert_eq!(read("c.jsonl", b"{\"text\":\"locked out\",\"label\":\"login\"}\n", &any).0, wanted[1..2]);
    let (_dir, path) = written("d.jsonl", jsonl);
    let one = ReadOptions { per_text: PerText::One, ..ReadOptions::default() };
    let error = Dataset::read(&path, &one, None).unwrap_err().to_string();
    assert!(error.contains("row 1: it has 2 labels; the model gives one per text"), "{error}");
    let known = ["login", "parcel"].map(String::from);
    let error = Dataset::read(&path, &free, Some(&known)).unwrap_err().to_string();
    assert!(error.contains("row 1: label \"refund\" is none of the 2 classes"), "{error}");
    // Without several labels anywhere, an empty list is a missing one.
    let (_dir, path) = written("e.jsonl", b"{\"text\":\"a\",\"label\":[\"x\"]}\n{\"text\":\"b\",\"label\":[]}\n");
    assert!(Dataset::read(&path, &free, None).unwrap_err().to_string().contains("row 2: it has no label"));
    let skip = ReadOptions { skip_unlabelled: true, ..ReadOptions::default() };
    let data = Dataset::read(&path, &skip, None).unwrap();
    assert_eq!((data.texts.as_slice(), data.labels), (&["a".to_string()][..], Labels::One(vec![0])));
}

#[cfg(feature = "formats")]
mod with_formats {
    use super::*;

    #[test]
    fn every_compression_is_read_whatever_the_name() {
        let csv = b"text,label\na,x\nb,y\n";
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(csv).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(csv).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(csv).unwrap();
        let packed = [
            (".bz2", bzip2.finish().unwrap()),
            (".xz", xz.finish().unwrap()),
            (".gz", gzip.finish().unwrap()),
            (".zst", zstd::encode_all(&csv[..], 1).unwrap()),
        ];
        for (ending, bytes) in packed {
            for name in [format!("a.csv{ending}"), "a.csv".to_string()] {
                // Two streams in one file are one content.
                let twice = [&bytes[..], &bytes].concat();
                assert_eq!(rows(&read(&name, &bytes)), [("a", "x"), ("b", "y")], "{name}");
                assert_eq!(read(&name, &twice).texts, ["a", "b", "text", "a", "b"], "{name}");
            }
        }
    }

    #[test]
    fn a_parquet_file_has_text_labels_and_the_names_of_hugging_face() {
        use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
        use ::parquet::file::metadata::KeyValue;
        use ::parquet::file::properties::WriterProperties;
        use ::parquet::file::writer::SerializedFileWriter;
        use ::parquet::schema::parser::parse_message_type;

        let file = |described: bool| {
            let schema = "message m { optional binary text (UTF8); required int64 label; required int96 odd; }";
            let schema = std::sync::Arc::new(parse_message_type(schema).unwrap());
            let info = r#"{"info":{"features":{"label":{"names":["neg","pos"],"_type":"ClassLabel"}}}}"#;
            let metadata = described.then(|| vec![KeyValue::new("huggingface".to_string(), info.to_string())]);
            let properties = WriterProperties::builder().set_key_value_metadata(metadata).build();
            let mut bytes = Vec::new();
            let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties.into()).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = ["good", "bad", "fine"].map(ByteArray::from).into();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&[1, 1, 1]), None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[1, 0, 1], None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let odd = [::parquet::data_type::Int96::new(); 3];
            column.typed::<::parquet::data_type::Int96Type>().write_batch(&odd, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            writer.close().unwrap();
            bytes
        };
        let data = read("a.parquet", &file(true));
        assert_eq!(rows(&data), [("good", "pos"), ("bad", "neg"), ("fine", "pos")]);
        assert_eq!(read("a.bin", &file(false)).names, ["0", "1"]);
        let bytes = file(true);
        for end in (8..bytes.len()).step_by(7) {
            let (_dir, path) = written("a.parquet", &bytes[..end]);
            assert!(Dataset::read(&path, &ReadOptions::default(), None).is_err(), "cut at {end}");
        }
    }
}
