//! Tests bundles through the program: preferred over ONNX, rejected when damaged, streamed.

mod fixture;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use fixture::{Folder, program, refuses, run, run_with};
use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, Bundle, Crc32c, Kind};
use serde_json::{Value, json};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn object(out: &str) -> Value {
    serde_json::from_str(out.trim_end()).expect("one JSON object")
}

/// Returns a folder with both models, and the bundle's path.
fn folder() -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    let path = folder.write("model.kinglet", fixture::bundle());
    (folder, path)
}

/// Returns the range of a section in the bundle.
fn section(bytes: &[u8], kind: Kind) -> std::ops::Range<usize> {
    let buffer = Buffer::new(bytes);
    let bundle = Bundle::new(buffer.as_slice()).expect("the bundle is good");
    let section = bundle.sections().find(|s| s.kind == kind).expect("the section is there");
    section.offset..section.offset + section.bytes
}

/// Corrects the checksum of the header and the table.
fn seal(bytes: &mut [u8]) {
    let count = bytes[12] as usize;
    let crc = Crc32c::new().update(&bytes[..60]).update(&bytes[64..64 + count * 32]).finish();
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_directory_gives_its_bundle_and_the_native_engine() {
    let (folder, path) = folder();
    let out = object(&run(&["info", "--json", text(folder.path())]).answers());
    assert_eq!((&out["model"], &out["precision"]), (&json!(text(&path)), &json!("int8")));
    assert!(out["engine"].as_str().unwrap().starts_with("native, "), "{out}");
    for (words, label) in [("a cat", "animal"), ("cars", "machine"), ("train", "machine"), ("dog dog", "animal")] {
        let bundle = run(&["classify", "--model", text(folder.path()), words]).answers();
        assert!(bundle.starts_with(label), "{words}: {bundle}");
        // The first bytes decide, whatever the file is called.
        let renamed = folder.write("renamed.bin", fixture::bundle());
        assert_eq!(run(&["classify", "--model", text(&renamed), words]).answers(), bundle);
    }
}

#[test]
fn eval_reads_bundles() {
    let (folder, path) = folder();
    let data = folder.write("d.csv", "label,text\nanimal,cat\nanimal,car\nmachine,train\n");
    let out = object(&run(&["eval", "--model", text(&path), "--data", text(&data), "--json"]).answers());
    let pair = |label, predicted, rows| json!({"label": label, "predicted": predicted, "rows": rows});
    let pairs = [pair("animal", "animal", 1), pair("animal", "machine", 1), pair("machine", "machine", 1)];
    assert_eq!(out["confusion"], json!(pairs));
}

#[test]
fn info_says_what_is_in_the_file_and_what_memory_it_takes() {
    let (_folder, path) = folder();
    let bytes = fixture::bundle();
    let out = object(&run(&["info", "--json", text(&path)]).answers());
    assert_eq!(out["file_bytes"], bytes.len());
    let kinds: Vec<&str> = out["sections"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["CONF", "TOKN", "LABL", "WGHT"]);
    assert_eq!(out["sections"][3]["bytes"], section(&bytes, Kind::WEIGHTS).len());
    let weights: u64 = out["weight_bytes_by_part"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(weights, section(&bytes, Kind::WEIGHTS).len() as u64);
    let parts: u64 = out["memory_by_part"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(out["memory_bytes"], parts);
    let scratch = out["scratch_bytes"].as_u64().unwrap();
    assert!(scratch < parts && parts < scratch + 4096, "the engine and a word in {} bytes", parts - scratch);
    assert_eq!((&out["receptive_field"], &out["look_ahead"]), (&json!(7), &json!(3)));
    let small = object(&run(&["info", "--json", "--chunk", "4", text(&path)]).answers());
    assert_eq!(small["chunk"], 4);
    assert!(small["scratch_bytes"].as_u64().unwrap() < scratch, "{small}");
    let names: Vec<&str> = Backend::all().map(|k| k.name()).collect();
    assert_eq!(out["backend"], json!(names));
    run(&["info", "--chunk", "0", text(&path)]).fails_with(&["--chunk"]);
    let people = run(&["info", text(&path)]).answers();
    for line in ["engine           native, ", "tokenizer ", "weights: layers", "memory beyond the file"] {
        assert!(people.lines().any(|l| l.starts_with(line)), "{line} in {people}");
    }
}

#[test]
fn backends_are_chosen_by_name_and_give_the_same_answer() {
    let (_folder, path) = folder();
    let named = |variable: &str, backend: &str, arguments: &[&str]| {
        let output = program(arguments).env(variable, backend).output().expect("the program ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let with = |backend: &str, arguments: &[&str]| named("KINGLET_BACKEND", backend, arguments);
    let classify = ["classify", "--json", "--model", text(&path), "the cat and the train"];
    let detected = with("", &classify);
    assert_eq!(detected.0, Some(0), "{detected:?}");
    for backend in Backend::all() {
        assert_eq!(with(backend.name(), &classify), detected, "{}", backend.name());
        let info = with(backend.name(), &["info", text(&path)]).1;
        assert!(info.contains(&format!("native, {}, int8", backend.name())), "{info}");
    }
    for arguments in [&classify[..], &["info", text(&path)]] {
        let (code, out, err) = with("x86-sse9", arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains("KINGLET_BACKEND is `x86-sse9`") && err.contains("scalar"), "{err}");
        let (code, _, err) = named("KINGLET_KERNEL", "x86-sse9", arguments);
        assert!(code == Some(2) && err.contains("KINGLET_KERNEL is `x86-sse9`"), "the former name is read too: {err}");
    }
}

#[test]
fn damaged_bundles_are_refused_by_every_command() {
    let (folder, _) = folder();
    let good = fixture::bundle();
    let weights = section(&good, Kind::WEIGHTS);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        folder.write("damaged.kinglet", bytes)
    };
    for cut in [0, 7, 63, 64, 300, good.len() / 2, good.len() - 1] {
        let words: &[&str] = if cut < 8 { &["not a Kinglet bundle"] } else { &["incomplete or damaged"] };
        refuses(&changed(&|b| b.truncate(cut)), &[words, &["damaged.kinglet"]].concat());
    }
    refuses(&changed(&|b| b.push(0)), &["damaged.kinglet", "incomplete or damaged"]);
    refuses(&changed(&|b| b[weights.start + 5] ^= 1), &["section WGHT is damaged", "checksum"]);
    refuses(&changed(&|b| b[section(&good, Kind::TOKENIZER).start + 30] ^= 1), &["section TOKN is damaged"]);
    refuses(&changed(&|b| b[70] ^= 4), &["the header is damaged"]);
    refuses(&changed(&|b| b[8] = 2), &["format version 2", "reads version 1", "newer Kinglet"]);
    let unknown = changed(&|b| {
        b[64..68].copy_from_slice(b"WHAT");
        seal(b);
    });
    refuses(&unknown, &["the required section WHAT", "newer Kinglet"]);
    let lie = changed(&|b| {
        b[64 + 32 + 8] ^= 0x40;
        seal(b);
    });
    refuses(&lie, &["section TOKN starts at byte"]);
    refuses(&folder.write("other.kinglet", b"{\"label\": 1}\n"), &["not a Kinglet bundle"]);
    refuses(&folder.write("empty.kinglet", b""), &["not a Kinglet bundle"]);
    refuses(
        &folder.write("onnx.kinglet", std::fs::read(folder.path().join("model.onnx")).unwrap()),
        &["not a Kinglet"],
    );
}

#[test]
fn without_verification_only_the_checksums_are_left_out() {
    let (folder, _) = folder();
    let good = fixture::bundle();
    let weights = section(&good, Kind::WEIGHTS);
    let mut bytes = good.clone();
    bytes[weights.start + 300] ^= 1;
    let path = folder.write("damaged.kinglet", &bytes);
    run(&["classify", "--model", text(&path), "cat"]).fails_with(&["section WGHT is damaged"]);
    assert!(run(&["classify", "--no-verify", "--model", text(&path), "cat"]).answers().starts_with("animal"));
    run(&["info", "--no-verify", text(&path)]).answers();
    let cut = folder.write("cut.kinglet", &good[..good.len() - 64]);
    run(&["classify", "--no-verify", "--model", text(&cut), "cat"]).fails_with(&["incomplete or damaged"]);
}

/// Returns the lines of `--stream`, split into columns.
fn lines(out: &str) -> Vec<Vec<&str>> {
    out.lines().map(|line| line.split('\t').collect()).collect()
}

#[test]
fn a_stream_tells_the_label_when_it_changes_and_ends_with_that_of_the_whole() {
    let (folder, path) = folder();
    let document = format!("{}{}", "cat ".repeat(50), "train ".repeat(200));
    let file = folder.write("document.txt", &document);
    let model = text(&path);
    let whole = run(&["classify", "--model", model, "--whole", "--file", text(&file)]).answers();
    let stream = run(&["classify", "--model", model, "--stream", "--every", "100", "--file", text(&file)]).answers();
    let got = lines(&stream);
    let (last, running) = got.split_last().unwrap();
    assert_eq!(last[0], document.len().to_string());
    assert_eq!(last[3], "final");
    assert_eq!(whole.split_whitespace().collect::<Vec<_>>(), last[1..3]);
    // One line per 100 bytes, first of cats, then of trains.
    assert_eq!(running.len(), document.len() / 100, "{stream}");
    assert!(running.iter().all(|line| line[3] == "running"));
    assert_eq!((running[0][0], running[0][1]), ("100", "animal"));
    assert_eq!(running.last().unwrap()[1], "machine");
    // Without `--every`, one line per change; input from a pipe is the same text.
    let piped = run_with(&["classify", "--model", model, "--stream", "-"], document.as_bytes()).answers();
    let piped = lines(&piped);
    assert_eq!(piped.last().unwrap(), last);
    assert!(piped.len() <= 3, "{piped:?}");
}

#[test]
fn a_stream_in_json_has_bytes_tokens_and_labels() {
    let (_folder, path) = folder();
    let arguments = ["classify", "--model", text(&path), "--stream", "--json", "--top", "2", "--every", "40"];
    let document = ["cat"; 20].join(" ");
    let out = run_with(&arguments, format!("\u{FEFF}{document}").as_bytes()).answers();
    let objects: Vec<Value> = out.lines().map(object).collect();
    let last = objects.last().unwrap();
    // Twenty words and the end of text; the byte order mark counts as bytes but not as text.
    assert_eq!((&last["bytes"], &last["tokens"], &last["final"]), (&json!(82), &json!(21), &json!(true)));
    assert_eq!((&last["label"], last["top"].as_array().unwrap().len()), (&json!("animal"), 2));
    assert_eq!((&objects[0]["bytes"], &objects[0]["final"]), (&json!(40), &json!(false)));
    let whole = object(&run(&["classify", "--json", "--model", text(&path), &document]).answers());
    assert_eq!(last["score"], whole["score"]);
    let empty = object(&run_with(&["classify", "--model", text(&path), "--stream", "--json"], b"").answers());
    assert_eq!((&empty["tokens"], &empty["final"]), (&json!(1), &json!(true)));
}

#[test]
fn a_stream_answers_while_its_input_is_still_coming_in_memory_that_does_not_grow() {
    let (_folder, path) = folder();
    let mut child = program(&["classify", "--model", text(&path), "--stream"]).spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("stdin is a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    let mut next = |text: &[u8]| {
        input.write_all(text).unwrap();
        input.flush().unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert!(next("cat ".repeat(20).as_bytes()).starts_with("80\tanimal\t"));
    assert!(next("train ".repeat(200_000).as_bytes()).contains("\tmachine\t"));
    let before = peak(child.id());
    assert!(next("cat ".repeat(2_000_000).as_bytes()).contains("\tanimal\t"));
    let after = peak(child.id());
    drop(input);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    assert!(rest.lines().last().unwrap().starts_with("9200080\tanimal\t"), "{rest}");
    assert!(child.wait().unwrap().success());
    if let (Some(before), Some(after)) = (before, after) {
        assert!(after <= before + 256, "{before} KiB, {after} KiB after seven times the text");
    }
}

/// Returns the peak memory of a process in KiB, if the system reports it.
fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

#[test]
fn what_cannot_be_streamed_is_said() {
    let (folder, path) = folder();
    let onnx = folder.path().join("model.onnx");
    run(&["classify", "--model", text(&onnx), "--stream"]).fails_with(&["--stream needs a .kinglet file"]);
    for arguments in [&["--stream", "a text"][..], &["--stream", "--truncate", "5"], &["--every", "5", "cat"]] {
        let run = run(&[&["classify", "--model", text(&path)], arguments].concat());
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.err.contains("--stream"), "{run:?}");
    }
    let packed = folder.write("rows.jsonl", "{\"text\": \"cat\"}\n");
    let run = run(&["classify", "--model", text(&path), "--stream", "--file", text(&packed)]);
    run.fails_with(&["--stream reads plain text"]);
}
