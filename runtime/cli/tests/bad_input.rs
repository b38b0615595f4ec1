//! Bad input produces a clear error or a correct answer, never a panic: each case runs the program.

mod fixture;

use fixture::{Folder, refuses, run, run_with};
use kinglet::spec::metadata;
use kinglet_onnx::onnx;
use prost::Message;

/// Returns the model with one metadata value changed, and the hashes that belong to it.
fn with_metadata(key: &str, value: &str) -> Vec<u8> {
    let mut model = fixture::model();
    model.metadata_props.iter_mut().find(|entry| entry.key == key).expect("the key is there").value = value.into();
    fixture::forged(model)
}

#[test]
fn a_model_that_is_not_there() {
    let folder = Folder::new();
    refuses(&folder.path().join("no.onnx"), &["cannot read", "no.onnx"]);
}

#[test]
fn a_directory_without_a_model() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path().join("model.onnx")).unwrap();
    refuses(folder.path(), &["none of model.kinglet, model.int8.onnx and model.onnx", "kinglet-export"]);
}

#[test]
fn an_empty_file() {
    let folder = Folder::new();
    refuses(&folder.write("m.onnx", ""), &["m.onnx", "empty"]);
}

#[test]
fn random_bytes() {
    let folder = Folder::new();
    // A linear congruential generator: the same bytes on every machine.
    let mut state = 7_u64;
    for case in 0..8 {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..10 + 500 * case).map(|_| next()).collect();
        refuses(&folder.write("m.onnx", bytes), &["m.onnx", "ONNX"]);
    }
}

#[test]
fn a_model_cut_short_anywhere() {
    let folder = Folder::new();
    let whole = fixture::model().encode_to_vec();
    for part in [1, 2, 10, whole.len() / 4, whole.len() / 2, whole.len() - 200, whole.len() - 1] {
        let run = run(&["classify", "--model", folder.write("m.onnx", &whole[..part]).to_str().unwrap(), "cat"]);
        run.fails_with(&["m.onnx"]);
    }
}

#[test]
fn a_graph_that_was_changed_after_export() {
    let folder = Folder::new();
    let mut model = fixture::model();
    model.graph.as_mut().unwrap().initializer[1].raw_data[0] ^= 1;
    refuses(&folder.write("m.onnx", model.encode_to_vec()), &["m.onnx", "graph"]);
}

/// Labels, tokenizer, calibration, precision: what is outside the graph changes answers, too.
#[test]
fn metadata_that_were_changed_after_export() {
    let folder = Folder::new();
    let mut model = fixture::model();
    model
        .metadata_props
        .push(onnx::StringStringEntryProto { key: metadata::CALIBRATION.into(), value: fixture::CALIBRATION.into() });
    let whole = fixture::forged(model);
    for key in [metadata::LABELS, metadata::TOKENIZER, metadata::CALIBRATION, metadata::PRECISION] {
        let mut model = onnx::ModelProto::decode(whole.as_slice()).unwrap();
        let entry = model.metadata_props.iter_mut().find(|entry| entry.key == key).unwrap();
        let last = entry.value.pop().unwrap();
        entry.value.push(if last == '0' { '1' } else { '0' });
        refuses(&folder.write("m.onnx", model.encode_to_vec()), &["m.onnx", "damaged or was changed after export"]);
    }
    let mut old = fixture::model();
    old.metadata_props.retain(|entry| entry.key != metadata::SHA256);
    refuses(&folder.write("m.onnx", old.encode_to_vec()), &["kinglet.sha256", "export the model again"]);
}

