//! Tests calibration against scipy and scikit-learn, against its guarantees, and through the program.

use std::fs;

use kinglet::answer::{Answer, softmax};
use kinglet::bundle::{Buffer, Bundle};
use kinglet::calibration::Calibration;
use kinglet::engine::Engine;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use kinglet::multi_label::Decision;
use kinglet_data::calibration_metrics::Selective;
use kinglet_export::DIAGRAM;
use kinglet_export::binomial::Binomial;
use kinglet_export::calibrate::{self, CONFIDENCE, Fitted, Scope, Targets};
use kinglet_export::mixture::Mixture;
use kinglet_export::out_of_scope::SCORES;
use kinglet_export::scored::{FOLDS, ScoredText, fold};
use kinglet_onnx::TractModel;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::Random;
use crate::program::{Run, names, stderr};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/calibration.json")).unwrap()
}

fn rows(golden: &Value) -> Vec<ScoredText> {
    let logits = golden["logits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| -> Vec<f32> { row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect() });
    let gold = golden["gold"].as_array().unwrap().iter().map(|class| class.as_u64().unwrap() as usize);
    logits
        .zip(gold)
        .enumerate()
        .map(|(i, (logits, gold))| ScoredText { logits, gold, fold: i % FOLDS, blank: false })
        .collect()
}

fn near(name: &str, got: f64, want: &Value, bound: f64) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= bound, "{name}: {got}, not {want}");
}

#[test]
fn the_temperature_is_scipys() {
    let golden = golden();
    let rows = rows(&golden);
    near("temperature", calibrate::temperature(&rows.iter().collect::<Vec<_>>()), &golden["temperature"], 1e-7);
}

#[test]
fn probabilities_are_as_good_as_scikit_learn_says() {
    let golden = golden();
    for (name, temperature) in [("before", 1.0), ("after", golden["temperature"].as_f64().unwrap() as f32)] {
        let mut reliability = kinglet_data::calibration_metrics::Reliability::new();
        for row in rows(&golden) {
            let mut p = vec![0.0; row.logits.len()];
            softmax(&row.logits, temperature, &mut p).unwrap();
            reliability.add(&p, row.gold);
        }
        let want = &golden[name];
        near("accuracy", reliability.accuracy(), &want["accuracy"], 1e-12);
        near("nll", reliability.nll(), &want["nll"], 1e-6);
        near("brier", reliability.brier(), &want["brier"], 1e-6);
        near("ece", reliability.ece(15), &want["ece"], 1e-6);
        near("ece_adaptive", reliability.adaptive_ece(15), &want["ece_adaptive"], 1e-6);
    }
}

#[test]
fn the_threshold_is_the_one_of_the_rule_written_with_scipy() {
    let golden = golden();
    let rows = rows(&golden);
    for want in golden["chosen"].as_array().unwrap() {
        let targets = Targets { error_rate: want["rate"].as_f64().unwrap(), coverage: 0.9 };
        let Fitted { values, chosen, .. } =
            calibrate::fit(&rows.iter().collect::<Vec<_>>(), &targets, None, true).unwrap();
        assert_eq!(json!([chosen.answered, chosen.errors]), json!([want["answered"], want["errors"]]), "{want}");
        near("bound", chosen.error_bound, &want["bound"], 1e-9);
        // The threshold answers exactly as many rows with the arithmetic of devices.
        let answered = rows.iter().filter(|row| {
            let mut p = vec![0.0; row.logits.len()];
            !Answer::from_logits(&row.logits, Some(&values), &mut p).unwrap().is_unsure()
        });
        assert_eq!(answered.count(), chosen.answered, "{want}");
    }
}

#[test]
fn set_thresholds_are_numpys_quantiles() {
    let golden = golden();
    let rows = rows(&golden);
    for want in golden["sets"].as_array().unwrap() {
        let targets = Targets { error_rate: 0.05, coverage: want["coverage"].as_f64().unwrap() };
        let Fitted { values, .. } = calibrate::fit(&rows.iter().collect::<Vec<_>>(), &targets, None, true).unwrap();
        near("set_threshold", f64::from(values.set_threshold), &want["set_threshold"], 1e-6);
    }
}

