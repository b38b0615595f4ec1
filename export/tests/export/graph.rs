//! Tests the structure of exported files.

use std::collections::HashSet;

use kinglet::spec::{Mixer, Norm, Pooling};
use kinglet_onnx::{Precision, onnx};
use prost::Message;

use crate::fixture::{self, exported_bytes};

fn graph(mixer: Mixer, norm: Norm, pooling: Pooling, precision: Precision) -> onnx::GraphProto {
    let config = fixture::config(mixer, norm, pooling);
    let bytes = exported_bytes(&config, &fixture::weights(&config, 1), precision);
    onnx::ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap()
}

fn operators(graph: &onnx::GraphProto) -> HashSet<&str> {
    graph.node.iter().map(|node| node.op_type.as_str()).collect()
}

fn count(graph: &onnx::GraphProto, operator: &str) -> usize {
    graph.node.iter().filter(|node| node.op_type == operator).count()
}

#[test]
fn nodes_are_named_after_the_layer_they_belong_to() {
    let graph = graph(Mixer::Light, Norm::PostLayer, Pooling::Mean, Precision::Fp32);
    let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
    for name in [
        "embed/Gather",
        "layers.0/mixer/in_proj/MatMul",
        "layers.0/mixer/gate/Sigmoid",
        "layers.1/mixer/conv/Conv",
        "layers.1/mixer_norm/LayerNormalization",
        "layers.1/ffn/up/MatMul",
        "layers.1/ffn_residual/Add",
        "pool/ReduceSum",
        "pool/tokens/Max",
        "head/MatMul",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert_eq!(graph.node.last().unwrap().output, ["logits"]);
}

/// The name is part of the bytes of files that exist.
#[test]
fn quantizing_nodes_keep_the_name_that_they_always_had() {
    let graph = graph(Mixer::Light, Norm::PostLayer, Pooling::Mean, Precision::Int8);
    let rounding: Vec<&str> = graph.node.iter().filter(|n| n.op_type == "Round").map(|n| n.name.as_str()).collect();
    assert_eq!(rounding.len(), 2 * 4 + 1);
    assert!(rounding.iter().all(|name| name.ends_with("/quantise/Round")), "{rounding:?}");
}

/// What the fuzz target `onnx` starts from. The variable KINGLET_WRITE_SEEDS writes them again.
#[test]
fn the_seeds_of_the_fuzz_target_are_what_export_writes() {
    let seeds = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/onnx"));
    for mixer in Mixer::ALL {
        let config = fixture::configs().into_iter().find(|config| config.mixer.kind() == mixer).unwrap();
        let bytes = exported_bytes(&config, &fixture::weights(&config, 1), Precision::Int8);
        kinglet_onnx::check(&bytes).unwrap();
        let seed = seeds.join(format!("{}.onnx", mixer.name()));
        if std::env::var_os("KINGLET_WRITE_SEEDS").is_some() {
            std::fs::write(&seed, &bytes).unwrap();
        }
        assert!(std::fs::read(&seed).unwrap() == bytes, "{}", seed.display());
    }
}

#[test]
fn no_tensor_is_stored_twice_and_none_is_unused() {
    for config in fixture::configs() {
        for precision in [Precision::Fp32, Precision::Int8] {
            let graph = graph(config.mixer.kind(), config.norm, config.pooling, precision);
            let read: HashSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
            let mut contents = HashSet::new();
            for tensor in &graph.initializer {
                assert!(read.contains(&tensor.name), "{} is not read", tensor.name);
                let content = (&tensor.dims, tensor.data_type, &tensor.raw_data);
                assert!(contents.insert(content), "{} is stored twice", tensor.name);
            }
        }
    }
}

#[test]
fn int8_graphs_multiply_integers_only() {
    for mixer in Mixer::ALL {
        let fp32 = graph(mixer, Norm::PreRms, Pooling::Mean, Precision::Fp32);
        let int8 = graph(mixer, Norm::PreRms, Pooling::Mean, Precision::Int8);
        let scores = if mixer == Mixer::Attention { 4 } else { 0 };
        assert_eq!(count(&int8, "MatMul"), scores, "{mixer:?}: products of two activations stay in f32");
        assert_eq!(count(&int8, "MatMulInteger"), count(&fp32, "MatMul") - scores, "{mixer:?}");
        // tract computes a softmax between these operators wrongly and without an error.
        assert!(operators(&int8).is_disjoint(&HashSet::from(["QuantizeLinear", "DequantizeLinear"])));
    }
}

#[test]
fn an_input_of_several_products_is_quantized_once() {
    // For each layer: the block's input for in_proj, gate_proj, and kernel_proj, then out_proj, up, and down; then the
    // head.
    let int8 = graph(Mixer::Dynamic, Norm::PreRms, Pooling::Mean, Precision::Int8);
    assert_eq!(count(&int8, "Round"), 2 * 4 + 1);
    assert_eq!(count(&int8, "MatMulInteger"), 2 * 6 + 1);
}

#[test]
fn light_kernels_are_stored_after_their_softmax() {
    let graph = graph(Mixer::Light, Norm::PostLayer, Pooling::Mean, Precision::Fp32);
    assert!(!operators(&graph).contains("Softmax"));
    let kernel = graph.initializer.iter().find(|tensor| tensor.name == "layers.1.mixer.kernel").unwrap();
    assert_eq!(kernel.dims, [24, 1, 7]);
    let taps: Vec<f32> = kernel.raw_data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    for (channel, taps) in taps.chunks(7).enumerate() {
        assert!((taps.iter().sum::<f32>() - 1.0).abs() < 1e-6, "channel {channel}: {taps:?}");
    }
    // Three heads of eight channels: equal within a head, different across heads.
    assert_eq!(taps[..7], taps[7 * 7..8 * 7]);
    assert_ne!(taps[7 * 7..8 * 7], taps[8 * 7..9 * 7]);
}
