//! Tests the program's commands with valid and invalid input.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::collections::BTreeMap;
use std::fs;

use fixture::{Task, at_least, at_most, rows, stderr, stdout};
use safetensors::SafeTensors;
use serde_json::Value;

/// Runs `finetune` with more arguments and returns the message of its exit code 2.
fn refused(task: &Task, more: &[&str]) -> String {
    let output = task.finetune("refused", more).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

#[test]
fn a_run_learns_and_leaves_all_its_files() {
    let task = Task::new();
    let said = task.train("run", &["--set", "train.epochs=12"]);
    assert!(said.contains("hidden_size = 16") && said.contains("72 steps"), "{said}");
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer.bin",
        "model.safetensors",
        "labels.json",
        "README.md",
        "golden.safetensors",
        "training.json",
        "config.resolved.toml",
        "metrics.jsonl",
        "environment.json",
        "loss.svg",
        "dev.svg",
        "tensorboard",
        "resume/progress.json",
    ] {
        assert!(task.path("run").join(file).exists(), "{file}");
    }
    let training: Value = serde_json::from_slice(&task.bytes("run", "training.json")).unwrap();
    assert_eq!((&training["train"]["rows"], &training["dev"]["rows"]), (&96.into(), &30.into()));
    assert_eq!(training["train"]["file"], "train.jsonl");
    assert_eq!(training["train"]["sha256"].as_str().unwrap().len(), 64);
    let accuracy = training["best"]["accuracy"].as_f64().unwrap();
    at_least(0.9, accuracy, "accuracy");
    let card = String::from_utf8(task.bytes("run", "README.md")).unwrap();
    assert!(card.contains(&format!("| accuracy | {accuracy:.4} |")), "{card}");

    let output = task.run(&["eval", "--checkpoint", "run", "--data", "dev.jsonl", "--device", "cpu", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let scores: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(scores["rows"], 30);
    assert_eq!(scores["accuracy"].as_f64(), Some(accuracy));
    assert!(scores["binary_f1"].is_f64() && scores["macro_f1"].is_f64());

    let events = fs::read_dir(task.path("run/tensorboard")).unwrap().next().unwrap().unwrap();
    let reader = tboard::SummaryReader::new(fs::File::open(events.path()).unwrap());
    assert!(reader.map(Result::unwrap).count() > 20);
}

#[test]
fn training_starts_from_a_checkpoint() {
    let task = Task::new();
    task.train("first", &[]);
    let base =
        ["finetune", "--config", "second.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--from", "first"];
    let more = ["--out", "second", "--device", "cpu", "--threads", "1"];
    fs::write(task.path("second.toml"), "[train]\nepochs = 1\nlr = 1e-9\n").unwrap();
    let output = task.run(&[&base[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let best = |out: &str| -> f64 {
        let training: Value = serde_json::from_slice(&task.bytes(out, "training.json")).unwrap();
        training["best"]["accuracy"].as_f64().unwrap()
    };
    assert_eq!(best("second"), best("first"));

    // Other labels: the encoder is kept, the head is new.
    let three = rows(96, 1).replacen("\"animal\"", "\"third\"", 5);
    fs::write(task.path("train.jsonl"), three).unwrap();
    let output = task.run(&[&base[..], &["--out", "third", "--device", "cpu", "--threads", "1"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let labels: Vec<String> = serde_json::from_slice(&task.bytes("third", "labels.json")).unwrap();
    assert_eq!(labels.len(), 3);
}

#[test]
fn every_mixer_optimizer_and_schedule_trains() {
    let task = Task::new();
    for (mixer, norm, optimizer, schedule) in [
        ("light", "pre_rms", "adafactor", "constant"),
        ("dynamic", "post_layer", "adafactor", "inverse_square_root"),
        ("dilated", "post_layer", "adamw", "cosine"),
        ("attention", "pre_rms", "adamw", "linear"),
    ] {
        let sets = [
            format!("model.mixer={mixer}"),
            format!("model.norm={norm}"),
            "model.num_attention_heads=2".to_owned(),
            format!("train.optimizer={optimizer}"),
            format!("train.schedule={schedule}"),
            format!("train.bf16={}", mixer == "dilated"),
            "train.epochs=12".to_owned(),
            "train.lr=0.05".to_owned(),
        ];
        let more: Vec<&str> = sets.iter().flat_map(|s| ["--set", s.as_str()]).collect();
        task.train(mixer, &more);
        let rows = task.metrics(mixer);
        let losses: Vec<f64> = rows.iter().filter(|r| r["kind"] == "dev").filter_map(|r| r["loss"].as_f64()).collect();
        assert!(losses.len() >= 4, "{mixer}: {losses:?}");
        let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
        at_most(0.6, best / losses[0], &format!("loss of {mixer} against the first"));
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let task = Task::new();
    let text = fs::read_to_string(task.path("config.toml")).unwrap();
    fs::write(task.path("config.toml"), text + "learning_rate = 0.1\n").unwrap();
    let said = refused(&task, &[]);
    assert!(said.contains("learning_rate") && said.contains("config.toml") && said.contains("line"), "{said}");
    assert!(!task.path("refused").exists());
}

#[test]
fn bad_overrides_are_refused() {
    let task = Task::new();
    assert!(refused(&task, &["--set", "train.nothing=1"]).contains("nothing"));
    assert!(refused(&task, &["--set", "train.dropout=1.5"]).contains("train.dropout is 1.5"));
    assert!(refused(&task, &["--set", "model.kernel_heads=3"]).contains("kernel_heads is 3"));
    assert!(refused(&task, &["--set", "train.class_weights=[1, 2, 3]"]).contains("3 values"));
    assert!(refused(&task, &["--max-minutes", "-1"]).contains("-1"));
    let output = task.run(&["eval", "--checkpoint", "x", "--data", "dev.jsonl", "--device", "gpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cuda:N"), "{}", stderr(&output));
}

#[test]
fn without_a_tokenizer_the_command_to_learn_one_is_shown() {
    let task = Task::new();
    let more = ["finetune", "--config", "config.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--out", "run"];
    let output = task.run(&more);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    let command =
        said.lines().find(|l| l.trim().starts_with("kinglet-train tokenizer")).unwrap_or_else(|| panic!("{said}"));
    // The suggested command works unchanged.
    let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--vocab-size", "380"]).collect();
    let output = task.run(&words);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(task.path("run-tokenizer/tokenizer.bin").exists());
}

#[test]
fn bad_data_files_are_refused() {
    let task = Task::new();
    let good = fs::read(task.path("train.jsonl")).unwrap();
    for (file, bytes, expect) in [
        ("train.jsonl", Some(""), "train.jsonl"),
        ("train.jsonl", Some("{\"text\": \"no label\"}\n"), "row 1"),
        ("train.jsonl", Some("{\"text\": \"all the same\", \"label\": \"one\"}\n"), "needs at least 2"),
        ("train.jsonl", None, "train.jsonl"),
        ("dev.jsonl", Some("{\"text\": \"a\", \"label\": \"mineral\"}\n"), "mineral"),
        ("dev.jsonl", Some(""), "dev.jsonl"),
    ] {
        let path = task.path(file);
        let before = fs::read(&path).unwrap_or_else(|_| good.clone());
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let said = refused(&task, &[]);
        assert!(said.contains(expect), "{file} {bytes:?}: {said}");
        fs::write(&path, before).unwrap();
    }
    assert!(refused(&task, &["--label-field", "topic"]).contains("topic"));
}

#[test]
fn a_loss_that_is_not_finite_stops_training_with_advice() {
    let task = Task::new();
    let said =
        refused(&task, &["--set", "train.lr=1e30", "--set", "train.clip_norm=0", "--set", "train.warmup_steps=0"]);
    assert!(said.contains("lower train.lr") && said.contains("; no state was saved before"), "{said}");
}

#[test]
fn a_loss_that_is_not_finite_after_a_saved_state_leaves_that() {
    let task = Task::new();
    // The state is saved at every step; the rate rises until the weights are lost.
    let more = [
        "train.lr=1e30",
        "train.clip_norm=0",
        "train.warmup_steps=1000000000",
        "train.schedule=constant",
        "train.epochs=60",
    ];
    let more = more.iter().chain(&["train.optimizer=adamw", "train.save_minutes=0.0000001"]);
    let said = refused(&task, &more.flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    assert!(said.contains("lower train.lr") && said.contains("; the last saved state is good"), "{said}");
    assert!(task.path("refused/resume/progress.json").exists());
}

#[test]
fn a_place_for_results_that_cannot_be_made_is_refused_first() {
    let task = Task::new();
    let out = ["--out", "train.jsonl/out"];
    for command in [["tokenizer", "--input", "missing.jsonl"], ["corpus", "--tokenizer=missing", "missing.txt"]] {
        let output = task.run(&[&command[..], &out].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains("--out train.jsonl/out cannot be made: train.jsonl is not a directory"), "{said}");
    }
    fs::write(task.path("tokenizer/tokenizer.bin"), b"damaged").unwrap();
    let said = refused(&task, &[]);
    assert!(said.contains("--tokenizer tokenizer: tokenizer.bin is no tokenizer table"), "{said}");
}

#[test]
fn eval_refuses_what_is_not_a_checkpoint_or_not_its_data() {
    let task = Task::new();
    let output = task.run(&["eval", "--checkpoint", "tokenizer", "--data", "dev.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("config.json"), "{}", stderr(&output));
    task.train("run", &["--set", "train.epochs=1"]);
    fs::write(task.path("foreign.jsonl"), "{\"text\": \"a\", \"label\": \"mineral\"}\n").unwrap();
    let output = task.run(&["eval", "--checkpoint", "run", "--data", "foreign.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("mineral"), "{}", stderr(&output));
}

#[test]
fn doctor_finds_the_wanted_libtorch() {
    let task = Task::new();
    let output = task.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(found["libtorch_wanted"], "2.11.0");
    assert!(found["libtorch"]["path"].as_str().unwrap().ends_with("libtorch_cpu.so"));
    assert_eq!(found["cuda"].as_bool(), Some(found["cuda_reason"].is_null()));
    let output = task.run(&["doctor"]);
    assert!(stdout(&output).contains("CUDA"));
}

#[test]
fn gpu_check_without_cuda_says_why_and_exits_with_1() {
    let task = Task::new();
    let found: Value = serde_json::from_str(&stdout(&task.run(&["doctor", "--json"]))).unwrap();
    if found["cuda"] == true {
        eprintln!("CUDA is here: gpu-check itself is run by tools/x gpu-check");
        return;
    }
    // The second is its old name.
    for arguments in [&["dev", "gpu-check"][..], &["gpu-check"]] {
        let output = task.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).starts_with("no CUDA: "), "{}", stdout(&output));
    }
}

#[test]
fn wrong_arguments_exit_with_2() {
    let task = Task::new();
    assert_eq!(task.run(&[]).status.code(), Some(2));
    assert_eq!(task.run(&["finetune"]).status.code(), Some(2));
    assert_eq!(task.run(&["--version"]).status.code(), Some(0));
}

#[test]
fn parts_of_a_classifier_have_rates_of_their_own_and_a_head_can_start_at_zero() {
    let task = Task::new();
    task.train("first", &[]);
    let tensors = |out: &str| {
        let bytes = task.bytes(out, "model.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect::<BTreeMap<_, _>>()
    };
    // Other labels, so the head is new.
    for file in ["train.jsonl", "dev.jsonl"] {
        let text = fs::read_to_string(task.path(file)).unwrap().replace("animal", "bird");
        fs::write(task.path(file), text).unwrap();
    }
    let train = |out: &str, more: &str| {
        let config = format!("[train]\nepochs = 1\nlr = 1e-3\n{more}\n");
        fs::write(task.path("second.toml"), config).unwrap();
        let base = ["finetune", "--config", "second.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--from"];
        let output = task.run(&[&base[..], &["first", "--out", out, "--device", "cpu", "--threads", "1"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        tensors(out)
    };
    let first = tensors("first");
    let still = train("still", "embedding_lr_scale = 0.0\nhead_lr_scale = 0.0\nzero_head = true");
    assert_eq!(still["embed.weight"], first["embed.weight"]);
    assert!(still["head.weight"].iter().chain(&still["head.bias"]).all(|&byte| byte == 0));
    // A head of zeros sends no gradient back.
    assert_eq!(still["layers.0.ffn.up.weight"], first["layers.0.ffn.up.weight"]);

    let moved = train("moved", "embedding_lr_scale = 0.0\nzero_head = true");
    assert_eq!(moved["embed.weight"], first["embed.weight"]);
    assert!(moved["head.weight"] != still["head.weight"]);
    assert!(moved["layers.0.ffn.up.weight"] != first["layers.0.ffn.up.weight"]);
}

#[test]
fn a_frozen_encoder_gets_the_head_of_a_regression() {
    let task = Task::new();
    task.train("first", &[]);
    let finetune = |out: &str, more: &[&str]| {
        fs::write(task.path("frozen.toml"), "[train]\nfrozen = true\n").unwrap();
        let base =
            ["finetune", "--config", "frozen.toml", "--train", "train.jsonl", "--dev", "dev.jsonl", "--device", "cpu"];
        task.run(&[&base[..], &["--threads", "1", "--out", out], more].concat())
    };
    let output = finetune("frozen", &["--from", "first"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("frozen encoder, head by regression with C = "), "{said}");
    let (first, frozen) = (task.bytes("first", "model.safetensors"), task.bytes("frozen", "model.safetensors"));
    let [first, frozen] = [&first, &frozen].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    for (name, view) in first.iter() {
        assert_eq!(view.data() == frozen.tensor(name).unwrap().data(), !name.starts_with("head."), "{name}");
    }
    // The words decide, and every word is known: a linear head on their mean finds the classes.
    let best = task.metrics("frozen").iter().filter_map(|row| row["accuracy"].as_f64()).fold(0.0, f64::max);
    fixture::at_least(0.9, best, "accuracy of a frozen encoder");
    assert!(!said.contains("in bytes"), "{said}");
    // It is finished, and resuming leaves it alone.
    assert!(stderr(&finetune("frozen", &["--from", "first", "--resume"])).contains("is finished"));

    fs::write(task.path("config.toml"), fs::read_to_string(task.path("config.toml")).unwrap() + "frozen = true\n")
        .unwrap();
    let output = task.finetune("random", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("train.frozen is true, but the weights are random"), "{}", stderr(&output));
}

#[test]
fn texts_that_the_vocabulary_does_not_know_are_said_before_training() {
    let task = Task::new();
    task.train("first", &[]);
    let rows: String = ["\u{732b}\u{5728}\u{8fd9}\u{91cc}", "\u{72d7}\u{5728}\u{90a3}\u{91cc}"]
        .iter()
        .flat_map(|text| {
            (0..4).map(move |i| format!("{{\"text\":\"{text}{i}\",\"label\":\"{}\"}}\n", text.len() + i % 2))
        })
        .collect();
    fs::write(task.path("foreign.jsonl"), rows).unwrap();
    fs::write(task.path("short.toml"), "[train]\nepochs = 1\n").unwrap();
    let arguments =
        ["finetune", "--config", "short.toml", "--train", "foreign.jsonl", "--dev", "foreign.jsonl", "--from"];
    let output =
        task.run(&[&arguments[..], &["first", "--out", "second", "--device", "cpu", "--threads", "1"]].concat());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("% of the tokens are not in the vocabulary of --from first") && said.contains(" fit "),
        "{said}"
    );
}

#[test]
fn the_help_shows_what_users_need() {
    let task = Task::new();
    let help = stdout(&task.run(&["--help"]));
    assert!(help.contains("finetune") && help.contains("text2text"), "{help}");
    for tool in ["gpu-check", "step-time", "curves"] {
        assert!(!help.contains(tool), "{help}");
        assert!(stdout(&task.run(&["dev", "--help"])).contains(tool));
    }
}

#[test]
fn rows_to_evaluate_on_are_split_off_and_a_run_goes_on_by_its_folder_alone() {
    let task = Task::new();
    let finetune = |out: &str, more: &[&str]| {
        let words = [
            "finetune",
            "--train",
            "train.jsonl",
            "--tokenizer",
            "tokenizer",
            "--config",
            "config.toml",
            "--device",
            "cpu",
        ];
        let threads = ["--threads", "1", "--seed", "3", "--out", out];
        let output = task.run(&[&words[..], &threads, more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    let said = finetune("whole", &["--set", "train.schedule=constant"]);
    assert!(said.contains("rows to train on") && said.contains("to evaluate on (seed 3)"), "{said}");
    let training: Value = serde_json::from_slice(&task.bytes("whole", "training.json")).unwrap();
    let (train, dev) = (&training["train"]["rows"], &training["dev"]["rows"]);
    assert_eq!(train.as_u64().unwrap() + dev.as_u64().unwrap(), 96);
    assert_eq!(training["dev"]["file"], "whole/dev.jsonl");
    let lines = String::from_utf8(task.bytes("whole", "dev.jsonl")).unwrap();
    assert_eq!(lines.lines().count() as u64, dev.as_u64().unwrap());
    // The recorded file is the one that was evaluated on.
    let output = task.run(&["eval", "--checkpoint", "whole", "--data", "whole/dev.jsonl", "--device", "cpu", "--json"]);
    let scores: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(scores["accuracy"], training["best"]["accuracy"]);

    // Stopped after some steps and continued by the folder alone, it becomes the same.
    finetune("parts", &["--set", "train.schedule=constant", "--max-minutes", "0.000001"]);
    let output = task.run(&["finetune", "--resume", "--out", "parts", "--max-minutes", "5"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(task.bytes("whole", "model.safetensors"), task.bytes("parts", "model.safetensors"));
    let output = task.run(&["finetune", "--resume", "--out", "nowhere"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("--train"), "{}", stderr(&output));
}

#[test]
fn a_start_that_does_not_fit_is_named_in_words() {
    let task = Task::new();
    let nowhere = task.run(&[
        "finetune",
        "--train",
        "train.jsonl",
        "--dev",
        "dev.jsonl",
        "--from",
        "models/nope",
        "--out",
        "out",
    ]);
    assert!(
        nowhere.status.code() == Some(2) && stderr(&nowhere).contains("models/nope does not exist"),
        "{}",
        stderr(&nowhere)
    );
    task.train("run", &["--set", "train.epochs=1"]);
    let words = [
        "finetune",
        "--train",
        "train.jsonl",
        "--dev",
        "dev.jsonl",
        "--from",
        "run",
        "--out",
        "other",
        "--config",
        "config.toml",
    ];
    let other = task.run(&[&words[..], &["--set", "model.mixer=dilated", "--set", "model.kernel_heads=0"]].concat());
    let said = stderr(&other);
    assert!(
        said.contains("mixer is \"dilated\", in the checkpoint \"light\"") && !said.contains("ModelConfig"),
        "{said}"
    );
}

#[test]
fn a_vocabulary_is_replaced_only_when_asked() {
    let task = Task::new();
    let learn = |more: &[&str]| {
        let words = ["tokenizer", "--input", "train.jsonl", "--vocab-size", "380", "--out", "words"];
        task.run(&[&words[..], more].concat())
    };
    assert_eq!(learn(&[]).status.code(), Some(0));
    let again = learn(&[]);
    assert!(
        again.status.code() == Some(2) && stderr(&again).contains("words/tokenizer.bin exists"),
        "{}",
        stderr(&again)
    );
    assert_eq!(learn(&["--force"]).status.code(), Some(0));
}
