//! Whether `tokenizer.json`, which other programs read, is the tokenizer of the table that devices have.

use anyhow::{Context, Result, ensure};
use kinglet::tokenizer::{CHUNK_CHARS, FIRST_BYTE, FIRST_PIECE, METASPACE, SCORE_UNIT, SPECIAL_SCORE, Table, Token};
use serde_json::{Value, json};

/// Compares all pieces with their scores, and the steps before them; by both, every text has the same ids.
///
/// # Errors
/// If the file is malformed or another tokenizer: the first difference is named.
pub fn check(json: &[u8], table: &Table<'_>) -> Result<()> {
    let file: Value = serde_json::from_slice(json)?;
    let mut steps = Vec::new();
    kinds(&file["normalizer"], "normalizers", &mut steps);
    let wanted = [("NFC", table.nfc()), ("Lowercase", table.lowercase())];
    let wanted: Vec<&str> = wanted.into_iter().filter_map(|(kind, wanted)| wanted.then_some(kind)).collect();
    ensure!(steps == wanted, "the text is brought to {steps:?}, by tokenizer.bin to {wanted:?}");
    let split = json!([
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": METASPACE, "prepend_scheme": "always", "split": false},
        {"type": "FixedLength", "length": CHUNK_CHARS},
    ]);
    let found = &file["pre_tokenizer"]["pretokenizers"];
    ensure!(*found == split, "words are divided by {found}, by tokenizer.bin by {split}");
    let model = &file["model"];
    for (key, want) in [("type", json!("Unigram")), ("byte_fallback", json!(true))] {
        ensure!(model[key] == want, "model.{key} is {}, not {want}", model[key]);
    }
    let vocab = model["vocab"].as_array().context("there is no model.vocab")?;
    ensure!(vocab.len() == table.vocab_size(), "{} tokens, tokenizer.bin has {}", vocab.len(), table.vocab_size());
    for (id, found) in (0u32..).zip(vocab) {
        let token = match table.token(id) {
            Some(Token::Pad) => "<pad>".to_owned(),
            Some(Token::End) => "</s>".to_owned(),
            Some(Token::Unknown) | None => "<unk>".to_owned(),
            Some(Token::Byte(_)) => format!("<0x{:02X}>", id - FIRST_BYTE),
            Some(Token::Piece(piece)) => piece.to_owned(),
        };
        let score = table.score(id).map_or(SPECIAL_SCORE, |score| f64::from(score) * SCORE_UNIT);
        let score = if id < FIRST_PIECE { SPECIAL_SCORE } else { score };
        let want = json!([token, score]);
        ensure!(*found == want, "id {id} is {found}, in tokenizer.bin {want}");
    }
    Ok(())
}

/// Adds the kinds of a step, which may be a sequence of steps.
fn kinds<'v>(step: &'v Value, list: &str, out: &mut Vec<&'v str>) {
    match (step["type"].as_str(), step[list].as_array()) {
        (Some("Sequence"), Some(steps)) => steps.iter().for_each(|step| kinds(step, list, out)),
        (Some(kind), _) => out.push(kind),
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet::bundle::{Buffer, Bundle};

    /// The shipped pair is one; each way to be another is named.
    #[test]
    fn the_first_difference_is_named() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/intents/");
        let read = |name: &str| std::fs::read(format!("{models}{name}")).unwrap();
        let (bytes, json) = (read("model.kinglet"), read("tokenizer.json"));
        let buffer = Buffer::new(&bytes);
        let bundle = Bundle::new(buffer.as_slice()).unwrap();
        let table = bundle.tokenizer();
        check(&json, &table).unwrap();
        let text = String::from_utf8(json).unwrap();
        let pretty: Value = serde_json::from_str(&text).unwrap();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut file = pretty.clone();
            change(&mut file);
            format!("{:#}", check(file.to_string().as_bytes(), &table).unwrap_err())
        };
        type Change = dyn Fn(&mut Value);
        let cases: [(&Change, &str); 6] = [
            (&|f| f["normalizer"] = Value::Null, "brought to []"),
            (&|f| f["pre_tokenizer"]["pretokenizers"][2]["length"] = 63.into(), "divided by"),
            (&|f| f["model"]["byte_fallback"] = false.into(), "byte_fallback"),
            (&|f| f["model"]["vocab"][300][0] = "other".into(), "id 300"),
            (&|f| f["model"]["vocab"][300][1] = (-1.5).into(), "id 300"),
            (&|f| drop(f["model"]["vocab"].as_array_mut().unwrap().pop()), "tokens, tokenizer.bin has"),
        ];
        for (change, words) in cases {
            let said = changed(change);
            assert!(said.contains(words), "{said}");
        }
    }
}
