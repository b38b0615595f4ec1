//! Tests distillation: runs of the built program on a tiny corpus with a made-up teacher, stopped, resumed, in several processes,
//! and fine-tuned from.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "fixture/distillation.rs"]
mod distillation;
mod fixture;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use distillation::{CONFIG, Distillation, TEXTS, WIDTH, corpus, good, state, vector};
use fixture::{at_least, at_most, change_state, close, killed, launch, npy, run_all, seeded, stderr};
use kinglet_data::dataset::ReadOptions;
use kinglet_train::checkpoint;
use kinglet_train::device::DeviceChoice;
use kinglet_train::interrupt::Interrupt;
use kinglet_train::model::Mode;
use kinglet_train::model::student::StudentWeight;
use kinglet_train::targets::Targets;
use kinglet_train::tasks::distill::config::Config;
use kinglet_train::tasks::distill::data::Data;
use kinglet_train::tasks::distill::texts::{Reading, Texts};
use kinglet_train::tasks::distill::{Distill, Origin};
use kinglet_train::tensors::read_tensors;
use kinglet_train::tokenizer::files::TokenizerFiles;
use kinglet_train::training::config::{Keys, parse, to_toml};
use kinglet_train::training::folder::RunFolder;
use kinglet_train::training::run::{Ending, Run, RunArgs};
use kinglet_train::training::state::{Fingerprint, State};
use kinglet_train::training::task::{self, Evaluation, Loss, Part, Stage};
use kinglet_train::training::team::Team;
use kinglet_train::training::train::train;
use serde_json::Value;
use tch::Tensor;

#[test]
fn a_run_learns_and_fine_tuning_starts_from_its_encoder() {
    let d = Distillation::new();
    let said = d.run("run", &["--set", "train.static_steps=60", "--set", "train.steps=140", "--set", "train.lr=0.02"]);
    assert!(said.contains("the embedding starts at random") && said.contains("vectors of 20 values"), "{said}");
    let lines = [
        "stage \"embedding\": steps 1 to 60",
        "stage \"embedding\" ends with cosine 0.",
        "stage \"whole encoder\": steps 61 to 200",
    ];
    let places = lines.map(|line| said.find(line).unwrap_or_else(|| panic!("no {line:?} in {said}")));
    assert!(places.is_sorted() && said.matches("stage ").count() == 3, "{said}");
    let (cosines, retrieval) = (d.scores("run", "cosine"), d.scores("run", "retrieval"));
    assert_eq!(cosines.len(), 20);
    // The second stage goes on from the first's end, and learns what word order says.
    at_least(0.55, cosines[5], "cosine after the first stage");
    at_least(cosines[5] + 0.02, cosines[19], "cosine after the second stage");
    at_least(0.8, retrieval[19], "retrieval");
    let loss: Vec<f64> =
        d.0.metrics("run")
            .iter()
            .filter(|row| row["kind"] == "train")
            .map(|row| row["loss"].as_f64().unwrap())
            .collect();
    at_most(0.5, loss[loss.len() - 1] / loss[0], "loss against the first");

    // The encoder has neither map nor head, and a card.
    let file = d.0.bytes("run", "encoder/model.safetensors");
    let weights = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert!(weights.names().iter().all(|name| !name.contains("map") && !name.contains("head")));
    let card = String::from_utf8(d.0.bytes("run", "encoder/README.md")).unwrap();
    for said in ["light mixer", "| `texts.txt` | 240 |", "mean cosine to the teacher 0.", "finetune --from run/encoder"]
    {
        assert!(card.contains(said), "{said}: {card}");
    }
    let record: Value = serde_json::from_slice(&d.0.bytes("run", "encoder/training.json")).unwrap();
    assert_eq!((&record["steps"], &record["targets"]["dimension"]), (&200.into(), &WIDTH.into()));
    for file in ["loss.svg", "dev.svg", "config.resolved.toml", "environment.json"] {
        assert!(d.0.path("run").join(file).exists(), "{file}");
    }

    fs::write(d.0.path("tune.toml"), seeded("[train]\nepochs = 4\nbatch_size = 16\nlr = 1e-3\nzero_head = true\n"))
        .unwrap();
    let data = ["finetune", "--train", "train.jsonl", "--dev", "dev.jsonl", "--device", "cpu", "--threads", "1"];
    let tune = |from, out| {
        let more = ["--from", from, "--config", "tune.toml", "--out", out];
        good(&d.0.run(&[&data[..], &more].concat()));
        d.0.bytes(out, "model.safetensors")
    };
    let tuned = tune("run", "tuned");
    the_embedder_has_the_vectors_of_the_best_weights(&d);
    // The encoder of the embedder is the same one.
    assert!(tune("run/embedder", "tuned-from-embedder") == tuned);
}

