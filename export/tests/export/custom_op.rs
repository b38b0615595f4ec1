//! The whole model as one operator in a pipeline that is tract's: bit for bit the native engine.

use std::sync::Arc;

use kinglet::backend::Backend;
use kinglet::bundle::{OwnedBundle, ReadBundle};
use kinglet::engine::Engine;
use kinglet::multi_label::Decision;
use kinglet::pool::EnginePool;
use kinglet::spec::{Config, Kernels, Mixer, Norm, PerLayer, Pooling, metadata, operator};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_export::{bundle, custom_op};
use kinglet_onnx::tract_onnx::{self, prelude::*};
use kinglet_onnx::{ModelError, Precision, TractModel, onnx};
use prost::Message;

use crate::fixture::{self, Random};

type Plan = std::sync::Arc<TypedRunnableModel>;

/// The file of a random model, and an engine that computes as the specification says.
fn exported(config: &Config, seed: u64) -> (Vec<u8>, EnginePool) {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path(), config, &fixture::weights(config, seed));
    let (checkpoint, weights) = Checkpoint::read(dir.path()).unwrap();
    let bundle = bundle::file(&checkpoint, &Prepared::new(config, weights), Decision::default()).unwrap().unwrap();
    let engine = EnginePool::new(Arc::new(OwnedBundle::new(&bundle).unwrap())).with_backend(Backend::SCALAR);
    (custom_op::file(&checkpoint, &bundle).unwrap(), engine)
}

fn native(engine: &EnginePool, text: &[u32]) -> Vec<f32> {
    engine
        .with(|engine| {
            let mut out = vec![0.0; engine.num_labels()];
            engine.logits(text, &mut out).unwrap();
            out
        })
        .unwrap()
}

/// Reads a file as a program does that knows tract and one function of ours.
fn plan(file: &onnx::ModelProto) -> TractResult<Plan> {
    let mut onnx = tract_onnx::onnx();
    kinglet_onnx::register(&mut onnx);
    onnx.model_for_proto_model(file)?.into_optimized()?.into_runnable()
}

