//! The shape of a model.

use super::error::{ConfigError, within};
use super::mixer::{Convolution, MAX_LAYERS, Mixer, MixerConfig};
use super::names::{FORMAT_VERSION, graph};

/// The epsilon of `LayerNorm` and `RmsNorm` (T5 and Mesh TensorFlow: 1e-6).
pub const NORM_EPS: f32 = 1e-6;

/// Where the norm stands and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Norm {
    /// `X + LayerNorm(f(X))`, as the paper writes its conv blocks.
    PostLayer,
    /// `X + f(RmsNorm(X))` and a final `RmsNorm`, as T5 and the authors' code.
    PreRms,
}

/// How token vectors become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Pooling {
    /// Mean over the tokens.
    #[default]
    Mean,
    /// Maximum over the tokens, channel by channel.
    Max,
}

/// What the values of a model's head are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Task {
    /// Scores of classes: the model has a label for each.
    #[default]
    Classify,
    /// Scores of labels of which any number apply to a text, each by the logistic function of its score ([`crate::multi_label`]).
    MultiLabel,
    /// A sentence vector, of which only the direction has a meaning ([`crate::vector`]). The model has no labels and no calibration.
    Embed,
}

impl Task {
    /// Returns whether the values of the head are scores of labels, which have names.
    pub const fn has_labels(self) -> bool {
        !matches!(self, Task::Embed)
    }

    /// Returns the name of the output of an exported graph, and of the tensor with PyTorch's values in [`files::GOLDEN`].
    ///
    /// [`files::GOLDEN`]: super::files::GOLDEN
    pub const fn output(self) -> &'static str {
        match self {
            Task::Classify | Task::MultiLabel => graph::LOGITS,
            Task::Embed => graph::EMBEDDING,
        }
    }
}

/// The shape of a model: all that is needed to build it from its weights.
///
/// With the feature `serde` it is read from and written as one flat JSON object, in which the parameters of all mixers stand
/// side by side (`FlatConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Format of the checkpoint: [`FORMAT_VERSION`].
    pub format_version: u32,
    /// What the values of the head are.
    pub task: Task,
    /// What mixes positions, with its parameters.
    pub mixer: MixerConfig,
    /// Norm and its place. Attention is T5's and takes `pre_rms` only.
    pub norm: Norm,
    /// How token vectors become one vector.
    pub pooling: Pooling,
    /// Rows of the embedding, `V`. 0 in a training configuration: taken from the tokenizer.
    pub vocab_size: usize,
    /// Channels, `C`.
    pub hidden_size: usize,
    /// Encoder blocks.
    pub num_hidden_layers: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Values of the head: classes, or those of a sentence vector, `D`. 0 in a training configuration: taken from the data.
    pub num_labels: usize,
    /// Number of n-grams whose scores are added to those of the head; 0 for none.
    pub ngrams: usize,
}

/// Most n-grams of a model.
pub const MAX_NGRAMS: usize = 1 << 20;

/// Most tokens that an output of a convolutional model may depend on.
///
/// It bounds what a model asks for. Working memory: 2 · `MAX_RECEPTIVE_FIELD` · `C` values of f32 beside a chunk's. Work: after the last token of
/// a text all layers pass over as many rows as there are tokens to the right that an output depends on, so that the shortest text costs at most
/// as much as one of this length.
pub const MAX_RECEPTIVE_FIELD: usize = 8192;

impl Config {
    /// Returns the paper's model of this size: [`MixerConfig::new`], `FF` = 4·`C`, mean pooling, `post_layer` for convolutions and
    /// `pre_rms` for attention.
    ///
    /// It classifies. `vocab_size` and `num_labels` are 0 and must be given.
    pub const fn new(mixer: Mixer, layers: usize, hidden_size: usize) -> Self {
        Config {
            format_version: FORMAT_VERSION,
            task: Task::Classify,
            mixer: MixerConfig::new(mixer, layers),
            norm: if mixer.is_conv() { Norm::PostLayer } else { Norm::PreRms },
            pooling: Pooling::Mean,
            vocab_size: 0,
            hidden_size,
            num_hidden_layers: layers,
            intermediate_size: hidden_size.saturating_mul(4),
            num_labels: 0,
            ngrams: 0,
        }
    }

    /// Checks every field and every relation between fields.
    ///
    /// # Errors
    /// The first thing found wrong, with its value and what is allowed. Never allocates.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_encoder()?;
        within("num_labels", self.num_labels, 2, 65536, "2 to 65,536")?;
        if self.ngrams > 0 && !self.task.has_labels() {
            return Err(ConfigError::NGramsWithoutLabels);
        }
        within("ngrams", self.ngrams, 0, MAX_NGRAMS, "0 to 1,048,576")
    }

    /// Checks everything but the head's `num_labels`, which an encoder without a head does not have.
    ///
    /// # Errors
    /// As [`Config::validate`].
    pub fn validate_encoder(&self) -> Result<(), ConfigError> {
        if self.format_version != FORMAT_VERSION {
            return Err(ConfigError::FormatVersion { expected: FORMAT_VERSION, got: self.format_version });
        }
        within("num_hidden_layers", self.num_hidden_layers, 1, MAX_LAYERS, "1 to 48")?;
        within("vocab_size", self.vocab_size, 1, 1 << 20, "1 to 1,048,576")?;
        within("hidden_size", self.hidden_size, 1, 8192, "1 to 8,192")?;
        within("intermediate_size", self.intermediate_size, 1, 65536, "1 to 65,536")?;
        if !self.mixer.is_conv() && self.norm != Norm::PreRms {
            return Err(ConfigError::AttentionNorm);
        }
        self.mixer.validate(self.num_hidden_layers, self.hidden_size)?;
        match self.receptive_field() {
            Some(got) if got > MAX_RECEPTIVE_FIELD => {
                Err(ConfigError::ReceptiveField { most: MAX_RECEPTIVE_FIELD, got })
            }
            _ => Ok(()),
        }
    }

    /// Returns what layer `i` convolves with; `None` for attention and beyond the last layer.
    pub const fn convolution(&self, i: usize) -> Option<Convolution> {
        if i >= self.num_hidden_layers || i >= MAX_LAYERS {
            return None;
        }
        self.mixer.convolution(i)
    }

    /// Returns how many tokens one output position reads through all layers; `None` for attention, which reads all.
    pub const fn receptive_field(&self) -> Option<usize> {
        match (self.look_back(), self.look_ahead()) {
            (Some(left), Some(right)) => Some(left.saturating_add(right).saturating_add(1)),
            _ => None,
        }
    }

    /// Returns how many tokens to the left of a position its output depends on; `None` for attention.
    pub const fn look_back(&self) -> Option<usize> {
        let (mut sum, mut i) = (0usize, 0);
        while let Some(convolution) = self.convolution(i) {
            sum = convolution.left().saturating_add(sum);
            i += 1;
        }
        if self.mixer.is_conv() { Some(sum) } else { None }
    }

    /// Returns how many tokens to the right of a position its output depends on; `None` for attention.
    pub const fn look_ahead(&self) -> Option<usize> {
        let (mut sum, mut i) = (0usize, 0);
        while let Some(convolution) = self.convolution(i) {
            sum = convolution.right().saturating_add(sum);
            i += 1;
        }
        if self.mixer.is_conv() { Some(sum) } else { None }
    }
}
