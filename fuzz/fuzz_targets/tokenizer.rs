//! Any table is rejected or usable; for any text and split, the ids are those of the whole, in the vocabulary, and end
//! with the end of text.
#![no_main]

use std::sync::LazyLock;

use kinglet::tokenizer::{END, Encoder, Table};
use libfuzzer_sys::fuzz_target;

static SOUND: LazyLock<Vec<u8>> = LazyLock::new(kinglet_fuzz::tokenizer);

fuzz_target!(|input: (bool, [u8; 3], &[u8], &[u8])| {
    let (sound, lengths, bytes, text) = input;
    let Ok(table) = Table::new(if sound { &SOUND } else { bytes }) else { return };
    let text = if sound { [bytes, text].concat() } else { text.to_vec() };
    let mut whole = Vec::new();
    table.encode_with(&text, &mut |id| whole.push(id));
    let mut parts = Vec::new();
    let mut encoder = Encoder::new();
    kinglet_fuzz::cut(&text, &lengths).iter().for_each(|part| encoder.push(&table, part, &mut |id| parts.push(id)));
    encoder.finish(&table, &mut |id| parts.push(id));
    assert_eq!(whole, parts);
    assert_eq!(whole.last(), Some(&END));
    assert!(whole.iter().all(|&id| (id as usize) < table.vocab_size()));
});
