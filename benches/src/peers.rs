//! The measured engines and their files.

use std::path::{Path, PathBuf};

use kinglet::spec::{Mixer, files};

use crate::peer::Spec;

/// Result of onnxruntime's own dynamic quantization of `model.onnx`; written by `benches/peers/onnxruntime_peer.py
/// prepare`.
pub const DYNAMIC: &str = "model.dynamic.onnx";
/// `model.onnx` in protobuf's other encoding of integer lists, which rten reads.
pub const UNPACKED: &str = "model.unpacked.onnx";
/// `model.int8.onnx` likewise.
pub const UNPACKED_INT8: &str = "model.int8.unpacked.onnx";
/// The attention model with one `MultiHeadAttention` per layer, with T5's bias added to its scores.
pub const FUSED: &str = "model.mha.onnx";
/// [`FUSED`] quantized as [`DYNAMIC`] is.
pub const FUSED_DYNAMIC: &str = "model.mha.dynamic.onnx";
/// [`FUSED`] without the bias, so that onnxruntime uses its flash attention, whose memory does not grow with the
/// square.
pub const FLASH: &str = "model.flash.onnx";
/// [`FLASH`] quantized as [`DYNAMIC`] is.
pub const FLASH_DYNAMIC: &str = "model.flash.dynamic.onnx";

/// Variables that keep tract from using more than AVX2.
const TRACT_AVX2: [(&str, &str); 1] =
    [("TRACT_CPU_ISA", "-avx512f,-avx512vnni,-avx512fp16,-avxvnni,-amx-int8,-amx-bf16")];

/// Programs of the peers.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program: the native engine and tract.
    pub own: PathBuf,
    /// `peer-rten`, of the workspace `benches/peers`.
    pub rten: Option<PathBuf>,
    /// A Python with onnxruntime, and `onnxruntime_peer.py`.
    pub onnxruntime: Option<(PathBuf, PathBuf)>,
    /// The folder of `avx2_only.py`: the same Python and `peer-rten`, kept from using AVX-512.
    pub avx2: Option<PathBuf>,
}

/// A group of comparable peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The same light model in other engines.
    SameGraph,
    /// A Transformer of the same size.
    Transformer,
    /// The same light model without AVX-512.
    Avx2,
}

impl Group {
    /// All groups.
    pub const ALL: [Group; 3] = [Group::SameGraph, Group::Transformer, Group::Avx2];

    /// Returns its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Group::SameGraph => "same graph",
            Group::Transformer => "transformer",
            Group::Avx2 => "avx2",
        }
    }

    /// Returns the model that the peers of this group run.
    pub const fn mixer(self) -> Mixer {
        match self {
            Group::Transformer => Mixer::Attention,
            Group::SameGraph | Group::Avx2 => Mixer::Light,
        }
    }
}

impl Programs {
    fn own(&self, engine: &'static str, variant: &'static str, file: &'static str) -> Spec {
        let command = vec![path(&self.own), "worker".to_owned(), engine.to_owned()];
        Spec { engine, variant, int8: variant.contains("int8"), file, command, environment: Vec::new() }
    }

    /// Returns the native engine with the backend it selects, or with AVX2.
    pub fn native(&self, avx2: bool) -> Spec {
        let mut spec = self.own("native", "int8", files::BUNDLE);
        if avx2 {
            spec.variant = "int8, AVX2";
            spec.command.extend(["--backend".to_owned(), "x86-avx2".to_owned()]);
        }
        spec
    }

