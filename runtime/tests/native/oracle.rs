//! The encoder in its plainest form, from the formulas of `kinglet::spec` and the arithmetic of `kinglet::backend`: the
//! whole text, layer after layer, nested loops, the trainer's weights. No chunks, panels, history, or backend table.

use kinglet::backend::{POOL_LIMIT, POOL_SCALE, scalar};
use kinglet::quant;
use kinglet::spec::{Convolution, LayerWeight as L, Mixer, NORM_EPS, Norm, Pooling, Weight};

use crate::fixture::Model;

/// One row per token.
type Rows = Vec<Vec<f32>>;

/// Returns the scores of a text, with every operation rounded to f32 in the order that `kinglet::backend` documents.
pub fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    logits_of_first(model, ids, ids.len(), ids.len())
}

/// Like [`logits`], but pools only the first `count` positions, and knows the n-grams of the first `pushed` tokens.
pub fn logits_of_first(model: &Model, ids: &[u32], count: usize, pushed: usize) -> Vec<f32> {
    let config = &model.config;
    let c = config.hidden_size;
    let mut x: Rows = ids
        .iter()
        .map(|&id| {
            let mut q = vec![0; c];
            let s = quant::quantize(&model.weights[&Weight::Embedding][id as usize * c..][..c], &mut q);
            q.iter().map(|&q| f32::from(q) * s).collect()
        })
        .collect();
    for i in 0..config.num_hidden_layers {
        let w = |w| Weight::Layer(i as u16, w);
        x = match config.norm {
            Norm::PostLayer => {
                let a = add(&x, &layer_norm(model, &mixer(model, i, &x), w(L::MixerNorm), w(L::MixerNormBias)));
                add(&a, &layer_norm(model, &ffn(model, i, &a), w(L::FfnNorm), w(L::FfnNormBias)))
            }
            Norm::PreRms => {
                let a = add(&x, &mixer(model, i, &rms_norm(model, &x, w(L::MixerNorm))));
                add(&a, &ffn(model, i, &rms_norm(model, &a, w(L::FfnNorm))))
            }
        };
    }
    if config.norm == Norm::PreRms {
        x = rms_norm(model, &x, Weight::FinalNorm);
    }
    x.truncate(count);
    let pooled = (0..c)
        .map(|c| match config.pooling {
            Pooling::Mean => {
                let steps =
                    |x: f32| i64::from((x.clamp(-POOL_LIMIT, POOL_LIMIT) * POOL_SCALE).round_ties_even() as i32);
                let sum: i64 = x.iter().map(|row| steps(row[c])).sum();
                (sum as f64 / (x.len() as f64 * f64::from(POOL_SCALE))) as f32
            }
            Pooling::Max => x.iter().map(|row| row[c]).fold(f32::NEG_INFINITY, |m, v| if v > m { v } else { m }),
        })
        .collect();
    let scores = linear(model, &vec![pooled], Weight::HeadWeight).remove(0);
    let scores = scores.iter().zip(&model.weights[&Weight::HeadBias]).map(|(s, b)| s + b).collect();
    ngrams(model, &ids[..pushed], scores)
}

/// Adds the scores of n-grams.
fn ngrams(model: &Model, ids: &[u32], mut scores: Vec<f32>) -> Vec<f32> {
    let Some(table) = &model.ngrams else { return scores };
    let (mut sums, mut norm) = (vec![0i64; scores.len()], 0u64);
    for (at, &id) in ids.iter().enumerate() {
        let before = if at > 0 { ids[at - 1] as i32 } else { i32::MAX };
        for pair in [[-1, id as i32], [before, id as i32]] {
            let Some(row) = table.tokens.iter().position(|&tokens| tokens == pair) else { continue };
            norm += u64::from(table.norms[row]);
            let values = &table.values[row * scores.len()..];
            sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += i64::from(value));
        }
    }
    let root = (norm.max(1) as f32).sqrt();
    for ((score, sum), scale) in scores.iter_mut().zip(sums).zip(&table.scales) {
        *score += (sum as f32 * scale) / root;
    }
    scores
}

