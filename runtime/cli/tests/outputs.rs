//! Tests files that commands write, answers on several threads, and explanations.

mod fixture;

use std::fs;
use std::path::Path;

use fixture::{Folder, run, run_with};
use serde_json::{Value, json};

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}

/// A folder with the bundle, and its path.
fn folder() -> (Folder, String) {
    let folder = Folder::new();
    let path = text(&folder.write("model.kinglet", fixture::bundle())).to_string();
    (folder, path)
}

#[test]
fn a_file_is_copied_with_its_labels() {
    let (folder, model) = folder();
    let input = folder.write("in.csv", "id,text,note\n07,\"a cat, here\",x\n08,?!,\n09,the train,\"y \"\"z\"\"\"\n");
    let output = folder.path().join("out.csv");
    let arguments = ["classify", "--model", &model, "--file", text(&input), "--output", text(&output)];
    let done = run(&arguments);
    assert!(done.err.contains("3 rows written to") && done.err.contains("row") && done.out.is_empty(), "{done:?}");
    let written = fs::read_to_string(&output).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines[0], "id,text,note,predicted_label,predicted_score");
    assert!(lines[1].starts_with("07,\"a cat, here\",x,animal,0."), "{written}");
    assert!(lines[2].starts_with("08,?!,,,0."), "a text without a letter has no label: {written}");
    assert!(lines[3].starts_with("09,the train,\"y \"\"z\"\"\",machine,0."), "{written}");
    // What is there is replaced only when asked, and the input never.
    run(&arguments).fails_with(&["out.csv exists", "--force"]);
    assert_eq!(run(&[&arguments[..], &["--force"]].concat()).code, Some(0));
    run(&["classify", "--model", &model, "--file", text(&input), "--output", text(&input), "--force"])
        .fails_with(&["is the file that is read"]);
    // Quotation marks that are read as text are said, and the words keep them.
    let quoted = folder.write("quoted.tsv", "text\tid\n\"late\" cat\t1\n");
    for more in [&[][..], &["--output", text(&folder.path().join("quoted-out.tsv"))]] {
        let done = run(&[&["classify", "--model", &model, "--file", text(&quoted)], more].concat());
        assert!(done.err.contains("quotation marks are read as text") && done.err.contains("--quoting"), "{done:?}");
    }
    // A malformed row leaves nothing behind.
    let broken = folder.write("broken.csv", "id,text\n1,cat\n2,a,b\n");
    let nowhere = folder.path().join("nowhere.csv");
    run(&["classify", "--model", &model, "--file", text(&broken), "--output", text(&nowhere)])
        .fails_with(&["row 3", "3 fields"]);
    assert!(!nowhere.exists());
}

#[test]
fn objects_stay_as_they_are_written() {
    let (folder, model) = folder();
    let input = folder.write("in.jsonl", "{\"z\": 1.50, \"text\": \"cat\", \"a\": [1]}\n{\"text\": \"\"}\n");
    let output = folder.path().join("out.jsonl");
    assert_eq!(run(&["classify", "--model", &model, "--file", text(&input), "--output", text(&output)]).code, Some(0));
    let written = fs::read_to_string(&output).unwrap();
    assert!(
        written.starts_with("{\"z\": 1.50, \"text\": \"cat\", \"a\": [1], \"predicted_label\": \"animal\", "),
        "{written}"
    );
    let rows: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[1]["predicted_label"], Value::Null);
    run(&["classify", "--model", &model, "--file", text(&input), "--output", "o.csv"]).fails_with(&[".jsonl"]);
    run(&["classify", "--model", &model, "--output", "o.csv", "cat"]).fails_with(&["--file"]);
}

#[test]
fn threads_change_nothing() {
    let (folder, model) = folder();
    let words = ["cat", "dog", "a car", "train", "nothing", ""];
    let rows: String = (0..3000).map(|i| format!("{} {}\n", words[i % 6], words[(i / 6) % 6])).collect();
    let input = folder.write("in.txt", &rows);
    let answers =
        |threads: &str| run(&["classify", "--model", &model, "--file", text(&input), "--threads", threads]).answers();
    let one = answers("1");
    assert_eq!(one.lines().count(), 3000);
    assert!(one.lines().zip(rows.lines()).all(|(answer, row)| answer.ends_with(&format!("\t{row}"))));
    assert_eq!(answers("3"), one);
    let data: String =
        (0..900).map(|i| format!("{}\n", json!({"text": words[i % 4], "label": fixture::LABELS[i % 2]}))).collect();
    let data = folder.write("d.jsonl", data);
    let eval = |threads: &str| {
        let out = run(&["eval", "--json", "--model", &model, "--data", text(&data), "--threads", threads]).answers();
        let mut object: Value = serde_json::from_str(&out).unwrap();
        object["rows_per_second"] = Value::Null;
        object
    };
    assert_eq!(eval("1"), eval("4"));
}