    /// Returns the peers of a group for which there are programs.
    pub fn peers(&self, group: Group) -> Vec<Spec> {
        let tract = |variant, file| self.own("tract", variant, file);
        let avx2 = |program: &str| self.avx2.as_ref().map(|folder| folder.join(program));
        let onnxruntime_by = |python: Option<PathBuf>, variant: &'static str, file| {
            let (_, script) = self.onnxruntime.as_ref()?;
            let command = vec![path(&python?), path(script), "serve".to_owned()];
            let int8 = variant.contains("int8");
            Some(Spec { engine: "onnxruntime", variant, int8, file, command, environment: Vec::new() })
        };
        let onnxruntime =
            |variant, file| onnxruntime_by(self.onnxruntime.as_ref().map(|(python, _)| python.clone()), variant, file);
        let rten_by = |program: Option<PathBuf>, variant: &'static str, file| {
            let command = vec![path(&program?)];
            let environment = vec![("RTEN_NUM_THREADS", "1")];
            Some(Spec { engine: "rten", variant, int8: variant.contains("int8"), file, command, environment })
        };
        let rten = |variant, file| rten_by(self.rten.clone(), variant, file);
        let peers = match group {
            Group::SameGraph => vec![
                Some(tract("fp32", files::ONNX)),
                Some(tract("int8", files::ONNX_INT8)),
                Some(tract("with our operator", files::ONNX_CUSTOM_OP)),
                onnxruntime("fp32", files::ONNX),
                onnxruntime("int8", files::ONNX_INT8),
                onnxruntime("int8, its own", DYNAMIC),
                rten("fp32", UNPACKED),
                rten("int8", UNPACKED_INT8),
                rten("int8, onnxruntime's", DYNAMIC),
            ],
            Group::Transformer => vec![
                onnxruntime("fp32, plain", files::ONNX),
                onnxruntime("fp32, fused", FUSED),
                onnxruntime("int8, fused", FUSED_DYNAMIC),
                onnxruntime("fp32, flash", FLASH),
                onnxruntime("int8, flash", FLASH_DYNAMIC),
            ],
            Group::Avx2 => {
                let restricted = |spec: Spec| Some(Spec { environment: TRACT_AVX2.to_vec(), ..spec });
                vec![
                    restricted(tract("fp32, AVX2", files::ONNX)),
                    restricted(tract("int8, AVX2", files::ONNX_INT8)),
                    onnxruntime_by(avx2("python"), "fp32, AVX2", files::ONNX),
                    onnxruntime_by(avx2("python"), "int8, AVX2", files::ONNX_INT8),
                    onnxruntime_by(avx2("python"), "int8, its own, AVX2", DYNAMIC),
                    rten_by(avx2("rten"), "int8, AVX2", UNPACKED_INT8),
                    rten_by(avx2("rten"), "int8, onnxruntime's, AVX2", DYNAMIC),
                    Some(self.native(false)),
                ]
            }
        };
        peers.into_iter().flatten().collect()
    }
}

/// Returns whether the memory of a peer is measured too: one of each kind, to keep table and figure readable.
pub fn is_for_memory(peer: &Spec) -> bool {
    ![files::ONNX_INT8, files::ONNX_CUSTOM_OP, FUSED, FUSED_DYNAMIC].contains(&peer.file)
        && (peer.engine, peer.file) != ("rten", DYNAMIC)
        || (peer.engine, peer.file) == ("tract", files::ONNX_INT8)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_without_a_program_are_left_out() {
        let mut programs = Programs { own: "own".into(), rten: None, onnxruntime: None, avx2: None };
        let engines = |p: &Programs| p.peers(Group::SameGraph).iter().map(|s| s.engine).collect::<Vec<_>>();
        assert_eq!(engines(&programs), ["tract", "tract", "tract"]);
        assert!(programs.peers(Group::Transformer).is_empty());
        assert_eq!(programs.peers(Group::Avx2).len(), 3);
        programs.rten = Some("rten".into());
        assert_eq!(engines(&programs), ["tract", "tract", "tract", "rten", "rten", "rten"]);
    }

    #[test]
    fn names_are_one_of_a_kind_in_a_group() {
        let (onnxruntime, avx2) = (Some(("p".into(), "s".into())), Some("a".into()));
        let programs = Programs { own: "o".into(), rten: Some("r".into()), onnxruntime, avx2 };
        for group in Group::ALL {
            let mut names: Vec<String> = programs.peers(group).iter().map(Spec::name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{names:?}");
        }
    }
}
