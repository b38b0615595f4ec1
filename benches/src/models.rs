//! Models of named sizes with random weights, exported like trained ones: speed and memory do not depend on training.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet::engine::Engine;
use kinglet::spec::{Config, Mixer, MixerConfig, Role, Weight, files, graph};
use kinglet::tokenizer::{FIRST_PIECE, METASPACE, Table};
use kinglet_export::checkpoint::Checkpoint;
use kinglet_export::data::DevSource;
use kinglet_export::prepare::Prepared;
use kinglet_export::{ExportJob, export, onnx};
use kinglet_onnx::{Precision, TractModel};
use kinglet_testing::Random;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Rows of the embedding of every model here, `V`.
pub const VOCABULARY: usize = 8192;
/// Classes of every model here.
pub const LABELS: usize = 16;
/// File next to the models: token ids, u32 little endian, of which every run takes the first `T`.
pub const IDS: &str = "ids.bin";
/// Number of ids in [`IDS`]: the longest measured document.
pub const MOST_TOKENS: usize = 1 << 20;

/// First piece of [`table`] that is a whole word, after `!` to `~` and the mark before a word.
const FIRST_WORD: u32 = FIRST_PIECE + 95;

/// A model size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Name in benches and files: `d` and `C`, `x` and layers.
    pub name: &'static str,
    /// Channels, `C`; the feed-forward network has four times as many, an attention head 64.
    pub channels: usize,
    /// Encoder blocks.
    pub layers: usize,
}

impl Size {
    /// The sizes that are measured, smallest first.
    pub const ALL: [Size; 3] = [
        Size { name: "d128x4", channels: 128, layers: 4 },
        Size { name: "d256x6", channels: 256, layers: 6 },
        Size { name: "d768x12", channels: 768, layers: 12 },
    ];

    /// Returns the size of this name.
    pub fn by_name(name: &str) -> Option<Size> {
        Size::ALL.into_iter().find(|size| size.name == name)
    }

    /// Returns the configuration of a model of this size, kernel width 7.
    pub fn config(&self, mixer: Mixer) -> Config {
        let mut config = Config::new(mixer, self.layers, self.channels);
        if let MixerConfig::Attention { heads, .. } = &mut config.mixer {
            *heads = self.channels / 64;
        }
        (config.vocab_size, config.num_labels) = (VOCABULARY, LABELS);
        config
    }

    /// Returns the folder of a model of this size, below the folder of all models.
    pub fn folder(&self, models: &Path, mixer: Mixer) -> PathBuf {
        models.join(format!("{}-{}", mixer.name(), self.name))
    }
}

/// Returns the int8 multiplications for one token, without the head: compared with the machine's peak.
pub fn products_per_token(config: &Config) -> u64 {
    let matrices = config.weights().filter(|w| w.role() == Role::Linear && *w != Weight::HeadWeight);
    matrices.filter_map(|w| config.shape(w)).map(|shape| shape.len() as u64).sum()
}

/// Returns `count` token ids, all whole words: encoding the words separated by spaces returns the same ids.
pub fn ids(random: &mut Random, count: usize) -> Vec<u32> {
    let words = VOCABULARY - FIRST_WORD as usize;
    (0..count).map(|_| FIRST_WORD + random.below(words) as u32).collect()
}

/// Returns a table of [`VOCABULARY`] ids: the required characters, and words made of syllables.
pub fn table() -> Result<Vec<u8>> {
    const BEGIN: [&str; 16] = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "th"];
    const END: [&str; 8] = ["a", "e", "i", "o", "an", "er", "in", "on"];
    let syllables: Vec<String> = BEGIN.iter().flat_map(|b| END.iter().map(move |e| format!("{b}{e}"))).collect();
    let words = syllables.iter().flat_map(|a| syllables.iter().map(move |b| format!("{METASPACE}{a}{b}")));
    // The characters `!` to `~` and the space.
    let room = VOCABULARY - FIRST_PIECE as usize - 95;
    let words = words.take(room).enumerate().map(|(i, word)| (word, -6000 - (i / 8) as i16));
    let bytes = kinglet_testing::table(-8000, -5000, words, false)?;
    ensure!(Table::new(&bytes)?.vocab_size() == VOCABULARY, "the vocabulary has another size");
    Ok(bytes)
}

