//! Tests text-to-text training: the built program learns a copy task and a labelled task, stopped, resumed, and started
//! from a run.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fixture::{ENCODER_DECODER, Task, at_least, at_most, killed, seeded, stderr};
use serde_json::Value;

const CONFIG: &str = r#"
[train]
epochs = 14
batch_size = 16
bucket_batches = 4
lr = 3e-2
dropout = 0.0
eval_every = 100
log_every = 10
"#;

/// Arguments that make a run long enough that a signal always arrives in the middle, and random in every way.
const LONG: [&str; 6] = ["--set", "train.epochs=40", "--set", "train.dropout=0.1", "--set", "train.drop_connect=0.1"];

const WORDS: [&str; 8] = ["the", "small", "in", "a", "very", "old", "tree", "house"];

/// The fine-tuning task with pairs whose targets are their inputs: 3 of 8 words.
struct Pairs(Task);

impl Pairs {
    fn new() -> Self {
        let task = Task::new();
        let words = |n: usize| [n / 64, n / 8 % 8, n % 8].map(|word| WORDS[word]).join(" ");
        // All 512 sequences in an order without a pattern: no dev sequence is trained on.
        let line = |i: usize| {
            let text = words((i * 173 + 5) % 512);
            format!("{{\"source\": \"{text}\", \"goal\": \"{text}\"}}\n")
        };
        fs::write(task.path("train.pairs.jsonl"), (0..448).map(line).collect::<String>()).unwrap();
        fs::write(task.path("dev.pairs.jsonl"), (448..512).map(line).collect::<String>()).unwrap();
        fs::write(task.path("text2text.toml"), seeded(&format!("{ENCODER_DECODER}{CONFIG}"))).unwrap();
        Pairs(task)
    }

    /// Returns `text2text` into `out`, with one thread, on the CPU.
    fn command(&self, out: &str, arguments: &[&str]) -> Command {
        let mut command = self.0.command(&["text2text", "--device", "cpu", "--threads", "1", "--out", out]);
        command.args(arguments);
        command
    }

