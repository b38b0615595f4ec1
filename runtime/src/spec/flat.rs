//! A configuration as JSON: one flat object.

use std::{borrow::ToOwned, format, string::String};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::config::{Config, Norm, Pooling, Task};
use super::error::ConfigError;
use super::mixer::{Mixer, MixerConfig, Parameters, PerLayer};
use super::names::FORMAT_VERSION;

/// The dialect that export and the engines compute: that of the paper's text.
pub const PAPER: &str = "paper";

/// A [`Config`] as files have it: the parameters of all mixers side by side, and the dialect of the architecture.
///
/// Parameters that the mixer does not have are read, ignored, and written as [`Parameters::DEFAULT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Config")]
pub struct FlatConfig {
    #[serde(default = "format_version")]
    format_version: u32,
    /// Written only when it is not the default: older versions of Kinglet reject files that have it.
    #[serde(default, skip_serializing_if = "classifies")]
    task: Task,
    mixer: Mixer,
    /// Dialect of the architecture. Export and engines take [`PAPER`] alone; the trainer has others.
    #[serde(default = "paper")]
    pub compat: String,
    #[serde(default = "norm")]
    norm: Norm,
    #[serde(default)]
    pooling: Pooling,
    #[serde(default)]
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    intermediate_size: usize,
    #[serde(default = "kernel_heads")]
    kernel_heads: usize,
    #[serde(default = "per_layer")]
    kernel_sizes: PerLayer,
    #[serde(default = "per_layer")]
    kernel_offsets: PerLayer,
    #[serde(default = "per_layer")]
    dilations: PerLayer,
    #[serde(default)]
    num_attention_heads: usize,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "distance")]
    relative_attention_max_distance: usize,
    #[serde(default)]
    num_labels: usize,
    /// Written only when there are some: older versions of Kinglet reject files that have it.
    #[serde(default, skip_serializing_if = "none")]
    ngrams: usize,
}

fn format_version() -> u32 {
    FORMAT_VERSION
}
fn classifies(task: &Task) -> bool {
    *task == Task::Classify
}
fn none(count: &usize) -> bool {
    *count == 0
}
fn paper() -> String {
    PAPER.to_owned()
}
fn norm() -> Norm {
    Norm::PostLayer
}
fn kernel_heads() -> usize {
    Parameters::DEFAULT.kernel_heads
}
fn per_layer() -> PerLayer {
    PerLayer::EMPTY
}
fn buckets() -> usize {
    Parameters::DEFAULT.relative_attention_num_buckets
}
fn distance() -> usize {
    Parameters::DEFAULT.relative_attention_max_distance
}

impl FlatConfig {
    /// Returns the flat form of a configuration in the dialect `compat`.
    pub fn new(config: &Config, compat: &str) -> Self {
        let all = config.mixer.parameters();
        FlatConfig {
            format_version: config.format_version,
            task: config.task,
            mixer: config.mixer.kind(),
            compat: compat.to_owned(),
            norm: config.norm,
            pooling: config.pooling,
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            num_hidden_layers: config.num_hidden_layers,
            intermediate_size: config.intermediate_size,
            kernel_heads: all.kernel_heads,
            kernel_sizes: all.kernel_sizes,
            kernel_offsets: all.kernel_offsets,
            dilations: all.dilations,
            num_attention_heads: all.num_attention_heads,
            relative_attention_num_buckets: all.relative_attention_num_buckets,
            relative_attention_max_distance: all.relative_attention_max_distance,
            num_labels: config.num_labels,
            ngrams: config.ngrams,
        }
    }

