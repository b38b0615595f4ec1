//! The int8 layers of the file on Kinglet's kernels: what tract computes itself, faster.

use kinglet::engine::Engine;
use kinglet::quant;
use kinglet::spec::{Config, Mixer, Norm, Pooling, operator};
use kinglet_onnx::onnx::{GraphProto, ModelProto, TensorProto};
use kinglet_onnx::tract_onnx::prelude::*;
use kinglet_onnx::{Precision, TractModel, fuse, load, onnx};
use prost::Message;

use crate::fixture::{self, Random};

fn decoded(config: &Config, precision: Precision) -> ModelProto {
    ModelProto::decode(fixture::exported_bytes(config, &fixture::weights(config, 5), precision).as_slice()).unwrap()
}

fn count(graph: &GraphProto, op_type: &str) -> usize {
    graph.node.iter().filter(|node| node.op_type == op_type).count()
}

/// The number of nodes that lead to an output, by type.
fn needed(graph: &GraphProto, op_type: &str) -> usize {
    let mut wanted: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if let Some(at) = graph.node.iter().position(|node| node.output.iter().any(|output| output == name))
            && seen.insert(at)
        {
            wanted.extend(graph.node[at].input.iter().map(String::as_str));
        }
    }
    seen.into_iter().filter(|&at| graph.node[at].op_type == op_type).count()
}

#[test]
fn no_product_of_an_exported_file_is_left_to_tract() {
    for config in fixture::configs() {
        let mut model = decoded(&config, Precision::Int8);
        let products = count(model.graph.as_ref().unwrap(), "MatMulInteger");
        assert!(products > 8);
        let layers = fuse(&mut model);
        let graph = model.graph.as_ref().unwrap();
        assert_eq!(needed(graph, "MatMulInteger"), 0, "{config:?}");
        assert_eq!(needed(graph, "Round"), 0, "{config:?}");
        assert_eq!(count(graph, "KingletLookup"), 1);
        let dynamic = config.mixer.kind() == Mixer::Dynamic || config.mixer.kind() == Mixer::Attention;
        assert_eq!(count(graph, "KingletConv"), if dynamic { 0 } else { 2 }, "{config:?}");
        let of_graph = graph.node.iter().filter(|node| node.domain == operator::DOMAIN).count();
        assert_eq!(layers, of_graph);
        let outputs: usize =
            graph.node.iter().filter(|node| node.op_type == "KingletLinear").map(|n| n.output.len()).sum();
        assert_eq!(outputs, products, "{config:?}");

        let mut float = decoded(&config, Precision::Fp32);
        let before = float.clone();
        assert_eq!((fuse(&mut float), float == before), (0, true));
    }
}

/// tract multiplies by `1/s`, so that an activation between two integers may fall on the other side.
#[test]
fn scores_and_labels_are_those_of_the_file_as_written() {
    let (mut apart, mut texts) = (0, 0);
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let bytes = fixture::exported_bytes(&config, &fixture::weights(&config, seed as u64), Precision::Int8);
        let mut fused = TractModel::from_bytes(&bytes).unwrap().engine();
        let mut written = TractModel::from_bytes_as_written(&bytes).unwrap().engine();
        for text in fixture::texts(&config) {
            let (mut got, mut want) = (vec![0.0; config.num_labels], vec![0.0; config.num_labels]);
            fused.logits(&text, &mut got).unwrap();
            written.logits(&text, &mut want).unwrap();
            let difference = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 0.03, "{config:?}: {difference}");
            apart += usize::from(difference > 1e-5);
            texts += 1;
        }
    }
    println!("{apart} of {texts} texts differ by more than rounding");
    assert!(apart * 50 <= texts);
}

