//! The teacher against transformers (`golden/bert.py`): ids, hidden values, vectors, probabilities, and the folders it refuses.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use fixture::at_most;
use kinglet_train::teacher::settings::Pooling;
use kinglet_train::teacher::{Options, Precision, Teacher};
use kinglet_train::tensors::{read_tensors, write_tensors};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Bound on the difference of single values, which a wrong GELU, epsilon, mask or position exceeds by far.
const BOUND: f64 = 1e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn expected() -> (Value, HashMap<String, Tensor>) {
    let record = serde_json::from_slice(&fs::read(golden("bert_expected.json")).unwrap()).unwrap();
    (record, read_tensors(&golden("bert_expected.safetensors")).unwrap())
}

fn texts(record: &Value) -> Vec<String> {
    record["texts"].as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap().to_owned()).collect()
}

fn load(folder: &Path, options: &Options) -> anyhow::Result<Teacher> {
    Teacher::with(folder, Device::Cpu, Precision::F32, options)
}

#[track_caller]
fn close(got: &Tensor, want: &Tensor, bound: f64, what: &str) {
    assert_eq!(got.size(), want.size(), "{what}");
    at_most(bound, (got - want).abs().max().double_value(&[]), what);
}

/// Asserts that the vectors of the golden texts, in one batch with padding and one by one, are `expected[name]`.
#[track_caller]
fn embeds(folder: &Path, options: &Options, name: &str) {
    let (record, expected) = expected();
    let teacher = load(folder, options).unwrap();
    close(&teacher.embed(&texts(&record)).unwrap(), &expected[name], BOUND, name);
    for (i, text) in texts(&record).iter().enumerate() {
        let one = teacher.embed(&[text]).unwrap();
        close(&one, &expected[name].narrow(0, i as i64, 1), BOUND, &format!("{name}, text {i} alone"));
    }
}

/// Copies the golden encoder to a folder whose files a test changes.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bert = golden("bert");
        fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        for name in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "modules.json",
            "1_Pooling/config.json",
        ] {
            fs::copy(bert.join(name), dir.path().join(name)).unwrap();
        }
        Folder(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, value: &Value) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
        self
    }

    /// Sets a key of a JSON file.
    fn set(&self, name: &str, key: &str, value: Value) -> &Self {
        let path = self.path().join(name);
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        file[key] = value;
        self.write(name, &file)
    }

    fn remove(&self, name: &str) -> &Self {
        fs::remove_file(self.path().join(name)).unwrap();
        self
    }

    /// Writes the weights again, each changed by `change`.
    fn weights(&self, change: impl Fn(String, Tensor) -> Option<(String, Tensor)>) -> &Self {
        let path = self.path().join("model.safetensors");
        let tensors = read_tensors(&path).unwrap();
        let changed: Vec<_> = tensors.into_iter().filter_map(|(name, tensor)| change(name, tensor)).collect();
        write_tensors(&path, &changed).unwrap();
        self
    }

    fn error(&self) -> String {
        self.error_with(&Options::default())
    }

    fn error_with(&self, options: &Options) -> String {
        format!("{:#}", load(self.path(), options).unwrap_err())
    }
}

#[track_caller]
fn contains(message: &str, part: &str) {
    assert!(message.contains(part), "{message:?} does not contain {part:?}");
}

#[test]
fn ids_and_bytes_of_tokens_are_those_of_the_python_tokenizer() {
    let (record, _) = expected();
    let teacher = load(&golden("bert"), &Options::default()).unwrap();
    for (case, encoded) in record["texts"].as_array().unwrap().iter().zip(teacher.encode(&texts(&record)).unwrap()) {
        assert_eq!(json!(encoded.ids), case["ids"], "{case}");
        assert_eq!(json!(encoded.spans), case["spans"], "{case}");
    }
}