#[test]
fn areas_under_the_curve_are_scikit_learns() {
    let golden = golden();
    // The golden scores come from one temperature: all rows in one fold, and the same fit for all the others.
    let mut rows = rows(&golden);
    let mut doubled = rows.clone();
    rows.iter_mut().for_each(|row| row.fold = 0);
    doubled.iter_mut().for_each(|row| row.fold = 1);
    doubled.extend(rows);
    let measured = calibrate::measure(&doubled, &Targets::default(), &Scope { class: Some(4), ..Scope::default() })
        .unwrap()
        .out_of_scope
        .unwrap();
    assert_eq!(measured.scores.len(), SCORES.len());
    for detection in measured.scores {
        near(detection.score, detection.after.auroc, &golden["auroc"][detection.score], 1e-4);
    }
}

fn mixture(class: usize, rate: f64) -> Mixture {
    Mixture { label: "oos".to_owned(), class, rate }
}

#[test]
fn mixtures_are_calibrated_as_by_scipy() {
    let golden = golden();
    let rows = rows(&golden);
    let rows: Vec<&ScoredText> = rows.iter().collect();
    for want in golden["mixtures"].as_array().unwrap() {
        let number = |name: &str| want[name].as_f64().unwrap();
        let targets = Targets { error_rate: number("error_rate"), coverage: number("coverage") };
        let mixture = mixture(4, number("rate"));
        let Fitted { values, chosen, shift } = calibrate::fit(&rows, &targets, Some(&mixture), true).unwrap();
        near("temperature", values.temperature.into(), &want["temperature"], 1e-5);
        near("shift", shift, &want["shift"], 1e-5);
        near("set threshold", values.set_threshold.into(), &want["set_threshold"], 1e-5);
        near("threshold", chosen.threshold.into(), &want["threshold"], 1e-5);
        near("bound", chosen.error_bound, &want["bound"], 1e-6);
        assert_eq!(chosen.answered as u64, want["answered"].as_u64().unwrap(), "{want}");
        assert_eq!(values.out_of_scope, Some(number("rate") as f32));
        // Once the scores have the constant, none is missing.
        let raised: Vec<ScoredText> = rows
            .iter()
            .map(|row| {
                let mut row = (*row).clone();
                row.logits[4] += shift as f32;
                row
            })
            .collect();
        let raised: Vec<&ScoredText> = raised.iter().collect();
        let again = calibrate::fit(&raised, &targets, Some(&mixture), true).unwrap();
        assert!(again.shift.abs() < 1e-5 && again.chosen.answered == chosen.answered, "{again:?}");
        assert_eq!(calibrate::fit(&raised, &targets, Some(&mixture), false).unwrap().shift, 0.0);
    }
    let inside: Vec<&ScoredText> = rows.iter().copied().filter(|row| row.gold != 4).collect();
    let error = calibrate::fit(&inside, &Targets::default(), Some(&mixture(4, 0.5)), true).unwrap_err();
    assert!(error.to_string().contains("0 of"), "{error}");
}

/// Returns `inside` rows of the first three classes and `outside` of the fourth, which the scores think rare.
fn rare(random: &mut Random, inside: usize, outside: usize) -> Vec<ScoredText> {
    (0..inside + outside)
        .map(|i| {
            let gold = if i < inside { i % 3 } else { 3 };
            let mut logits: Vec<f32> = (0..4).map(|_| random.normal()).collect();
            logits[gold] += 3.0;
            logits[3] -= 3.0;
            ScoredText { logits, gold, fold: (random.bits() % FOLDS as u64) as usize, blank: false }
        })
        .collect()
}