    /// Returns the arguments of a run on the pairs, and `more`.
    fn pairs<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let files = ["--train", "train.pairs.jsonl", "--dev", "dev.pairs.jsonl"];
        [&files[..], &["--text-field", "source", "--target-field", "goal"], more].concat()
    }

    /// Like [`Pairs::pairs`], from scratch.
    fn scratch<'a>(more: &[&'a str]) -> Vec<&'a str> {
        Self::pairs(&[&["--config", "text2text.toml", "--tokenizer", "tokenizer"], more].concat())
    }

    /// Runs to the successful end and returns its stderr.
    fn run(&self, out: &str, arguments: &[&str]) -> String {
        let output = self.command(out, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    }

    /// Returns the message of a run that must end with exit code 2.
    fn refused(&self, out: &str, arguments: &[&str]) -> String {
        let output = self.command(out, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        stderr(&output)
    }

    /// Returns the evaluations of a run.
    fn dev(&self, out: &str) -> Vec<Value> {
        self.0.metrics(out).into_iter().filter(|row| row["kind"] == "dev").collect()
    }

    /// Returns a field of the evaluation whose weights were kept.
    fn best(&self, out: &str, field: &str) -> f64 {
        self.dev(out).iter().rfind(|row| row["best"] == true).unwrap()[field].as_f64().unwrap()
    }

    fn predictions(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path(out).join("predictions.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_copy_task_is_learnt_and_its_model_started_from() {
    let p = Pairs::new();
    let said = p.run("copy", &Pairs::scratch(&[]));
    assert!(said.contains("targets are sequences") && said.contains("exact match"), "{said}");
    let (dev, best) = (p.dev("copy"), p.best("copy", "exact_match"));
    at_least(0.9, best, "exact match of the copy task");
    // A model that guesses one of 8 words loses 3 ln 8 / 4 = 1.56 nats per token.
    at_most(0.8, p.best("copy", "loss"), "loss of the copy task");
    assert!(dev.iter().all(|row| row["exact_match"].as_f64() <= Some(best) && row["macro_f1"].is_null()), "{dev:?}");

    // The predictions are those of the kept weights.
    let predictions = p.predictions("copy");
    let right = predictions.iter().filter(|row| row["right"] == true).count();
    assert!(predictions.iter().all(|row| (row["target"] == row["answer"]) == (row["right"] == true)));
    assert_eq!(right as f64 / predictions.len() as f64, best);
    for file in ["loss.svg", "dev.svg", "environment.json", "config.resolved.toml", "seq2seq.json"] {
        assert!(p.0.path("copy").join(file).exists(), "{file}");
    }

    // eval scores the same weights alike.
    let eval =
        ["eval", "--checkpoint", "copy", "--data", "dev.pairs.jsonl", "--device", "cpu", "--threads", "1", "--json"];
    let score = |more: &[&str]| p.0.run(&[&eval[..], more].concat());
    let output = score(&["--text-field", "source", "--target-field", "goal"]);
    let scored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&scored["exact_match"], &scored["rows"]), (&best.into(), &64.into()), "{}", stderr(&output));
    assert!(stderr(&score(&[])).contains("was trained on sequences: name the target's field"));

    // Starting from a run, with a step too small to change a weight, the model answers the same; with a beam almost the
    // same.
    let again = ["--from", "copy", "--set", "train.epochs=1", "--set", "train.lr=1e-30"];
    p.run("again", &Pairs::pairs(&again));
    assert_eq!(p.0.bytes("again", "model.safetensors"), p.0.bytes("copy", "model.safetensors"));
    assert_eq!(p.predictions("again"), predictions);
    p.run("beam", &Pairs::pairs(&[&again[..], &["--beam", "3"]].concat()));
    at_least(0.9, p.best("beam", "exact_match"), "exact match with a beam");
    let config = String::from_utf8(p.0.bytes("beam", "config.resolved.toml")).unwrap();
    assert!(config.contains("beam = 3"), "{config}");
}

#[test]
fn the_transformer_learns_the_copy_task_too() {
    let p = Pairs::new();
    p.run(
        "copy",
        &Pairs::scratch(&[
            "--set",
            "model.encoder.mixer=attention",
            "--set",
            "model.encoder.kernel_sizes=[]",
            "--set",
            "model.encoder.norm=pre_rms",
        ]),
    );
    at_least(0.9, p.best("copy", "exact_match"), "exact match of the transformer");
}

#[test]
fn a_stopped_and_resumed_run_equals_one_that_never_stopped() {
    let p = Pairs::new();
    p.run("whole", &Pairs::scratch(&LONG));
    let mut more = LONG.to_vec();
    for name in ["TERM", "INT"] {
        let log = p.0.path("stopped").join("metrics.jsonl");
        let rows = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
        let before = rows();
        let child = p.command("stopped", &Pairs::scratch(&more)).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while rows() <= before {
            assert!(Instant::now() < deadline, "no row after a minute");
            sleep(Duration::from_millis(2));
        }
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("the state is saved in stopped; to go on, run"), "{said}");
        let (rows, all) = (p.0.metrics("stopped"), p.0.metrics("whole"));
        assert!(rows.len() < all.len() && rows == all[..rows.len()], "{} of {} rows", rows.len(), all.len());
        more = [&LONG[..], &["--resume"]].concat();
    }
    assert!(p.run("stopped", &Pairs::scratch(&more)).contains("resuming after step"));
    assert_eq!(p.0.metrics("whole"), p.0.metrics("stopped"));
    for file in ["model.safetensors", "predictions.jsonl"] {
        assert_eq!(p.0.bytes("whole", file), p.0.bytes("stopped", file), "{file}");
    }
    let refused = p.refused("stopped", &Pairs::scratch(&[&more[..], &["--beam", "2"]].concat()));
    assert!(refused.contains("now `decode.beam = 2`, was `decode.beam = 1`"), "{refused}");
}