#[test]
fn hidden_values_after_each_layer_are_those_of_transformers() {
    let (record, expected) = expected();
    let teacher = load(&golden("bert"), &Options::default()).unwrap();
    let states = teacher.hidden_states(&texts(&record)[0]).unwrap();
    assert_eq!(states.len(), 3);
    for (i, state) in states.iter().enumerate() {
        close(state, &expected["hidden_states"].get(i as i64), BOUND, &format!("state {i}"));
    }
}

#[test]
fn vectors_are_those_of_transformers_by_the_folders_settings() {
    embeds(&golden("bert"), &Options::default(), "mean");
    let raw = Options { normalize: Some(false), ..Options::default() };
    embeds(&golden("bert"), &raw, "mean_as_it_is");
    let cls = Options { pooling: Some(Pooling::Cls), ..Options::default() };
    embeds(&golden("bert"), &cls, "cls");
    let prompt = Options { prompt: Some("query: ".to_owned()), ..Options::default() };
    embeds(&golden("bert"), &prompt, "prompt");
    let short = Options { max_length: Some(6), ..Options::default() };
    embeds(&golden("bert"), &short, "short");
}

#[test]
fn both_forms_of_the_settings_are_read() {
    let folder = Folder::new();
    folder.set("1_Pooling/config.json", "pooling_mode", json!("cls"));
    embeds(folder.path(), &Options::default(), "cls");
    // sentence-transformers 2 to 5: flags, and a length that goes before the tokenizer's.
    let flags = |cls: bool| {
        json!({"word_embedding_dimension": 16, "pooling_mode_cls_token": cls, "pooling_mode_mean_tokens": !cls,
               "pooling_mode_max_tokens": false, "pooling_mode_mean_sqrt_len_tokens": false})
    };
    folder.write("1_Pooling/config.json", &flags(true));
    embeds(folder.path(), &Options::default(), "cls");
    folder.write("1_Pooling/config.json", &flags(false));
    embeds(folder.path(), &Options::default(), "mean");
    folder.write("sentence_bert_config.json", &json!({"max_seq_length": 6, "do_lower_case": false}));
    embeds(folder.path(), &Options::default(), "short");
    // No length but the positions, of which no text here needs all; no settings at all: the mean as it is.
    folder.remove("sentence_bert_config.json").set("tokenizer_config.json", "model_max_length", json!(1e30));
    assert_eq!(load(folder.path(), &Options::default()).unwrap().max_length(), 20);
    folder.set("tokenizer_config.json", "model_max_length", json!(16)).remove("modules.json");
    embeds(folder.path(), &Options::default(), "mean_as_it_is");
}

#[test]
fn prompts_of_the_folder_are_applied_and_left_out_of_the_mean_if_it_says_so() {
    let folder = Folder::new();
    let prompts = |name: Value| json!({"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": name});
    folder.write("config_sentence_transformers.json", &prompts(json!(null)));
    embeds(folder.path(), &Options::default(), "mean");
    folder.write("config_sentence_transformers.json", &prompts(json!("document")));
    embeds(folder.path(), &Options::default(), "mean");
    folder.write("config_sentence_transformers.json", &prompts(json!("query")));
    embeds(folder.path(), &Options::default(), "prompt");
    folder.set("1_Pooling/config.json", "include_prompt", json!(false));
    embeds(folder.path(), &Options::default(), "prompt_excluded");
    let none = Options { prompt: Some(String::new()), ..Options::default() };
    embeds(folder.path(), &none, "mean");
    folder.write("config_sentence_transformers.json", &prompts(json!("passage")));
    contains(&folder.error(), "default_prompt_name is \"passage\", but prompts has no such name");
}

#[test]
fn the_transformer_may_lie_in_a_folder_of_its_own() {
    let folder = Folder::new();
    let types = ["models.Transformer", "models.Pooling"].map(|kind| format!("sentence_transformers.{kind}"));
    folder
        .write("modules.json", &json!([{"path": "0_BERT", "type": types[0]}, {"path": "1_Pooling", "type": types[1]}]));
    fs::create_dir(folder.path().join("0_BERT")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::rename(folder.path().join(name), folder.path().join("0_BERT").join(name)).unwrap();
    }
    embeds(folder.path(), &Options::default(), "mean_as_it_is");
}

