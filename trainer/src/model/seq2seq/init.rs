//! Initial values of an encoder-decoder's weights, by the rules of the classifier.

use kinglet::spec::Norm;

use super::config::{DecoderWeight, Seq2SeqConfig, Seq2SeqWeight};
use crate::model::Compat;
use crate::model::init::{Draw, draw};

/// Returns how `weight` is drawn, or `None` if the model does not have it.
///
/// The encoder-decoder attention is drawn as T5's, which reads normalized vectors. Under `post_layer` it reads the
/// residual stream, to which every earlier sublayer has added a vector of variance 1: the query is therefore drawn
/// smaller by the product of both streams' initial deviations, so that the scores start with T5's spread. In fairseq's
/// dialect the stream itself is normalized.
pub fn draw_of(config: &Seq2SeqConfig, weight: Seq2SeqWeight) -> Option<Draw> {
    config.shape(weight)?;
    let c = config.encoder.hidden_size as f64;
    Some(match weight {
        Seq2SeqWeight::Encoder(weight) => draw(&config.encoder, weight),
        Seq2SeqWeight::DecoderFinalNorm => Draw::Constant(1.0),
        Seq2SeqWeight::Decoder(i, weight) => match weight {
            DecoderWeight::Block(weight) => draw(&config.decoder(), weight.of_layer(i)),
            DecoderWeight::CrossNorm => Draw::Constant(1.0),
            DecoderWeight::CrossNormBias => Draw::Constant(0.0),
            DecoderWeight::CrossKey | DecoderWeight::CrossValue | DecoderWeight::CrossOut => Draw::Normal(c.powf(-0.5)),
            DecoderWeight::CrossQuery => {
                let per_head = c / config.num_attention_heads.max(1) as f64;
                let variance = match (config.encoder.norm, config.encoder.compat) {
                    (Norm::PreRms, _) | (Norm::PostLayer, Compat::Fairseq) => 1.0,
                    (Norm::PostLayer, Compat::Paper | Compat::Mesh) => {
                        let encoder = 1.0 + 2.0 * config.encoder.num_hidden_layers as f64;
                        encoder * (2.0 + 3.0 * f64::from(i))
                    }
                };
                Draw::Normal((c * per_head * variance).powf(-0.5))
            }
        },
    })
}
