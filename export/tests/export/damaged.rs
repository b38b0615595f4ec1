//! Damaged checkpoints and damaged exported files give errors that say what is wrong.

use std::fs;
use std::path::Path;

use kinglet::Error;
use kinglet::engine::Engine;
use kinglet::spec::{LabelFault, Mixer, Norm, Pooling, files, metadata};
use kinglet_export::checkpoint::{Checkpoint, Weights};
use kinglet_onnx::{ModelError, Precision, TractModel, onnx};
use prost::Message;
use safetensors::Dtype;

use crate::fixture::{self, Random, Tensor, exported_bytes, write_tensors};

fn checkpoint() -> (tempfile::TempDir, kinglet::spec::Config, Weights) {
    let config = fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean);
    let weights = fixture::weights(&config, 3);
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path(), &config, &weights);
    (dir, config, weights)
}

/// Damages a good checkpoint and gives the error.
fn error(damage: impl FnOnce(&Path)) -> String {
    let (dir, ..) = checkpoint();
    damage(dir.path());
    format!("{:#}", Checkpoint::read(dir.path()).unwrap_err())
}

/// Damages the list of weights and gives the error.
fn weights_error(damage: impl FnOnce(&mut Vec<Tensor>)) -> String {
    let (dir, config, weights) = checkpoint();
    let mut tensors = fixture::weight_tensors(&config, &weights);
    damage(&mut tensors);
    write_tensors(&dir.path().join(files::WEIGHTS), &tensors);
    format!("{:#}", Checkpoint::read(dir.path()).unwrap_err())
}

fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|t| t.name == name).unwrap()
}

#[test]
fn every_missing_or_cut_file_is_named() {
    for name in [files::CONFIG, files::LABELS, files::TOKENIZER_TABLE, files::WEIGHTS, files::GOLDEN] {
        let missing = error(|dir| fs::remove_file(dir.join(name)).unwrap());
        assert!(missing.contains(name), "{missing}");
        let cut = error(|dir| {
            let bytes = fs::read(dir.join(name)).unwrap();
            fs::write(dir.join(name), &bytes[..bytes.len() * 2 / 3]).unwrap();
        });
        assert!(cut.contains(name), "{cut}");
    }
    let none = format!("{:#}", Checkpoint::read(Path::new("/no/such/directory")).unwrap_err());
    assert!(none.contains("is not a checkpoint directory"), "{none}");
}

/// Training that was killed leaves weights without what belongs to them.
#[test]
fn a_run_that_was_not_completed_says_what_completes_it() {
    let said = error(|dir| {
        fs::create_dir(dir.join("resume")).unwrap();
        fs::remove_file(dir.join(files::GOLDEN)).unwrap();
    });
    assert!(said.contains("ended before its weights were completed") && said.contains("--resume --out"), "{said}");
}

