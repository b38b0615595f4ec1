//! The encoder as an ONNX graph, layer by layer as in [`kinglet::spec`].
//!
//! One file per layer, named as in the trainer. Shapes: `B` texts, `T` tokens (both symbolic in the file), `C`
//! channels.

use kinglet::spec::{LayerWeight, Mixer, Norm, Weight, graph};
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::GraphProto;
use kinglet_onnx::onnx::tensor_proto::DataType;

use crate::checkpoint::Checkpoint;
use crate::onnx;

use builder::{GraphBuilder, Value};

mod attention;
pub mod builder;
mod dilatedconv;
mod dynamicconv;
mod embedding;
mod ffn;
mod glu;
pub(crate) mod lightconv;
mod linear;
mod norm;
mod pooling;

/// Builds the graph of a checkpoint, its matrix products in `precision`.
pub fn build(checkpoint: &Checkpoint, precision: Precision) -> GraphProto {
    let config = &checkpoint.config;
    let mut g = GraphBuilder::new(precision);
    let ids = g.input(graph::INPUT_IDS);
    let mask = Mask::new(&mut g);
    let mut x = embedding::embedding(&mut g, checkpoint, &ids);
    let bias = (config.mixer == Mixer::Attention).then(|| attention::Bias::new(&mut g, checkpoint, &ids, &mask));

    for layer in 0..config.num_hidden_layers as u16 {
        let path = format!("layers.{layer}");
        x = residual(&mut g, checkpoint, layer, &path, &MIXER, &x, |g, x| {
            let path = format!("{path}/mixer");
            match &bias {
                Some(bias) => attention::attention(g, checkpoint, layer, &path, x, bias),
                None => conv_block(g, checkpoint, layer, &path, x, &mask),
            }
        });
        x = residual(&mut g, checkpoint, layer, &path, &FFN, &x, |g, x| {
            ffn::ffn(g, checkpoint, layer, &format!("{path}/ffn"), x)
        });
    }
    if config.norm == Norm::PreRms {
        x = norm::rms(&mut g, checkpoint, Weight::FinalNorm, "final_norm", &x);
    }
    let pooled = pooling::pooling(&mut g, config.pooling, &x, &mask);
    let logits = pooling::head(&mut g, checkpoint, &pooled);
    g.output(&logits, graph::LOGITS);
    let (inputs, outputs) = onnx::interface(config.num_labels);
    g.finish("kinglet", inputs, outputs)
}

/// The attention mask in the forms that layers need.
pub(crate) struct Mask {
    /// `[B, T, 1]`, 1 for a token, 0 for padding.
    tokens: Value,
    /// `[B, T]`, the same.
    flat: Value,
}

impl Mask {
    fn new(g: &mut GraphBuilder) -> Self {
        let mask = g.input(graph::ATTENTION_MASK);
        let flat = g.cast("mask", &mask, DataType::Float);
        let axis = g.indices(&[2]);
        let tokens = g.op("Unsqueeze", "mask", &[&flat, &axis]);
        Mask { tokens, flat }
    }
}

/// Differences between the two halves of a layer.
struct Half {
    name: &'static str,
    gain: LayerWeight,
    shift: LayerWeight,
}

const MIXER: Half = Half { name: "mixer", gain: LayerWeight::MixerNorm, shift: LayerWeight::MixerNormBias };
const FFN: Half = Half { name: "ffn", gain: LayerWeight::FfnNorm, shift: LayerWeight::FfnNormBias };

/// `X + LayerNorm(f(X))` or `X + f(RmsNorm(X))`.
fn residual(
    g: &mut GraphBuilder,
    checkpoint: &Checkpoint,
    layer: u16,
    path: &str,
    half: &Half,
    x: &Value,
    f: impl FnOnce(&mut GraphBuilder, &Value) -> Value,
) -> Value {
    let gain = Weight::Layer(layer, half.gain);
    let at = format!("{path}/{}_norm", half.name);
    let y = match checkpoint.config.norm {
        Norm::PostLayer => {
            let y = f(g, x);
            norm::layer(g, checkpoint, gain, Weight::Layer(layer, half.shift), &at, &y)
        }
        Norm::PreRms => {
            let normed = norm::rms(g, checkpoint, gain, &at, x);
            f(g, &normed)
        }
    };
    g.op("Add", &format!("{path}/{}_residual", half.name), &[x, &y])
}

/// `ConvBlock((X·W_I) ⊙ sigmoid(X·W_S))·W_O`.
fn conv_block(g: &mut GraphBuilder, checkpoint: &Checkpoint, layer: u16, path: &str, x: &Value, mask: &Mask) -> Value {
    let x = linear::Operand::new(g, path, x);
    let gated = glu::glu(g, checkpoint, layer, path, &x, mask);
    let conv = format!("{path}/conv");
    let y = match checkpoint.config.mixer {
        Mixer::Dynamic => dynamicconv::dynamicconv(g, checkpoint, layer, &conv, &x, &gated),
        Mixer::Dilated => dilatedconv::dilatedconv(g, checkpoint, layer, &conv, &gated),
        Mixer::Light | Mixer::Attention => lightconv::lightconv(g, checkpoint, layer, &conv, &gated),
    };
    let path = format!("{path}/out_proj");
    let y = linear::Operand::new(g, &path, &y);
    linear::linear(g, checkpoint, Weight::Layer(layer, LayerWeight::Out), &path, &y)
}