#[test]
fn labels_that_could_pass_for_another_answer() {
    let folder = Folder::new();
    for (labels, says) in [
        (r#"["animal","machine\nanimal  0.9999"]"#, "class 1 has a control character"),
        (r#"["animal","animal"]"#, "classes 0 and 1 have the same name"),
        (r#"["","machine"]"#, "class 0 is empty"),
    ] {
        refuses(&folder.write("m.onnx", with_metadata(metadata::LABELS, labels)), &["kinglet.labels", says]);
    }
}

#[test]
fn a_model_with_bytes_flipped_answers_or_says_why_not() {
    let folder = Folder::new();
    let whole = fixture::model().encode_to_vec();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let path = folder.write("m.onnx", bytes);
        let run = run(&["classify", "--model", path.to_str().unwrap(), "cat"]);
        assert!(run.code == Some(0) || (run.code == Some(2) && run.err.starts_with("error: ")), "byte {at}: {run:?}");
    }
}

#[test]
fn an_onnx_file_of_someone_else() {
    let folder = Folder::new();
    let mut model = fixture::model();
    model.metadata_props.clear();
    refuses(&folder.write("m.onnx", model.encode_to_vec()), &["m.onnx", "kinglet-export", metadata::CONFIG]);
    let empty = onnx::ModelProto { ir_version: 8, ..Default::default() };
    refuses(&folder.write("m.onnx", empty.encode_to_vec()), &["m.onnx", "graph"]);
}

#[test]
fn a_graph_that_does_not_fit_its_metadata() {
    let folder = Folder::new();
    let mut model = fixture::model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].op_type = "NoSuchOperator".into();
    refuses(&folder.write("m.onnx", fixture::forged(model)), &["m.onnx", "graph"]);

    let mut model = fixture::model();
    let bias = fixture::tensor(&mut model, "head.bias");
    (bias.dims, bias.raw_data) = (vec![3], vec![0; 12]);
    refuses(&folder.write("m.onnx", fixture::forged(model)), &["m.onnx", "graph"]);

    let mut model = fixture::model();
    let embedding = fixture::tensor(&mut model, "embed.weight");
    (embedding.dims, embedding.raw_data) = (vec![2, 2], vec![0; 16]);
    refuses(&folder.write("m.onnx", fixture::forged(model)), &["m.onnx", "`embed.weight` has 4 values"]);

    // What a reader of `info` would believe: each field of the configuration that no tensor's size tells.
    for (field, changed, words) in [
        ("\"max\"", "\"mean\"", "`ReduceMax`"),
        ("\"post_layer\"", "\"pre_rms\"", "final_norm.weight"),
        ("\"kernel_sizes\":[7]", "\"kernel_sizes\":[5]", "layers.0.mixer.kernel"),
        ("\"kernel_offsets\":[3]", "\"kernel_offsets\":[2]", "`pads`"),
    ] {
        let mut model = fixture::model();
        let config = model.metadata_props.iter_mut().find(|entry| entry.key == metadata::CONFIG).unwrap();
        let text = config.value.replace(field, changed);
        assert_ne!(text, config.value, "{field}");
        config.value = text;
        kinglet_onnx::seal_all(&mut model);
        refuses(&folder.write("m.onnx", model.encode_to_vec()), &["m.onnx", words]);
    }
}

#[test]
fn weights_that_are_not_numbers() {
    let folder = Folder::new();
    let mut model = fixture::model();
    fixture::tensor(&mut model, "head.bias").raw_data = [f32::NAN, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let path = folder.write("m.onnx", fixture::forged(model));
    run(&["classify", "--model", path.to_str().unwrap(), "cat"]).fails_with(&["not a number"]);
}

#[test]
fn metadata_that_is_damaged() {
    let folder = Folder::new();
    let table = fixture::tokenizer();
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let mut wrong = table.clone();
    wrong[700] ^= 0xFF;
    let cases = [
        (metadata::TOKENIZER, "not base64!".to_string()),
        (metadata::TOKENIZER, String::new()),
        (metadata::TOKENIZER, base64(b"not a table")),
        (metadata::TOKENIZER, base64(&table[..table.len() - 1])),
        (metadata::TOKENIZER, base64(&wrong)),
        (metadata::LABELS, "not JSON".to_string()),
        (metadata::LABELS, "[\"only one\"]".to_string()),
        (metadata::CONFIG, "{}".to_string()),
        (metadata::CONFIG_SHA256, "0".repeat(64)),
        (metadata::PRECISION, "fp8".to_string()),
    ];
    for (key, value) in cases {
        refuses(&folder.write("m.onnx", with_metadata(key, &value)), &["m.onnx"]);
    }
}

#[test]
fn a_tokenizer_of_a_larger_vocabulary() {
    let folder = Folder::new();
    let table = fixture::tokenizer();
    let pieces = ["▁", "▁another", "▁longer"].map(str::to_string).into_iter();
    let characters = (b'!'..=b'~').map(|b| char::from(b).to_string());
    let many = (0..100).map(|i| format!("▁word{i}"));
    let mut pieces: Vec<(String, i16)> = pieces.chain(characters).chain(many).map(|piece| (piece, -1024)).collect();
    pieces.sort();
    let other = kinglet::tokenizer::Table::write(&pieces, kinglet::tokenizer::Normalization::default()).unwrap();
    assert!(other.len() > table.len());
    let value = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &other);
    refuses(&folder.write("m.onnx", with_metadata(metadata::TOKENIZER, &value)), &["m.onnx", "tokenizer", "embedding"]);
}

#[test]
fn a_directory_or_nothing_where_text_should_be() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    run(&["classify", "--file", path]).fails_with(&["directory"]);
    run(&["classify", "--file", path, "--whole"]).fails_with(&["directory"]);
    run(&["classify", "--file", "no-such-file.txt"]).fails_with(&["cannot read no-such-file.txt"]);
    run(&["classify", "--file", "no-such-file.jsonl"]).fails_with(&["cannot read no-such-file.jsonl"]);
    let data = folder.write("d.jsonl", "{\"text\":\"cat\"}\n");
    run(&["classify", "--whole", "--file", data.to_str().unwrap()]).fails_with(&["--whole", "plain text"]);
}

