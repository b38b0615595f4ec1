//! The static start of a student: an embedding made of the teacher's vectors of single pieces, and a map fitted to it.
//!
//! Each piece of the vocabulary goes through the teacher alone. The principal components of these vectors become the rows of
//! the embedding, each weighted by `w = a / (a + p)` with the piece's frequency `p` in the texts (smooth inverse frequency,
//! Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings"), so that the mean of a text's rows is
//! about its rare words. The weights are relative to the longest row of a piece that occurs, so that the rows keep the size that
//! optimizers and blocks expect however frequent all pieces are. The weight is the length of the row, and must survive to the
//! mean:
//!
//! - Under `post_layer` the residual stream has no norm of its own, so a text's vector is the mean of its rows as they are.
//! - Under `pre_rms` the last norm gives every token the same length. A row therefore has all the same length from the
//!   beginning: what its weight takes from it goes into one direction that all rows share, `(1, …, 1)/√C`, for which one
//!   principal component is left out. The norm then changes nothing, the mean is the weighted mean beside a constant, and the
//!   map ignores the constant. A direction across all channels, unlike one channel, keeps the rows' largest entry small,
//!   as int8 rows need.
//!
//! The map starts as the ridge regression from the texts' means to the teacher's vectors. It is then multiplied so that its
//! entries have a mean square of 1, which changes no cosine: optimizers take steps of about the learning rate per entry, which
//! would destroy a map of small entries before it has learnt anything.

use anyhow::{Context, Result, ensure};
use kinglet::spec::{Norm, Weight};
use kinglet::tokenizer::{FIRST_PIECE, METASPACE, Table, Token};
use tch::{Kind, Tensor};

use super::pca::{principal_components, ridge};
use crate::batch::Batch;
use crate::model::Mode;
use crate::model::student::{Depth, Student, StudentWeight};

/// `a` in the weight of a piece of frequency `p`, `a / (a + p)` (Arora et al. 2017, who find 1e-4 to 1e-3 good).
const FREQUENCY: f64 = 1e-3;
/// Minimum of what is divided by.
const TINY: f64 = 1e-30;
/// Texts in a batch of the regression.
const BATCH: usize = 256;

/// Returns the ids and texts of all pieces that say something alone, for the teacher: without the mark of a word's beginning,
/// special tokens and bytes.
pub fn pieces(table: &Table<'_>) -> (Vec<u32>, Vec<String>) {
    let text = |id| match table.token(id) {
        Some(Token::Piece(piece)) => Some(piece.replace(METASPACE, " ").trim().to_owned()).filter(|t| !t.is_empty()),
        _ => None,
    };
    (FIRST_PIECE..table.vocab_size() as u32).filter_map(|id| Some((id, text(id)?))).unzip()
}

/// Returns directions for the rows of `ids` from the teacher's vectors of their pieces, `vectors` `[N, D]`: `[V, C]` f32 with a
/// mean square of 1 in the rows of `ids`, and zeros elsewhere. `C` is `channels`, `V` is `vocab_size`.
///
/// # Errors
/// If the vectors have fewer values than there are channels.
pub fn from_teacher(vectors: &Tensor, ids: &[u32], vocab_size: usize, channels: usize) -> Result<Tensor> {
    let width = vectors.size().last().copied().unwrap_or_default();
    ensure!(
        channels as i64 <= width,
        "the teacher's vectors have {width} values: principal components cannot widen them to the {channels} that \
         model.hidden_size needs; lower it, or leave --teacher out for a random start"
    );
    let components = principal_components(vectors, channels)?;
    let scaled = &components / components.square().mean(Kind::Float).sqrt().clamp_min(TINY);
    let rows: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let all = Tensor::zeros([vocab_size as i64, channels as i64], (Kind::Float, scaled.device()));
    Ok(all.index_copy(0, &Tensor::from_slice(&rows).to_device(scaled.device()), &scaled))
}

/// Returns random directions for all rows: the student's drawn embedding, `[V, channels]` f32.
///
/// # Errors
/// If the student has fewer channels.
pub fn random(student: &Student, channels: usize) -> Result<Tensor> {
    let weight = StudentWeight::Encoder(Weight::Embedding.into());
    let drawn = student.parameters().iter().find(|(w, _)| *w == weight).context("the student has no embedding")?;
    Ok(drawn.1.detach().f_narrow(1, 0, channels as i64)?.copy())
}

/// Returns the number of values that a row's direction has in a model of `channels` channels.
pub fn direction_channels(norm: Norm, channels: usize) -> usize {
    match norm {
        Norm::PostLayer => channels,
        Norm::PreRms => channels - 1,
    }
}