#[test]
fn a_run_that_is_killed_again_and_again_equals_one_that_never_was() {
    let p = Pairs::new();
    let often = ["--set", "train.epochs=6", "--set", "train.dropout=0.1", "--set", "train.save_minutes=0.0000001"];
    p.run("whole", &Pairs::scratch(&often));
    killed(&p.0.path("killed"), "resume/progress.json", |more| {
        p.command("killed", &Pairs::scratch(&[&often[..], more].concat()))
    });
    assert_eq!(p.0.metrics("whole"), p.0.metrics("killed"));
    for file in ["model.safetensors", "predictions.jsonl"] {
        assert_eq!(p.0.bytes("whole", file), p.0.bytes("killed", file), "{file}");
    }
}

#[test]
fn gradient_checkpointing_changes_no_bit_of_a_run() {
    let p = Pairs::new();
    let short = [&LONG[..], &["--set", "train.epochs=2"]].concat();
    p.run("plain", &Pairs::scratch(&short));
    p.run("recomputed", &Pairs::scratch(&[&short[..], &["--set", "train.gradient_checkpointing=true"]].concat()));
    assert_eq!(p.0.metrics("plain"), p.0.metrics("recomputed"));
    assert_eq!(p.0.bytes("plain", "model.safetensors"), p.0.bytes("recomputed", "model.safetensors"));
}

#[test]
fn labels_are_answered_by_name_and_other_answers_are_wrong() {
    let p = Pairs::new();
    let labelled =
        ["--config", "text2text.toml", "--tokenizer", "tokenizer", "--train", "train.jsonl", "--dev", "dev.jsonl"];
    let labelled = [&labelled[..], &["--label-field", "label"]].concat();
    // Random weights do not produce a label.
    let said = p.run("raw", &[&labelled[..], &["--set", "train.lr=1e-30", "--set", "train.epochs=1"]].concat());
    assert!(said.contains("the names of 2 classes") && said.contains("30 answers are no label"), "{said}");
    let raw = p.dev("raw").pop().unwrap();
    assert_eq!((&raw["exact_match"], &raw["macro_f1"], &raw["no_label"]), (&0.0.into(), &0.0.into(), &30.into()));
    assert!(p.predictions("raw").iter().all(|row| row["right"] == false));

    let more = ["--set", "train.epochs=40", "--set", "train.metric=macro_f1"];
    p.run("labels", &[&labelled[..], &more].concat());
    at_least(0.85, p.best("labels", "exact_match"), "exact match of labels");
    at_least(0.85, p.best("labels", "macro_f1"), "macro F1 of labels");
    at_most(3.0, p.best("labels", "no_label"), "answers that are no label");
    let eval = ["eval", "--checkpoint", "labels", "--data", "dev.jsonl", "--device", "cpu", "--threads", "1", "--json"];
    let scored: Value = serde_json::from_slice(&p.0.run(&eval).stdout).unwrap();
    assert_eq!(scored["macro_f1"], p.best("labels", "macro_f1"));
    assert_eq!(scored["no_label"].as_f64().unwrap(), p.best("labels", "no_label"));
    assert!(p.predictions("labels").iter().all(|row| row["target"] == "animal" || row["target"] == "colour"));
}