#[test]
fn weights_may_carry_a_prefix_old_names_and_unused_tensors() {
    let folder = Folder::new();
    folder.weights(|name, tensor| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        Some((format!("bert.{name}"), tensor))
    });
    embeds(folder.path(), &Options::default(), "mean");
    folder.weights(|name, tensor| {
        Some((name.replace("bert.encoder.layer.1.attention.self.query.bias", "cls.bias"), tensor))
    });
    contains(&folder.error(), "weight encoder.layer.1.attention.self.query.bias is missing");

    let folder = Folder::new();
    let path = folder.path().join("model.safetensors");
    let mut tensors: Vec<_> = read_tensors(&path).unwrap().into_iter().collect();
    tensors.push(("embeddings.position_ids".to_owned(), Tensor::arange(20, (Kind::Int64, Device::Cpu)).unsqueeze(0)));
    tensors.push(("pooler.dense.bias".to_owned(), Tensor::zeros([16], (Kind::Float, Device::Cpu))));
    write_tensors(&path, &tensors).unwrap();
    embeds(folder.path(), &Options::default(), "mean");
}

#[test]
fn weights_in_half_precision_are_read() {
    let (record, expected) = expected();
    let folder = Folder::new();
    folder.weights(|name, tensor| Some((name, tensor.to_kind(Kind::Half))));
    let vectors = load(folder.path(), &Options::default()).unwrap().embed(&texts(&record)).unwrap();
    close(&vectors, &expected["mean"], 5e-3, "F16 weights");
}

#[test]
fn products_in_bf16_are_close_to_those_in_f32() {
    let (record, expected) = expected();
    let teacher = Teacher::load(&golden("bert"), Device::Cpu, Precision::Bf16).unwrap();
    let vectors = teacher.embed(&texts(&record)).unwrap();
    assert_eq!(vectors.kind(), Kind::Float);
    close(&vectors, &expected["mean"], 5e-2, "bf16 products");
}

#[test]
fn a_classifier_in_bf16_has_the_probabilities_of_transformers() {
    let (record, expected) = expected();
    let options = Options { classifier: true, ..Options::default() };
    let teacher = load(&golden("bert_classifier"), &options).unwrap();
    assert_eq!(teacher.classes(), ["bird", "place", "other"]);
    let probabilities = teacher.classify(&texts(&record)).unwrap();
    close(&probabilities, &expected["probabilities"], BOUND, "probabilities");
    let error = format!("{:#}", load(&golden("bert"), &options).unwrap_err());
    contains(&error, "weight pooler.dense.weight is missing");
}

#[test]
fn ids_are_embedded_as_texts_are() {
    let (record, expected) = expected();
    let teacher = load(&golden("bert"), &Options::default()).unwrap();
    let ids: Vec<Vec<u32>> = teacher.encode(&texts(&record)).unwrap().into_iter().map(|text| text.ids).collect();
    close(&teacher.embed_ids(&ids).unwrap(), &expected["mean"], BOUND, "ids");
    let error = |ids: Vec<u32>| format!("{:#}", teacher.embed_ids(&[vec![1], ids]).unwrap_err());
    contains(&error(vec![]), "input 1 has 0 tokens, must have 1 to 16");
    contains(&error(vec![5; 17]), "input 1 has 17 tokens");
    contains(&error(vec![9999]), "input 1 has id 9999");
    assert_eq!(teacher.embed::<&str>(&[]).unwrap().size(), [0, 16]);
}