/// Where a quarter of the texts are out of scope, the promises of a calibration for 1 in 20 are broken, those of one for the mixture
/// kept: error rates by at least CONFIDENCE of the calibrations, coverage on average.
#[test]
fn a_calibration_for_a_mixture_keeps_its_promises_there() {
    let targets = Targets { error_rate: 0.1, coverage: 0.9 };
    let mut random = Random(3);
    let fresh = rare(&mut random, 15_000, 5_000);
    let mixture = mixture(3, 0.25);
    let trials = 100;
    let (mut covered, mut exceeded, mut share) = ([0.0; 2], [0; 2], 0.0);
    for _ in 0..trials {
        let rows = rare(&mut random, 950, 50);
        let rows: Vec<&ScoredText> = rows.iter().collect();
        for (of, mixture) in [None, Some(&mixture)].into_iter().enumerate() {
            let Fitted { values, shift, .. } = calibrate::fit(&rows, &targets, mixture, true).unwrap();
            let (mut right, mut given, mut inside) = (0usize, 0usize, 0usize);
            for row in &fresh {
                let (mut p, mut logits) = ([0.0; 4], row.logits.clone());
                logits[3] += shift as f32;
                let answer = Answer::from_logits(&logits, Some(&values), &mut p).unwrap();
                given += usize::from(!answer.is_unsure());
                right += usize::from(answer.label().is_some_and(|label| label.class == row.gold));
                inside += usize::from(answer.set().unwrap().any(|label| label.class == row.gold));
            }
            covered[of] += inside as f64 / fresh.len() as f64 / f64::from(trials);
            exceeded[of] += i32::from((given - right) as f64 > targets.error_rate * given as f64);
            share += if of == 1 { given as f64 / fresh.len() as f64 / f64::from(trials) } else { 0.0 };
        }
    }
    assert!(covered[0] < 0.89 && exceeded[0] > trials / 2, "{covered:?} {exceeded:?}");
    assert!(
        covered[1] > 0.89 && f64::from(exceeded[1]) <= (1.0 - CONFIDENCE) * f64::from(trials),
        "{covered:?} {exceeded:?}"
    );
    assert!(share > 0.5, "{share}");
}

#[test]
fn a_blank_row_is_never_answered() {
    let mut rows = rare(&mut Random(4), 300, 0);
    let of = |rows: &[ScoredText]| calibrate::measure(rows, &Targets::default(), &Scope::default()).unwrap();
    let before = of(&rows);
    rows.iter_mut().step_by(2).for_each(|row| row.blank = true);
    let after = of(&rows);
    assert!(before.selective.answered > 0.5 && after.selective.answered <= 0.5, "{before:?} {after:?}");
}

#[test]
fn tails_and_bounds_are_scipys() {
    let golden = golden();
    let binomial = Binomial::new(100_000);
    for case in golden["bounds"].as_array().unwrap() {
        let (errors, trials) = (case["errors"].as_u64().unwrap(), case["trials"].as_u64().unwrap());
        let bound = binomial.upper_bound(errors as usize, trials as usize, case["delta"].as_f64().unwrap());
        near(&case.to_string(), bound, &case["bound"], 1e-9);
    }
    for case in golden["tails"].as_array().unwrap() {
        let (errors, trials) = (case["errors"].as_u64().unwrap(), case["trials"].as_u64().unwrap());
        let tail = binomial.at_most(errors as usize, trials as usize, case["p"].as_f64().unwrap());
        near(&case.to_string(), tail, &case["tail"], 1e-9);
    }
}

/// Returns rows of a source whose logits are three times too large: the class is drawn from softmax(logits / 3).
fn drawn(random: &mut Random, n: usize, classes: usize) -> Vec<ScoredText> {
    let uniform = |random: &mut Random| (random.bits() >> 11) as f64 / (1u64 << 53) as f64;
    (0..n)
        .map(|_| {
            let truth: Vec<f32> = (0..classes).map(|_| 2.0 * random.normal()).collect();
            let mut p = vec![0.0; classes];
            softmax(&truth, 1.0, &mut p).unwrap();
            let mut rest = uniform(random);
            let gold = p.iter().position(|&p| {
                rest -= f64::from(p);
                rest < 0.0
            });
            let logits = truth.iter().map(|x| 3.0 * x).collect();
            ScoredText {
                logits,
                gold: gold.unwrap_or(classes - 1),
                fold: (random.bits() % FOLDS as u64) as usize,
                blank: false,
            }
        })
        .collect()
}

