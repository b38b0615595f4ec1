//! The configuration of fine-tuning.
//!
//! ```toml
//! [model]                    # fields of `kinglet_train::model::ModelConfig`; sizes of vocabulary and labels come from the data
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 4
//! intermediate_size = 512
//! kernel_sizes = [7]
//!
//! [train]                    # fields of `Keys`, `EpochKeys` and `ClassifyKeys`
//! epochs = 20
//! lr = 1e-3
//! ```

use anyhow::{Result, ensure};
use kinglet::spec::MAX_NGRAMS;
use kinglet_data::dataset::Labels;
use serde::{Deserialize, Serialize};

use crate::model::ModelConfig;
use crate::optim::Decay;
use crate::training::config::{EpochKeys, Keys, OptimizerName, OwnKeys, Train, not_negative, probability};

/// A configuration of fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "Own: OwnKeys"))]
pub struct Config<Own = ClassifyKeys> {
    /// The model's shape. May be omitted if training starts from a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// How it is trained.
    #[serde(default)]
    pub train: Train<Own>,
}

/// The keys of `[train]` that classification adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifyKeys {
    /// How the training file is read.
    #[serde(flatten)]
    pub passes: EpochKeys,
    /// Share of the target probability spread over all classes; where any number of labels may apply, that a label applies has this much
    /// less, and each label its part of it. Default 0.
    pub label_smoothing: f64,
    /// Weights of the classes in the loss. Default none.
    pub class_weights: ClassWeights,
    /// Dev metric that selects the weights to keep. Default `auto`: accuracy, or micro F1 where any number of labels may apply.
    pub metric: Metric,
    /// Factor of the embedding's learning rate; 0 leaves it as it is. Default 1.
    pub embedding_lr_scale: f64,
    /// Factor of the head's learning rate; 0 leaves it as it is. Default 1.
    pub head_lr_scale: f64,
    /// Whether a new head starts at zero instead of random values, so that its first gradients do not disturb an encoder
    /// that is good already. Default false.
    pub zero_head: bool,
    /// Weight of a text's soft labels, where its label weighs 1 (or its class weight). Default 1.
    pub soft_weight: f64,
    /// Maximum number of soft labels: those with the largest probability are learnt, and those of labelled texts. What a teacher says of
    /// texts of another kind is a guess. Default 0 for all.
    pub soft_limit: usize,
    /// Number of texts drawn from those that `soft_limit` leaves out. From the teacher's doubt about them a classifier learns where it knows
    /// nothing (outlier exposure, Hendrycks et al. 2019). Default 0.
    pub soft_unsure: usize,
    /// Temperature of soft labels: both distributions are softened by it. Default 1.
    pub soft_temperature: f64,
    /// Whether the encoder stays as it is, and the head is the best one by regression ([`crate::regression`]): often better than
    /// training the encoder on few rows. Needs `--from`; the keys of the optimizer have no effect. Default false.
    pub frozen: bool,
    /// What a step sees of a training text that is longer than `max_length`. Default `windows`; of a Transformer, which reads no more, `cut`.
    pub long_texts: LongTexts,
    /// Share of the words of a training text that are cut into other pieces in each step ([`crate::tokenizer::sampling`]). Default 0.
    pub subword_sampling: f64,
    /// Exponent of the probabilities of those pieces: 0 for any pieces, 1 for probable ones. Default 0.2.
    pub subword_alpha: f64,
    /// Most n-grams whose scores, of a linear classifier, are added to those of the network ([`super::wide`]), if that is better on the dev texts.
    /// Each takes as many bytes as there are labels, and 3 to 5. Default 0.
    pub ngrams: usize,
}

impl Default for ClassifyKeys {
    fn default() -> Self {
        ClassifyKeys {
            passes: EpochKeys::default(),
            label_smoothing: 0.0,
            class_weights: ClassWeights::Named(ClassWeighting::None),
            metric: Metric::Auto,
            embedding_lr_scale: 1.0,
            head_lr_scale: 1.0,
            zero_head: false,
            soft_weight: 1.0,
            soft_limit: 0,
            soft_unsure: 0,
            soft_temperature: 1.0,
            frozen: false,
            long_texts: LongTexts::Windows,
            subword_sampling: 0.0,
            subword_alpha: 0.2,
            ngrams: 0,
        }
    }
}

impl OwnKeys for ClassifyKeys {
    fn shared() -> Keys {
        Keys { clip_norm: 1.0, ..Keys::default() }
    }

