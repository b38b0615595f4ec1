//! Scores of tokens and pairs of neighbours, added to those of the head.
//!
//! An n-gram is looked up as in a trie that is two arrays (Tarjan and Yao 1979, "Storing a Sparse Table", row displacement): that of the tokens
//! `a b` is in slot `offset[a] + b` if `owner` of the slot is `a`. A single token has `V` before it, and what stands for padding is `V + 1`, which
//! owns nothing. What is not found has a row of zeros.

use kinglet_onnx::Precision;
use kinglet_onnx::onnx::tensor_proto::DataType;

use super::builder::{Attribute, GraphBuilder, Mask, Value};
use crate::ngrams::Scores;
use crate::prepare::Prepared;

/// Added below the root of float32, where the sum of the norms may be 0.
const LEAST: f32 = 1e-30;

/// Where each n-gram is.
#[derive(Debug, PartialEq, Eq)]
struct Slots {
    /// By first token, `[V + 2]`.
    offsets: Vec<i32>,
    /// By slot: the first token, −1 for none.
    owners: Vec<i32>,
    /// By slot: the n-gram.
    rows: Vec<i32>,
}

impl Slots {
    /// Places the n-grams of each first token, those of the most first, where the first slots are free.
    fn new(tokens: &[[i32; 2]], vocab_size: usize) -> Self {
        let mut of = vec![Vec::new(); vocab_size + 2];
        for (row, &[first, second]) in tokens.iter().enumerate() {
            of[usize::try_from(first).unwrap_or(vocab_size)].push((second as usize, row as i32));
        }
        let mut order: Vec<usize> = (0..of.len()).filter(|&first| !of[first].is_empty()).collect();
        order.sort_by_key(|&first| (std::cmp::Reverse(of[first].len()), first));
        let mut slots = Slots { offsets: vec![0; of.len()], owners: vec![-1; vocab_size], rows: vec![0; vocab_size] };
        let mut free = 0;
        for first in order {
            while slots.owners.get(free).is_some_and(|&owner| owner >= 0) {
                free += 1;
            }
            let entries = &of[first];
            let fits = |offset: &usize| {
                entries.iter().all(|&(second, _)| slots.owners.get(offset + second).is_none_or(|&owner| owner < 0))
            };
            let lowest = free.saturating_sub(entries.first().map_or(0, |&(second, _)| second));
            let offset = (lowest..).find(fits).unwrap_or(slots.owners.len());
            // Any second token may be asked for.
            let need = (offset + vocab_size).max(slots.owners.len());
            slots.owners.resize(need, -1);
            slots.rows.resize(need, 0);
            slots.offsets[first] = offset as i32;
            for &(second, row) in entries {
                slots.owners[offset + second] = first as i32;
                slots.rows[offset + second] = row;
            }
        }
        slots
    }
}

