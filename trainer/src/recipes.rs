//! Configurations of fine-tuning that are used where none is given: those of `configs/`, which the tests compare.

/// From a distilled encoder: `configs/finetune.toml`.
pub const ENCODER: &str = r#"
[train]
epochs = 20
batch_size = 32
optimizer = "adamw"
lr = 1e-3
schedule = "cosine"
warmup_steps = 100
weight_decay = 0.05
dropout = 0.2
label_smoothing = 0.1
subword_sampling = 0.1
max_length = 128
ngrams = 8192
zero_head = true
embedding_lr_scale = 3.0
head_lr_scale = 9.0
seed = 1
"#;

/// From random weights: `configs/dilated.toml`.
pub const SCRATCH: &str = r#"
[model]
mixer = "dilated"
hidden_size = 128
num_hidden_layers = 4
intermediate_size = 256
kernel_sizes = [4, 7, 15, 15]

[train]
epochs = 20
batch_size = 64
optimizer = "adamw"
lr = 2e-3
schedule = "cosine"
warmup_steps = 200
weight_decay = 0.05
dropout = 0.2
drop_connect = 0.1
label_smoothing = 0.1
max_length = 256
seed = 1
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::classify::config::Config;
    use crate::training::config::parse;

    #[test]
    fn the_recipes_are_those_of_the_configurations() {
        for (recipe, file) in [(ENCODER, "finetune"), (SCRATCH, "dilated")] {
            let path = format!("{}/../configs/{file}.toml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let read = |text: &str| parse::<Config>(text, toml::Table::new(), &[]).unwrap();
            assert_eq!(read(recipe), read(&text), "{file}");
        }
    }
}
