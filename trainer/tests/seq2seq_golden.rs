//! Compares encoder-decoders with transformers' T5 and PyTorch: encoder, logits, losses, and all gradients.
//! `trainer/tests/golden/make` regenerates the files (`golden/seq2seq.py`).
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kinglet::spec::files;
use kinglet_train::{
    batch::Seq2SeqBatch,
    checkpoint::load_seq2seq,
    commands::import_t5::{import, t5_name},
    model::{
        Mode,
        seq2seq::{Seq2Seq, Seq2SeqConfig, Seq2SeqWeight, shift_right},
    },
    tensors::{read_tensors, take_weights, write_tensors},
};
use tch::{Device, Kind, Tensor};

/// As in `golden/seq2seq.py`.
const Z_LOSS: f64 = 0.01;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns the largest difference, relative to the largest reference value if that is above 1.
#[track_caller]
fn assert_near(got: &Tensor, want: &Tensor, bound: f64, what: &str) {
    assert_eq!(got.size(), want.size(), "{what}");
    assert!(want.isfinite().all().int64_value(&[]) == 1);
    let size = want.abs().max().double_value(&[]).max(1.0);
    let off = (got.detach() - want).abs().max().double_value(&[]) / size;
    assert!(off <= bound, "{what}: off by {off:e}");
}

/// Runs `model` as the script ran the reference; `name` returns the reference's name of a weight.
fn follow(case: &str, model: &Seq2Seq, golden: &HashMap<String, Tensor>, name: impl Fn(Seq2SeqWeight) -> String) {
    let take = |name: &str| golden[name].shallow_clone();
    let (ids, mask, targets) = (take("input_ids"), take("attention_mask"), take("targets"));
    let encoded = model.encode(&ids, &mask, &Mode::eval());
    // Vectors of padding are meaningless and may differ.
    let tokens = mask.to_kind(Kind::Float).unsqueeze(-1);
    assert_near(&(&encoded * &tokens), &(&golden["encoded"] * &tokens), 2e-6, &format!("{case} encoder"));
    let logits = model.decode(&encoded, &mask, &shift_right(&targets), &Mode::eval());
    assert_near(&logits, &golden["logits"], 3e-6, &format!("{case} logits"));

    let (inputs, outputs) = (mask.sum(Kind::Int64), targets.ge(0).sum(Kind::Int64));
    let (tokens, target_tokens) = (inputs.int64_value(&[]) as usize, outputs.int64_value(&[]) as usize);
    let loss = model.loss(&Seq2SeqBatch { ids, mask, targets, tokens, target_tokens }, Z_LOSS, &Mode::eval());
    assert_near(&loss.sum.view(1), &golden["loss"], 2e-6, &format!("{case} loss"));
    assert_near(&loss.cross_entropy.view(1), &golden["cross_entropy"], 2e-6, &format!("{case} cross-entropy"));
    assert_eq!(loss.tokens, 19);
    loss.sum.backward();
    for (weight, p) in model.parameters() {
        let name = name(*weight);
        assert_near(&p.grad(), &golden[&format!("grad.{name}")], 2e-5, &format!("{case} gradient of {name}"));
    }
}

#[test]
fn an_imported_t5_is_that_of_transformers() {
    let golden = read_tensors(&folder().join("t5_expected.safetensors")).unwrap();
    let model = import(&folder().join("t5")).unwrap();
    assert_eq!(golden.len(), 7 + model.parameters().len(), "every weight is used");
    follow("t5", &model, &golden, |weight| t5_name(weight).unwrap());
}

#[test]
fn convolutional_encoder_decoders_are_those_of_pytorch() {
    let configs = fs::read(folder().join("seq2seq.json")).unwrap();
    let configs: HashMap<String, Seq2SeqConfig> = serde_json::from_slice(&configs).unwrap();
    assert_eq!(configs.len(), 4);
    for (name, config) in configs {
        let config = config.resolve();
        config.validate().unwrap();
        let mut golden = read_tensors(&folder().join(format!("seq2seq_{name}.safetensors"))).unwrap();
        let weights = take_weights(&mut golden, config.weights()).unwrap();
        assert_eq!(golden.len(), 7 + weights.len(), "{name}: every weight is used");
        let model = Seq2Seq::from_weights(&config, weights, Device::Cpu).unwrap();
        follow(&name, &model, &golden, |weight| weight.to_string());
    }
}

