//! Writes small bundles for the fuzzer to begin with: one for each mixer and norm.
//!
//!     seeds DIRECTORY

use std::path::PathBuf;

use kinglet::bundle::{Parts, write};
use kinglet::spec::{Compat, Config, FORMAT_VERSION, Mixer, Norm, PerLayer, Pooling};
use kinglet::tokenizer::Table;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    std::fs::create_dir_all(&directory)?;
    let mut pieces: Vec<(String, i16)> = ('!'..='~').chain(['▁']).map(|c| (c.into(), -9000)).collect();
    pieces.push(("▁wake".into(), -3000));
    pieces.sort();
    let tokenizer = Table::write(&pieces, false)?;
    for mixer in [Mixer::Light, Mixer::Dynamic, Mixer::Dilated] {
        for norm in [Norm::PostLayer, Norm::PreRms] {
            let config = Config {
                format_version: FORMAT_VERSION,
                mixer,
                compat: Compat::Paper,
                norm,
                pooling: if norm == Norm::PreRms { Pooling::Max } else { Pooling::Mean },
                vocab_size: Table::new(&tokenizer)?.vocab_size(),
                hidden_size: 4,
                num_hidden_layers: 2,
                intermediate_size: 5,
                kernel_heads: 2,
                kernel_sizes: PerLayer::from_slice(&[3, 4]).unwrap_or(PerLayer::EMPTY),
                kernel_offsets: PerLayer::EMPTY,
                dilations: PerLayer::repeat(if mixer == Mixer::Dilated { 2 } else { 1 }, 2),
                num_attention_heads: 0,
                relative_attention_num_buckets: 32,
                relative_attention_max_distance: 128,
                num_labels: 2,
            };
            let config = config.resolve();
            let values: Vec<f32> = (0..1 << 14).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let parts = Parts { config: &config, tokenizer: &tokenizer, labels: &["no", "yes"], calibration: None };
            let bytes = write(&parts, |weight| config.shape(weight).map_or(&[], |shape| &values[..shape.len()]))?;
            std::fs::write(directory.join(format!("{}-{norm:?}.kinglet", mixer.name())), bytes)?;
        }
    }
    Ok(())
}