    fn validate(&self) -> Result<()> {
        self.passes.validate()?;
        probability("train.label_smoothing", self.label_smoothing)?;
        not_negative("train.embedding_lr_scale", self.embedding_lr_scale)?;
        not_negative("train.head_lr_scale", self.head_lr_scale)?;
        for (name, value) in [("soft_weight", self.soft_weight), ("soft_temperature", self.soft_temperature)] {
            ensure!(value.is_finite() && value > 0.0, "train.{name} is {value}, must be above 0");
        }
        ensure!(
            self.soft_unsure == 0 || self.soft_limit > 0,
            "train.soft_unsure is {}, but train.soft_limit is 0, which takes all texts: set it as well",
            self.soft_unsure
        );
        ensure!(self.ngrams <= MAX_NGRAMS, "train.ngrams is {}, must be at most {MAX_NGRAMS}", self.ngrams);
        not_negative("train.subword_alpha", self.subword_alpha)?;
        let share = self.subword_sampling;
        ensure!((0.0..=1.0).contains(&share), "train.subword_sampling is {share}, must be from 0 to 1");
        if let ClassWeights::List(list) = &self.class_weights {
            let good = list.iter().all(|w| w.is_finite() && *w >= 0.0) && list.iter().any(|w| *w > 0.0);
            ensure!(good, "train.class_weights must be numbers of 0 or more, at least one above 0");
        }
        Ok(())
    }
}

/// The same keys with the defaults for a Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransformerKeys(ClassifyKeys);

impl TransformerKeys {
    /// Returns [`ClassifyKeys::frozen`].
    pub fn frozen(&self) -> bool {
        self.0.frozen
    }

    /// Returns [`ClassifyKeys::long_texts`].
    pub fn long_texts(&self) -> LongTexts {
        self.0.long_texts
    }

    /// Returns [`ClassifyKeys::subword_sampling`].
    pub fn subword_sampling(&self) -> f64 {
        self.0.subword_sampling
    }
}

impl Default for TransformerKeys {
    fn default() -> Self {
        let passes = EpochKeys { epochs: 3, ..EpochKeys::default() };
        TransformerKeys(ClassifyKeys { passes, long_texts: LongTexts::Cut, ..ClassifyKeys::default() })
    }
}

impl OwnKeys for TransformerKeys {
    /// Returns values of the ranges that BERT's authors fine-tune with (Devlin et al. 2019, appendix A.3).
    fn shared() -> Keys {
        Keys {
            batch_size: 32,
            lr: 3e-5,
            optimizer: OptimizerName::AdamW,
            weight_decay: 0.01,
            schedule: Decay::Linear,
            ..ClassifyKeys::shared()
        }
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }
}

impl From<Config<TransformerKeys>> for Config {
    fn from(Config { model, train: Train { keys, own } }: Config<TransformerKeys>) -> Self {
        Config { model, train: Train { keys, own: own.0 } }
    }
}

impl ClassifyKeys {
    /// Checks the keys that depend on the number of classes, and on whether any number of them may apply to a text (`several`), and chooses the
    /// metric where it is left open.
    ///
    /// # Errors
    /// If a list of class weights has another length, or the metric is for other labels.
    pub fn resolve_for(&mut self, classes: usize, several: bool) -> Result<()> {
        if self.metric == Metric::Auto {
            self.metric = if several { Metric::MicroF1 } else { Metric::Accuracy };
        }
        let name = self.metric.name();
        ensure!(
            several || !matches!(self.metric, Metric::MicroF1 | Metric::MeanAveragePrecision),
            "train.metric is {name}, which is for texts of any number of labels; these have one"
        );
        ensure!(
            !several || self.metric != Metric::BinaryF1,
            "train.metric is {name}, which is for texts of one label of two; any number of labels may apply to these"
        );
        if let ClassWeights::List(list) = &self.class_weights {
            let n = list.len();
            ensure!(n == classes, "train.class_weights has {n} values, must have one for each of {classes} classes");
        }
        if self.metric == Metric::BinaryF1 {
            ensure!(classes == 2, "train.metric is binary_f1, which needs 2 classes; the data have {classes}");
        }
        Ok(())
    }
}

/// Dev metric that selects the weights to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Accuracy, or micro F1 where any number of labels may apply.
    Auto,
    /// Share of texts with the correct label, or with all labels right.
    Accuracy,
    /// F1 of all labels together, where any number may apply.
    MicroF1,
    /// Mean over the labels of their average precision, where any number may apply.
    MeanAveragePrecision,
    /// Mean of the classes' F1.
    MacroF1,
    /// F1 of class 1, for two classes.
    BinaryF1,
}

impl Metric {
    /// Returns the name in configurations and in `metrics.jsonl`.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Auto => "auto",
            Metric::Accuracy => "accuracy",
            Metric::MicroF1 => "micro_f1",
            Metric::MeanAveragePrecision => "mean_average_precision",
            Metric::MacroF1 => "macro_f1",
            Metric::BinaryF1 => "binary_f1",
        }
    }
}

/// What a step sees of a training text that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongTexts {
    /// A window of so many tokens that begins anywhere, another one in each epoch: in the course of training all of the text. Memory does not
    /// depend on the length of the text, and a model that pools over its tokens then reads whole texts.
    Windows,
    /// Its beginning.
    Cut,
}