#[test]
fn the_fairseq_dialect_is_that_of_fairseqs_own_layers() {
    let configs = fs::read(folder().join("fairseq.json")).unwrap();
    let configs: HashMap<String, Seq2SeqConfig> = serde_json::from_slice(&configs).unwrap();
    assert_eq!(configs.len(), 2);
    for (name, config) in configs {
        let config = config.resolve();
        config.validate().unwrap();
        let mut golden = read_tensors(&folder().join(format!("fairseq_{name}.safetensors"))).unwrap();
        let weights = take_weights(&mut golden, config.weights()).unwrap();
        assert_eq!(golden.len(), 7 + weights.len(), "{name}: every weight is used");
        let model = Seq2Seq::from_weights(&config, weights, Device::Cpu).unwrap();
        follow(&format!("fairseq {name}"), &model, &golden, |weight| weight.to_string());
    }
}

/// Copies the T5 checkpoint with a changed configuration and changed weights.
fn changed(to: &Path, config: impl Fn(&mut serde_json::Value), weights: impl Fn(&mut HashMap<String, Tensor>)) {
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder().join("t5/config.json")).unwrap()).unwrap();
    config(&mut json);
    fs::write(to.join("config.json"), json.to_string()).unwrap();
    let mut tensors = read_tensors(&folder().join("t5/model.safetensors")).unwrap();
    weights(&mut tensors);
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    write_tensors(&to.join("model.safetensors"), &tensors).unwrap();
}

#[test]
fn what_is_no_t5_of_the_first_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |config: &dyn Fn(&mut serde_json::Value), weights: &dyn Fn(&mut HashMap<String, Tensor>)| {
        changed(dir.path(), config, weights);
        format!("{:#}", import(dir.path()).unwrap_err())
    };
    let same = |_: &mut HashMap<String, Tensor>| {};
    for (field, value, said) in [
        ("model_type", "\"mt5\"", "model_type is \"mt5\""),
        ("feed_forward_proj", "\"gated-gelu\"", "\"gated-gelu\""),
        ("scale_decoder_outputs", "false", "scale_decoder_outputs false"),
        ("d_kv", "8", "2 heads of 8 channels are not d_model = 8"),
        ("layer_norm_epsilon", "1e-5", "layer_norm_epsilon is 0.00001"),
        ("decoder_start_token_id", "3", "decoder_start_token_id is 3"),
        ("num_layers", "3", "encoder.block.2.layer.0.SelfAttention.q.weight is missing"),
        ("d_ff", "13", "encoder.block.0.layer.1.DenseReluDense.wi.weight has shape [12, 8]"),
        ("num_decoder_layers", "2", "the configuration has no weight decoder.block.2.layer.0.SelfAttention.k.weight"),
    ] {
        let error = refused(&|json| json[field] = serde_json::from_str(value).unwrap(), &same);
        assert!(error.contains(said), "{field}: {error}");
    }
    let untied = |tensors: &mut HashMap<String, Tensor>| {
        let other = &tensors["shared.weight"] + 1.0;
        tensors.insert("lm_head.weight".to_owned(), other);
    };
    let error = refused(&|_| (), &untied);
    assert!(error.contains("lm_head.weight differs from shared.weight"), "{error}");
}

#[test]
fn names_that_old_t5_files_carry_are_known() {
    let dir = tempfile::tempdir().unwrap();
    changed(
        dir.path(),
        |json| {
            json.as_object_mut().unwrap().remove("scale_decoder_outputs");
        },
        |tensors| {
            let shared = tensors.remove("shared.weight").unwrap();
            tensors.insert("encoder.embed_tokens.weight".to_owned(), shared.shallow_clone());
            tensors.insert("lm_head.weight".to_owned(), shared);
            let unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
            tensors.insert(unused.to_owned(), Tensor::zeros([8, 2], (Kind::Float, Device::Cpu)));
        },
    );
    let (old, new) = (import(dir.path()).unwrap(), import(&folder().join("t5")).unwrap());
    assert!(old.parameters().iter().zip(new.parameters()).all(|(a, b)| a.0 == b.0 && a.1 == b.1));
}

#[test]
fn the_command_writes_a_model_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = |checkpoint: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet-train"));
        command.arg("import-t5").arg("--checkpoint").arg(checkpoint).arg("--out").arg(dir.path()).output().unwrap()
    };
    let output = run(&folder().join("t5"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = load_seq2seq(dir.path(), Device::Cpu).unwrap();
    let parameters = model.config().parameters();
    assert_eq!(String::from_utf8_lossy(&output.stdout).split(' ').next(), Some(parameters.to_string().as_str()));
    let imported = import(&folder().join("t5")).unwrap();
    assert!(model.parameters().iter().zip(imported.parameters()).all(|(a, b)| a.0 == b.0 && a.1 == b.1));

    let output = run(&dir.path().join("missing"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(files::CONFIG));
}
