//! The encoder in its plainest form, from the formulas of `kinglet::spec`: one text, nested loops, f64.
//!
//! With [`Precision::Int8`], the embedding and every product follow the int8 rule of `kinglet::quant` in f32;
//! everything else stays in f64.

use kinglet::quant;
use kinglet::spec::{
    Config, Convolution, LayerWeight as L, Mixer, MixerConfig, NORM_EPS, Norm, Pooling, Weight, relative_bucket,
};

use kinglet_export::checkpoint::Weights;

#[derive(Clone, Copy, PartialEq)]
pub enum Precision {
    Exact,
    Int8,
}

/// One row per token.
type Rows = Vec<Vec<f64>>;

/// Returns the scores of a text.
pub fn logits(config: &Config, weights: &Weights, ids: &[u32], precision: Precision) -> Vec<f64> {
    let model = Model { config, weights, precision };
    let mut x: Rows = ids.iter().map(|&id| model.embedding(id as usize)).collect();
    for i in 0..config.num_hidden_layers {
        let w = |w| Weight::Layer(i as u16, w);
        x = match config.norm {
            Norm::PostLayer => {
                let a = add(&x, &model.layer_norm(&model.mixer(i, &x), w(L::MixerNorm), w(L::MixerNormBias)));
                add(&a, &model.layer_norm(&model.ffn(i, &a), w(L::FfnNorm), w(L::FfnNormBias)))
            }
            Norm::PreRms => {
                let a = add(&x, &model.mixer(i, &model.rms_norm(&x, w(L::MixerNorm))));
                add(&a, &model.ffn(i, &model.rms_norm(&a, w(L::FfnNorm))))
            }
        };
    }
    if config.norm == Norm::PreRms {
        x = model.rms_norm(&x, Weight::FinalNorm);
    }
    let pooled = (0..config.hidden_size)
        .map(|c| match config.pooling {
            Pooling::Mean => x.iter().map(|row| row[c]).sum::<f64>() / x.len() as f64,
            Pooling::Max => x.iter().map(|row| row[c]).fold(f64::NEG_INFINITY, f64::max),
        })
        .collect();
    let scores = model.linear(&vec![pooled], Weight::HeadWeight).remove(0);
    scores.iter().zip(&weights[&Weight::HeadBias]).map(|(s, &b)| s + f64::from(b)).collect()
}

/// Returns a vector divided by its length.
pub fn normalized(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| if length > 0.0 { x / length } else { 0.0 }).collect()
}

struct Model<'a> {
    config: &'a Config,
    weights: &'a Weights,
    precision: Precision,
}

