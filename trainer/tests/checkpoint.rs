//! Tests the checkpoint directory: what is written is read back, and what does not fit is rejected by name.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use kinglet::spec::{Config, Mixer, MixerConfig, Norm, files};
use kinglet_train::{
    checkpoint::{golden, load, save},
    model::{Classifier, Mode, ModelConfig},
    tensors::{read_tensors, write_tensors},
};
use tch::{Device, Kind, Tensor};

fn config(mixer: Mixer) -> ModelConfig {
    let parameters = match mixer {
        Mixer::Attention => MixerConfig::Attention { heads: 2, buckets: 8, max_distance: 12 },
        _ => MixerConfig::new(mixer, 2),
    };
    let shape = Config {
        mixer: parameters,
        norm: Norm::PreRms,
        vocab_size: 20,
        intermediate_size: 12,
        num_labels: 3,
        ..Config::new(mixer, 2, 8)
    };
    shape.into()
}

fn labels() -> Vec<String> {
    ["no", "yes", "peut-être"].map(String::from).to_vec()
}

/// Creates a directory with stand-ins for a tokenizer's files, and a checkpoint of `mixer` in a directory below.
fn saved(mixer: Mixer) -> (tempfile::TempDir, Classifier) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(files::TOKENIZER), "{}").unwrap();
    fs::write(dir.path().join(files::TOKENIZER_TABLE), [1, 2, 3]).unwrap();
    let model = Classifier::new(&config(mixer), 3, Device::Cpu).unwrap();
    save(&dir.path().join("a/b"), &model, &labels(), dir.path()).unwrap();
    (dir, model)
}

fn values(t: &Tensor) -> Vec<f32> {
    Vec::try_from(t.detach().contiguous().view([-1])).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut out: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    out.sort();
    out
}

#[test]
fn every_mixer_comes_back_bit_for_bit() {
    for mixer in Mixer::ALL {
        let (dir, model) = saved(mixer);
        let path = dir.path().join("a/b");
        assert_eq!(
            names(&path),
            ["SHA256SUMS", "config.json", "labels.json", "model.safetensors", "tokenizer.bin", "tokenizer.json"]
        );
        let read = load(&path, Device::Cpu).unwrap();
        assert_eq!((read.model.config(), &read.labels), (model.config(), &labels()));
        for ((weight, a), (_, b)) in model.parameters().iter().zip(read.model.parameters()) {
            assert_eq!((a.size(), values(a)), (b.size(), values(b)), "{weight}");
            assert!(b.requires_grad() && b.is_leaf(), "{weight}");
        }
        let bytes = fs::read(path.join(files::WEIGHTS)).unwrap();
        save(&path, &read.model, &read.labels, &path).unwrap();
        assert_eq!(fs::read(path.join(files::WEIGHTS)).unwrap(), bytes, "saving again");
        assert_eq!(fs::read(path.join(files::TOKENIZER_TABLE)).unwrap(), [1, 2, 3]);
    }
}

/// Returns the error of loading the checkpoint after `change` to its weights.
fn refusal(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> String {
    let (dir, _) = saved(Mixer::Light);
    let path = dir.path().join("a/b").join(files::WEIGHTS);
    let mut tensors: Vec<(String, Tensor)> = read_tensors(&path).unwrap().into_iter().collect();
    change(&mut tensors);
    write_tensors(&path, &tensors).unwrap();
    kinglet_data::sums::remove(&dir.path().join("a/b")).unwrap();
    format!("{:#}", load(&dir.path().join("a/b"), Device::Cpu).unwrap_err())
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let error = refusal(|t| t.retain(|(name, _)| name != "layers.1.mixer.kernel"));
    assert!(error.contains("model.safetensors: weight layers.1.mixer.kernel is missing"), "{error}");
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let error =
        refusal(|t| t.iter_mut().filter(|(n, _)| n == "layers.0.ffn.up.weight").for_each(|t| t.1 = zeros(&[8, 12])));
    assert!(
        error.contains("weight layers.0.ffn.up.weight has shape [8, 12], the configuration says [12, 8]"),
        "{error}"
    );
    let error = refusal(|t| t.push(("layers.9.mixer.kernel".into(), zeros(&[1]))));
    assert!(error.contains("the configuration has no weight layers.9.mixer.kernel"), "{error}");
    let error =
        refusal(|t| t.iter_mut().filter(|(n, _)| n == "head.bias").for_each(|t| t.1 = t.1.to_kind(Kind::Int64)));
    assert!(error.contains("weight head.bias is Int64"), "{error}");
}

#[test]
fn damaged_files_are_refused_with_their_name() {
    let break_file = |name: &str, bytes: &[u8]| {
        let (dir, _) = saved(Mixer::Dynamic);
        let path = dir.path().join("a/b");
        fs::write(path.join(name), bytes).unwrap();
        format!("{:#}", load(&path, Device::Cpu).unwrap_err())
    };
    for (name, bytes) in [
        (files::WEIGHTS, &b"\x08\0\0\0\0\0\0\0nonsense"[..]),
        (files::WEIGHTS, b""),
        (files::CONFIG, b"{"),
        (files::LABELS, b"[\"one\"]"),
    ] {
        let error = break_file(name, bytes);
        assert!(error.contains(name), "{name}: {error}");
    }
    let error = format!("{:#}", load(Path::new("nowhere"), Device::Cpu).unwrap_err());
    assert!(error.contains("nowhere/config.json"), "{error}");
}

#[test]
fn labels_must_fit_the_classes() {
    let (dir, model) = saved(Mixer::Light);
    let error = format!("{:#}", save(dir.path(), &model, &labels()[..2], dir.path()).unwrap_err());
    assert!(error.contains("2 labels for a model with 3 classes"), "{error}");
}

#[test]
fn golden_logits_are_those_of_each_text_alone() {
    for mixer in Mixer::ALL {
        let (dir, model) = saved(mixer);
        let texts: Vec<Vec<u32>> = vec![vec![5, 6, 7, 1], vec![1], (2..19).collect()];
        golden(dir.path(), &model, &texts).unwrap();
        let file = read_tensors(&dir.path().join(files::GOLDEN)).unwrap();
        assert_eq!((file["input_ids"].size(), file["input_ids"].kind()), (vec![3, 17], Kind::Int64));
        assert_eq!((file["logits"].size(), file["logits"].kind()), (vec![3, 3], Kind::Float));
        for (row, text) in texts.iter().enumerate() {
            let ids: Vec<i64> = text.iter().map(|&id| i64::from(id)).collect();
            let length = ids.len() as i64;
            assert_eq!(file["attention_mask"].get(row as i64).sum(Kind::Int64).int64_value(&[]), length);
            let ids = Tensor::from_slice(&ids).view([1, length]);
            assert_eq!(file["input_ids"].get(row as i64).narrow(0, 0, length), ids.view([-1]));
            let logits = tch::no_grad(|| model.forward(&ids, &ids.ones_like(), &Mode::eval()));
            let off = (logits.get(0) - file["logits"].get(row as i64)).abs().max().double_value(&[]);
            assert!(off < 2e-6, "{} row {row}: {off}", mixer.name());
        }
        assert!(golden(dir.path(), &model, &[]).is_err());
        assert!(golden(dir.path(), &model, &[vec![3], vec![]]).is_err());
    }
}