#[test]
fn texts_together_have_the_scores_of_each_alone() {
    for precision in [Precision::Int8, Precision::Fp32] {
        for mixer in [Mixer::Light, Mixer::Dynamic, Mixer::Attention] {
            let norm = if mixer == Mixer::Attention { Norm::PreRms } else { Norm::PostLayer };
            let config = fixture::config(mixer, norm, Pooling::Mean);
            let bytes = fixture::exported_bytes(&config, &fixture::weights(&config, 2), precision);
            let model = TractModel::from_bytes(&bytes).unwrap();
            let mut random = Random(3);
            // Groups that fill a plan, that are filled up, that are too small for one, and longer texts.
            let mut text = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(config.vocab_size) as u32).collect() };
            let texts: Vec<Vec<u32>> = (0..60)
                .map(|i| {
                    text(
                        [1 + i % 16, 17 + i % 9, 60, 90]
                            [usize::from(i > 39) + usize::from(i > 52) + usize::from(i > 55)],
                    )
                })
                .collect();
            let refs: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let labels = config.num_labels;
            let (mut together, mut alone) = (vec![0.0; texts.len() * labels], vec![0.0; labels]);
            let (mut engine, mut single) = (model.engine(), model.engine());
            engine.logits_all(&refs, &mut together).unwrap();
            for (ids, got) in refs.iter().zip(together.chunks(labels)) {
                single.logits(ids, &mut alone).unwrap();
                let bits = |scores: &[f32]| scores.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                match precision {
                    Precision::Int8 if mixer != Mixer::Attention => assert_eq!(bits(got), bits(&alone), "{mixer:?}"),
                    // Float products of several texts are summed in another order.
                    _ => assert!(got.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?} {alone:?}"),
                }
            }
            engine.logits_all(&[], &mut []).unwrap();
            assert!(engine.logits_all(&refs, &mut together[1..]).is_err());
            assert!(engine.logits_all(&[refs[0], &[]], &mut together[..2 * labels]).is_err());
        }
    }
}

/// Answers of [`kinglet::classifier::Classifier::classify_all`] are those of each text alone, whatever stands beside it.
#[test]
fn a_classifier_answers_texts_together_as_one_by_one() {
    let config = fixture::config(Mixer::Light, Norm::PreRms, Pooling::Mean);
    let bytes = fixture::exported_bytes(&config, &fixture::weights(&config, 2), Precision::Int8);
    let model = TractModel::from_bytes(&bytes).unwrap();
    let long = "seven ".repeat(400);
    let texts: Vec<&str> = ["alarm at seven", "", "seven", long.as_str(), "\u{1F600}", "alarm alarm"]
        .into_iter()
        .cycle()
        .take(200)
        .collect();
    for truncate in [None, Some(2), Some(50)] {
        let (mut all, mut one) = (model.classifier().unwrap(), model.classifier().unwrap());
        (all.truncate, one.truncate) = (truncate, truncate);
        let mut number = 0;
        all.classify_all(texts.iter().copied(), |at, answer, read| {
            assert_eq!(at, number);
            number += 1;
            let want = one.classify(texts[at]);
            assert_eq!(format!("{answer:?}"), format!("{want:?}"), "{at}");
            assert_eq!((read.tokens, read.truncated), (one.tokens(), one.truncated()));
        });
        assert_eq!(number, texts.len());
    }
}

