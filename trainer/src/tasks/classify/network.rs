//! The networks that fine-tuning trains: Kinglet's classifier, and a BERT-type Transformer.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kinglet::spec::{Task, Weight};
use kinglet_data::dataset::Labels;
use tch::{Device, Tensor};

use crate::batch::{self, Batch};
use crate::checkpoint::{self, GOLDEN_TEXTS, Start};
use crate::model::{Classifier, Mode, ModelConfig, ModelWeight};
use crate::optim::Parameter;
use crate::regression::{self, Fitted};
use crate::teacher::BertWeight;
use crate::teacher::transformer::Transformer;
use crate::tokenizer::files::truncate;

/// Maximum number of texts whose vectors are computed at once.
const VECTORS: usize = 256;
/// Maximum number of their tokens, including padding.
const TOKENS: usize = 16_384;

/// Which factor of the learning rate a weight has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `train.embedding_lr_scale`.
    Embedding,
    /// None.
    Inside,
    /// `train.head_lr_scale`.
    Head,
}

/// A network that classifies texts.
pub trait Network {
    /// The name of a weight.
    type Weight: Parameter;

    /// Whether the scores of n-grams can be added to those of the network.
    const WIDE: bool = false;

    /// Returns the device that the weights are on.
    fn device(&self) -> Device;

    /// Returns the number of classes, `K`.
    fn classes(&self) -> usize;

    /// Returns the master weights, f32 with `requires_grad`.
    fn parameters(&self) -> &[(Self::Weight, Tensor)];

    /// Returns where a weight stands.
    fn place(weight: &Self::Weight) -> Place;

    /// Returns class scores `[B, K]` f32 before the softmax, for `ids` and `mask`, `[B, T]` i64.
    fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor;

    /// Returns class scores `[B, K]` f32 of whole texts (token ids), without dropout, on the network's device.
    fn scores(&self, texts: &[&[u32]]) -> Tensor {
        let batch = Batch::new(texts, self.device());
        self.forward(&batch.ids, &batch.mask, &Mode::eval())
    }

    /// Fits the head to the labels of texts (token ids), with the encoder as it is, and sets it; `weights`: of the classes, `[K]`.
    ///
    /// # Errors
    /// If the network has no such head, or the fit fails.
    fn fit_head(&self, texts: &[Vec<u32>], labels: &Labels, weights: Option<&Tensor>, seed: u64) -> Result<Fitted>;

    /// Writes configuration, weights and labels into `dir`, which has the tokenizer's files.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, dir: &Path, labels: &[String]) -> Result<()>;

    /// Completes the weights kept in `dir` when training ends; `texts` are the dev file's as token ids.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    fn complete(&self, _dir: &Path, _texts: &[Vec<u32>]) -> Result<()> {
        Ok(())
    }

    /// Returns the number of weights.
    fn size(&self) -> usize {
        self.parameters().iter().map(|(_, tensor)| tensor.numel()).sum()
    }

    /// Returns what the model card says of the network.
    fn words(&self, out: &Path) -> Words;
}

/// What a model card says of a network.
#[derive(Clone, Debug)]
pub struct Words {
    /// The library that loads it.
    pub library: &'static str,
    /// Kind and shape, such as `A Kinglet text classifier: light mixer, 4 layers × 128 channels, 4,096 token ids`.
    pub summary: String,
    /// Commands that use it.
    pub usage: String,
}

impl Network for Classifier {
    type Weight = ModelWeight;

    const WIDE: bool = true;

    fn device(&self) -> Device {
        self.device()
    }

    fn classes(&self) -> usize {
        self.config().num_labels
    }

    fn parameters(&self) -> &[(ModelWeight, Tensor)] {
        self.parameters()
    }

    fn place(weight: &ModelWeight) -> Place {
        match *weight {
            weight if weight == Weight::Embedding => Place::Embedding,
            weight if !weight.is_encoder() => Place::Head,
            _ => Place::Inside,
        }
    }

    fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.forward(ids, mask, mode)
    }

    /// A long text passes through a convolution in parts, so that memory does not depend on its length.
    fn scores(&self, texts: &[&[u32]]) -> Tensor {
        match texts {
            [text] => self.scores_of_text(text),
            texts => {
                let batch = Batch::new(texts, self.device());
                self.forward(&batch.ids, &batch.mask, &Mode::eval())
            }
        }
    }

    fn fit_head(&self, texts: &[Vec<u32>], labels: &Labels, weights: Option<&Tensor>, seed: u64) -> Result<Fitted> {
        let fitted = regression::fit(&vectors(self, texts)?, labels, weights, self.classes(), seed)?;
        for (weight, tensor) in self.parameters() {
            let value = match *weight {
                weight if weight == Weight::HeadWeight => &fitted.weight,
                weight if weight == Weight::HeadBias => &fitted.bias,
                _ => continue,
            };
            tch::no_grad(|| tensor.shallow_clone().f_copy_(value)).context("setting the head")?;
        }
        Ok(fitted)
    }

    fn save(&self, dir: &Path, labels: &[String]) -> Result<()> {
        checkpoint::save(dir, self, labels, dir)
    }

    /// Writes golden logits of the kept weights.
    fn complete(&self, dir: &Path, texts: &[Vec<u32>]) -> Result<()> {
        /// Tokens of the longest text: all are padded to one length.
        const LONGEST: usize = 1024;
        let model = checkpoint::load(dir, Device::Cpu)?.model;
        let mut texts = texts[..texts.len().min(GOLDEN_TEXTS)].to_vec();
        for ids in &mut texts {
            truncate(ids, LONGEST);
        }
        checkpoint::golden(dir, &model, &texts)
    }

    fn words(&self, out: &Path) -> Words {
        let (model, out) = (self.config(), out.display());
        Words {
            library: "kinglet",
            summary: format!(
                "A Kinglet text classifier{}: {} mixer, {} layers × {} channels, {} parameters, {} token ids, {} classes.",
                if model.task == Task::MultiLabel { " of any number of labels" } else { "" },
                model.mixer.name(),
                model.num_hidden_layers,
                model.hidden_size,
                model.parameters(),
                model.vocab_size,
                model.num_labels,
            ),
            usage: format!(
                "kinglet-export {out} --out {out}/onnx\nkinglet classify --model {out}/onnx \"some text\"\n\
                 kinglet-train eval --checkpoint {out} --data FILE"
            ),
        }
    }
}