#[test]
fn the_temperature_of_a_known_source_is_found() {
    let rows = drawn(&mut Random(1), 20_000, 4);
    let temperature = calibrate::temperature(&rows.iter().collect::<Vec<_>>());
    assert!((temperature - 3.0).abs() < 0.1, "{temperature}");
    let measured = calibrate::measure(&rows, &Targets::default(), &Scope::default()).unwrap();
    assert!(measured.before.ece > 0.1 && measured.after.ece < 0.02, "{measured:?}");
}

/// Over many calibrations of one source, sets cover the stated share on average, and at most 1 − CONFIDENCE of the
/// error rates exceed the stated one (within the chance of the sample that estimates it).
#[test]
fn what_is_stated_holds_on_new_rows_of_the_source() {
    let targets = Targets { error_rate: 0.1, coverage: 0.9 };
    let mut random = Random(2);
    let fresh = drawn(&mut random, 20_000, 4);
    let (mut covered, mut exceeded, trials) = (0.0, 0, 200);
    for _ in 0..trials {
        let rows = drawn(&mut random, 300, 4);
        let Fitted { values, chosen, .. } =
            calibrate::fit(&rows.iter().collect::<Vec<_>>(), &targets, None, true).unwrap();
        let (mut reliability, mut inside) = (kinglet_data::calibration_metrics::Reliability::new(), 0);
        for row in &fresh {
            let mut p = vec![0.0; 4];
            let answer = Answer::from_logits(&row.logits, Some(&values), &mut p).unwrap();
            reliability.add(answer.probabilities(), row.gold);
            inside += usize::from(answer.set().unwrap().any(|label| label.class == row.gold));
        }
        covered += inside as f64 / fresh.len() as f64;
        let Selective { answered, accuracy } = reliability.selective(values.threshold);
        // Three standard deviations of an error rate of 0.1 over the answered rows.
        let chance = 3.0 * (0.09 / (answered * fresh.len() as f64).max(1.0)).sqrt();
        exceeded += usize::from(1.0 - accuracy > targets.error_rate + chance);
        assert!(chosen.answered == 0 || answered > 0.05, "{chosen:?}");
    }
    let covered = covered / f64::from(trials);
    assert!((0.89..0.93).contains(&covered), "{covered}");
    assert!(exceeded as f64 <= (1.0 - CONFIDENCE) * f64::from(trials), "{exceeded} of {trials}");
}

#[test]
fn rows_that_show_nothing_leave_the_model_always_unsure() {
    let wrong = |n: usize| (0..n).map(|i| (i as f32 / n as f32, i % 2 == 0)).collect::<Vec<_>>();
    let chosen = calibrate::threshold(wrong(1000), 0.05);
    assert_eq!((chosen.threshold, chosen.answered, chosen.error_bound), (1.0, 0, 1.0));
    let right = |n: usize| (0..n).map(|i| (i as f32 / n as f32, true)).collect::<Vec<_>>();
    let least = calibrate::min_rows(0.05);
    assert_eq!(calibrate::threshold(right(least), 0.05).threshold, 0.0);
    assert_eq!(calibrate::threshold(right(least - 1), 0.05).threshold, 1.0);
}

#[test]
fn equal_confidences_are_answered_together_or_not_at_all() {
    // 300 confident and correct rows, and 100 with one lower confidence, half of them wrong.
    let rows = (0..400).map(|i| if i < 300 { (0.9, true) } else { (0.5, i % 2 == 0) }).collect();
    let chosen = calibrate::threshold(rows, 0.05);
    assert_eq!((chosen.threshold, chosen.answered, chosen.errors), (0.5, 300, 0));
}