    /// Returns the configuration, whatever its dialect.
    ///
    /// # Errors
    /// As [`MixerConfig::from_parameters`].
    pub fn config(&self) -> Result<Config, ConfigError> {
        let parameters = Parameters {
            kernel_heads: self.kernel_heads,
            kernel_sizes: self.kernel_sizes,
            kernel_offsets: self.kernel_offsets,
            dilations: self.dilations,
            num_attention_heads: self.num_attention_heads,
            relative_attention_num_buckets: self.relative_attention_num_buckets,
            relative_attention_max_distance: self.relative_attention_max_distance,
        };
        Ok(Config {
            format_version: self.format_version,
            task: self.task,
            mixer: MixerConfig::from_parameters(self.mixer, self.num_hidden_layers, &parameters)?,
            norm: self.norm,
            pooling: self.pooling,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            intermediate_size: self.intermediate_size,
            num_labels: self.num_labels,
            ngrams: self.ngrams,
        })
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FlatConfig::new(self, PAPER).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatConfig::deserialize(deserializer)?;
        if flat.compat != PAPER {
            return Err(D::Error::custom(format!(
                "compat is \"{}\", but export and the engines compute \"{PAPER}\" alone: score this checkpoint with kinglet-train \
                 eval, or train a model with compat = \"{PAPER}\" to export",
                flat.compat
            )));
        }
        flat.config().map_err(D::Error::custom)
    }
}

impl Serialize for PerLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.as_slice())
    }
}

impl<'de> Deserialize<'de> for PerLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(u16),
            Many(std::vec::Vec<u16>),
        }
        match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(v) => Ok(PerLayer::repeat(v, 1)),
            OneOrMany::Many(v) => {
                PerLayer::from_slice(&v).ok_or_else(|| D::Error::custom("more than 48 values in a per-layer list"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::light;
    use super::*;

    #[test]
    fn json_is_one_flat_object_and_other_dialects_are_refused_by_name() {
        let c = light();
        let text = serde_json::to_string(&c).unwrap();
        assert_eq!(
            text,
            r#"{"format_version":1,"mixer":"light","compat":"paper","norm":"post_layer","pooling":"mean","vocab_size":100,"hidden_size":8,"num_hidden_layers":2,"intermediate_size":16,"kernel_heads":2,"kernel_sizes":[7,7],"kernel_offsets":[3,3],"dilations":[1,1],"num_attention_heads":0,"relative_attention_num_buckets":32,"relative_attention_max_distance":128,"num_labels":3}"#
        );
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), c);
        let refused =
            |from: &str, to| format!("{}", serde_json::from_str::<Config>(&text.replace(from, to)).unwrap_err());
        let said = refused("paper", "mesh");
        assert!(said.starts_with("compat is \"mesh\", but export and the engines compute \"paper\" alone"), "{said}");
        let said = refused("[1,1]", "[2,2]");
        assert!(said.contains("dilations is 2"), "{said}");
        assert!(refused("compat", "compact").contains("unknown field `compact`"));
    }

    #[test]
    fn an_embedder_says_so_and_a_classifier_is_written_as_ever() {
        let c = Config { task: Task::Embed, ..light() };
        let text = serde_json::to_string(&c).unwrap();
        assert!(text.contains(r#""task":"embed""#), "{text}");
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), c);
        let classifier = serde_json::to_string(&light()).unwrap();
        assert_eq!(text.replace(r#""task":"embed","#, ""), classifier);
        let said = format!("{}", serde_json::from_str::<Config>(&text.replace("embed\"", "rank\"")).unwrap_err());
        assert!(said.contains("unknown variant `rank`, expected one of `classify`, `multi_label`, `embed`"), "{said}");
    }

    #[test]
    fn parameters_that_the_mixer_does_not_have_are_read_and_written_as_their_defaults() {
        let odd = [
            ("kernel_heads", json!(8)),
            ("kernel_sizes", json!([3, 5])),
            ("kernel_offsets", json!([0, 0])),
            ("num_attention_heads", json!(2)),
            ("relative_attention_num_buckets", json!(6)),
            ("relative_attention_max_distance", json!(9)),
        ];
        for (mixer, own) in [(Mixer::Light, &odd[..3]), (Mixer::Dilated, &odd[1..3]), (Mixer::Attention, &odd[3..])] {
            let c = Config { mixer: MixerConfig::new(mixer, 2).with_heads(4), ..light() };
            let written = serde_json::to_value(&c).unwrap();
            for (field, value) in &odd {
                let mut given = written.clone();
                given[*field] = value.clone();
                let read: Config = serde_json::from_value(given.clone()).unwrap();
                let is_own = own.iter().any(|(name, _)| name == field);
                assert_eq!(read != c, is_own, "{} {field}", mixer.name());
                assert_eq!(serde_json::to_value(&read).unwrap(), if is_own { given } else { written.clone() });
            }
        }
    }
}