#[test]
fn command_lines_that_make_no_sense() {
    for (arguments, word) in [
        (&["classify", "cat", "--top", "0"][..], "--top"),
        (&["classify", "cat", "--top", "-1"], "--top"),
        (&["classify", "cat", "--top", "99999999999999999999"], "--top"),
        (&["classify", "cat", "--truncate", "0"], "--truncate"),
        (&["classify", "cat", "--file", "f"], "--file"),
        (&["classify", "cat", "--whole"], "--whole"),
        (&["eval"], "--data"),
        (&["explian"], "explian"),
        (&["explain"], "TEXT"),
    ] {
        run(arguments).fails_with(&[word, "--help"]);
    }
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_with_one_warning() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let run = run_with(&["classify", "--model", path], b"ok\ncat \xFF\xFE dog\n\xC3\ncar");
    assert_eq!(
        run.err,
        "warning: line 2: invalid UTF-8 was replaced by U+FFFD (shown once)\n\
         note: line 3: empty input; the answer is unsure (shown once)\n"
    );
    assert_eq!(
        run.answers(),
        "machine\t0.6225\tok\nanimal\t0.9707\tcat \u{FFFD}\u{FFFD} dog\nunsure\t0.0000\t\u{FFFD}\nmachine\t0.9890\tcar\n"
    );
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf8_is_replaced_with_a_warning() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let text = std::ffi::OsStr::from_bytes(b"cat \xFF");
    let run = run(&["classify".as_ref(), "--model".as_ref(), folder.path().as_os_str(), text]);
    assert!(run.err.contains("U+FFFD"), "{run:?}");
    assert_eq!(run.answers(), "animal  0.9707\n");
}

#[test]
fn empty_text_is_unsure_and_noted() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    for text in ["", " \u{3000}\t"] {
        let run = run(&["classify", "--model", path, text]);
        assert!(run.err.starts_with("note: ") && run.err.lines().count() == 1, "{run:?}");
        assert_eq!(run.answers(), "unsure  0.0000\n");
    }
    let run = run_with(&["classify", "--model", path, "--whole"], b"");
    assert_eq!(run.answers(), "unsure  0.0000\n");
}