#[test]
fn texts_that_a_model_gets_all_right_end_at_the_coldest_temperature() {
    let rows: Vec<ScoredText> =
        (0..10).map(|i| ScoredText { logits: vec![1.0, 0.0], gold: 0, fold: i % FOLDS, blank: false }).collect();
    assert_eq!(calibrate::temperature(&rows.iter().collect::<Vec<_>>()), calibrate::TEMPERATURES.0);
    let rows: Vec<ScoredText> =
        (0..10).map(|i| ScoredText { logits: vec![1.0, 0.0], gold: i % 2, fold: 0, blank: false }).collect();
    assert_eq!(calibrate::temperature(&rows.iter().collect::<Vec<_>>()), calibrate::TEMPERATURES.1);
    // Three of four are correct: p = 3/4 at 1 / T = ln 3.
    let rows: Vec<ScoredText> = (0..8)
        .map(|i| ScoredText { logits: vec![1.0, 0.0], gold: usize::from(i % 4 == 0), fold: 0, blank: false })
        .collect();
    let got = calibrate::temperature(&rows.iter().collect::<Vec<_>>());
    assert!((got - 1.0 / 3f64.ln()).abs() < 1e-9, "{got}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_calibration_survives_json_bit_for_bit(
        temperature in 0.01f32..=100.0, threshold in 0f32..=1.0, set_threshold in 0f32..=1.0,
        error_rate in 1e-6f32..0.999, coverage in 1e-6f32..0.999, rows in 1u32..,
    ) {
        let values = Calibration { temperature, threshold, error_rate, set_threshold, coverage, rows, out_of_scope: None };
        let read: Calibration = serde_json::from_str(&serde_json::to_string(&values).unwrap()).unwrap();
        prop_assert_eq!(read.to_le_bytes(), values.to_le_bytes());
    }

    #[test]
    fn equal_texts_are_in_one_fold(text in ".*") {
        prop_assert!(fold(&text) < FOLDS);
        prop_assert_eq!(fold(&text), fold(&text.clone()));
    }
}