/// A graph of one layer: `y = Relu?(x·W)` in int8, `x` of `[B, T, K]`.
fn layer(inner: i64, outputs: i64, relu: bool, random: &mut Random) -> (ModelProto, Vec<i8>, Vec<f32>) {
    let weight: Vec<i8> = (0..inner * outputs).map(|_| (random.below(255) as i32 - 127) as i8).collect();
    let scales: Vec<f32> = (0..outputs).map(|_| random.normal().abs() / 100.0 + 1e-4).collect();
    let mut model = decoded(&fixture::config(Mixer::Light, Norm::PreRms, Pooling::Mean), Precision::Int8);
    // The chain of a layer of a real file, with other weights.
    let graph = model.graph.as_mut().unwrap();
    let chain = "layers.0/ffn/up";
    graph.node.retain(|node| node.output[0].starts_with(chain) || (relu && node.output[0] == "layers.0/ffn/Relu"));
    let x = graph.node[0].input[0].clone();
    for node in &mut graph.node {
        node.input.iter_mut().filter(|name| **name == x).for_each(|name| *name = "x".to_owned());
    }
    let last = graph.node.last_mut().unwrap();
    last.output = vec!["y".to_owned()];
    graph.initializer.retain(|tensor| tensor.name.starts_with("const/"));
    let tensor = |name: &str, dims: Vec<i64>, data_type: onnx::tensor_proto::DataType, raw_data| TensorProto {
        name: name.into(),
        dims,
        data_type: data_type as i32,
        raw_data,
        ..Default::default()
    };
    use onnx::tensor_proto::DataType::{Float, Uint8};
    let bytes = weight.iter().map(|&w| (i32::from(w) + 128) as u8).collect();
    graph.initializer.push(tensor("layers.0.ffn.up.weight", vec![inner, outputs], Uint8, bytes));
    let bytes = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    graph.initializer.push(tensor("layers.0.ffn.up.weight.scale", vec![outputs], Float, bytes));
    let value = |name: &str, width: i64| {
        let dim = |value| onnx::tensor_shape_proto::Dimension { value: Some(value), ..Default::default() };
        use onnx::tensor_shape_proto::dimension::Value::{DimParam, DimValue};
        let dim = vec![dim(DimParam("B".into())), dim(DimParam("T".into())), dim(DimValue(width))];
        let shape = Some(onnx::TensorShapeProto { dim });
        let tensor = onnx::type_proto::Tensor { elem_type: Float.into(), shape };
        let kind = onnx::TypeProto { value: Some(onnx::type_proto::Value::TensorType(tensor)), ..Default::default() };
        onnx::ValueInfoProto { name: name.into(), r#type: Some(kind), ..Default::default() }
    };
    graph.input = vec![value("x", inner)];
    graph.output = vec![value("y", outputs)];
    graph.value_info.clear();
    (model, weight, scales)
}

#[test]
fn a_layer_is_the_formula_to_the_bit() {
    let mut random = Random(17);
    for (inner, outputs, relu) in [(1, 1, false), (7, 5, true), (64, 48, false), (65, 33, true), (300, 17, false)] {
        let (model, weight, scales) = layer(inner, outputs, relu, &mut random);
        assert_eq!(fuse(&mut model.clone()), 1);
        let plan = load(&mut tract_onnx(), model).unwrap().into_optimized().unwrap().into_runnable().unwrap();
        let (inner, outputs, rows) = (inner as usize, outputs as usize, 2 * 9);
        let mut x: Vec<f32> = (0..rows * inner).map(|_| random.normal()).collect();
        // A row of zeros, and one of halves.
        x[..inner].fill(0.0);
        x[inner..2 * inner].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 / 2.0);
        let y = plan.run(tvec![Tensor::from_shape(&[2, 9, inner], &x).unwrap().into()]).unwrap();
        assert_eq!(y[0].shape(), [2, 9, outputs]);
        let y = y[0].try_as_plain_ram().unwrap();
        for (x, y) in x.chunks(inner).zip(y.as_slice::<f32>().unwrap().chunks(outputs)) {
            let mut q = vec![0; inner];
            let s = quant::quantize(x, &mut q);
            for (o, (&y, &scale)) in y.iter().zip(&scales).enumerate() {
                let sum: i32 =
                    q.iter().enumerate().map(|(i, &q)| i32::from(q) * i32::from(weight[i * outputs + o])).sum();
                let want = (sum as f32 * s) * scale;
                let want = if relu { want.max(0.0) } else { want };
                assert_eq!(y.to_bits() << 1, want.to_bits() << 1, "{inner} to {outputs}");
            }
        }
    }
}

fn tract_onnx() -> kinglet_onnx::tract_onnx::Onnx {
    kinglet_onnx::tract_onnx::onnx()
}

