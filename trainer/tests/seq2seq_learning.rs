//! The encoder-decoder learns: all mixers learn from random weights to repeat a text.
#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{at_most, seed};
use kinglet::spec::{Kernels, Mixer, MixerConfig, Norm, PerLayer};
use kinglet_train::{
    batch::Seq2SeqBatch,
    model::{
        Mode,
        seq2seq::{Seq2Seq, Seq2SeqConfig},
    },
    optim::{AdafactorConfig, OptimizerConfig, clip_gradients},
    random::SplitMix64,
};
use tch::Device;

const WORDS: u64 = 10;

/// Returns texts of 1 to 4 words, which are their own targets.
fn batch(random: &mut SplitMix64) -> Seq2SeqBatch {
    let mut text = || {
        let length = 1 + random.below(4);
        let words = (0..length).map(|_| 2 + random.below(WORDS) as u32);
        let mut text: Vec<u32> = words.collect();
        text.push(1);
        (text.clone(), text)
    };
    let pairs: Vec<_> = (0..16).map(|_| text()).collect();
    Seq2SeqBatch::new(&pairs, Device::Cpu)
}

#[test]
fn every_mixer_learns_to_say_a_text_again() {
    tch::set_num_threads(1);
    for mixer in Mixer::ALL {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            if mixer == Mixer::Attention && norm == Norm::PostLayer {
                continue;
            }
            let mut config = Seq2SeqConfig::preset("nano", mixer, WORDS as usize + 2).unwrap();
            config.encoder.norm = norm;
            (config.encoder.hidden_size, config.encoder.intermediate_size) = (32, 64);
            config.encoder.num_hidden_layers = 2;
            config.num_decoder_layers = 2;
            config.encoder.mixer = MixerConfig::new(mixer, 2).with_kernels(Kernels::centred(PerLayer::repeat(3, 2)));
            config.decoder_kernel_sizes = PerLayer::EMPTY;
            config.decoder_dilations = PerLayer::EMPTY;
            config.num_attention_heads = 2;
            let model = Seq2Seq::new(&config.resolve(), seed() as i64, Device::Cpu).unwrap();
            let mut optimizer = OptimizerConfig::Adafactor(AdafactorConfig::default()).build(model.parameters());
            let mut random = SplitMix64::new(6 + seed());
            let mut losses = Vec::new();
            for _ in 0..120 {
                let batch = batch(&mut random);
                let loss = model.loss(&batch, 1e-4, &Mode::eval());
                (&loss.sum / loss.tokens as f64).backward();
                losses.push(loss.cross_entropy.double_value(&[]) / loss.tokens as f64);
                clip_gradients(model.parameters(), 1.0);
                optimizer.step(1e-2);
                for (_, p) in model.parameters() {
                    p.shallow_clone().zero_grad();
                }
            }
            // A model that ignores the input cannot get below (2.5·ln 10 + ln 4) / 3.5 = 2.0.
            let best = losses.windows(10).map(|ten| ten.iter().sum::<f64>() / 10.0).fold(f64::INFINITY, f64::min);
            at_most(1.6, best, &format!("loss of {} {norm:?}", mixer.name()));
        }
    }
}
