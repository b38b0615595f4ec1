//! How a sentence encoder uses its Transformer: the files of sentence-transformers beside it, in the forms of versions 2 to 6.
//!
//! | file | what is read |
//! |---|---|
//! | `modules.json` | Transformer, Pooling, optionally Normalize, and their folders; without the file: mean pooling, as sentence-transformers does |
//! | `1_Pooling/config.json` | `pooling_mode` (version 6), or else the flags `pooling_mode_*`; `include_prompt` |
//! | `sentence_bert_config.json` | `max_seq_length`, `do_lower_case` |
//! | `tokenizer_config.json` | `model_max_length`, where the former has no `max_seq_length` |
//! | `config_sentence_transformers.json` | `default_prompt_name` and `prompts` |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::files;
use serde::Deserialize;

use crate::checkpoint::read_json;

/// File of sentence-transformers that lists the modules of an encoder.
pub(super) const MODULES: &str = "modules.json";
/// File of sentence-transformers with settings of the Transformer.
pub(super) const SETTINGS: &str = "sentence_bert_config.json";

/// How the vector of a text comes from the vectors of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pooling {
    /// Their mean, special tokens included.
    #[default]
    Mean,
    /// The first one, that of `[CLS]`.
    Cls,
}

impl Pooling {
    /// Returns the name that sentence-transformers uses.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }
}

/// Settings of a sentence encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of the Transformer.
    pub transformer: PathBuf,
    /// The pooling.
    pub pooling: Pooling,
    /// Whether the tokens of the prompt are pooled as well.
    pub include_prompt: bool,
    /// Whether vectors are scaled to length 1.
    pub normalize: bool,
    /// Whether texts are lower-cased before they are tokenized.
    pub lowercase: bool,
    /// Longest input in tokens by the settings, special tokens included; `None` if they set no limit.
    pub max_length: Option<usize>,
    /// Put before each text; empty for none.
    pub prompt: String,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingConfig {
    embedding_dimension: Option<usize>,
    word_embedding_dimension: Option<usize>,
    pooling_mode: Option<serde_json::Value>,
    include_prompt: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Default, Deserialize)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// `1e30` where there is no limit.
    model_max_length: Option<f64>,
    truncation_side: Option<String>,
}

#[derive(Default, Deserialize)]
struct SentenceConfig {
    default_prompt_name: Option<String>,
    #[serde(default)]
    prompts: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the settings of the encoder in `folder`.
    ///
    /// # Errors
    /// If a file is malformed, or a module or its setting is not supported; it is named.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut settings = Settings {
            transformer: folder.to_path_buf(),
            pooling: Pooling::Mean,
            include_prompt: true,
            normalize: false,
            lowercase: false,
            max_length: None,
            prompt: String::new(),
        };
        settings.modules(folder)?;
        let at = |name: &str| settings.transformer.join(name);
        let own: TransformerConfig = read_optional(&at(SETTINGS))?;
        let tokenizer: TokenizerConfig = read_optional(&at(files::TOKENIZER_CONFIG))?;
        let side = tokenizer.truncation_side.as_deref().unwrap_or("right");
        ensure!(
            side == "right",
            "{}: truncation_side is {side:?}, only \"right\" is supported",
            at(files::TOKENIZER_CONFIG).display()
        );
        let limit = tokenizer.model_max_length.filter(|&limit| limit < 1e9).map(|limit| limit as usize);
        settings.max_length = own.max_seq_length.or(limit);
        settings.lowercase = own.do_lower_case;
        let path = folder.join("config_sentence_transformers.json");
        let SentenceConfig { default_prompt_name, prompts } = read_optional(&path)?;
        if let Some(name) = default_prompt_name {
            let missing =
                || format!("{}: default_prompt_name is {name:?}, but prompts has no such name", path.display());
            settings.prompt = prompts.get(&name).with_context(missing)?.clone();
        }
        Ok(settings)
    }

    /// Reads `modules.json` and the settings of its modules.
    fn modules(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(MODULES);
        if !path.exists() {
            return Ok(());
        }
        let modules: Vec<Module> = read_json(&path)?;
        let kinds: Vec<&str> =
            modules.iter().map(|module| module.kind.rsplit('.').next().unwrap_or_default()).collect();
        match kinds[..] {
            ["Transformer", "Pooling"] => {}
            ["Transformer", "Pooling", "Normalize"] => self.normalize = true,
            _ => bail!(
                "{} lists the modules {kinds:?}; supported are Transformer, Pooling and, optionally, Normalize, in this order",
                path.display()
            ),
        }
        if let [transformer, pooling, ..] = &modules[..] {
            self.transformer = folder.join(&transformer.path);
            self.pool(&folder.join(&pooling.path).join(files::CONFIG))?;
        }
        Ok(())
    }

    /// Reads the settings of the pooling.
    fn pool(&mut self, path: &Path) -> Result<()> {
        let config: PoolingConfig = read_json(path)?;
        self.pooling = config.pooling().with_context(|| path.display().to_string())?;
        self.include_prompt = config.include_prompt.unwrap_or(true);
        Ok(())
    }

    /// Checks that the pooling was made for vectors of `channels`.
    ///
    /// # Errors
    /// If it was made for others.
    pub fn check_width(&self, folder: &Path, channels: usize) -> Result<()> {
        let path = folder.join(MODULES);
        if !path.exists() {
            return Ok(());
        }
        let modules: Vec<Module> = read_json(&path)?;
        for module in modules.iter().filter(|module| module.kind.ends_with("Pooling")) {
            let path = folder.join(&module.path).join(files::CONFIG);
            let config: PoolingConfig = read_json(&path)?;
            let width = config.embedding_dimension.or(config.word_embedding_dimension).unwrap_or(channels);
            ensure!(
                width == channels,
                "{}: pooling of {width} channels, the Transformer has {channels}",
                path.display()
            );
        }
        Ok(())
    }
}

impl PoolingConfig {
    fn pooling(&self) -> Result<Pooling> {
        let name = match &self.pooling_mode {
            Some(serde_json::Value::String(name)) => name.clone(),
            Some(other) => bail!("pooling_mode is {other}, supported are \"mean\" and \"cls\""),
            None => {
                let flags = self.others.iter().filter(|(_, on)| on.as_bool() == Some(true));
                let on: Vec<&str> = flags.filter_map(|(name, _)| name.strip_prefix("pooling_mode_")).collect();
                on.join(" and ")
            }
        };
        match name.as_str() {
            "mean" | "mean_tokens" => Ok(Pooling::Mean),
            "cls" | "cls_token" => Ok(Pooling::Cls),
            _ => bail!("the pooling is {name:?}, supported are \"mean\" and \"cls\""),
        }
    }
}

/// Reads a JSON file, or returns the default if it is missing.
fn read_optional<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    if path.exists() { read_json(path) } else { Ok(T::default()) }
}