/// Scores `[B, T]`.
fn run(plan: &Plan, shape: [usize; 2], ids: &[i64], mask: &[i64]) -> TractResult<Vec<f32>> {
    let inputs = [ids, mask].map(|values| Tensor::from_shape(&shape, values));
    let [ids, mask] = inputs;
    let outputs = plan.run(tvec![ids?.into(), mask?.into()])?;
    assert_eq!(outputs[0].shape()[0], shape[0]);
    Ok(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn decoded(file: &[u8]) -> onnx::ModelProto {
    onnx::ModelProto::decode(file).unwrap()
}

fn light() -> Config {
    fixture::config(Mixer::Light, Norm::PostLayer, Pooling::Mean)
}

/// The simplest case first: one text, no padding.
#[test]
fn a_text_gets_the_scores_of_the_native_engine() {
    let (file, engine) = exported(&light(), 1);
    let got = run(&plan(&decoded(&file)).unwrap(), [1, 3], &[9, 300, 1], &[1; 3]).unwrap();
    assert_eq!(bits(&got), bits(&native(&engine, &[9, 300, 1])));
}

#[test]
fn one_plan_takes_batches_and_lengths_of_every_size() {
    let mut seen = 0;
    for (seed, config) in fixture::configs().into_iter().enumerate().filter(|(_, config)| config.mixer.is_conv()) {
        seen += 1;
        let (file, engine) = exported(&config, seed as u64);
        let plan = plan(&decoded(&file)).unwrap();
        let mut texts = fixture::texts(&config);
        texts.push((0..300).map(|i| i % config.vocab_size as u32).collect());
        let mut random = Random(seed as u64);
        for batch in [1, 2, 3, texts.len()] {
            for texts in texts.chunks(batch) {
                let tokens = texts.iter().map(Vec::len).max().unwrap() + random.below(4);
                let (mut ids, mut mask) = (Vec::new(), Vec::new());
                for text in texts {
                    let before = random.below(tokens - text.len() + 1);
                    let of_text = before..before + text.len();
                    // Ids in the padding are no ids.
                    ids.extend((0..tokens).map(|i| if of_text.contains(&i) { text[i - before].into() } else { -7 }));
                    mask.extend((0..tokens).map(|i| i64::from(of_text.contains(&i))));
                }
                let want: Vec<f32> = texts.iter().flat_map(|text| native(&engine, text)).collect();
                let got = run(&plan, [texts.len(), tokens], &ids, &mask).unwrap();
                assert_eq!(bits(&got), bits(&want), "{config:?}, {} texts, {tokens} tokens", texts.len());
            }
        }
        assert!(run(&plan, [0, 3], &[], &[]).unwrap().is_empty());
    }
    assert_eq!(seen, 12);
}

/// The engine behind `kinglet classify`: pads to its own lengths.
#[test]
fn the_tract_engine_runs_the_operator_like_any_other_file() {
    let config = fixture::config(Mixer::Dynamic, Norm::PreRms, Pooling::Max);
    let (file, engine) = exported(&config, 2);
    let model = TractModel::from_bytes(&file).unwrap();
    assert_eq!((model.config(), model.precision()), (&config, Precision::Int8));
    assert!(model.is_custom_op());
    assert_eq!(model.tensors(), [(operator::BUNDLE.to_owned(), engine.model().as_bytes().len())]);
    let mut tract_engine = model.engine();
    for text in fixture::texts(&config) {
        let mut got = vec![0.0; config.num_labels];
        tract_engine.logits(&text, &mut got).unwrap();
        assert_eq!(bits(&got), bits(&native(&engine, &text)));
    }
}

#[test]
fn the_file_says_what_it_needs() {
    let (file, _) = exported(&light(), 1);
    let model = decoded(&file);
    let imports: Vec<(&str, i64)> = model.opset_import.iter().map(|i| (i.domain.as_str(), i.version)).collect();
    assert_eq!(imports, [("", 17), ("dev.kinglet", 1)]);
    let graph = model.graph.unwrap();
    assert_eq!(graph.node.len(), 1);
    assert_eq!((graph.node[0].domain.as_str(), graph.node[0].op_type.as_str()), ("dev.kinglet", "KingletClassifier"));
    assert_eq!(graph.node[0].input, ["input_ids", "attention_mask"]);
    assert_eq!(graph.node[0].output, ["logits"]);
}

#[test]
fn what_cannot_be_scored_is_an_error_and_the_plan_goes_on() {
    let (file, engine) = exported(&light(), 1);
    let plan = plan(&decoded(&file)).unwrap();
    let says = |shape, ids: &[i64], mask: &[i64], words: &str| {
        let error = format!("{:#}", run(&plan, shape, ids, mask).unwrap_err());
        assert!(error.contains(words), "{error}");
        assert_eq!(bits(&run(&plan, [1, 2], &[4, 5], &[1, 1]).unwrap()), bits(&native(&engine, &[4, 5])));
    };
    says([2, 2], &[4, 5, 6, 356], &[1; 4], "text 1 of the batch: token id 356 is outside the vocabulary of 356");
    says([1, 2], &[4, -1], &[1; 2], "outside the vocabulary");
    says([2, 2], &[4; 4], &[1, 1, 0, 0], "text 1 of the batch: there is no token to score");
    says([1, 0], &[], &[], "there is no token to score");
    says([1, 4], &[4; 4], &[1, 0, 0, 1], "text 0 of the batch: its mask has padding between tokens, from position 1");
    says([1, 2], &[4; 2], &[1, 7], "text 0 of the batch: its mask is 7 at position 1");

    let other_lengths = [Tensor::from_shape(&[1, 2], &[4_i64, 5]), Tensor::from_shape(&[1, 1], &[1_i64])];
    let [ids, mask] = other_lengths.map(|tensor| tensor.unwrap().into());
    assert!(plan.run(tvec![ids, mask]).is_err());
    let no_integers = [Tensor::from_shape(&[1, 1], &[4.0_f32]), Tensor::from_shape(&[1, 1], &[1_i64])];
    let [ids, mask] = no_integers.map(|tensor| tensor.unwrap().into());
    assert!(plan.run(tvec![ids, mask]).is_err());
}

/// Changes the node of a good file and gives what plain tract says, then what our own reader says with the hash made right.
fn changed(change: impl Fn(&mut onnx::ModelProto)) -> (String, ModelError) {
    let (file, _) = exported(&light(), 1);
    let mut model = decoded(&file);
    change(&mut model);
    let of_tract = format!("{:#}", plan(&model).unwrap_err());
    assert!(TractModel::from_bytes(&model.encode_to_vec()).is_err());
    let graph = model.graph.as_ref().unwrap().encode_to_vec();
    let hash = model.metadata_props.iter_mut().find(|entry| entry.key == metadata::GRAPH_SHA256).unwrap();
    hash.value = kinglet_data::digest::sha256(&graph);
    kinglet_onnx::seal(&mut model);
    (of_tract, TractModel::from_bytes(&model.encode_to_vec()).unwrap_err())
}

fn node(model: &mut onnx::ModelProto) -> &mut onnx::NodeProto {
    &mut model.graph.as_mut().unwrap().node[0]
}

fn bytes(model: &mut onnx::ModelProto) -> &mut Vec<u8> {
    &mut node(model).attribute[0].t.as_mut().unwrap().raw_data
}

#[test]
fn a_damaged_bundle_is_an_error() {
    let (_, engine) = exported(&light(), 1);
    let len = engine.model().as_bytes().len();
    let mut random = Random(5);
    for at in (0..20).map(|_| random.below(len)).chain([0, 9, 70, len - 1]) {
        let (of_tract, ours) = changed(|model| bytes(model)[at] ^= 1 << (at % 8));
        assert!(of_tract.contains("the attribute `bundle`: "), "{at}: {of_tract}");
        assert!(matches!(ours, ModelError::Graph { .. }), "{at}: {ours}");
    }
    for to in [0, 1, 63, 64, len / 2, len - 1] {
        let (of_tract, ours) = changed(|model| bytes(model).truncate(to));
        assert!(of_tract.contains("the attribute `bundle`: "), "{to}: {of_tract}");
        assert!(matches!(ours, ModelError::Graph { .. }), "{to}: {ours}");
    }
}

#[test]
fn nodes_that_are_not_as_export_writes_them_are_refused() {
    let says = |change: fn(&mut onnx::ModelProto), of_tract: &str, ours: &str| {
        let (got_of_tract, got) = changed(change);
        assert!(got_of_tract.contains(of_tract), "{got_of_tract}");
        assert!(got.to_string().contains(ours), "{got}");
    };
    says(|m| node(m).attribute.clear(), "the attribute `bundle` is missing", "is no `KingletClassifier`");
    says(|m| drop(node(m).input.pop()), "", "the graph cannot be run");
    says(
        |m| m.opset_import[1].version = 2,
        "needs version Some(2) of the domain `dev.kinglet`",
        "needs version Some(2)",
    );
    says(|m| drop(m.opset_import.pop()), "needs version None", "needs version None");
    says(|m| node(m).op_type = "Other".to_owned(), "", "is no `KingletClassifier`");
}

/// tract tells operators apart by their type alone; we look at the domain.
#[test]
fn an_operator_of_another_domain_is_not_ours() {
    for domain in ["", "ai.onnx", "com.example"] {
        let (of_tract, ours) = changed(|model| node(model).domain = domain.to_owned());
        assert!(of_tract.contains("KingletClassifier"), "{of_tract}");
        assert!(matches!(ours, ModelError::Graph { .. }), "{ours}");
    }
    let (file, _) = exported(&light(), 1);
    let plain = tract_onnx::onnx().model_for_proto_model(&decoded(&file)).unwrap().into_optimized();
    assert!(plain.is_err(), "tract without `register` does not know the operator");
}

#[test]
fn the_bundle_must_be_the_one_that_the_metadata_describe() {
    let (file, _) = exported(&light(), 1);
    let mut other = light();
    other.num_hidden_layers = 1;
    other.mixer = other.mixer.with_kernels(Kernels::centred(PerLayer::repeat(3, 1)));
    let (other, _) = exported(&other, 1);
    let mut model = decoded(&file);
    model.graph = decoded(&other).graph;
    let graph = model.graph.as_ref().unwrap().encode_to_vec();
    let hash = model.metadata_props.iter_mut().find(|entry| entry.key == metadata::GRAPH_SHA256).unwrap();
    hash.value = kinglet_data::digest::sha256(&graph);
    kinglet_onnx::seal(&mut model);
    let error = TractModel::from_bytes(&model.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("is not of the model that the metadata describe"), "{error}");
}