#[test]
fn export_calibrates_writes_it_into_every_file_and_reports_it() {
    let run = Run::new();
    // Without dev data: int8 flips its labels on a model this random.
    let args = ["--no-dev", "--calibration", run.dev(420, 30), "--error-rate", "0.15", "--coverage", "0.9"];
    let output = run.export(&[&args[..], &["--out-of-scope", "class 0"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(names(&run.path("out")).contains(&DIAGRAM.to_owned()));
    let report = run.report();
    let calibration = &report["calibration"];
    assert_eq!(calibration["stated"], json!({ "error_rate": 0.15, "coverage": 0.9 }));
    assert_eq!(calibration["chose_the_checkpoint"], false);
    let int8: Calibration = serde_json::from_value(calibration["int8"]["values"].clone()).unwrap();
    let fp32: Calibration = serde_json::from_value(calibration["fp32"].clone()).unwrap();
    assert_eq!((int8.rows, int8.error_rate, int8.coverage), (420, 0.15, 0.9));
    assert_ne!(int8, fp32);

    let model = |name: &str, calibration| {
        let model = TractModel::open(&run.path("out").join(name)).unwrap();
        assert_eq!(model.decision(), Decision::One(Some(calibration)), "{name}");
    };
    model("model.int8.onnx", int8);
    model("model.onnx", fp32);
    let bytes = fs::read(run.path("out/model.kinglet")).unwrap();
    let buffer = Buffer::new(&bytes);
    assert_eq!(Bundle::new(buffer.as_slice()).unwrap().calibration(), Some(int8));

    let measured = &calibration["int8"]["measured"];
    assert_eq!((&measured["rows"], &measured["folds"]), (&json!(420), &json!(5)));
    let counted: u64 = measured["after"]["bins"].as_array().unwrap().iter().map(|b| b["rows"].as_u64().unwrap()).sum();
    assert_eq!(counted, 420);
    let scope = &measured["out_of_scope"];
    assert_eq!(scope["rows_in"].as_u64().unwrap() + scope["rows_out"].as_u64().unwrap(), 420);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("calibrated on 420 texts, measured in 5 folds (int8)"), "{text}");
    let svg = fs::read_to_string(run.path("out").join(DIAGRAM)).unwrap();
    assert!(svg.contains("after temperature scaling: ECE") && !svg.contains("NaN"));
}

#[test]
fn a_model_that_would_always_be_unsure_keeps_a_higher_error_rate_unless_one_is_asked_for() {
    let run = Run::new();
    let args = ["--no-dev", "--calibration", run.dev(240, 20)];
    let stated = |more: &[&str]| {
        let output = run.export(&[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report = run.report();
        let answered = report["calibration"]["int8"]["chosen"]["answered"].as_u64().unwrap();
        (report["calibration"]["stated"]["error_rate"].as_f64().unwrap(), answered > 0, report["notes"].to_string())
    };
    let (rate, answers, notes) = stated(&[]);
    assert!(answers && rate > 0.05 && notes.contains("% of the labels are wrong, not 5%"), "{rate} {answers} {notes}");
    let (rate, answers, notes) = stated(&["--error-rate", "0.05"]);
    assert!(!answers && rate == 0.05 && notes.contains("show an error rate of 5%"), "{rate} {answers} {notes}");
}

#[test]
fn a_rate_raises_the_score_of_its_label_in_every_file_and_changes_no_other() {
    let run = Run::new();
    let args = ["--no-dev", "--calibration", run.dev(420, 30), "--error-rate", "0.2", "--out-of-scope", "class 0"];
    let scores = || {
        let mut engine = TractModel::open(&run.path("out/model.onnx")).unwrap().engine();
        let bytes = fs::read(run.path("out/model.kinglet")).unwrap();
        let buffer = Buffer::new(&bytes);
        let bundle = Bundle::new(buffer.as_slice()).unwrap();
        let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
        let mut native = NativeEngine::new(bundle, &mut scratch[..]).unwrap();
        let mut out = [[0.0f32; 5]; 2];
        engine.logits(&[300, 301, 1], &mut out[0]).unwrap();
        native.logits(&[300, 301, 1], &mut out[1]).unwrap();
        out
    };
    assert_eq!(run.export(&args).status.code(), Some(0));
    let plain = scores();
    let natural = run.report()["calibration"]["int8"]["values"]["out_of_scope"].as_f64().unwrap();
    let output = run.export(&[&args[..], &["--out-of-scope-rate", "0.4"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let raised = scores();
    let report = run.report();
    let calibration = &report["calibration"];
    assert_eq!(calibration["mixture"], json!({ "label": "class 0", "class": 0, "rate": 0.4 }));
    let shift = calibration["shift"].as_f64().unwrap();
    assert!(shift.abs() > 0.01 && natural > 0.0 && natural < 1.0, "{shift} {natural}");
    for (plain, raised) in plain.iter().zip(&raised) {
        assert!((f64::from(raised[0] - plain[0]) - shift).abs() < 1e-4, "{plain:?} {raised:?} {shift}");
        assert_eq!(plain[1..], raised[1..]);
    }
    let bytes = fs::read(run.path("out/model.kinglet")).unwrap();
    let buffer = Buffer::new(&bytes);
    let stored = Bundle::new(buffer.as_slice()).unwrap().calibration();
    assert_eq!(stored.and_then(|values| values.out_of_scope), Some(0.4));
    let onnx = TractModel::open(&run.path("out/model.int8.onnx")).unwrap();
    assert_eq!(onnx.decision(), Decision::One(stored));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("this holds for texts of which 40% are out of scope (\"class 0\")"), "{text}");
    let card = fs::read_to_string(run.path("out/README.md")).unwrap();
    assert!(card.contains("This holds for texts of which 40%") && card.contains("| 30% |"), "{card}");

    let refused = |args: &[&str]| {
        let output = run.export(args);
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    assert!(refused(&["--no-dev", "--out-of-scope-rate", "0.2"]).contains("--out-of-scope"));
    assert!(refused(&["--no-dev", "--out-of-scope", "class 0", "--out-of-scope-rate", "0.2"]).contains("needs data"));
    assert!(
        refused(&[&args[..5], &["--out-of-scope", "nothing", "--out-of-scope-rate", "0.2"]].concat())
            .contains("no label")
    );
    // Too few rows out of scope for a small rate of errors: no score is raised.
    let few = run.export(
        &[&args[..3], &["--error-rate", "0.001", "--out-of-scope", "class 0", "--out-of-scope-rate", "0.4"]].concat(),
    );
    assert_eq!(few.status.code(), Some(0), "{}", stderr(&few));
    assert!(stderr(&few).contains("with the label \"class 0\" cannot show an error rate of 0.1%"), "{}", stderr(&few));
    assert!(scores().iter().zip(&plain).all(|(few, plain)| few == plain));
    let mut lines = fs::read_to_string(run.path("dev.jsonl")).unwrap();
    lines = lines.lines().filter(|line| !line.contains("class 0")).map(|line| format!("{line}\n")).collect();
    fs::write(run.path("dev.jsonl"), lines).unwrap();
    assert!(refused(&[&args[..], &["--out-of-scope-rate", "0.2"]].concat()).contains("needs rows of both kinds"));
}

#[test]
fn too_few_rows_leave_the_model_uncalibrated_with_a_note() {
    let run = Run::new();
    let output = run.export(&["--dev", run.dev(40, 10)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("note: not calibrated: 40 rows cannot show an error rate of 5%"));
    assert_eq!(run.report()["calibration"], Value::Null);
    let onnx = TractModel::open(&run.path("out/model.int8.onnx")).unwrap();
    assert_eq!(onnx.decision(), Decision::One(None));
    assert!(!run.path("out").join(DIAGRAM).exists());
}

#[test]
fn other_data_calibrate_but_not_those_that_trained_the_weights() {
    let run = Run::new();
    fs::rename(run.path(run.dev(100, 2)), run.path("other.jsonl")).unwrap();
    let dev = run.dev(120, 4);
    let sha256 = |name: &str| kinglet_data::digest::sha256(&fs::read(run.path(name)).unwrap());
    let record = |train: &str| {
        let training = json!({ "dev": { "file": dev, "sha256": sha256(dev) }, "train": { "file": train, "sha256": sha256(train) } });
        fs::write(run.path("checkpoint/training.json"), training.to_string()).unwrap();
    };
    record("checkpoint/labels.json");
    let output = run.export(&["--error-rate", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("by which training chose the best weights"), "{}", stderr(&output));
    assert_eq!(run.report()["calibration"]["chose_the_checkpoint"], true);

    let output = run.export(&["--error-rate", "0.1", "--calibration", "other.jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = run.report();
    assert_eq!((&report["calibration"]["file"], &report["dev"]["rows"]), (&json!("other.jsonl"), &json!(120)));
    assert_eq!(report["calibration"]["int8"]["values"]["rows"], 100);
    assert_eq!(report["calibration"]["chose_the_checkpoint"], false);

    record("other.jsonl");
    for (args, words) in [
        (["--calibration", "other.jsonl"], "other.jsonl is the file that the weights were fitted to"),
        (["--calibration", "absent.jsonl"], "cannot read the calibration data absent.jsonl"),
        (["--out-of-scope", "oos"], "the model has no label \"oos\""),
        (["--error-rate", "0"], "above 0 and below 1"),
        (["--coverage", "1"], "above 0 and below 1"),
    ] {
        let output = run.export(&args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