/// Returns the embedding, `[V, C]` f32, of `directions` `[V, C]`, or `[V, C − 1]` under `pre_rms` ([`direction_channels`]), for ids
/// that occur `counts[id]` times. The module's documentation has the formula.
///
/// The longest row of an id that occurs has a mean square of 1; rows of ids that do not are cut to its length.
pub fn embedding(directions: &Tensor, counts: &[u64], norm: Norm) -> Tensor {
    let column = |values: Vec<f32>| Tensor::from_slice(&values).unsqueeze(1).to_device(directions.device());
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let weight = |&n: &u64| (FREQUENCY / (FREQUENCY + n as f64 / total)) as f32;
    let rows = directions * column(counts.iter().map(weight).collect());
    let squares = rows.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).clamp_min(TINY);
    let occurs = column(counts.iter().map(|&n| f32::from(u8::from(n > 0))).collect());
    let longest = (&squares * occurs).max().clamp_min(TINY);
    let rows = rows * (&longest / &squares).sqrt().clamp_max(1.0);
    match norm {
        Norm::PostLayer => &rows / (longest / rows.size()[1] as f64).sqrt(),
        Norm::PreRms => {
            let channels = rows.size()[1] + 1;
            let squares = rows.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
            let shared = (&longest - squares).clamp_min(0.0).sqrt();
            let rows = Tensor::cat(&[rows, shared], 1) / (longest / channels as f64).sqrt();
            rows.matmul(&reflection(channels).to_device(rows.device()))
        }
    }
}

/// Returns the orthogonal matrix `[C, C]` f32 that maps the last axis to `(1, …, 1)/√C` and changes the others as little as
/// possible: Householder's `I − 2vvᵀ/(vᵀv)` of the difference `v`.
fn reflection(channels: i64) -> Tensor {
    let options = (Kind::Float, tch::Device::Cpu);
    let v = Tensor::full([channels], (channels as f64).powf(-0.5), options);
    let mut last = v.narrow(0, channels - 1, 1);
    let _ = last.g_sub_scalar_(1.0);
    let outer = v.unsqueeze(1).matmul(&v.unsqueeze(0)) * (2.0 / v.square().sum(Kind::Float).double_value(&[]));
    Tensor::eye(channels, options) - outer
}

/// Fits the student's map to texts (token ids), `texts`, and the teacher's vectors for them, `[N, D]` f32, of length 1, with the
/// embedding as it is.
///
/// # Errors
/// If the regression fails.
pub fn fit_map(student: &Student, texts: &[&[u32]], teacher: &Tensor) -> Result<()> {
    let pooled = |texts: &[&[u32]]| {
        let batch = Batch::new(texts, student.device());
        tch::no_grad(|| student.pooled(&batch.ids, &batch.mask, Depth::Static, &Mode::eval()))
    };
    let inputs: Vec<Tensor> = texts.chunks(BATCH).map(pooled).collect();
    let (weight, bias) = ridge(&Tensor::cat(&inputs, 0), teacher)?;
    let size = weight.square().mean(Kind::Float).sqrt().clamp_min(TINY);
    student.set(StudentWeight::Map, &(weight / &size))?;
    student.set(StudentWeight::MapBias, &(bias / size))
}

/// Copies `embedding`, `[V, C]`, into the student.
///
/// # Errors
/// If it has another shape.
pub fn set_embedding(student: &Student, embedding: &Tensor) -> Result<()> {
    student.set(StudentWeight::Encoder(Weight::Embedding.into()), embedding)
}

#[cfg(test)]
mod tests {
    use kinglet::spec::{Config, Mixer};
    use kinglet::tokenizer::Normalization;
    use tch::Device;

    use super::*;
    use crate::model::ModelConfig;
    use crate::random::generator;
    use crate::tasks::distill::loss::{Similarity, distance};

    /// Ids 0 to 5 and how often they occur: `a / (a + p)` is 1 for those that never do.
    const COUNTS: [u64; 6] = [0, 900, 90, 9, 1, 0];