#[test]
fn eval_writes_classes_and_errors() {
    let (folder, model) = folder();
    // animal: two correct, one as machine; machine: one correct.
    let data = folder.write("d.csv", "label,text\nanimal,cat\nanimal,dog\nanimal,a car\nmachine,train\n");
    let [report, errors] = ["report.csv", "errors.jsonl"].map(|name| folder.path().join(name));
    let arguments =
        ["eval", "--model", &model, "--data", text(&data), "--report", text(&report), "--errors", text(&errors)];
    run(&arguments).answers();
    assert_eq!(
        fs::read_to_string(&report).unwrap(),
        "label,precision,recall,f1,rows,predicted\nanimal,1.0,0.6666666666666666,0.8,3,2\nmachine,0.5,1.0,0.6666666666666666,1,2\n"
    );
    let wrong: Value = serde_json::from_str(fs::read_to_string(&errors).unwrap().trim_end()).unwrap();
    assert_eq!(
        (&wrong["row"], &wrong["text"], &wrong["label"], &wrong["predicted"]),
        (&json!(3), &json!("a car"), &json!("animal"), &json!("machine"))
    );
    run(&arguments).fails_with(&["report.csv exists", "--force"]);
    run(&["eval", "--model", &model, "--data", text(&data), "--report", "r.xlsx"])
        .fails_with(&[".csv, .tsv, .jsonl or .json"]);
}

#[test]
fn a_text_without_a_letter_that_the_model_knows_is_unsure_however_it_comes() {
    let (_folder, model) = folder();
    let unknown = "no letter, digit or symbol that the model knows";
    for (blank, mark, said) in [
        ("", "empty", "empty input"),
        ("?!", "empty", "empty input"),
        ("жук", "unknown", unknown),
        ("甲虫 👍", "unknown", unknown),
    ] {
        let one = run(&["classify", "--model", &model, "--threshold", "0", "--", blank]);
        assert!(one.err.contains(&format!("{said}; the answer is unsure")), "{one:?}");
        assert_eq!(one.answers(), "unsure  0.0000\n");
        let stream = run_with(&["classify", "--model", &model, "--stream", "--json"], blank.as_bytes()).answers();
        for json in [
            run(&["classify", "--model", &model, "--json", "--", blank]).answers(),
            stream.lines().last().unwrap().to_string(),
        ] {
            let object: Value = serde_json::from_str(&json).unwrap();
            let marks: Vec<&str> = ["empty", "unknown"].into_iter().filter(|mark| object[*mark] == true).collect();
            assert_eq!((&object["label"], &marks[..]), (&Value::Null, &[mark][..]), "{blank:?}");
        }
    }
    let known = run(&["classify", "--model", &model, "--json", "--", "жук cat"]).answers();
    assert!(!known.contains("unknown"), "{known}");
    assert_eq!(
        run_with(&["classify", "--model", &model], b"cat\n\n").answers().lines().nth(1),
        Some("unsure\t0.0000\t")
    );
}

#[test]
fn what_is_blank_counts_as_unanswered() {
    let (folder, model) = folder();
    let data = folder.write("d.jsonl", "{\"text\":\"\",\"label\":\"machine\"}\n{\"text\":\"жук\",\"label\":\"animal\"}\n{\"text\":\"cat\",\"label\":\"animal\"}\n");
    let json = run(&["eval", "--model", &model, "--data", text(&data), "--threshold", "0", "--json"]).answers();
    let object: Value = serde_json::from_str(&json).unwrap();
    let confidence = &object["confidence"];
    assert!((confidence["answered"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{confidence}");
    assert_eq!(confidence["accuracy_answered"], json!(1.0));
    let explained: Value =
        serde_json::from_str(&run(&["explain", "--model", &model, "жук", "--json"]).answers()).unwrap();
    assert_eq!(explained["unknown"], json!(true));
}

#[test]
fn a_format_of_stdin_is_refused_rather_than_ignored() {
    let (_folder, model) = folder();
    for arguments in [&["--format", "csv"][..], &["--format", "jsonl", "--file", "-"]] {
        let arguments = [&["classify", "--model", &model], arguments].concat();
        run_with(&arguments, b"text,label\ncat,animal\n").fails_with(&["--format is for the files of --file"]);
    }
    assert_eq!(run_with(&["classify", "--model", &model, "--format", "text"], b"cat\n").code, Some(0));
}

#[test]
fn words_are_worth_what_the_answer_loses_without_them() {
    let (_folder, model) = folder();
    let out = run(&["explain", "--model", &model, "--json", "the  cat"]).answers();
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&object["label"], &object["method"]), (&json!("animal"), &json!("occlusion")));
    let words = object["words"].as_array().unwrap();
    let text: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(text, ["the", "cat"]);
    assert_eq!((&words[1]["start"], &words[1]["end"]), (&json!(5), &json!(8)));
    assert!(words[1]["effect"].as_f64().unwrap() > 0.5, "{out}");
    // Against another label the same word counts the other way.
    let other = run(&["explain", "--model", &model, "--label", "machine", "the  cat"]).answers();
    assert!(other.lines().last().unwrap().starts_with("cat\t-"), "{other}");
    run(&["explain", "--model", &model, "--label", "machin", "cat"])
        .fails_with(&["no label", "did you mean \"machine\"?"]);
}

#[test]
fn what_is_no_model_is_called_what_it_is() {
    let folder = Folder::new();
    let readme = folder.write("README.md", "# A model\n");
    run(&["classify", "--model", text(&readme), "cat"])
        .fails_with(&["README.md is neither a .kinglet nor an .onnx file"]);
    let checkpoint = folder.path().join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    fs::write(checkpoint.join("model.safetensors"), "x").unwrap();
    run(&["classify", "--model", text(&checkpoint), "cat"]).fails_with(&["is a checkpoint", "kinglet-export"]);
    let path = text(folder.path());
    assert_eq!(run(&["info", "--model", path]).answers(), run(&["info", path]).answers());
}