#[test]
fn every_file_is_under_a_hash_if_there_are_hashes() {
    let names = [files::CONFIG, files::LABELS, files::TOKENIZER_TABLE, files::WEIGHTS, files::GOLDEN];
    for name in names {
        let said = error(|dir| {
            kinglet_data::sums::write(dir, &names).unwrap();
            let mut bytes = fs::read(dir.join(name)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(dir.join(name), bytes).unwrap();
        });
        assert!(said.contains(name) && said.contains("is damaged or of another checkpoint"), "{said}");
    }
}

#[test]
fn every_wrong_weight_is_named() {
    let missing = weights_error(|w| w.retain(|t| t.name != "layers.1.ffn.up.weight"));
    assert!(missing.ends_with("weight layers.1.ffn.up.weight is missing"), "{missing}");

    let shape = weights_error(|w| find(w, "layers.0.mixer.kernel").shape = vec![4, 3]);
    assert!(shape.contains("weight layers.0.mixer.kernel has shape [4, 3], the configuration says [3, 4]"), "{shape}");

    let kind = weights_error(|w| find(w, "head.bias").kind = Dtype::I32);
    assert!(kind.contains("weight head.bias is I32"), "{kind}");

    let unknown = weights_error(|w| w.push(Tensor::f32("layers.2.mixer.kernel", &[1], &[0.0])));
    assert!(unknown.contains("no weight layers.2.mixer.kernel"), "{unknown}");

    let nan = weights_error(|w| find(w, "head.weight").bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert!(nan.contains("weight head.weight is NaN at element 2"), "{nan}");
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let labels = error(|dir| fs::write(dir.join(files::LABELS), r#"["one", "two"]"#).unwrap());
    assert!(labels.contains("labels.json: 2 labels for 5 classes"), "{labels}");

    let config = error(|dir| {
        let text = fs::read_to_string(dir.join(files::CONFIG)).unwrap();
        fs::write(dir.join(files::CONFIG), text.replace(r#""kernel_heads":3"#, r#""kernel_heads":5"#)).unwrap();
    });
    assert!(config.contains("config.json: kernel_heads is 5"), "{config}");

    let dialect = error(|dir| {
        let text = fs::read_to_string(dir.join(files::CONFIG)).unwrap();
        fs::write(dir.join(files::CONFIG), text.replace(r#""compat":"paper""#, r#""compat":"fairseq""#)).unwrap();
    });
    assert!(dialect.contains("compat is \"fairseq\", but export and the engines compute \"paper\" alone"), "{dialect}");

    let golden = |name: &str, tensor: Tensor| {
        let (dir, config, _) = checkpoint();
        let mut tensors = vec![
            Tensor::i64("input_ids", &[1, 2], &[4, 0]),
            Tensor::i64("attention_mask", &[1, 2], &[1, 0]),
            Tensor::f32("logits", &[1, config.num_labels], &[0.0; 5]),
        ];
        *find(&mut tensors, name) = tensor;
        write_tensors(&dir.path().join(files::GOLDEN), &tensors);
        format!("{:#}", Checkpoint::read(dir.path()).unwrap_err())
    };
    let outside = golden("input_ids", Tensor::i64("input_ids", &[1, 2], &[9999, 0]));
    assert!(outside.contains("input_ids has id 9999, outside the vocabulary"), "{outside}");
    let mask = golden("attention_mask", Tensor::i64("attention_mask", &[1, 2], &[0, 1]));
    assert!(mask.contains("row 0 of attention_mask is not ones, then zeros"), "{mask}");
    let logits = golden("logits", Tensor::f32("logits", &[1, 4], &[0.0; 4]));
    assert!(logits.contains("logits has shape [1, 4], not [1, 5]"), "{logits}");
}

#[test]
fn a_transformer_is_refused_with_what_it_is_good_for() {
    let said = error(|dir| {
        let config = r#"{"model_type": "bert", "hidden_size": 16, "id2label": {"0": "a", "1": "b"}}"#;
        fs::write(dir.join("config.json"), config).unwrap();
    });
    assert!(said.contains("config.json: it is that of a Transformer (bert), which devices do not run"), "{said}");
    assert!(said.contains("finetune --soft-labels"), "{said}");
}

#[test]
fn half_precision_weights_are_accepted() {
    let (dir, config, weights) = checkpoint();
    let mut tensors = fixture::weight_tensors(&config, &weights);
    let bias = find(&mut tensors, "head.bias");
    bias.kind = Dtype::F16;
    bias.bytes = [0x3c00_u16, 0xc000, 0x3800, 0, 0x0001].iter().flat_map(|x| x.to_le_bytes()).collect();
    write_tensors(&dir.path().join(files::WEIGHTS), &tensors);
    let (_, weights) = Checkpoint::read(dir.path()).unwrap();
    assert_eq!(weights[&kinglet::spec::Weight::HeadBias], [1.0, -2.0, 0.5, 0.0, 2.0_f32.powi(-24)]);
}

fn good_file() -> Vec<u8> {
    let config = fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean);
    exported_bytes(&config, &fixture::weights(&config, 3), Precision::Int8)
}

/// Changes a good file, makes the hash of the whole right again and gives what reading it says.
fn changed(change: impl FnOnce(&mut onnx::ModelProto)) -> ModelError {
    let mut model = onnx::ModelProto::decode(good_file().as_slice()).unwrap();
    change(&mut model);
    kinglet_onnx::seal(&mut model);
    TractModel::from_bytes(&model.encode_to_vec()).unwrap_err()
}

/// Makes the graph's hash right again.
fn rehash(model: &mut onnx::ModelProto) {
    let graph = model.graph.as_ref().unwrap().encode_to_vec();
    *entry(model, metadata::GRAPH_SHA256) = kinglet_data::digest::sha256(&graph);
}

fn entry<'a>(model: &'a mut onnx::ModelProto, key: &str) -> &'a mut String {
    &mut model.metadata_props.iter_mut().find(|entry| entry.key == key).unwrap().value
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = good_file();
    for n in (0..bytes.len()).step_by(bytes.len() / 97).chain([1, 2, bytes.len() - 1]) {
        assert!(TractModel::from_bytes(&bytes[..n]).is_err(), "{n} of {} bytes", bytes.len());
    }
}

#[test]
fn a_file_of_something_else_is_refused() {
    for bytes in [&b"PK\x03\x04 a zip file"[..], b"{\"json\": true}", b"\x89PNG\r\n\x1a\n", &[0; 100]] {
        let e = TractModel::from_bytes(bytes).unwrap_err();
        assert!(matches!(e, ModelError::NotOnnx { .. }), "{e}");
    }
    let missing = TractModel::open(Path::new("/no/such/model.onnx")).unwrap_err();
    assert!(missing.to_string().contains("/no/such/model.onnx"), "{missing}");
}

#[test]
fn each_missing_key_is_named() {
    let keys = [metadata::CONFIG, metadata::CONFIG_SHA256, metadata::LABELS, metadata::TOKENIZER, metadata::PRECISION];
    for key in keys {
        let e = changed(|model| model.metadata_props.retain(|entry| entry.key != key));
        assert!(matches!(e, ModelError::Foreign { key: k } if k == key), "{e}");
    }
}

#[test]
fn metadata_that_contradict_the_model_are_refused() {
    let e = changed(|m| *entry(m, metadata::CONFIG) = "{}".to_owned());
    assert!(matches!(e, ModelError::ConfigHash { .. }), "{e}");
    let e = changed(|m| *entry(m, metadata::LABELS) = r#"["a"]"#.to_owned());
    assert!(matches!(e, ModelError::LabelCount { expected: 5, got: 1 }), "{e}");
    let e = changed(|m| *entry(m, metadata::LABELS) = r#"["a", "b", "c", "d\ne", "f"]"#.to_owned());
    assert!(matches!(e, ModelError::Labels(LabelFault::Control { class: 3 })), "{e}");
    let e = changed(|m| *entry(m, metadata::LABELS) = "a, b".to_owned());
    assert!(matches!(e, ModelError::Metadata { key: metadata::LABELS, .. }), "{e}");
    let e = changed(|m| *entry(m, metadata::PRECISION) = "int4".to_owned());
    assert!(e.to_string().contains("`int4` is neither fp32 nor int8"), "{e}");
    let e = changed(|m| *entry(m, metadata::TOKENIZER) = "not base64!".to_owned());
    assert!(matches!(e, ModelError::Metadata { key: metadata::TOKENIZER, .. }), "{e}");
    let e = changed(|m| entry(m, metadata::TOKENIZER).truncate(400));
    assert!(matches!(e, ModelError::Tokenizer(_)), "{e}");
    // A sound table, but another model's.
    let e = changed(|m| *entry(m, metadata::TOKENIZER) = fixture::other_tokenizer_base64());
    assert!(matches!(e, ModelError::VocabularySize { model: 356, tokenizer: 354 }), "{e}");
}

#[test]
fn graphs_that_do_not_hold_together_are_refused() {
    type Change = fn(&mut onnx::GraphProto);
    let changes: [(&str, Change); 16] = [
        ("its inputs are", |g| drop(g.input.pop())),
        ("its outputs are", |g| g.output[0].name = "scores".to_owned()),
        ("nothing before it gives", |g| drop(g.initializer.remove(0))),
        ("nothing before it gives", |g| g.node.reverse()),
        ("nothing gives `logits`", |g| drop(g.node.pop())),
        ("is given twice", |g| g.node.push(g.node[3].clone())),
        ("bytes", |g| g.initializer[0].dims[0] += 1),
        ("bytes", |g| g.initializer[0].dims = vec![i64::MAX, i64::MAX]),
        ("is of the domain", |g| g.node[0].domain = "com.example".to_owned()),
        ("is of the operator `Tile`", |g| g.node[5].op_type = "Tile".to_owned()),
        ("is of the operator `Range`", |g| g.node[5].op_type = "Range".to_owned()),
        ("has the attribute", |g| g.node.iter_mut().find_map(|n| n.attribute.first_mut()).unwrap().i = 1 << 30),
        ("has the attribute `body`", |g| {
            g.node.iter_mut().find_map(|n| n.attribute.first_mut()).unwrap().name = "body".to_owned();
        }),
        ("computes nothing of the text", |g| {
            let stored = [g.initializer[0].name.clone(), g.initializer[1].name.clone()];
            let add = g.node.iter_mut().find(|node| node.op_type == "Add").unwrap();
            add.input = stored.to_vec();
        }),
        ("is not declared as Int64", |g| {
            let Some(onnx::type_proto::Value::TensorType(tensor)) = &mut g.input[0].r#type.as_mut().unwrap().value
            else {
                panic!("a tensor");
            };
            tensor.shape.as_mut().unwrap().dim[0].value =
                Some(onnx::tensor_shape_proto::dimension::Value::DimParam("N*1000".to_owned()));
        }),
        ("nodes, a model of its configuration at most", |g| {
            let last = g.node.last().unwrap().clone();
            g.node.extend((0..5000).map(|i| {
                let mut node = last.clone();
                node.output = vec![format!("more/{i}")];
                node
            }));
        }),
    ];
    for (says, change) in changes {
        let e = changed(|model| change(model.graph.as_mut().unwrap()));
        assert!(matches!(e, ModelError::GraphHash { .. }), "{e}");
        let e = changed(|model| {
            change(model.graph.as_mut().unwrap());
            rehash(model);
        });
        assert!(matches!(e, ModelError::Graph { .. }) && e.to_string().contains(says), "{e}");
    }
}

#[test]
fn what_export_does_not_write_is_refused_by_name() {
    let e = changed(|m| m.opset_import[0].version = 13);
    assert!(e.to_string().contains("of the operator sets [13], not [17]"), "{e}");
    let e = changed(|m| m.doc_string = "words".to_owned());
    assert!(matches!(e, ModelError::Unexpected { .. }) && e.to_string().contains("a model has the field 6"), "{e}");
    let e = changed(|m| m.graph.as_mut().unwrap().value_info = m.graph.as_ref().unwrap().output.clone());
    assert!(e.to_string().contains("a graph has the field 13, which export does not write"), "{e}");
    // Structures of some 200 bytes each that take two of the file.
    let e = changed(|m| m.graph.as_mut().unwrap().node = vec![onnx::NodeProto::default(); 100_000]);
    assert!(e.to_string().contains("more than 65536 times"), "{e}");
    let number = |value: i64| {
        changed(|model| {
            let tensors = &mut model.graph.as_mut().unwrap().initializer;
            let tensor = tensors.iter_mut().find(|t| t.name == "const/[1]").unwrap();
            tensor.raw_data = value.to_le_bytes().to_vec();
            rehash(model);
        })
    };
    assert!(number(1 << 40).to_string().contains("has a number that export does not write"), "{}", number(1 << 40));
}

/// Flipped bits: in a weight they would be silent, in the graph fatal, in labels another word.
#[test]
fn no_flipped_bit_goes_unnoticed() {
    let bytes = good_file();
    let good = onnx::ModelProto::decode(bytes.as_slice()).unwrap();
    // Where each part of the metadata begins: they are as many as there are bits in a weight.
    let place = |key: &str| bytes.windows(key.len()).position(|part| part == key.as_bytes()).unwrap();
    let places = [metadata::LABELS, metadata::TOKENIZER, metadata::PRECISION, metadata::SHA256].map(place);
    let mut random = Random(11);
    for flip in 0..400 {
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = match flip % 2 {
                0 => random.below(damaged.len()),
                _ => places[random.below(4)] + random.below(60),
            };
            damaged[at] ^= 1 << random.below(8);
        }
        if let Ok(model) = TractModel::from_bytes(&damaged) {
            // Two flips of one bit, or one in the encoding of a field that says the same in another way.
            let damaged = onnx::ModelProto::decode(damaged.as_slice()).unwrap();
            assert!(damaged == good, "{:?} was read", model.config());
        }
    }
}

#[test]
fn what_is_outside_the_graph_is_under_the_hash_too() {
    let unsealed = |change: fn(&mut onnx::ModelProto)| {
        let mut model = onnx::ModelProto::decode(good_file().as_slice()).unwrap();
        change(&mut model);
        TractModel::from_bytes(&model.encode_to_vec()).unwrap_err()
    };
    let changes: [fn(&mut onnx::ModelProto); 5] = [
        |m| *entry(m, metadata::LABELS) = entry(m, metadata::LABELS).replacen('a', "o", 1),
        |m| *entry(m, metadata::PRECISION) = "fp32".to_owned(),
        |m| m.opset_import[0].version = 13,
        |m| m.metadata_props.push(m.metadata_props[3].clone()),
        |m| m.producer_name.push('!'),
    ];
    for change in changes {
        let e = unsealed(change);
        assert!(matches!(e, ModelError::FileHash { .. }), "{e}");
        assert!(e.to_string().contains("damaged or was changed after export"), "{e}");
    }
    let e = unsealed(|m| m.metadata_props.retain(|entry| entry.key != metadata::SHA256));
    assert!(matches!(e, ModelError::Foreign { key: metadata::SHA256 }), "{e}");
}

/// A graph forged with the right hash: `Unsqueeze` at an axis far out, on which tract itself panics.
#[test]
fn a_panic_of_the_backend_becomes_an_error() {
    let config = fixture::config(Mixer::Dynamic, Norm::PreRms, Pooling::Mean);
    let bytes = exported_bytes(&config, &fixture::weights(&config, 3), Precision::Int8);
    let mut model = onnx::ModelProto::decode(bytes.as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let tensor = graph.initializer.iter_mut().find(|t| t.name == "const/[2]").unwrap();
    tensor.raw_data = (-1000_i64).to_le_bytes().to_vec();
    rehash(&mut model);
    kinglet_onnx::seal(&mut model);
    let e = TractModel::from_bytes(&model.encode_to_vec()).unwrap_err();
    assert!(matches!(e, ModelError::Graph { .. }), "{e}");
}

#[test]
fn texts_that_cannot_be_scored_are_refused() {
    let mut engine = TractModel::from_bytes(&good_file()).unwrap().engine();
    engine.max_tokens = 20;
    let mut out = [0.0; 5];
    assert_eq!(engine.logits(&[], &mut out), Err(Error::NoTokens));
    assert_eq!(engine.logits(&[4; 21], &mut out), Err(Error::TooLong { tokens: 21, max: 20 }));
    assert_eq!(engine.logits(&[4, 356], &mut out), Err(Error::UnknownToken { id: 356, vocab_size: 356 }));
    assert_eq!(engine.logits(&[4], &mut out[..4]), Err(Error::OutputLength { need: 5, got: 4 }));
    assert_eq!(engine.logits_batch(&[4; 6], &[1; 5], 2), Err(Error::BatchShape { values: "values", need: 6, got: 5 }));
    assert_eq!(engine.logits_batch(&[4; 6], &[1, 1, 1, 0, 0, 0], 2), Err(Error::NoTokens));
    assert!(engine.logits_batch(&[-1], &[1], 1).unwrap_err().to_string().contains("outside the vocabulary"));
    // The longest text there may be, longer than the longest power of two below it.
    assert_eq!(engine.logits(&[4; 20], &mut out), Ok(()));
}