/// Writes a checkpoint directory with random weights. Its golden logits come from tract on the float32 graph, since
/// PyTorch never ran it.
///
/// # Errors
/// If a file cannot be written, or the graph cannot be run.
pub fn write_checkpoint(dir: &Path, config: &Config, seed: u64) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let labels: Vec<String> = (0..config.num_labels).map(|i| format!("class {i}")).collect();
    write(dir, files::CONFIG, &serde_json::to_vec_pretty(config)?)?;
    write(dir, files::LABELS, &serde_json::to_vec(&labels)?)?;
    write(dir, files::TOKENIZER_TABLE, &table()?)?;
    let mut random = Random(seed);
    let weights = kinglet_testing::weights(config, &mut random, Random::about_normal);
    let mut tensors = Vec::new();
    for weight in config.weights() {
        let shape = config.shape(weight).with_context(|| format!("{weight} has no shape"))?;
        let bytes: Vec<u8> = weights[&weight].iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push((weight.to_string(), Dtype::F32, shape.dims().to_vec(), bytes));
    }
    drop(weights);
    write_tensors(dir, files::WEIGHTS, &tensors)?;

    let (rows, tokens) = (2, 32);
    let ids: Vec<i64> = ids(&mut random, rows * tokens).into_iter().map(i64::from).collect();
    let golden = |logits: &[f32]| {
        let integers = |x: &[i64]| x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let numbers = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors = [
            (graph::INPUT_IDS.to_owned(), Dtype::I64, vec![rows, tokens], integers(&ids)),
            (graph::ATTENTION_MASK.to_owned(), Dtype::I64, vec![rows, tokens], integers(&vec![1; rows * tokens])),
            (graph::LOGITS.to_owned(), Dtype::F32, vec![rows, config.num_labels], numbers),
        ];
        write_tensors(dir, files::GOLDEN, &tensors)
    };
    golden(&vec![0.0; rows * config.num_labels])?;
    let (checkpoint, weights) = Checkpoint::read(dir)?;
    let fp32 = onnx::file(&checkpoint, &Prepared::new(config, weights), Precision::Fp32)?;
    let mut engine = TractModel::from_bytes(&fp32)?.engine();
    let mut logits = vec![0.0; rows * config.num_labels];
    for (ids, logits) in ids.chunks(tokens).zip(logits.chunks_mut(config.num_labels)) {
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        engine.logits(&ids, logits)?;
    }
    golden(&logits)
}

/// Creates the models of `size` in `models`, one light and one attention, each a checkpoint with its export, and the
/// token ids of all runs. Existing ones are kept.
///
/// # Errors
/// If a file cannot be written or an export fails.
pub fn make(models: &Path, size: Size, progress: impl Fn(&str)) -> Result<()> {
    fs::create_dir_all(models).with_context(|| format!("cannot make the directory {}", models.display()))?;
    let ids = ids(&mut Random(1), MOST_TOKENS);
    write(models, IDS, &ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
    for mixer in [Mixer::Light, Mixer::Attention] {
        let out = size.folder(models, mixer);
        let last = if mixer.is_conv() { files::ONNX_CUSTOM_OP } else { files::ONNX_INT8 };
        if out.join(last).exists() {
            continue;
        }
        progress(&format!("{}: random weights", out.display()));
        let checkpoint = out.join("checkpoint");
        write_checkpoint(&checkpoint, &size.config(mixer), 1)?;
        let job = ExportJob {
            lenient: false,
            checkpoint: checkpoint.clone(),
            out: out.clone(),
            dev: DevSource::None,
            label_field: None,
            calibration: None,
            targets: None,
            out_of_scope: None,
            out_of_scope_rate: None,
            search: None,
            custom_op: mixer.is_conv(),
        };
        let report = export(&job, |step| progress(&format!("{}: {step}", out.display())))?;
        ensure!(report.failures.is_empty(), "{}: {}", out.display(), report.failures.join("; "));
        // The exported files have everything that is measured.
        fs::remove_dir_all(&checkpoint).with_context(|| format!("cannot remove {}", checkpoint.display()))?;
    }
    Ok(())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn write_tensors(dir: &Path, name: &str, tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, kind, shape, bytes)| Ok((name, TensorView::new(*kind, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    write(dir, name, &safetensors::serialize(views, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_models() {
        for size in Size::ALL {
            for mixer in Mixer::ALL {
                assert_eq!(size.config(mixer).validate(), Ok(()), "{} {}", mixer.name(), size.name);
            }
            assert_eq!(Size::by_name(size.name), Some(size));
        }
    }

    #[test]
    fn products_are_those_of_the_matrices() {
        // Per layer: three matrices C·C and two C·4C.
        let config = Size::ALL[0].config(Mixer::Light);
        assert_eq!(products_per_token(&config), 4 * (3 * 128 * 128 + 2 * 128 * 512));
    }

    #[test]
    fn words_give_their_ids_again() {
        let bytes = table().unwrap();
        let table = Table::new(&bytes).unwrap();
        let ids = ids(&mut Random(5), 1000);
        let text = table.decode(&ids).unwrap();
        assert_eq!(table.encode(&text)[..1000], ids);
        assert_eq!(text.split_whitespace().count(), 1000);
    }

    #[test]
    fn a_random_checkpoint_is_exported() {
        let dir = tempfile::tempdir().unwrap();
        let size = Size { name: "tiny", channels: 64, layers: 1 };
        make(dir.path(), size, |_| ()).unwrap();
        for mixer in [Mixer::Light, Mixer::Attention] {
            let folder = size.folder(dir.path(), mixer);
            assert!(folder.join(files::ONNX).is_file() && folder.join(files::ONNX_INT8).is_file());
        }
        assert_eq!(fs::metadata(dir.path().join(IDS)).unwrap().len(), 4 * MOST_TOKENS as u64);
    }
}
