//! Scores of tokens and pairs of neighbours, added to those of the head ([the formula](kinglet::spec#the-n-grams)).
//!
//! They are not trained with the network but fitted apart ([`crate::linear::ngrams`]), computed on the CPU, and constants for gradients.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kinglet::spec::{Config, files};
use tch::{Kind, Tensor};

use crate::tensors::{read_tensors, write_tensors};

/// The scores of n-grams, and what is added to those of every text.
#[derive(Clone, Debug)]
pub struct NGrams {
    /// The ids of each, −1 and the token for a single one; ascending, single tokens last.
    tokens: Vec<[i32; 2]>,
    /// `[G, K]`.
    weight: Vec<f32>,
    /// `[G]`.
    norm: Vec<f32>,
    /// `[K]`.
    bias: Vec<f32>,
    place: HashMap<[i32; 2], usize>,
}

impl NGrams {
    /// Creates the scores of `G` n-grams. `tokens`: in the order of the contract; `weight`: `[G, K]`; `norm`: `[G]`, above 0; `bias`: `[K]`.
    pub fn new(tokens: Vec<[i32; 2]>, weight: Vec<f32>, norm: Vec<f32>, bias: Vec<f32>) -> Self {
        let place = tokens.iter().enumerate().map(|(at, &pair)| (pair, at)).collect();
        NGrams { tokens, weight, norm, bias, place }
    }

