//! The encoder as an ONNX graph, layer by layer as in [`kinglet::spec`].
//!
//! Each layer has a file, named as in the trainer. Shapes: `B` texts, `T` tokens (both symbolic in the file), `C` channels.

use kinglet::spec::{LayerWeight, Mixer, Norm, Task, Weight, graph};
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::GraphProto;

use crate::prepare::Prepared;

use builder::{GraphBuilder, Mask, Value, interface};

mod attention;
pub mod builder;
mod dilatedconv;
mod dynamicconv;
mod embedding;
mod ffn;
mod glu;
mod lightconv;
mod linear;
mod ngrams;
mod norm;
mod pooling;

/// Builds the graph of a model with matrix products in `precision`.
pub fn build(model: &Prepared, precision: Precision) -> GraphProto {
    let config = &model.config;
    let mut g = GraphBuilder::new(precision);
    let ids = g.input(graph::INPUT_IDS);
    let mask = Mask::new(&mut g);
    let mut x = embedding::embedding(&mut g, model, &ids);
    let bias = (config.mixer.kind() == Mixer::Attention).then(|| attention::Bias::new(&mut g, model, &ids, &mask));

    for layer in 0..config.num_hidden_layers as u16 {
        let path = format!("layers.{layer}");
        x = residual(&mut g, model, layer, &path, &MIXER, &x, |g, x| {
            let path = format!("{path}/mixer");
            match &bias {
                Some(bias) => attention::attention(g, model, layer, &path, x, bias),
                None => conv_block(g, model, layer, &path, x, &mask),
            }
        });
        x = residual(&mut g, model, layer, &path, &FFN, &x, |g, x| {
            ffn::ffn(g, model, layer, &format!("{path}/ffn"), x)
        });
    }
    if config.norm == Norm::PreRms {
        x = norm::rms(&mut g, model, Weight::FinalNorm, "final_norm", &x);
    }
    let pooled = pooling::pooling(&mut g, config.pooling, &x, &mask);
    let logits = pooling::head(&mut g, model, &pooled);
    let logits = ngrams::ngrams(&mut g, model, &ids, &mask, logits);
    let values = match config.task {
        Task::Classify | Task::MultiLabel => logits,
        Task::Embed => pooling::normalize(&mut g, &logits),
    };
    g.output(&values, config.task.output());
    let (inputs, outputs) = interface(config.task.output(), config.num_labels);
    g.finish("kinglet", inputs, outputs)
}

/// The names that differ between the two halves of a layer.
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
    model: &Prepared,
    layer: u16,
    path: &str,
    half: &Half,
    x: &Value,
    f: impl FnOnce(&mut GraphBuilder, &Value) -> Value,
) -> Value {
    let gain = Weight::Layer(layer, half.gain);
    let at = format!("{path}/{}_norm", half.name);
    let y = match model.config.norm {
        Norm::PostLayer => {
            let y = f(g, x);
            norm::layer(g, model, gain, Weight::Layer(layer, half.shift), &at, &y)
        }
        Norm::PreRms => {
            let normed = norm::rms(g, model, gain, &at, x);
            f(g, &normed)
        }
    };
    g.op("Add", &format!("{path}/{}_residual", half.name), &[x, &y])
}

/// `ConvBlock((X·W_I) ⊙ sigmoid(X·W_S))·W_O`.
fn conv_block(g: &mut GraphBuilder, model: &Prepared, layer: u16, path: &str, x: &Value, mask: &Mask) -> Value {
    let x = linear::Operand::new(g, path, x);
    let gated = glu::glu(g, model, layer, path, &x, mask);
    let conv = format!("{path}/conv");
    let y = match model.config.mixer.kind() {
        Mixer::Dynamic => dynamicconv::dynamicconv(g, model, layer, &conv, &x, &gated),
        Mixer::Dilated => dilatedconv::dilatedconv(g, model, layer, &conv, &gated),
        Mixer::Light | Mixer::Attention => lightconv::lightconv(g, model, layer, &conv, &gated),
    };
    let path = format!("{path}/out_proj");
    let y = linear::Operand::new(g, &path, &y);
    linear::linear(g, model, Weight::Layer(layer, LayerWeight::Out), &path, &y)
}