#[test]
fn a_pre_trained_model_is_started_from_with_its_sentinels() {
    let p = Pairs::new();
    let sentence = |i: usize| (0..30).map(|w| WORDS[(i * 5 + w * w + w) % 8]).collect::<Vec<_>>().join(" ");
    let text: String = (0..24).map(|i| sentence(i) + "\n\n").collect();
    fs::write(p.0.path("corpus.txt"), text).unwrap();
    let good = |arguments: &[&str]| {
        let output = p.0.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    };
    good(&["corpus", "--tokenizer", "tokenizer", "--out", "corpus", "corpus.txt"]);
    let train = "[train]\nsteps = 3\nbatch_size = 4\ninputs_length = 16\neval_examples = 4\n";
    fs::write(p.0.path("pretrain.toml"), format!("{ENCODER_DECODER}{train}")).unwrap();
    good(
        &[
            &["pretrain", "--config", "pretrain.toml", "--corpus", "corpus", "--valid", "corpus"][..],
            &["--tokenizer", "tokenizer", "--out", "pretrained", "--device", "cpu", "--threads", "1"],
        ]
        .concat(),
    );
    let more = ["--from", "pretrained", "--set", "train.epochs=1", "--set", "train.lr=1e-30"];
    p.run("from", &Pairs::pairs(&more));
    for file in ["model.safetensors", "seq2seq.json"] {
        assert_eq!(p.0.bytes("from", file), p.0.bytes("pretrained", file), "{file}");
    }
    let other = Pairs::pairs(&["--from", "pretrained", "--config", "text2text.toml"]);
    p.run("same", &[&other[..], &["--set", "train.epochs=1"]].concat());
    let refused = p.refused("other", &[&other[..], &["--set", "model.num_decoder_layers=2"]].concat());
    assert!(refused.contains("[model] differs from the model of --from"), "{refused}");
    let refused = p.refused("other", &[&other[..], &["--mixer", "attention"]].concat());
    assert!(refused.contains("cannot be used with '--mixer"), "{refused}");
}

#[test]
fn the_time_limit_ends_training_with_a_usable_model() {
    let p = Pairs::new();
    let long = ["--set", "train.epochs=100000", "--set", "train.eval_every=1000000", "--max-minutes", "0.02"];
    let said = p.run("limited", &Pairs::scratch(&long));
    assert!(said.contains("time is up") && said.trim_end().ends_with("--resume"), "{said}");
    assert_eq!(p.0.metrics("limited").pop().unwrap()["best"], true);
    assert!(p.0.path("limited/model.safetensors").exists());
}

#[test]
fn what_cannot_be_trained_on_is_refused_before_anything_is_written() {
    let p = Pairs::new();
    let wrong = "{\"source\": \"a\", \"goal\": \"a\"}\n{\"source\": \"a\", \"goal\": \"the  tree\"}\n";
    fs::write(p.0.path("spaces.jsonl"), wrong).unwrap();
    let spaces =
        ["--text-field", "source", "--target-field", "goal", "--config", "text2text.toml", "--tokenizer", "tokenizer"];
    let spaces = [&["--train", "spaces.jsonl", "--dev", "dev.pairs.jsonl"], &spaces[..]].concat();
    let files = ["--train", "train.pairs.jsonl", "--dev", "dev.pairs.jsonl", "--tokenizer", "tokenizer"];
    let model = ["--config", "text2text.toml"];
    let with = |more: &[&'static str]| [&files[..], &model, more].concat();
    let cases: [(Vec<&str>, &str); 11] = [
        (spaces, "1 of the 2 targets are not what the tokenizer gives back for them"),
        (
            with(&["--text-field", "sauce", "--target-field", "goal"]),
            "no field \"sauce\"; name the text's field with --text-field",
        ),
        (with(&["--text-field", "source", "--target-field", "aim"]), "no field \"aim\"; name the target's field"),
        (with(&[]), "--target-field"),
        (with(&["--target-field", "goal", "--label-field", "goal"]), "cannot be used with"),
        (Pairs::scratch(&["--beam", "0"]), "decode.beam is 0"),
        (Pairs::scratch(&["--set", "train.metric=macro_f1"]), "needs labels"),
        (Pairs::scratch(&["--set", "train.batch=3"]), "unknown field `batch`"),
        (Pairs::pairs(&model), "no tokenizer: give --tokenizer DIR"),
        (Pairs::pairs(&["--tokenizer", "tokenizer"]), "neither --preset nor --from is given"),
        (Pairs::pairs(&["--from", "tokenizer"]), "seq2seq.json"),
    ];
    for (arguments, words) in cases {
        let said = p.refused("refused", &arguments);
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!p.0.path("refused").exists());
}
