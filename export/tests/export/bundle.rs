//! Checks that the bundle holds the numbers of the int8 ONNX file, one by one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use kinglet::backend::PackedMatrix;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::multi_label::Decision;
use kinglet::spec::{LayerWeight, Mixer, Norm, Pooling, Storage, Weight, files};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::prepare::Prepared;
use kinglet_onnx::{Precision, onnx};
use prost::Message;

use crate::fixture;

/// The tensors of an exported file, by name.
struct Tensors(HashMap<String, Vec<u8>>);

impl Tensors {
    fn of(bytes: &[u8]) -> Self {
        let graph = onnx::ModelProto::decode(bytes).unwrap().graph.unwrap();
        Tensors(graph.initializer.into_iter().map(|tensor| (tensor.name, tensor.raw_data)).collect())
    }

    fn i8(&self, weight: Weight) -> Vec<i8> {
        self.0[&weight.to_string()].iter().map(|&b| b as i8).collect()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.0[name].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    fn scales(&self, weight: Weight) -> Vec<f32> {
        self.f32(&format!("{weight}.scale"))
    }

    /// ONNX stores matrices as `[in, out]`, each number plus 128.
    fn is_matrix(&self, weight: Weight, panels: &PackedMatrix<'_>) {
        let inputs = panels.inputs.next_multiple_of(4);
        let values: Vec<i8> = self.i8(weight).iter().map(|&byte| byte.wrapping_sub(-128)).collect();
        let scales = self.scales(weight);
        assert_eq!((values.len(), scales.len()), (panels.inputs * panels.outputs, panels.outputs), "{weight}");
        for o in 0..panels.outputs {
            assert_eq!(panels.scales[o], scales[o], "{weight}");
            for i in 0..panels.inputs {
                let at = o / 16 * 16 * inputs + i / 4 * 64 + o % 16 * 4 + i % 4;
                assert_eq!(panels.values[at], values[i * panels.outputs + o], "{weight} [{o}, {i}]");
            }
        }
    }
}

#[test]
fn a_bundle_has_the_numbers_of_the_int8_file() {
    let mut seen = 0;
    for (seed, config) in fixture::configs().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fixture::write(dir.path(), &config, &fixture::weights(&config, seed as u64));
        let (checkpoint, trained) = Checkpoint::read(dir.path()).unwrap();
        let model = Prepared::new(&config, trained.clone());
        let bytes = kinglet_export::bundle::file(&checkpoint, &model, Decision::default()).unwrap();
        assert_eq!(bytes.is_some(), config.mixer.is_conv());
        let Some(bytes) = bytes else { continue };
        seen += 1;
        let buffer = Buffer::new(&bytes);
        let bundle = Bundle::new(buffer.as_slice()).unwrap();
        assert_eq!(bundle.config(), &config);
        assert_eq!(bundle.labels().iter().collect::<Vec<_>>(), checkpoint.labels);
        assert_eq!(bundle.tokenizer().as_bytes(), checkpoint.tokenizer);
        let total: u64 = kinglet_export::bundle::parts(&bytes).unwrap().iter().map(|part| part.bytes).sum();
        assert!(total < bytes.len() as u64 && total + 64 * 10 > bytes.len() as u64);

        let tensors = Tensors::of(&kinglet_export::onnx::file(&checkpoint, &model, Precision::Int8).unwrap());
        let weights = bundle.weights();
        let (c, scales) = (config.hidden_size, tensors.scales(Weight::Embedding));
        for (id, row) in tensors.i8(Weight::Embedding).chunks(c).enumerate() {
            assert_eq!(weights.embedding(id as u32).unwrap(), (row, scales[id]));
        }
        for i in 0..config.num_hidden_layers as u16 {
            let layer = weights.layer(usize::from(i));
            let name = |weight| Weight::Layer(i, weight);
            tensors.is_matrix(name(LayerWeight::In), &layer.input);
            tensors.is_matrix(name(LayerWeight::Gate), &layer.gate);
            tensors.is_matrix(name(LayerWeight::Out), &layer.output);
            tensors.is_matrix(name(LayerWeight::Up), &layer.up);
            tensors.is_matrix(name(LayerWeight::Down), &layer.down);
            if config.row(name(LayerWeight::KernelProjection)).is_some() {
                tensors.is_matrix(name(LayerWeight::KernelProjection), &layer.kernel_projection);
            }
            if let Some(row) = config.row(name(LayerWeight::Kernel)) {
                let kernel = name(LayerWeight::Kernel);
                let (rows, columns) = config.shape(kernel).unwrap().matrix();
                let stored = |row_of: usize, j: usize| match row.storage {
                    Storage::F32Columns => layer.kernel[j * rows + row_of],
                    _ => layer.kernel[row_of * columns + j],
                };
                assert_eq!(layer.kernel.len(), rows * columns);
                for (at, &value) in model.float(kernel).iter().enumerate() {
                    assert_eq!(stored(at / columns, at % columns), value, "{kernel}");
                }
                // ONNX has the taps of each channel, `[C, 1, K]`: the row that the channel uses, unless a row is no taps.
                let (taps, onnx) = (config.convolution(usize::from(i)).unwrap().taps, tensors.f32(&kernel.to_string()));
                assert_eq!(onnx.len(), c * taps, "{kernel}");
                for (at, &tap) in onnx.iter().enumerate().filter(|_| columns == taps) {
                    assert_eq!(stored(at / taps * rows / c, at % taps), tap, "{kernel}");
                }
            }
            let vector = |weight| trained.get(&name(weight)).map_or(&[][..], Vec::as_slice);
            assert_eq!(layer.mixer_norm.gain, vector(LayerWeight::MixerNorm));
            assert_eq!(layer.mixer_norm.shift, vector(LayerWeight::MixerNormBias));
            assert_eq!(layer.ffn_norm.gain, vector(LayerWeight::FfnNorm));
            assert_eq!(layer.ffn_norm.shift, vector(LayerWeight::FfnNormBias));
        }
        assert_eq!(weights.final_norm().len(), if config.norm == Norm::PreRms { c } else { 0 });
        assert_eq!(weights.final_norm(), trained.get(&Weight::FinalNorm).map_or(&[][..], Vec::as_slice));
        let (head, bias) = weights.head();
        tensors.is_matrix(Weight::HeadWeight, &head);
        assert_eq!(bias, trained[&Weight::HeadBias]);
    }
    assert!(seen >= 6, "{seen} bundles");
}

#[test]
fn parameters_that_the_mixer_does_not_have_change_no_byte_of_a_bundle() {
    for mixer in Mixer::convolutions() {
        let config = fixture::config(mixer, Norm::PostLayer, Pooling::Mean);
        let dir = tempfile::tempdir().unwrap();
        fixture::write(dir.path(), &config, &fixture::weights(&config, 5));
        let file = |dir: &Path| {
            let (checkpoint, weights) = Checkpoint::read(dir).unwrap();
            kinglet_export::bundle::file(&checkpoint, &Prepared::new(&checkpoint.config, weights), Decision::default())
                .unwrap()
        };
        let expected = file(dir.path());
        let path = dir.path().join(files::CONFIG);
        let mut given: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        given["num_attention_heads"] = 7.into();
        given["relative_attention_num_buckets"] = 6.into();
        given["relative_attention_max_distance"] = 9.into();
        if config.mixer.kernel_heads() == 0 {
            given["kernel_heads"] = 5.into();
        }
        fs::write(&path, given.to_string()).unwrap();
        assert!(expected.is_some() && file(dir.path()) == expected, "{}", mixer.name());
    }
}