#[test]
fn ten_megabytes_on_one_line() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let huge = "cat car ".repeat(10 << 17);
    let tokens = (2 * (10 << 17) + 1).to_string();
    run_with(&["classify", "--model", path, "--whole"], huge.as_bytes()).fails_with(&[
        &tokens,
        "16384",
        "--truncate 16384",
    ]);

    let lines = format!("dog\n{huge}\ncar\n");
    let run = run_with(&["classify", "--model", path], lines.as_bytes());
    assert_eq!(
        (run.code, run.out.as_str()),
        (Some(1), "animal\t0.9707\tdog\n\t\t\nmachine\t0.9890\tcar\n"),
        "{}",
        run.err
    );
    assert!(
        run.err.contains("error: line 2: ") && run.err.contains("1 of 3 lines could not be classified"),
        "{}",
        run.err
    );

    let run = run_with(&["classify", "--model", path, "--json"], lines.as_bytes());
    assert_eq!(run.code, Some(1));
    let second: serde_json::Value = serde_json::from_str(run.out.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["line"], 2);
    assert!(second["error"].as_str().unwrap().contains(&tokens), "{second}");

    // ▁cat ▁car ▁cat </s>
    let run = run_with(&["classify", "--model", path, "--whole", "--truncate", "4"], huge.as_bytes());
    assert_eq!(run.answers(), "machine  0.6225\n");
}

#[test]
fn no_spaces_for_ten_megabytes() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let huge = "x".repeat(10 << 20);
    run_with(&["classify", "--model", path, "--whole"], huge.as_bytes()).fails_with(&["--truncate"]);
    let run = run_with(&["classify", "--model", path, "--whole", "--truncate", "100"], huge.as_bytes());
    assert_eq!(run.answers(), "machine  0.6225\n");
}

#[test]
fn data_that_cannot_be_evaluated() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    let good = "{\"text\":\"cat\",\"label\":\"animal\"}\n";
    let cases: [(&str, String, &[&str]); 8] = [
        ("d.jsonl", format!("{good}{{\"text\":\"car\",\"label\":\"plant\"}}\n"), &["row 2", "plant"]),
        ("d.jsonl", format!("{good}{{\"text\":\"car\",\"label\":2}}\n"), &["row 2", "2"]),
        ("d.jsonl", format!("{good}\n{{\"text\":\"car\"\n"), &["row 3", "JSON"]),
        ("d.jsonl", format!("{good}{{\"text\":\"car\"}}\n"), &["row 2", "label", "--label-field"]),
        ("d.jsonl", format!("{good}{{\"label\":1}}\n"), &["row 2", "text"]),
        ("d.csv", "a,b\n1,2\n".to_string(), &["text"]),
        ("d.jsonl", String::new(), &["no rows"]),
        ("d.jsonl.zst", good.to_string(), &["d.jsonl.zst"]),
    ];
    for (name, text, words) in cases {
        let file = folder.write(name, text);
        let run = run(&["eval", "--model", path, "--data", file.to_str().unwrap()]);
        run.fails_with(&[&[name], words].concat());
    }
    run(&["eval", "--model", path, "--data", "no-such.jsonl"]).fails_with(&["cannot read no-such.jsonl"]);
    let long =
        folder.write("long.jsonl", format!("{good}{{\"text\":\"{}\",\"label\":\"machine\"}}", "car ".repeat(20_000)));
    run(&["eval", "--model", path, "--data", long.to_str().unwrap()]).fails_with(&[
        "long.jsonl, text 2",
        "20001 tokens",
        "--truncate 16384",
    ]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_not_ignored() {
    let folder = Folder::new();
    let mut command = fixture::program(&["classify", "--model", folder.path().to_str().unwrap(), "cat"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdin(std::process::Stdio::null()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with(b"error: cannot write to stdout: "), "{output:?}");
}
