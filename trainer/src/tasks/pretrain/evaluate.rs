//! The loss on a held-out corpus.

use std::f64::consts::LN_2;

use anyhow::{Result, ensure};
use kinglet::tokenizer::{METASPACE, Table, Token};
use tch::Device;

use crate::batch::Seq2SeqBatch;
use crate::model::Mode;
use crate::model::seq2seq::Seq2Seq;
use crate::objective::Example;
use crate::training::team::Team;

/// Maximum number of input tokens in an evaluation batch.
const TOKENS: usize = 8_192;

/// Held-out examples: always the same, always masked the same way.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// The examples.
    pub examples: Vec<Example>,
    /// Bytes of text masked in the targets.
    pub bytes: u64,
    /// Input tokens.
    pub tokens: u64,
}

impl HeldOut {
    /// Counts the masked bytes of `examples` for the ids of `table`.
    pub fn new(examples: Vec<Example>, table: &Table<'_>) -> Self {
        let bytes = examples.iter().flat_map(|e| &e.targets).map(|&id| text_bytes(table, id)).sum();
        let tokens = examples.iter().map(|e| e.inputs.len() as u64).sum();
        HeldOut { examples, bytes, tokens }
    }
}

/// Returns the bytes of text of an id, counting the space before a word as one; 0 for `</s>` and sentinels.
fn text_bytes(table: &Table<'_>, id: u32) -> u64 {
    match table.token(id) {
        Some(Token::Byte(_)) => 1,
        Some(Token::Piece(piece)) => piece.chars().map(|c| if c == METASPACE { 1 } else { c.len_utf8() as u64 }).sum(),
        Some(Token::Pad | Token::End | Token::Unknown) | None => 0,
    }
}

/// Returns examples as one batch on `device`.
pub fn joined(examples: &[Example], device: Device) -> Seq2SeqBatch {
    let pairs: Vec<(&[u32], &[u32])> = examples.iter().map(|e| (e.inputs.as_slice(), e.targets.as_slice())).collect();
    Seq2SeqBatch::new(&pairs, device)
}

/// Scores of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Mean cross entropy, in nats per target token.
    pub loss: f64,
    /// Cross entropy of all targets, including sentinels and `</s>`, in bits, divided by the masked bytes of text. It
    /// does not depend on how the tokenizer splits the text.
    pub bits_per_byte: f64,
    /// Target tokens.
    pub targets: u64,
}

/// Scores `model` in f32, without dropout; each process of `team` computes its share.
///
/// # Errors
/// If a loss is not finite, so the weights are broken, or another process has gone.
pub fn evaluate(model: &Seq2Seq, held_out: &HeldOut, team: &Team) -> Result<Losses> {
    let longest = held_out.examples.iter().map(|e| e.inputs.len()).max().unwrap_or(1);
    let mine = held_out.examples.chunks((TOKENS / longest.max(1)).max(1)).skip(team.rank()).step_by(team.size());
    let (mut nats, mut targets) = (0.0, 0.0);
    for examples in mine {
        let batch = joined(examples, model.device());
        let loss = tch::no_grad(|| model.loss(&batch, 0.0, &Mode::eval()));
        nats += loss.cross_entropy.double_value(&[]);
        targets += examples.iter().map(|e| e.targets.len() as f64).sum::<f64>();
    }
    let [nats, targets] = team.sum([nats, targets])?;
    ensure!(nats.is_finite(), "the loss on the held-out corpus is {nats}: the weights are not usable");
    Ok(Losses {
        loss: nats / targets.max(1.0),
        bits_per_byte: nats / LN_2 / held_out.bytes.max(1) as f64,
        targets: targets as u64,
    })
}

#[cfg(test)]
mod tests {
    use kinglet::tokenizer::Normalization;
    use kinglet::tokenizer::{END, FIRST_BYTE, FIRST_PIECE};

    use super::*;

    #[test]
    fn hidden_text_is_counted_in_bytes_without_sentinels_and_end() {
        // Every table has the printable ASCII characters.
        let ascii = ('!'..='~').filter(|c| !c.is_ascii_uppercase()).map(String::from);
        let pieces: Vec<(String, i16)> = ascii.chain(["é", "▁", "▁the"].map(String::from)).map(|p| (p, 0)).collect();
        let bytes = Table::write(&pieces, Normalization::LOWERCASE).unwrap();
        let table = Table::new(&bytes).unwrap();
        let last = FIRST_PIECE + pieces.len() as u32 - 1;
        let (e, the) = (last - 2, last);
        assert_eq!([e, the].map(|id| text_bytes(&table, id)), [2, 4]);
        let (sentinel, byte) = (511, FIRST_BYTE + 9);
        let example = Example { inputs: vec![sentinel, END], targets: vec![sentinel, the, e, byte, sentinel - 1, END] };
        let held_out = HeldOut::new(vec![example.clone(), example], &table);
        assert_eq!((held_out.bytes, held_out.tokens), (2 * (4 + 2 + 1), 4));
    }
}