/// Adds the scores of the n-grams of `ids`, `[B, T]`, to `logits`, `[B, num_labels]`; the same where the model has none.
pub(super) fn ngrams(g: &mut GraphBuilder, model: &Prepared, ids: &Value, mask: &Mask, logits: Value) -> Value {
    let Some(Scores { tokens, weight, norm, table, .. }) = model.ngrams.as_ref() else { return logits };
    let (vocab, labels, count) = (model.config.vocab_size, model.config.num_labels, tokens.len());
    let path = "ngrams";
    let slots = Slots::new(tokens, vocab);
    let offsets = g.store_i32("ngrams.offset", &slots.offsets);
    let owners = g.store_i32("ngrams.owner", &slots.owners);
    let rows = g.store_i32("ngrams.row", &slots.rows);

    // The token before each, and what stands for a single one.
    let (single, none) = (g.index(vocab as i64), g.index(vocab as i64 + 1));
    let is = g.cast(path, &mask.flat, DataType::Bool);
    let single = g.op("Where", path, &[&is, &single, &none]);
    let present = g.op("Where", path, &[&is, ids, &none]);
    let (begin, one, last, axis) = (g.indices(&[0]), g.indices(&[1]), g.indices(&[-1]), g.indices(&[1]));
    let before = g.op("Slice", path, &[&present, &begin, &last, &axis]);
    let zero = g.index(0);
    let edge = g.op("Slice", path, &[ids, &begin, &one, &axis]);
    let edge = g.op("Mul", path, &[&edge, &zero]);
    let edge = g.op("Add", path, &[&edge, &none]);
    let before = g.op_with("Concat", path, &[&edge, &before], &[("axis", Attribute::Int(1))]);
    let before = g.op("Where", path, &[&is, &before, &none]);

    let absent = g.index(count as i64);
    let find = |g: &mut GraphBuilder, first: &Value| {
        let long = |g: &mut GraphBuilder, table: &Value, at: &Value| {
            let found = g.op("Gather", path, &[table, at]);
            g.cast(path, &found, DataType::Int64)
        };
        let slot = long(g, &offsets, first);
        let slot = g.op("Add", path, &[&slot, ids]);
        let owner = long(g, &owners, &slot);
        let hit = g.op("Equal", path, &[&owner, first]);
        let row = long(g, &rows, &slot);
        g.op("Where", path, &[&hit, &row, &absent])
    };
    let (alone, pairs) = (find(g, &single), find(g, &before));
    let found = g.op_with("Concat", path, &[&alone, &pairs], &[("axis", Attribute::Int(1))]);

    let int8 = g.precision() == Precision::Int8;
    let norms: Vec<f32> = if int8 {
        table.norms.iter().map(|&norm| norm.into()).chain([0.0]).collect()
    } else {
        norm.iter().copied().chain([0.0]).collect()
    };
    let norms = g.store_f32("ngrams.norm", &[count + 1], &norms);
    let norms = g.op("Gather", path, &[&norms, &found]);
    let norm = g.op_with("ReduceSum", path, &[&norms, &axis], &[("keepdims", Attribute::Int(1))]);
    let least = g.scalar(if int8 { 1.0 } else { LEAST });
    let norm = g.op("Max", path, &[&norm, &least]);
    let root = g.op("Sqrt", path, &[&norm]);

    let sum = |g: &mut GraphBuilder, values: &Value| {
        g.op_with("ReduceSum", path, &[values, &axis], &[("keepdims", Attribute::Int(0))])
    };
    let scores = if int8 {
        let values: Vec<i8> = table.values.iter().copied().chain(std::iter::repeat_n(0, labels)).collect();
        let values = g.store_i8("ngrams.weight", &[count + 1, labels], &values);
        let scales = g.store_f32("ngrams.weight.scale", &[labels], &table.scales);
        let values = g.op("Gather", path, &[&values, &found]);
        let values = g.cast(path, &values, DataType::Float);
        let sum = sum(g, &values);
        g.op("Mul", path, &[&sum, &scales])
    } else {
        let values: Vec<f32> = weight.iter().copied().chain(std::iter::repeat_n(0.0, labels)).collect();
        let values = g.store_f32("ngrams.weight", &[count + 1, labels], &values);
        let values = g.op("Gather", path, &[&values, &found]);
        sum(g, &values)
    };
    let scores = g.op("Div", path, &[&scores, &root]);
    g.op("Add", path, &[&logits, &scores])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ngram_has_a_slot_of_its_own_and_any_token_can_be_asked_for() {
        let mut tokens: Vec<[i32; 2]> =
            (0..40).flat_map(|a| (0..a % 7).map(move |b| [a, (a * 3 + b * 5) % 50])).collect();
        tokens.extend((0..50).step_by(2).map(|b| [-1, b]));
        let slots = Slots::new(&tokens, 50);
        assert_eq!((slots.offsets.len(), slots.owners.len()), (52, slots.rows.len()));
        for first in 0..52 {
            for second in 0..50 {
                let slot = slots.offsets[first] as usize + second;
                let found = (slots.owners[slot] == first as i32).then(|| slots.rows[slot] as usize);
                let name = if first == 50 { -1 } else { first as i32 };
                assert_eq!(found, tokens.iter().position(|&pair| pair == [name, second as i32]), "{first} {second}");
            }
        }
    }
}
