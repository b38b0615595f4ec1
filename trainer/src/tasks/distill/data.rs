//! What a distillation learns from: texts, and the teacher's vectors of them.

use std::path::PathBuf;

use tch::{Device, Tensor};

use super::texts::Texts;
use crate::batch::Batch;
use crate::targets::Targets;

/// Texts and their vectors.
#[derive(Debug)]
pub struct Data {
    /// The texts.
    pub texts: Texts,
    /// The teacher's vectors, one per text.
    pub targets: Targets,
    /// The directory or file of the targets, as typed.
    pub targets_path: PathBuf,
    /// Whether the embedding starts from the teacher's vectors of pieces, otherwise at random.
    pub from_teacher: bool,
}

impl Data {
    /// Returns texts as a batch on `device`.
    pub fn batch(&self, texts: &[u32], device: Device) -> Batch {
        let ids: Vec<&[u32]> = texts.iter().map(|&number| self.texts.ids(number)).collect();
        Batch::new(&ids, device)
    }

    /// Returns the teacher's vectors of texts, `[B, D]` f32 on `device`.
    pub fn vectors(&self, texts: &[u32], device: Device) -> Tensor {
        let width = self.targets.dimension();
        let mut values = vec![0f32; texts.len() * width];
        for (&number, row) in texts.iter().zip(values.chunks_exact_mut(width)) {
            self.targets.row(number as usize, row);
        }
        Tensor::from_slice(&values).view([texts.len() as i64, width as i64]).to_device(device)
    }
}