    /// Returns the number of n-grams, `G`.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Multiplies all scores.
    pub fn scale(&mut self, factor: f32) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|value| *value *= factor);
    }

    /// Adds the same to the scores of all classes of every text.
    pub fn shift(&mut self, by: f32) {
        self.bias.iter_mut().for_each(|value| *value += by);
    }

    /// Writes the scores of a text (token ids) to `out`, `[K]`.
    pub fn scores_of(&self, ids: &[u32], out: &mut [f32]) {
        let classes = self.bias.len();
        out.fill(0.0);
        let mut norm = 0.0;
        let singles = ids.iter().map(|&id| [-1, id as i32]);
        let pairs = ids.windows(2).map(|pair| [pair[0] as i32, pair[1] as i32]);
        for at in singles.chain(pairs).filter_map(|pair| self.place.get(&pair).copied()) {
            norm += self.norm[at];
            let row = &self.weight[at * classes..(at + 1) * classes];
            out.iter_mut().zip(row).for_each(|(out, value)| *out += value);
        }
        let root = if norm > 0.0 { norm.sqrt() } else { 1.0 };
        out.iter_mut().zip(&self.bias).for_each(|(out, bias)| *out = *out / root + bias);
    }

    /// Returns the scores `[B, K]` f32 of texts. `ids` and `mask`: `[B, T]` i64; the result is on their device.
    ///
    /// # Errors
    /// If the ids cannot be read.
    pub fn scores(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (texts, tokens) = ids.size2()?;
        let read = |tensor: &Tensor| Vec::<i64>::try_from(tensor.f_flatten(0, -1)?).context("cannot read token ids");
        let (ids_read, mask_read) = (read(ids)?, read(mask)?);
        let (tokens, classes) = (tokens as usize, self.bias.len());
        let mut out = vec![0f32; texts as usize * classes];
        let mut text: Vec<u32> = Vec::with_capacity(tokens);
        for ((ids, mask), out) in
            ids_read.chunks(tokens).zip(mask_read.chunks(tokens)).zip(out.chunks_exact_mut(classes))
        {
            text.clear();
            text.extend(ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(&id, _)| id as u32));
            self.scores_of(&text, out);
        }
        Ok(Tensor::from_slice(&out).view([texts, classes as i64]).to_device(ids.device()))
    }

    /// Writes the file into a checkpoint directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (count, classes) = (self.len() as i64, self.bias.len() as i64);
        let tokens: Vec<i64> = self.tokens.iter().flatten().copied().map(i64::from).collect();
        let tensors = [
            ("bias", Tensor::from_slice(&self.bias)),
            ("norm", Tensor::from_slice(&self.norm)),
            ("tokens", Tensor::from_slice(&tokens).view([count, 2])),
            ("weight", Tensor::from_slice(&self.weight).view([count, classes])),
        ];
        write_tensors(&dir.join(files::NGRAMS), &tensors)
    }

    /// Reads the file of a checkpoint directory.
    ///
    /// # Errors
    /// If it is missing, malformed, or not that of the configuration.
    pub fn read(dir: &Path, config: &Config) -> Result<Self> {
        let path = dir.join(files::NGRAMS);
        let tensors = read_tensors(&path)?;
        let read = || -> Result<NGrams> {
            let (count, classes) = (config.ngrams as i64, config.num_labels as i64);
            let tensor = |name: &str, kind: Kind, shape: &[i64]| {
                let tensor = tensors.get(name).with_context(|| format!("tensor {name} is missing"))?;
                let (found, size) = (tensor.kind(), tensor.size());
                ensure!(
                    found == kind && size == shape,
                    "tensor {name} is {found:?} {size:?}, must be {kind:?} {shape:?}"
                );
                tensor.f_flatten(0, -1).context("a tensor")
            };
            let floats = |name, shape: &[i64]| -> Result<Vec<f32>> {
                Vec::try_from(tensor(name, Kind::Float, shape)?).context("a tensor of numbers")
            };
            let tokens: Vec<i64> = Vec::try_from(tensor("tokens", Kind::Int64, &[count, 2])?).context("token ids")?;
            let tokens = tokens.as_chunks::<2>().0.iter().map(|pair| pair.map(|id| id as i32)).collect();
            let norm = floats("norm", &[count])?;
            Ok(NGrams::new(tokens, floats("weight", &[count, classes])?, norm, floats("bias", &[classes])?))
        };
        read().with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn ngrams() -> NGrams {
        let tokens = vec![[1, 2], [2, 2], [-1, 1], [-1, 2]];
        NGrams::new(tokens, vec![1.0, -1.0, 0.5, 2.0, 0.25, 0.0, -3.0, 4.0], vec![4.0, 1.0, 2.0, 9.0], vec![0.125, 1.0])
    }

    #[test]
    fn the_scores_are_those_of_the_formula() {
        let mut scores = [7.0; 2];
        // 1, 2, 2 and the pairs 1 2 and 2 2: norms 2 + 9 + 9 + 4 + 1 = 25.
        ngrams().scores_of(&[1, 2, 2], &mut scores);
        let want = [(0.25 - 3.0 - 3.0 + 1.0 + 0.5) / 5.0 + 0.125, (4.0 + 4.0 - 1.0 + 2.0) / 5.0 + 1.0];
        assert!(scores.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{scores:?} {want:?}");
        ngrams().scores_of(&[3, 3], &mut scores);
        assert_eq!(scores, [0.125, 1.0]);
        // In a batch, padding is no token.
        let ids = Tensor::from_slice(&[1i64, 2, 2, 0, 3, 1, 2, 2]).view([2, 4]);
        let mask = Tensor::from_slice(&[1i64, 1, 1, 0, 0, 1, 1, 1]).view([2, 4]);
        let batch = Vec::<f32>::try_from(ngrams().scores(&ids, &mask).unwrap().flatten(0, -1)).unwrap();
        assert!((0..4).all(|i| (batch[i] - want[i % 2]).abs() < 1e-6), "{batch:?}");
        let mut scaled = ngrams();
        scaled.scale(2.0);
        scaled.shift(0.5);
        scaled.scores_of(&[1, 2, 2], &mut scores);
        assert!((0..2).all(|i| (scores[i] - 2.0 * want[i] - 0.5).abs() < 1e-5), "{scores:?}");
        assert_eq!(ngrams().scores(&ids, &mask).unwrap().device(), Device::Cpu);
    }

    #[test]
    fn a_file_reads_back_and_another_is_named() {
        let dir = tempfile::tempdir().unwrap();
        ngrams().write(dir.path()).unwrap();
        let config = Config { num_labels: 2, ngrams: 4, ..Config::new(kinglet::spec::Mixer::Light, 1, 4) };
        let read = NGrams::read(dir.path(), &config).unwrap();
        let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
        read.scores_of(&[2, 2, 1], &mut a);
        ngrams().scores_of(&[2, 2, 1], &mut b);
        assert_eq!(a, b);
        let said = format!("{:#}", NGrams::read(dir.path(), &Config { ngrams: 5, ..config }).unwrap_err());
        assert!(
            said.contains("ngrams.safetensors: tensor norm is Float [4], must be Float [5]")
                || said.contains("tensor tokens"),
            "{said}"
        );
    }
}