/// Weights of the classes in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "class_weights must be \"none\", \"balanced\" or a list of numbers, one per class")]
pub enum ClassWeights {
    /// By a rule.
    Named(ClassWeighting),
    /// A list, one per class, in the order of the labels.
    List(Vec<f64>),
}

/// A rule for class weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeighting {
    /// All 1.
    None,
    /// `rows / (classes · rows of the class)`, as scikit-learn's `balanced`; 0 for a class without rows. Where any number of labels may apply,
    /// what a text with a label weighs against one without it: `(rows − rows of the label) / rows of the label`, at most 100, as PyTorch's
    /// `pos_weight`.
    Balanced,
}

impl ClassWeights {
    /// Returns the weights for training labels of `classes` classes, or `None` if all are 1.
    pub fn resolve(&self, labels: &Labels, classes: usize) -> Option<Vec<f64>> {
        /// The largest weight of a rare label among any number of them.
        const MOST: f64 = 100.0;
        match self {
            ClassWeights::Named(ClassWeighting::None) => None,
            ClassWeights::List(list) => Some(list.clone()),
            ClassWeights::Named(ClassWeighting::Balanced) => {
                let mut counts = vec![0usize; classes];
                for &label in labels.iter().flatten() {
                    if let Some(count) = counts.get_mut(label) {
                        *count += 1;
                    }
                }
                let rows = labels.len() as f64;
                let several = labels.is_multi_label();
                let weight = |&n: &usize| match n {
                    0 => f64::from(u8::from(several)),
                    n if several => ((rows - n as f64) / n as f64).min(MOST),
                    n => rows / (classes as f64 * n as f64),
                };
                Some(counts.iter().map(weight).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::config::to_toml;

    #[test]
    fn the_configurations_of_committed_models_are_read_in_both_spellings() {
        for model in ["intents", "intents-nano"] {
            let file = format!("{}/../models/{model}/training.json", env!("CARGO_MANIFEST_DIR"));
            let training: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            assert_eq!(training["config"]["train"]["optimizer"], "adamw");
            let new = training["config"].to_string();
            // Older runs have the key in another spelling.
            for text in [new.replace("\"optimizer\"", "\"optimiser\""), new] {
                let config: Config = serde_json::from_str(&text).unwrap();
                assert_eq!(config.train.keys.optimizer, OptimizerName::AdamW);
            }
        }
    }

    #[test]
    fn the_resolved_configuration_reads_back_as_itself() {
        let text = "[model]\nmixer = \"light\"\nhidden_size = 8\nnum_hidden_layers = 2\nintermediate_size = 16\n";
        let mut c: Config = toml::from_str(text).unwrap();
        c.model = c.model.map(ModelConfig::resolve);
        let again: Config = toml::from_str(&to_toml(&c).unwrap()).unwrap();
        assert_eq!(again, c);
    }

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1], y=[0, 0, 0, 1]) = [0.6667, 2.0]
        let w = ClassWeights::Named(ClassWeighting::Balanced).resolve(&Labels::One(vec![0, 0, 0, 1]), 2).unwrap();
        assert!((w[0] - 2.0 / 3.0).abs() < 1e-12 && (w[1] - 2.0).abs() < 1e-12);
        let several = Labels::Any(vec![vec![0, 1], vec![0], vec![], vec![0]]);
        let w = ClassWeights::Named(ClassWeighting::Balanced).resolve(&several, 3).unwrap();
        assert_eq!(w, [1.0 / 3.0, 3.0, 1.0]);
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        let keys = ClassifyKeys::default;
        let none = ClassWeights::List(vec![0.0, 0.0]);
        assert!(ClassifyKeys { label_smoothing: -0.1, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { class_weights: none, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { embedding_lr_scale: -1.0, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { head_lr_scale: f64::NAN, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { soft_weight: 0.0, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { soft_temperature: f64::INFINITY, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { subword_sampling: 1.1, ..keys() }.validate().is_err());
        assert!(ClassifyKeys { subword_alpha: -0.1, ..keys() }.validate().is_err());
        for (metric, classes, several) in [
            (Metric::BinaryF1, 3, false),
            (Metric::BinaryF1, 2, true),
            (Metric::MicroF1, 3, false),
            (Metric::MeanAveragePrecision, 3, false),
        ] {
            assert!(ClassifyKeys { metric, ..keys() }.resolve_for(classes, several).is_err(), "{metric:?}");
        }
        assert!(ClassifyKeys { class_weights: ClassWeights::List(vec![1.0]), ..keys() }.resolve_for(2, false).is_err());
        let mut auto = [keys(), keys()];
        auto[0].resolve_for(2, false).unwrap();
        auto[1].resolve_for(2, true).unwrap();
        assert_eq!(auto.map(|keys| keys.metric), [Metric::Accuracy, Metric::MicroF1]);
        assert!(keys().validate().is_ok());
    }
}
