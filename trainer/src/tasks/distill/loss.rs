//! The distance between vectors of a student and of its teacher.

use tch::{Kind, Tensor};

use crate::model::pooling::normalize;

/// Logit of a text with itself, which takes no part in the softmax.
const ITSELF: f64 = -1e9;

/// How similarities are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Weight of the divergence in the loss.
    pub weight: f64,
    /// Temperature of the softmax.
    pub temperature: f64,
    /// Number of consecutive texts that are compared with each other.
    pub texts: usize,
}

/// Returns the summed loss of `B` texts, a scalar with its graph, and their cosines `[B]` without.
///
/// ```text
/// loss = Σᵢ 1 − cos(sᵢ, tᵢ) + weight · Σᵢ KL(softmax_{j≠i}(cos(tᵢ, tⱼ)/τ) ‖ softmax_{j≠i}(cos(sᵢ, sⱼ)/τ))
/// ```
///
/// `student`, `teacher`: `[B, D]` f32, of any length. `j` runs over the texts of `i`'s group: the consecutive
/// [`Similarity::texts`], the last group being what remains. Groups make the loss independent of how a batch is divided
/// into parts, as long as parts consist of whole groups.
pub fn distance(student: &Tensor, teacher: &Tensor, similarity: &Similarity) -> (Tensor, Tensor) {
    let (student, teacher) = (normalize(student), normalize(teacher));
    let cosines = (&student * &teacher).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    let mut loss = (&cosines * -1.0 + 1.0).sum(Kind::Float);
    if similarity.weight > 0.0 {
        let texts = cosines.numel() as i64;
        let group = (similarity.texts.max(2) as i64).min(texts);
        let whole = texts - texts % group.max(1);
        loss += divergence(&student, &teacher, 0, whole, group, similarity.temperature) * similarity.weight;
        if texts - whole > 1 {
            let rest = texts - whole;
            loss += divergence(&student, &teacher, whole, rest, rest, similarity.temperature) * similarity.weight;
        }
    }
    (loss, cosines.detach())
}

/// Returns the summed divergence of `texts` texts from `start` on, in groups of `group`, which divides `texts`.
fn divergence(student: &Tensor, teacher: &Tensor, start: i64, texts: i64, group: i64, temperature: f64) -> Tensor {
    let itself = Tensor::eye(group, (Kind::Bool, student.device()));
    let logs = |x: &Tensor| {
        let x = x.narrow(0, start, texts).view([texts / group, group, -1]);
        let logits = x.matmul(&x.transpose(1, 2)) / temperature;
        logits.masked_fill(&itself, ITSELF).log_softmax(-1, Kind::Float)
    };
    let teacher = logs(teacher);
    (teacher.exp() * (&teacher - logs(student))).sum(Kind::Float)
}