#[test]
fn configurations_that_are_not_computed_exactly_are_refused() {
    let refused = |key: &str, value: Value, part: &str| {
        let folder = Folder::new();
        folder.set("config.json", key, value);
        let message = folder.error();
        contains(&message, part);
        contains(&message, "config.json is no BERT encoder");
    };
    refused("model_type", json!("roberta"), "model_type is \"roberta\", only \"bert\" is read");
    refused("model_type", json!(null), "invalid type: null");
    refused("position_embedding_type", json!("relative_key"), "position_embedding_type is \"relative_key\"");
    refused("hidden_act", json!("gelu_new"), "hidden_act is \"gelu_new\", only \"gelu\"");
    refused("is_decoder", json!(true), "is_decoder is true");
    refused("num_attention_heads", json!(3), "hidden_size 16 is not a multiple of 3 attention heads");
    refused("num_hidden_layers", json!(0), "num_hidden_layers is 0");
    refused("layer_norm_eps", json!(0), "layer_norm_eps is 0");
}

#[test]
fn folders_that_do_not_fit_together_are_refused() {
    let error = |change: &dyn Fn(&Folder) -> &Folder| {
        let folder = Folder::new();
        change(&folder);
        folder.error()
    };
    let empty = tempfile::tempdir().unwrap();
    let message = format!("{:#}", load(empty.path(), &Options::default()).unwrap_err());
    contains(&message, "is no model folder of Hugging Face: it has no config.json");
    contains(&error(&|f| f.remove("model.safetensors")), "model.safetensors is missing; transformers' save_pretrained");
    contains(&error(&|f| f.remove("tokenizer.json")), "tokenizer.json is missing; transformers' AutoTokenizer");
    contains(&error(&|f| f.set("config.json", "vocab_size", json!(50))), "but the model's vocab_size is 50");
    let layers = |layers: i32| error(&|f| f.set("config.json", "num_hidden_layers", json!(layers)));
    contains(&layers(3), "weight encoder.layer.2.attention.self.query.weight is missing");
    contains(&layers(1), "weight encoder.layer.1.attention.output.LayerNorm.bias belongs to no layer");
    let width = error(&|f| f.set("config.json", "intermediate_size", json!(20)));
    contains(
        &width,
        "weight encoder.layer.0.intermediate.dense.weight has shape [24, 16], the configuration says [20, 16]",
    );
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]});
    let message = error(&|f| f.set("tokenizer.json", "model", unigram.clone()));
    contains(&message, "its model is not WordPiece");
    contains(
        &error(&|f| f.set("tokenizer_config.json", "truncation_side", json!("left"))),
        "truncation_side is \"left\"",
    );
    let fixed = |length| Options { max_length: Some(length), ..Options::default() };
    contains(&Folder::new().error_with(&fixed(21)), "inputs of 21 tokens, but the encoder has 20 positions");
    contains(&Folder::new().error_with(&fixed(2)), "inputs of 2 tokens are too short");
    let long = Options { prompt: Some("owl ".repeat(15)), ..Options::default() };
    contains(&Folder::new().error_with(&long), "no room is left for the text");
}

#[test]
fn other_modules_and_poolings_are_refused() {
    let pooling = |value: Value, part: &str| {
        let folder = Folder::new();
        folder.write("1_Pooling/config.json", &value);
        contains(&folder.error(), part);
    };
    pooling(json!({"pooling_mode": "max"}), "the pooling is \"max\", supported are \"mean\" and \"cls\"");
    pooling(json!({"pooling_mode": ["mean", "max"]}), "pooling_mode is [\"mean\",\"max\"]");
    pooling(
        json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}),
        "the pooling is \"cls_token and mean_tokens\"",
    );
    pooling(json!({"pooling_mode_lasttoken": true}), "the pooling is \"lasttoken\"");
    pooling(json!({"pooling_mode": "mean", "embedding_dimension": 8}), "pooling of 8 channels, the Transformer has 16");
    let folder = Folder::new();
    let kinds = ["Transformer", "Pooling", "Dense", "Normalize"];
    let modules: Vec<Value> = kinds.iter().map(|kind| json!({"path": kind, "type": format!("a.b.{kind}")})).collect();
    folder.write("modules.json", &json!(modules));
    contains(&folder.error(), "lists the modules [\"Transformer\", \"Pooling\", \"Dense\", \"Normalize\"]");
    folder.write("modules.json", &json!({"a": 1}));
    contains(&folder.error(), "modules.json");
}