impl Model<'_> {
    fn embedding(&self, id: usize) -> Vec<f64> {
        let c = self.config.hidden_size;
        let row = &self.weights[&Weight::Embedding][id * c..][..c];
        if self.precision == Precision::Exact {
            return row.iter().map(|&x| f64::from(x)).collect();
        }
        let mut q = vec![0; c];
        let s = quant::quantize(row, &mut q);
        q.iter().map(|&q| f64::from(f32::from(q) * s)).collect()
    }

    fn linear(&self, x: &Rows, weight: Weight) -> Rows {
        let w = &self.weights[&weight];
        x.iter()
            .map(|x| {
                let rows = w.chunks(x.len());
                if self.precision == Precision::Exact {
                    return rows.map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect();
                }
                let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
                let mut q = vec![0; x.len()];
                let s = quant::quantize(&x, &mut q);
                rows.map(|row| {
                    let mut r = vec![0; row.len()];
                    let w = quant::quantize(row, &mut r);
                    let sum: i32 = q.iter().zip(&r).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum();
                    f64::from((sum as f32 * s) * w)
                })
                .collect()
            })
            .collect()
    }

    fn mixer(&self, layer: usize, x: &Rows) -> Rows {
        let w = |w| Weight::Layer(layer as u16, w);
        if self.config.mixer.kind() == Mixer::Attention {
            return self.linear(&self.attention(layer, x), w(L::Out));
        }
        let (value, gate) = (self.linear(x, w(L::In)), self.linear(x, w(L::Gate)));
        let gated: Rows = value
            .iter()
            .zip(&gate)
            .map(|(v, g)| v.iter().zip(g).map(|(v, g)| v / (1.0 + (-g).exp())).collect())
            .collect();
        let (c, h) = (self.config.hidden_size, self.config.mixer.kernel_heads());
        let Convolution { taps: k, offset, dilation } = self.config.convolution(layer).unwrap();
        let kernels = (self.config.mixer.kind() == Mixer::Dynamic).then(|| self.linear(x, w(L::KernelProjection)));
        let tap = |i: usize, channel: usize, j: usize| -> f64 {
            let head = channel * h / c;
            let stored =
                |row: usize| self.weights[&w(L::Kernel)][row * k..][..k].iter().map(|&t| f64::from(t)).collect();
            match self.config.mixer.kind() {
                Mixer::Light => softmax(stored(head))[j],
                Mixer::Dynamic => softmax(kernels.as_ref().unwrap()[i][head * k..][..k].to_vec())[j],
                Mixer::Dilated => Vec::<f64>::from_iter(stored(channel))[j],
                Mixer::Attention => unreachable!(),
            }
        };
        let mut y = vec![vec![0.0; c]; x.len()];
        for i in 0..x.len() {
            for channel in 0..c {
                for j in 0..k {
                    let position = i as i64 + (j as i64 - offset as i64) * dilation as i64;
                    if (0..x.len() as i64).contains(&position) {
                        y[i][channel] += tap(i, channel, j) * gated[position as usize][channel];
                    }
                }
            }
        }
        self.linear(&y, w(L::Out))
    }

    fn attention(&self, layer: usize, x: &Rows) -> Rows {
        let w = |w| Weight::Layer(layer as u16, w);
        let (q, k, v) = (self.linear(x, w(L::Query)), self.linear(x, w(L::Key)), self.linear(x, w(L::Value)));
        let c = self.config.hidden_size;
        let MixerConfig::Attention { heads, buckets, max_distance: reach } = self.config.mixer else { unreachable!() };
        let bias = &self.weights[&Weight::Layer(0, L::RelativeBias)];
        let d = c / heads;
        let mut y = vec![vec![0.0; c]; x.len()];
        for h in 0..heads {
            for i in 0..x.len() {
                let scores = (0..x.len())
                    .map(|j| {
                        let dot: f64 = (h * d..(h + 1) * d).map(|c| q[i][c] * k[j][c]).sum();
                        let bucket = relative_bucket(j as i64 - i as i64, buckets, reach);
                        dot + f64::from(bias[bucket * heads + h])
                    })
                    .collect();
                for (j, p) in softmax(scores).into_iter().enumerate() {
                    for channel in h * d..(h + 1) * d {
                        y[i][channel] += p * v[j][channel];
                    }
                }
            }
        }
        y
    }

    fn ffn(&self, layer: usize, x: &Rows) -> Rows {
        let w = |w| Weight::Layer(layer as u16, w);
        let mut inner = self.linear(x, w(L::Up));
        for x in inner.iter_mut().flatten() {
            *x = x.max(0.0);
        }
        self.linear(&inner, w(L::Down))
    }

    fn layer_norm(&self, x: &Rows, gain: Weight, shift: Weight) -> Rows {
        let (gain, shift) = (&self.weights[&gain], &self.weights[&shift]);
        x.iter()
            .map(|row| {
                let n = row.len() as f64;
                let mean = row.iter().sum::<f64>() / n;
                let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
                let root = (variance + f64::from(NORM_EPS)).sqrt();
                let parts = row.iter().zip(gain).zip(shift);
                parts.map(|((x, &g), &b)| (x - mean) / root * f64::from(g) + f64::from(b)).collect()
            })
            .collect()
    }

    fn rms_norm(&self, x: &Rows, gain: Weight) -> Rows {
        let gain = &self.weights[&gain];
        x.iter()
            .map(|row| {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
                let root = (mean + f64::from(NORM_EPS)).sqrt();
                row.iter().zip(gain).map(|(x, &g)| x / root * f64::from(g)).collect()
            })
            .collect()
    }
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn softmax(x: Vec<f64>) -> Vec<f64> {
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}