/// Checks `run/embedder`: a whole checkpoint, with vectors of length 1 that follow the teacher's.
fn the_embedder_has_the_vectors_of_the_best_weights(d: &Distillation) {
    let dir = d.0.path("run/embedder");
    let mut files: Vec<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let expected = [
        "README.md",
        "SHA256SUMS",
        "config.json",
        "golden.safetensors",
        "model.safetensors",
        "tokenizer.bin",
        "tokenizer.json",
        "training.json",
    ];
    assert_eq!(files, expected);
    let config: Value = serde_json::from_slice(&d.0.bytes("run", "embedder/config.json")).unwrap();
    assert_eq!((&config["task"], &config["num_labels"]), (&"embed".into(), &WIDTH.into()));
    let weights = d.0.bytes("run", "embedder/model.safetensors");
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let file = d.0.bytes("run", "encoder/model.safetensors");
    for (name, of_encoder) in safetensors::SafeTensors::deserialize(&file).unwrap().iter() {
        assert!(weights.tensor(name).unwrap().data() == of_encoder.data(), "{name}");
    }
    assert_eq!(weights.tensor("head.weight").unwrap().shape(), [WIDTH, 16]);

    let golden = read_tensors(&dir.join("golden.safetensors")).unwrap();
    let (ids, mask, vectors) = (&golden["input_ids"], &golden["attention_mask"], &golden["embedding"]);
    let texts = vectors.size()[0];
    assert!((2..=200).contains(&texts) && vectors.size() == [texts, WIDTH as i64]);
    let model = checkpoint::load_model(&dir, tch::Device::Cpu).unwrap();
    let raw = tch::no_grad(|| model.forward(ids, mask, &Mode::eval()));
    let lengths = raw.square().sum_dim_intlist([1i64].as_slice(), true, tch::Kind::Double).sqrt();
    let off = (raw / lengths - vectors).abs().max().double_value(&[]);
    at_most(1e-5, off, "golden vectors against normalized logits");

    // By the teacher's vectors of the same texts: the cosine that the run reported for these weights, but for f16.
    let table = TokenizerFiles::read(&dir).unwrap();
    let table = table.table().unwrap();
    let of_ids: std::collections::HashMap<Vec<u32>, String> =
        corpus().into_iter().map(|text| (table.encode(&text), text)).collect();
    let mut sum = 0.0;
    for row in 0..texts {
        let tokens = mask.get(row).sum(tch::Kind::Int64).int64_value(&[]);
        let ids: Vec<i64> = Vec::try_from(ids.get(row).narrow(0, 0, tokens)).unwrap();
        let teacher = vector(&of_ids[&ids.iter().map(|&id| id as u32).collect::<Vec<_>>()], WIDTH);
        let student: Vec<f32> = Vec::try_from(vectors.get(row)).unwrap();
        let length = teacher.iter().map(|x| x * x).sum::<f32>().sqrt();
        sum += f64::from(student.iter().zip(&teacher).map(|(a, b)| a * b).sum::<f32>() / length);
    }
    let best = d.scores("run", "cosine").into_iter().fold(0.0, f64::max);
    at_most(2e-3, (sum / texts as f64 - best).abs(), "cosine of the golden vectors against the run's best");

    let card = String::from_utf8(d.0.bytes("run", "embedder/README.md")).unwrap();
    for said in ["vector of 20 values", "light mixer", "kinglet-export run/embedder --out run/embedder/onnx"] {
        assert!(card.contains(said), "{said}: {card}");
    }
    let record: Value = serde_json::from_slice(&d.0.bytes("run", "embedder/training.json")).unwrap();
    assert_eq!((&record["steps"], &record["parameters"]), (&200.into(), &model.config().parameters().into()));

    let output = d.0.run(&["eval", "--checkpoint", "run/embedder", "--data", "dev.jsonl", "--device", "cpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("run/embedder embeds text into 20 values and has no labels"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_run_that_is_killed_again_and_again_equals_one_that_never_was() {
    let d = Distillation::new();
    let often = ["--set", "train.save_minutes=0.0000001"];
    d.run("whole", &often);
    killed(&d.0.path("killed"), "resume/progress.json", |more| d.command("killed", &[&often[..], more].concat()));
    for file in ["encoder/model.safetensors", "embedder/model.safetensors", "embedder/golden.safetensors"] {
        assert_eq!(d.0.bytes("whole", file), d.0.bytes("killed", file), "{file}");
    }
    assert_eq!(d.0.metrics("whole"), d.0.metrics("killed"));
    assert!(state(&d.0.path("whole")) == state(&d.0.path("killed")), "the optimizer's memory differs");
}

#[test]
fn a_task_in_the_configuration_is_refused() {
    let d = Distillation::new();
    let said = d.refused("run", &["--set", "model.task=embed"]);
    assert!(said.contains("an encoder has no task: leave task out"), "{said}");
    let data = ["finetune", "--train", "train.jsonl", "--dev", "dev.jsonl", "--device", "cpu", "--out", "tuned"];
    fs::write(d.0.path("tune.toml"), CONFIG.split("[train]").next().unwrap()).unwrap();
    let more = ["--tokenizer", "tokenizer", "--config", "tune.toml", "--set", "model.task=embed"];
    let output = d.0.run(&[&data[..], &more].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("model.task is \"embed\", but finetune trains classifiers"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_run_of_an_older_version_ends_without_an_embedder() {
    tch::set_num_threads(1);
    let d = Distillation::new();
    assert_eq!(until(&d, "run", false, &[31]), Ending::Interrupt);
    // As an older version left it, with weights that are not surpassed: it kept the encoder alone.
    fs::remove_dir_all(d.0.path("run/embedder")).unwrap();
    change_state(&d.0.path("run"), |state| state["place"]["best"] = "4000000000000000".into());
    assert_eq!(until(&d, "run", true, &[]), Ending::Complete);
    assert!(d.0.path("run/encoder/README.md").exists() && !d.0.path("run/embedder").exists());

    // Weights that are better are kept in both.
    assert_eq!(until(&d, "other", false, &[31]), Ending::Interrupt);
    fs::remove_dir_all(d.0.path("other/embedder")).unwrap();
    assert_eq!(until(&d, "other", true, &[]), Ending::Complete);
    assert!(d.0.path("other/embedder/golden.safetensors").exists());
}

#[test]
fn every_mixer_and_norm_is_trained_in_both_stages() {
    let d = Distillation::new();
    for (mixer, norm) in [("light", "post_layer"), ("dynamic", "pre_rms"), ("dilated", "pre_rms")] {
        let norm = format!("model.norm={norm}");
        d.run(mixer, &["--mixer", mixer, "--set", &norm]);
        let config: Value = serde_json::from_slice(&d.0.bytes(mixer, "encoder/config.json")).unwrap();
        assert_eq!(config["mixer"], mixer);
        let cosines = d.scores(mixer, "cosine");
        at_least(0.005, cosines[3] - cosines[0], &format!("rise of the cosine, {mixer}"));
    }
}

#[test]
fn parts_and_processes_equal_one_step_in_one() {
    let d = Distillation::new();
    let still = ["--set", "train.dropout=0", "--set", "train.lr=0.002", "--set", "train.static_lr=0.002"];
    d.run("one", &still);
    d.run("parts", &[&still[..], &["--set", "train.accumulate=2"]].concat());
    run_all(launch(2, || d.command("two", &still)));
    for run in ["parts", "two"] {
        for kind in ["train", "dev"] {
            close(&d.0.metrics("one"), &d.0.metrics(run), kind, &format!("{kind} losses, {run}"));
        }
        assert!(d.0.path(run).join("encoder/README.md").exists(), "{run}");
    }
    let said = d.refused("odd", &["--set", "train.accumulate=4"]);
    assert!(said.contains("train.batch_size is 16, must be a multiple of 32"), "{said}");
}

#[test]
fn unusable_input_is_refused() {
    let d = Distillation::new();
    let said = d.refused("run", &["--set", "model.vocab_size=50"]);
    assert!(said.contains("model.vocab_size is 50, must be 380"), "{said}");
    let said = d.refused("run", &["--set", "model.compat=fairseq"]);
    assert!(said.contains("compat"), "{said}");

    let texts = corpus();
    let rows = |n: usize, width| texts[..n].iter().map(|text| vector(text, width)).collect::<Vec<_>>();
    fs::write(d.0.path("few.npy"), npy(&rows(TEXTS - 1, WIDTH))).unwrap();
    let said = d.refused("run", &["--targets", "few.npy"]);
    assert!(said.contains("240 texts, but targets for 239"), "{said}");

    // A resumed run has the same vectors.
    d.run("run", &["--set", "train.static_steps=2", "--set", "train.steps=2"]);
    fs::write(d.0.path("wide.npy"), npy(&rows(TEXTS, WIDTH + 2))).unwrap();
    let said = d.refused(
        "run",
        &["--set", "train.static_steps=2", "--set", "train.steps=2", "--resume", "--targets", "wide.npy"],
    );
    assert!(said.contains("the width of the targets") && !said.contains("config:"), "{said}");

    fs::write(d.0.path("texts.txt"), " \n\n").unwrap();
    let said = d.refused("empty", &[]);
    assert!(said.contains("texts.txt has no texts; leave it out"), "{said}");
    assert!(!d.0.path("empty").exists());
}

#[test]
fn forcing_a_run_removes_the_results_of_every_task_and_keeps_other_files() {
    let d = Distillation::new();
    let short = ["--set", "train.static_steps=2", "--set", "train.steps=2"];
    fs::create_dir(d.0.path("run")).unwrap();
    for file in ["config.json", "model.safetensors", "labels.json", "seq2seq.json", "notes.txt"] {
        fs::write(d.0.path("run").join(file), "old").unwrap();
    }
    fs::create_dir(d.0.path("run/embedder")).unwrap();
    fs::write(d.0.path("run/embedder/labels.json"), "old").unwrap();
    d.run("run", &[&short[..], &["--force"]].concat());
    for file in ["config.json", "model.safetensors", "labels.json", "seq2seq.json"] {
        assert!(!d.0.path("run").join(file).exists(), "{file}");
    }
    assert_eq!(d.0.bytes("run", "notes.txt"), b"old");
    assert!(!d.0.path("run/embedder/labels.json").exists());

    // A folder that an older version left with both is ambiguous.
    let run = d.0.path("run");
    assert!(checkpoint::locate(&run).unwrap().ends_with("encoder"));
    fs::copy(run.join("encoder/config.json"), run.join("config.json")).unwrap();
    let said = checkpoint::locate(&run).unwrap_err().to_string();
    assert!(said.contains("results of two runs"), "{said}");
}

#[test]
fn a_teacher_that_did_not_make_the_targets_is_refused() {
    let d = Distillation::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    fs::create_dir(d.0.path("other")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(golden.join(file), d.0.path("other").join(file)).unwrap();
    }
    let mut weights = d.0.bytes("other", "model.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    fs::write(d.0.path("other/model.safetensors"), weights).unwrap();
    let golden = golden.to_str().unwrap();
    good(&d.0.run(&[
        "teacher",
        "--device",
        "cpu",
        "--model",
        golden,
        "--prompt",
        "query: ",
        "--out",
        "targets",
        "texts.txt",
    ]));

    let short = ["--set", "train.static_steps=2", "--set", "train.steps=2", "--targets", "targets", "--teacher"];
    let said = d.refused("run", &[&short[..], &["other"]].concat());
    assert!(said.contains("the targets are those of bert") && said.contains("other is another model"), "{said}");
    assert!(!d.0.path("run").exists());
    let said = d.run("run", &[&short[..], &[golden]].concat());
    let ends = |line: &&str| {
        line.split_once(" pieces through the teacher").is_some_and(|(counts, _)| {
            counts
                .split_once(" of ")
                .is_some_and(|(done, all)| done == all && all.parse::<u32>().is_ok_and(|all| all > 100))
        })
    };
    assert_eq!(said.lines().filter(ends).count(), 1, "{said}");
    let record: Value = serde_json::from_slice(&d.0.bytes("run", "encoder/training.json")).unwrap();
    assert_eq!(record["embedding_start"], "teacher");
    let card = String::from_utf8(d.0.bytes("run", "encoder/README.md")).unwrap();
    assert!(card.contains("the embedding started from the teacher's vectors"), "{card}");

    let said = d.refused("wide", &["--teacher", golden, "--set", "model.hidden_size=24"]);
    assert!(said.contains("model.hidden_size is 24, must be at most 21 for vectors of 20 values"), "{said}");
}

#[test]
fn messages_name_the_flag_and_come_before_long_work() {
    let d = Distillation::new();
    let said = d.refused("texts.txt/run", &["--teacher", "nowhere"]);
    assert!(said.contains("--out texts.txt/run cannot be made: texts.txt is not a directory"), "{said}");
    let said = d.refused("run", &["--teacher", "nowhere"]);
    assert!(said.contains("--teacher: nowhere is no model folder"), "{said}");
    let said = d.refused("run", &["--set", "model.hidden_size=1", "--set", "model.kernel_heads=1"]);
    assert!(said.contains("model.hidden_size is 1, must be at least 2 with model.norm = \"pre_rms\""), "{said}");
    fs::write(d.0.path("tokenizer/tokenizer.bin"), b"damaged").unwrap();
    assert!(d.refused("run", &[]).contains("--tokenizer tokenizer: tokenizer.bin is no tokenizer table"));
    fs::remove_file(d.0.path("tokenizer/tokenizer.json")).unwrap();
    let said = d.refused("run", &[]);
    assert!(said.contains("--tokenizer tokenizer: cannot read tokenizer file tokenizer/tokenizer.json"), "{said}");
    assert!(!d.0.path("run").exists());
}

#[test]
fn texts_that_are_not_utf_8_are_counted() {
    let d = Distillation::new();
    let mut texts = fs::read(d.0.path("texts.txt")).unwrap();
    texts[1] = 0xff;
    fs::write(d.0.path("texts.txt"), texts).unwrap();
    let said = d.run("run", &["--set", "train.static_steps=2", "--set", "train.steps=0"]);
    assert!(said.contains("held-out ones (0 cut to 128 tokens, 1 not valid UTF-8)"), "{said}");
}

#[test]
fn a_finished_run_whose_encoder_is_gone_does_not_say_that_it_is_there() {
    let d = Distillation::new();
    let short = ["--set", "train.static_steps=2", "--set", "train.steps=2"];
    d.run("run", &short);
    let again = [&short[..], &["--resume"]].concat();
    let said = d.run("run", &again);
    assert!(said.contains("run is finished: 4 steps done") && said.contains("the best weights are in run"), "{said}");
    fs::remove_dir_all(d.0.path("run/encoder")).unwrap();
    let said = d.refused("run", &again);
    assert!(said.contains("run is finished, but run/encoder/model.safetensors is missing"), "{said}");
    assert!(said.contains("--force trains again") && !said.contains("the best weights are in"), "{said}");
}

#[test]
fn vectors_to_which_no_cosine_is_defined_are_refused() {
    let d = Distillation::new();
    for (value, part) in
        [(0.0, "has length 0: a cosine"), (1e30, "too long or too short"), (1e-30, "too long or too short")]
    {
        let mut rows: Vec<Vec<f32>> = corpus().iter().map(|text| vector(text, WIDTH)).collect();
        rows[7] = vec![value; WIDTH];
        fs::write(d.0.path("vectors.npy"), npy(&rows)).unwrap();
        let said = d.refused("run", &[]);
        assert!(said.contains("--targets: row 7 (from 0)") && said.contains(part), "{said}");
    }
}

/// A distillation that asks for a stop in some steps.
struct Stopping<'a> {
    task: Distill,
    stops: &'a [u64],
    interrupt: &'a Interrupt,
}

impl task::Task for Stopping<'_> {
    const NAME: &'static str = Distill::NAME;
    type Parameter = StudentWeight;
    type Batch = <Distill as task::Task>::Batch;
    type Detail = ();

    fn keys(&self) -> &Keys {
        self.task.keys()
    }

    fn parameters(&self) -> &[(StudentWeight, Tensor)] {
        self.task.parameters()
    }

    fn steps(&self) -> u64 {
        self.task.steps()
    }

    fn stage(&self, step: u64) -> Stage {
        self.task.stage(step)
    }

    fn rate(&self, parameter: &StudentWeight, step: u64) -> f64 {
        self.task.rate(parameter, step)
    }

    fn describe(&self) -> String {
        self.task.describe()
    }

    fn parts(&mut self, step: u64, team: &Team) -> anyhow::Result<Vec<Part<Self::Batch>>> {
        if self.stops.contains(&(step + 1)) {
            self.interrupt.request();
        }
        self.task.parts(step, team)
    }

    fn loss(&self, part: &Part<Self::Batch>, total: f64, mode: &Mode) -> Loss {
        self.task.loss(part, total, mode)
    }

    fn dropout_seed(&self, step: u64, rank: usize) -> u64 {
        self.task.dropout_seed(step, rank)
    }

    fn evaluation_seconds(&mut self, rate: f64) -> f64 {
        self.task.evaluation_seconds(rate)
    }

    fn evaluate(&mut self, team: &Team) -> anyhow::Result<Evaluation<()>> {
        self.task.evaluate(team)
    }

    fn keep(&self, folder: &RunFolder, evaluation: &Evaluation<()>) -> anyhow::Result<bool> {
        self.task.keep(folder, evaluation)
    }

    fn finish(
        &self,
        run: &Run,
        folder: &RunFolder,
        at: &State,
        ending: Ending,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        self.task.finish(run, folder, at, ending, interrupt)
    }
}

/// Runs the task in this process until its end or the first of `stops` (steps taken); returns how it ended.
///
/// One at a time: dropout draws from the generator of the process.
fn until(d: &Distillation, out: &str, resume: bool, stops: &[u64]) -> Ending {
    static TRAINING: Mutex<()> = Mutex::new(());
    let _one = TRAINING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(d.0.path("distill.toml")).unwrap();
    let mut config: Config = parse(&text, toml::Table::new(), &[]).unwrap();
    let tokenizer = TokenizerFiles::read(&d.0.path("tokenizer")).unwrap();
    let table = tokenizer.table().unwrap();
    config.model.vocab_size = table.vocab_size();
    config.model = config.model.resolve();
    let own = &config.train.own;
    let reading = Reading {
        read: &ReadOptions::default(),
        max_length: own.max_length,
        held_out: own.held_out,
        eval_texts: own.eval_texts,
    };
    let interrupt = Interrupt::default();
    let texts = Texts::read(&[d.0.path("texts.txt")], &table, reading, &interrupt).unwrap();
    let targets_path = d.0.path("vectors.npy");
    let targets = Targets::open(&targets_path).unwrap();
    let args = RunArgs {
        label: None,
        out: d.0.path(out),
        seed: None,
        device: DeviceChoice::Cpu,
        max_minutes: None,
        resume,
        force: false,
        threads: Some(1),
        overrides: Vec::new(),
    };
    let setup = args.setup(Instant::now()).unwrap();
    let fingerprint = Fingerprint::new(to_toml(&config).unwrap());
    let same = |text: &str| Ok(text.to_owned());
    let run = args.run("distill", setup, tokenizer.clone(), fingerprint, same).unwrap();
    let origin = if resume { Origin::Elsewhere } else { Origin::Random };
    let data = Data { texts, targets, targets_path, from_teacher: false };
    let task = Distill::new(config, data, tokenizer, &origin, run.device).unwrap();
    let mut stopping = Stopping { task, stops, interrupt: &interrupt };
    train(&run, &mut stopping, &interrupt).unwrap()
}

#[test]
fn resuming_within_and_between_the_stages_equals_not_stopping() {
    tch::set_num_threads(1);
    let d = Distillation::new();
    assert_eq!(until(&d, "whole", false, &[]), Ending::Complete);
    // Stages of 20 steps: before, at and behind the border.
    for (run, stops) in [("within", &[7, 31][..]), ("before", &[19]), ("at", &[20]), ("behind", &[21])] {
        for (count, stop) in stops.iter().enumerate() {
            assert_eq!(until(&d, run, count > 0, &[*stop]), Ending::Interrupt, "{run}");
        }
        assert_eq!(until(&d, run, true, &[]), Ending::Complete, "{run}");
        assert!(state(&d.0.path(run)) == state(&d.0.path("whole")), "{run}");
        assert_eq!(d.0.metrics(run), d.0.metrics("whole"), "{run}");
        for file in ["encoder/model.safetensors", "embedder/model.safetensors", "embedder/golden.safetensors"] {
            assert!(d.0.bytes(run, file) == d.0.bytes("whole", file), "{run}: {file}");
        }
    }
}

#[test]
fn a_run_that_was_stopped_before_its_first_evaluation_says_so_when_it_is_used() {
    tch::set_num_threads(1);
    let d = Distillation::new();
    assert_eq!(until(&d, "early", false, &[3]), Ending::Interrupt);
    fs::write(d.0.path("tune.toml"), "[train]\nepochs = 1\n").unwrap();
    let data = ["finetune", "--train", "train.jsonl", "--dev", "dev.jsonl", "--config", "tune.toml", "--out", "tuned"];
    for command in
        [[&data[..], &["--from", "early"]].concat(), vec!["eval", "--checkpoint", "early", "--data", "dev.jsonl"]]
    {
        let output = d.0.run(&command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("early is a run that was stopped before its first evaluation"), "{said}");
        assert!(said.contains("--resume, goes on"), "{said}");
    }
    assert!(!d.0.path("tuned").exists());
}

#[test]
fn the_second_stage_begins_with_a_fresh_optimizer() {
    tch::set_num_threads(1);
    let d = Distillation::new();
    until(&d, "run", false, &[22]);
    let file = state(&d.0.path("run"))[1].clone();
    let optimizer = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(optimizer.tensor("step").unwrap().data(), 2i64.to_le_bytes());
}