    fn directions(channels: i64) -> Tensor {
        let _turn = generator();
        tch::manual_seed(3);
        Tensor::randn([6, channels], (Kind::Float, Device::Cpu))
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn rows_are_weighted_by_the_inverse_frequency() {
        let directions = directions(8);
        let rows = embedding(&directions, &COUNTS, Norm::PostLayer);
        let weighted = |id: i64| directions.get(id) * (1e-3 / (1e-3 + COUNTS[id as usize] as f64 / 1000.0));
        let length = |row: &Tensor| row.norm().double_value(&[]);
        // The rarest id that occurs has the longest row.
        let factor = 8f64.sqrt() / length(&weighted(4));
        for id in 1..5 {
            assert!(apart(&rows.get(id), &(weighted(id) * factor)) < 1e-5, "{id}");
        }
        for id in [0, 5] {
            let cut = weighted(id) * (8f64.sqrt() / length(&weighted(id)));
            assert!(apart(&rows.get(id), &cut) < 1e-5, "{id}");
        }
    }

    #[test]
    fn under_a_last_norm_a_weight_survives_as_an_angle() {
        let directions = directions(direction_channels(Norm::PreRms, 8) as i64);
        let rows = embedding(&directions, &COUNTS, Norm::PreRms);
        let normed = rows.rms_norm([8], None::<&Tensor>, 1e-6);
        assert!(apart(&rows, &normed) < 1e-5, "the norm changes nothing");
        // Turned back, the first channels are the weighted directions, all by the same factor.
        let back = rows.matmul(&reflection(8).tr());
        let weighted = embedding(&directions, &COUNTS, Norm::PostLayer);
        let factor = back.narrow(1, 0, 7).norm() / weighted.norm();
        assert!(apart(&back.narrow(1, 0, 7), &(weighted * &factor)) < 1e-5);
        // The shared direction lies across all channels.
        let shared = Tensor::zeros([1, 7], (Kind::Float, Device::Cpu));
        let shared = embedding(&shared, &[1], Norm::PreRms);
        assert!(apart(&shared.abs(), &Tensor::ones([1, 8], (Kind::Float, Device::Cpu))) < 1e-5);
    }

    #[test]
    fn a_reflection_keeps_lengths_and_is_its_own_inverse() {
        let h = reflection(5);
        assert!(apart(&h.matmul(&h), &Tensor::eye(5, (Kind::Float, Device::Cpu))) < 1e-6);
        assert!(apart(&h, &h.tr()) < 1e-7);
    }

    #[test]
    fn the_fitted_map_finds_vectors_that_are_linear_in_the_mean_and_has_entries_of_size_one() {
        let shape = Config { vocab_size: 6, intermediate_size: 8, ..Config::new(Mixer::Light, 1, 4) };
        for norm in [Norm::PostLayer, Norm::PreRms] {
            let shape = ModelConfig::from(Config { norm, ..shape.clone() }).resolve();
            let student = Student::new(&shape, 10, 1, Device::Cpu).unwrap();
            let directions = random(&student, direction_channels(norm, 4)).unwrap();
            set_embedding(&student, &embedding(&directions, &COUNTS, norm)).unwrap();
            let texts: [&[u32]; 9] = [&[2], &[3], &[4], &[5], &[2, 3], &[4, 5, 2], &[3, 4], &[2, 5], &[3, 3, 5]];
            let batch = Batch::new(&texts, Device::Cpu);
            let pooled = student.pooled(&batch.ids, &batch.mask, Depth::Static, &Mode::eval()).detach();
            // Tiny, as a teacher's vectors of length 1 in many channels are.
            let teacher = pooled.matmul(&Tensor::randn([4, 10], (Kind::Float, Device::Cpu))) * 1e-3 + 1e-4;
            fit_map(&student, &texts, &teacher).unwrap();
            let vectors = student.forward(&batch.ids, &batch.mask, Depth::Whole, &Mode::eval());
            let similarity = Similarity { weight: 0.0, temperature: 0.05, texts: 2 };
            let cosines = distance(&vectors, &teacher, &similarity).1;
            assert!(cosines.min().double_value(&[]) > 0.98, "{norm:?}: {cosines:?}");
            let (_, map) = student.parameters().iter().find(|(w, _)| *w == StudentWeight::Map).unwrap();
            assert!((map.square().mean(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_teacher_narrower_than_the_embedding_is_refused() {
        let vectors = Tensor::randn([20, 7], (Kind::Float, Device::Cpu));
        let said = from_teacher(&vectors, &[1; 20], 30, 8).unwrap_err().to_string();
        assert!(said.starts_with("the teacher's vectors have 7 values") && said.contains("the 8 that"), "{said}");
    }

    #[test]
    fn pieces_go_to_the_teacher_as_a_reader_sees_them() {
        let ascii = ('!'..='~').filter(|c| !c.is_ascii_uppercase()).map(String::from);
        let mut pieces_of_table: Vec<(String, i16)> =
            ascii.chain(["ing", "▁", "▁the"].map(String::from)).map(|p| (p, 0)).collect();
        pieces_of_table.sort();
        let bytes = Table::write(&pieces_of_table, Normalization::LOWERCASE).unwrap();
        let table = Table::new(&bytes).unwrap();
        let (ids, texts) = pieces(&table);
        let text = |piece: &str| {
            let place = pieces_of_table.iter().position(|(p, _)| p == piece).unwrap() as u32;
            ids.iter().position(|&id| id == FIRST_PIECE + place).map(|i| texts[i].as_str())
        };
        assert_eq!(["ing", "▁the", "a", "▁"].map(text), [Some("ing"), Some("the"), Some("a"), None]);
        assert_eq!(ids.len(), pieces_of_table.len() - 1);
    }
}