/// What is nearly a layer stays as it is.
#[test]
fn other_chains_are_left_alone() {
    let mut random = Random(1);
    let change = |change: &dyn Fn(&mut GraphProto)| {
        let (mut model, ..) = layer(8, 4, false, &mut Random(2));
        change(model.graph.as_mut().unwrap());
        fuse(&mut model)
    };
    let constant = |value: f32, other: f32| {
        move |graph: &mut GraphProto| {
            let of = graph.initializer.iter_mut().find(|t| t.raw_data == value.to_le_bytes()).unwrap();
            of.raw_data = other.to_le_bytes().to_vec();
        }
    };
    fn node<'g>(graph: &'g mut GraphProto, op_type: &str) -> &'g mut onnx::NodeProto {
        graph.node.iter_mut().find(|node| node.op_type == op_type).unwrap()
    }
    assert_eq!(change(&|_| ()), 1);
    assert_eq!(change(&constant(127.0, 126.0)), 0);
    assert_eq!(change(&constant(1e-30, 1e-20)), 0);
    assert_eq!(change(&|graph| graph.initializer.iter_mut().find(|t| t.dims.len() == 2).unwrap().raw_data[3] = 0), 0);
    assert_eq!(change(&|graph| node(graph, "ReduceMax").attribute[0].ints = vec![1]), 0);
    assert_eq!(change(&|graph| node(graph, "Abs").input[0] = "z".into()), 0);
    assert_eq!(change(&|graph| node(graph, "MatMulInteger").input[3] = "other".into()), 0);
    assert_eq!(change(&|graph| node(graph, "MatMulInteger").input.truncate(2)), 0);
    assert_eq!(change(&constant(128.0, 127.0)), 0);
    assert_eq!(change(&|graph| graph.initializer.iter_mut().find(|t| t.raw_data == [128]).unwrap().raw_data[0] = 0), 0);
    assert_eq!(change(&|graph| node(graph, "Round").domain = "com.example".into()), 0);
    // Something else reads the product.
    assert_eq!(
        change(&|graph| {
            let mut other = node(graph, "MatMulInteger").clone();
            other.op_type = "Abs".into();
            other.input = vec![std::mem::replace(&mut other.output[0], "other".into())];
            graph.node.push(other);
        }),
        0
    );
    // The integers are an output too: the layer is still one, and they are there.
    let (mut model, ..) = layer(8, 4, false, &mut random);
    let graph = model.graph.as_mut().unwrap();
    let q = node(graph, "Round").output[0].clone();
    graph.output.push(onnx::ValueInfoProto { name: q, ..graph.output[0].clone() });
    assert_eq!((fuse(&mut model), needed(model.graph.as_ref().unwrap(), "Round")), (1, 1));
}

/// Version 0.1 wrote integers as int8, without zero points: `models/intents` has such a file.
#[test]
fn files_with_signed_integers_are_read_and_run_on_the_kernels_too() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/intents/model.int8.onnx");
    let bytes = std::fs::read(file).unwrap();
    let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
    let products = count(model.graph.as_ref().unwrap(), "MatMulInteger");
    fuse(&mut model);
    assert_eq!((products > 8, needed(model.graph.as_ref().unwrap(), "MatMulInteger")), (true, 0));
    let (fused, written) =
        (TractModel::from_bytes(&bytes).unwrap(), TractModel::from_bytes_as_written(&bytes).unwrap());
    let (mut fused, mut written) = (fused.engine(), written.engine());
    let (mut got, mut want) = (vec![0.0; fused.num_labels()], vec![0.0; fused.num_labels()]);
    for text in [vec![300, 301, 1], vec![400; 20]] {
        fused.logits(&text, &mut got).unwrap();
        written.logits(&text, &mut want).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 0.03), "{got:?} {want:?}");
    }
}

/// A graph whose products take another number for zero says other weights than its bundle has.
#[test]
fn matrices_with_another_zero_point_are_refused() {
    let config = fixture::config(Mixer::Light, Norm::PreRms, Pooling::Mean);
    let good = decoded(&config, Precision::Int8);
    let error = |change: &dyn Fn(&mut GraphProto)| {
        let mut model = good.clone();
        change(model.graph.as_mut().unwrap());
        fixture::rehash(&mut model);
        TractModel::from_bytes(&model.encode_to_vec()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(error(&|_| ()), Ok(()));
    let product = |graph: &GraphProto| graph.node.iter().position(|node| node.op_type == "MatMulInteger").unwrap();
    for change in [
        &(|graph: &mut GraphProto| {
            graph.initializer.iter_mut().find(|tensor| tensor.raw_data == [128]).unwrap().raw_data = vec![127]
        }) as &dyn Fn(&mut GraphProto),
        &|graph| {
            let at = product(graph);
            graph.node[at].input.truncate(2);
        },
    ] {
        let said = error(change).unwrap_err();
        assert!(said.contains("has another zero point than 128"), "{said}");
    }
}