fn linear(model: &Model, x: &Rows, weight: Weight) -> Rows {
    let quantized = |row: &[f32]| {
        let mut q = vec![0; row.len()];
        let s = quant::quantize(row, &mut q);
        (q, s)
    };
    let matrix: Vec<(Vec<i8>, f32)> = model.weights[&weight].chunks(x[0].len()).map(quantized).collect();
    x.iter()
        .map(|x| {
            let (q, s) = quantized(x);
            let product = |(r, w): &(Vec<i8>, f32)| {
                let sum: i32 = q.iter().zip(r).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum();
                (sum as f32 * s) * w
            };
            matrix.iter().map(product).collect()
        })
        .collect()
}

fn mixer(model: &Model, layer: usize, x: &Rows) -> Rows {
    let w = |w| Weight::Layer(layer as u16, w);
    let config = &model.config;
    let (value, gate) = (linear(model, x, w(L::In)), linear(model, x, w(L::Gate)));
    let gated: Rows =
        value.iter().zip(&gate).map(|(v, g)| v.iter().zip(g).map(|(v, &g)| v * scalar::sigmoid(g)).collect()).collect();
    let (c, h) = (config.hidden_size, config.mixer.kernel_heads());
    let Convolution { taps: k, offset, dilation } = config.convolution(layer).unwrap();
    let computed = (config.mixer.kind() == Mixer::Dynamic).then(|| linear(model, x, w(L::KernelProjection)));
    let y: Rows = (0..x.len())
        .map(|i| {
            let kernels: Vec<Vec<f32>> = match &computed {
                Some(rows) => rows[i].chunks(k).map(softmax).collect(),
                None => model.weights[&w(L::Kernel)].chunks(k).map(<[f32]>::to_vec).collect(),
            };
            (0..c)
                .map(|channel| {
                    let taps = &kernels[if config.mixer.kind() == Mixer::Dilated { channel } else { channel * h / c }];
                    let product = |j: usize| {
                        let position = i as i64 + (j as i64 - offset as i64) * dilation as i64;
                        taps[j]
                            * usize::try_from(position).ok().and_then(|p| gated.get(p)).map_or(0.0, |row| row[channel])
                    };
                    (1..k).fold(product(0), |y, j| y + product(j))
                })
                .collect()
        })
        .collect();
    linear(model, &y, w(L::Out))
}

fn ffn(model: &Model, layer: usize, x: &Rows) -> Rows {
    let w = |w| Weight::Layer(layer as u16, w);
    let mut inner = linear(model, x, w(L::Up));
    inner.iter_mut().flatten().for_each(|v| *v = if *v > 0.0 { *v } else { 0.0 });
    linear(model, &inner, w(L::Down))
}

/// Returns the sum in 16 lanes, added up in halves.
fn sum(x: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0f32; 16];
    x.enumerate().for_each(|(i, v)| lanes[i % 16] += v);
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

fn layer_norm(model: &Model, x: &Rows, gain: Weight, shift: Weight) -> Rows {
    let (gain, shift) = (&model.weights[&gain], &model.weights[&shift]);
    x.iter()
        .map(|row| {
            let n = row.len() as f32;
            let mean = sum(row.iter().copied()) / n;
            let variance = sum(row.iter().map(|v| (v - mean) * (v - mean))) / n;
            let inverse = 1.0 / (variance + NORM_EPS).sqrt();
            let parts = row.iter().zip(gain).zip(shift);
            parts.map(|((v, g), b)| ((v - mean) * inverse) * g + b).collect()
        })
        .collect()
}

fn rms_norm(model: &Model, x: &Rows, gain: Weight) -> Rows {
    let gain = &model.weights[&gain];
    x.iter()
        .map(|row| {
            let inverse = 1.0 / (sum(row.iter().map(|v| v * v)) / row.len() as f32 + NORM_EPS).sqrt();
            row.iter().zip(gain).map(|(v, g)| (v * inverse) * g).collect()
        })
        .collect()
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = x.iter().map(|v| scalar::exp(v - most)).collect();
    let sum = powers.iter().fold(0.0, |sum, p| sum + p);
    powers.iter().map(|p| p / sum).collect()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}