impl Network for Transformer {
    type Weight = BertWeight;

    fn device(&self) -> Device {
        self.device()
    }

    fn classes(&self) -> usize {
        self.classes()
    }

    fn parameters(&self) -> &[(BertWeight, Tensor)] {
        self.parameters()
    }

    fn place(weight: &BertWeight) -> Place {
        if weight.is_embedding() {
            Place::Embedding
        } else if weight.is_head() {
            Place::Head
        } else {
            Place::Inside
        }
    }

    fn forward(&self, ids: &Tensor, mask: &Tensor, mode: &Mode) -> Tensor {
        self.forward(ids, mask, mode)
    }

    fn fit_head(&self, _: &[Vec<u32>], _: &Labels, _: Option<&Tensor>, _: u64) -> Result<Fitted> {
        bail!("the head of a Transformer has two layers, which no regression fits")
    }

    fn save(&self, dir: &Path, labels: &[String]) -> Result<()> {
        self.save(dir, labels)
    }

    fn words(&self, out: &Path) -> Words {
        let out = out.display();
        Words {
            library: "transformers",
            summary: format!(
                "A text classifier: {}, {} parameters, {} classes. It is a baseline and a teacher; Kinglet does not run it on devices.",
                self.summary(),
                self.size(),
                self.classes()
            ),
            usage: format!(
                "kinglet-train eval --checkpoint {out} --data FILE\n\
                 kinglet-train teacher --model {out} --probabilities --out {out}-targets TEXTS\n\
                 kinglet-train finetune --soft-labels {out}-targets --soft-texts TEXTS --config CONFIG --train FILE --dev FILE --out DIR"
            ),
        }
    }
}

/// Creates the classifier of a resolved configuration, of shape `shape`: its weights are random or those of `from`.
///
/// `labels` are the names of the classes, `texts` the training texts as token ids.
///
/// # Errors
/// If the model cannot be built, or `from` does not match it.
pub fn classifier<'a>(
    shape: &ModelConfig,
    from: Option<&Start>,
    labels: &[String],
    texts: impl Iterator<Item = &'a [u32]>,
    zero_head: bool,
    seed: u64,
    device: Device,
) -> Result<Classifier> {
    let mut model = Classifier::new(shape, seed as i64, device)?;
    // The head is reused if the labels agree.
    let same_labels = matches!(from, Some(Start::Classifier(from)) if from.labels == labels && from.model.config().task == shape.task);
    match from {
        Some(Start::Classifier(from)) if same_labels => model.copy_weights(&from.model)?,
        Some(from) => model.copy_encoder(from.config(), from.weights())?,
        None => silence_unseen(&model, texts),
    }
    if zero_head && !same_labels {
        for (_, tensor) in model.parameters().iter().filter(|(weight, _)| !weight.is_encoder()) {
            let _ = tch::no_grad(|| tensor.shallow_clone().zero_());
        }
    }
    Ok(model)
}

/// Sets the embedding rows of ids that do not occur in training texts to zero, where they stay: their gradient and
/// weight decay are zero. A token that was never trained then adds nothing, instead of a random vector.
fn silence_unseen<'a>(model: &Classifier, texts: impl Iterator<Item = &'a [u32]>) {
    let mut seen = vec![0f32; model.config().vocab_size];
    for &id in texts.flatten() {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = 1.0;
        }
    }
    let rows = Tensor::from_slice(&seen).unsqueeze(1).to_device(model.device());
    for (_, tensor) in model.parameters().iter().filter(|(weight, _)| *weight == Weight::Embedding) {
        let _ = tch::no_grad(|| tensor.shallow_clone().g_mul_(&rows));
    }
}

/// Returns the pooled vectors `[N, C]` f32 of texts (token ids), without dropout, on the model's device.
///
/// # Errors
/// If the vectors cannot be put together.
fn vectors(model: &Classifier, texts: &[Vec<u32>]) -> Result<Tensor> {
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let (mut parts, mut order) = (Vec::new(), Vec::with_capacity(texts.len()));
    for indices in batch::by_length(&lengths, VECTORS, TOKENS) {
        let chosen: Vec<&[u32]> = indices.iter().map(|&i| texts[i].as_slice()).collect();
        parts.push(tch::no_grad(|| match &chosen[..] {
            [text] => model.pooled_of(text),
            chosen => {
                let batch = Batch::new(chosen, model.device());
                model.pooled(&batch.ids, &batch.mask, &Mode::eval())
            }
        }));
        order.extend(indices.iter().map(|&i| i as i64));
    }
    let order = Tensor::from_slice(&order).to_device(model.device()).argsort(0, false);
    Ok(Tensor::f_cat(&parts, 0).context("cannot read the vectors of the training texts")?.index_select(0, &order))
}
