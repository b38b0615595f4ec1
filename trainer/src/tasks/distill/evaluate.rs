//! How near a student is to its teacher on held-out texts.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::data::Data;
use super::loss::{Similarity, distance};
use crate::model::Mode;
use crate::model::pooling::normalize;
use crate::model::student::{Depth, Student};
use crate::training::team::Team;

/// Scores of a student.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Mean loss per text, without dropout.
    pub loss: f64,
    /// Mean cosine of a text's two vectors.
    pub cosine: f64,
    /// Share of the texts whose vector is nearer to the teacher's for the same text than to those for the other texts of its
    /// group ([`Similarity::texts`]).
    pub retrieval: f64,
    /// Texts.
    pub texts: usize,
}

/// Scores `student` on the held-out texts in f32; each process of `team` computes its share.
///
/// # Errors
/// If a loss is not finite, so the weights are broken, or another process has gone.
pub fn evaluate(student: &Student, depth: Depth, data: &Data, similarity: &Similarity, team: &Team) -> Result<Scores> {
    let device = student.device();
    let (mut loss, mut cosine, mut found) = (0.0, 0.0, 0.0);
    for group in data.texts.held_out.chunks(similarity.texts.max(2)).skip(team.rank()).step_by(team.size()) {
        let batch = data.batch(group, device);
        let teacher = data.vectors(group, device);
        let student = tch::no_grad(|| student.forward(&batch.ids, &batch.mask, depth, &Mode::eval()));
        let (sum, cosines) = distance(&student, &teacher, similarity);
        loss += sum.double_value(&[]);
        cosine += cosines.sum(Kind::Double).double_value(&[]);
        let nearest = normalize(&student).matmul(&normalize(&teacher).tr()).argmax(1, false);
        let itself = Tensor::arange(group.len() as i64, (Kind::Int64, device));
        found += nearest.eq_tensor(&itself).sum(Kind::Double).double_value(&[]);
    }
    let [loss, cosine, found] = team.sum([loss, cosine, found])?;
    ensure!(loss.is_finite(), "the loss on held-out texts is {loss}: the weights are not usable");
    let n = data.texts.held_out.len();
    let mean = |sum: f64| sum / n.max(1) as f64;
    Ok(Scores { loss: mean(loss), cosine: mean(cosine), retrieval: mean(found), texts: n })
}
