//! Compares span corruption with T5's algorithm in numpy (`golden/spans.py`), and tests its properties.
#![allow(missing_docs, clippy::unwrap_used)]

use kinglet::tokenizer::END;
use kinglet_train::objective::{Example, Lengths, Sentinels, SpanCorruption};
use kinglet_train::random::SplitMix64;
use proptest::prelude::*;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/spans.json")).unwrap()
}

fn of(case: &Value) -> SpanCorruption {
    SpanCorruption {
        noise_density: case["noise_density"].as_f64().unwrap(),
        mean_span: case["mean_span"].as_f64().unwrap(),
        random_roll: case["roll"].as_u64().is_some_and(|roll| roll > 0),
    }
}

fn numbers<T: TryFrom<u64>>(list: &Value) -> Vec<T>
where
    T::Error: std::fmt::Debug,
{
    list.as_array().unwrap().iter().map(|n| T::try_from(n.as_u64().unwrap()).unwrap()).collect()
}

fn bits(mask: &[bool]) -> String {
    mask.iter().map(|&noise| if noise { '1' } else { '0' }).collect()
}

#[test]
fn the_simplest_example_is_right_to_the_eye() {
    let objective = SpanCorruption { noise_density: 0.4, mean_span: 2.0, random_roll: false };
    // 10 tokens: 4 of noise in 2 spans. Without a shuffle, noise is split 1 + 3, the rest 1 + 5.
    let mask = objective.mask_with(10, |_| {}, 0);
    assert_eq!(bits(&mask), "0100000111");
}

#[test]
fn lengths_are_those_of_the_reference() {
    let objective = SpanCorruption::default();
    for (inputs, tokens, targets) in [(64, 70, 14), (128, 141, 29), (256, 284, 58), (512, 568, 114), (1024, 1137, 229)]
    {
        assert_eq!(objective.lengths(inputs), Lengths { tokens, targets });
    }
    for case in golden()["lengths"].as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let expected = Lengths { tokens: number("tokens"), targets: number("targets") };
        assert_eq!(of(case).lengths(number("inputs")), expected, "{case}");
    }
}

#[test]
fn masks_inputs_and_targets_equal_t5s_for_the_same_shuffles() {
    let golden = golden();
    let sentinels = Sentinels::new(golden["vocab_size"].as_u64().unwrap() as usize, 900).unwrap();
    for case in golden["masks"].as_array().unwrap() {
        let length = case["length"].as_u64().unwrap() as usize;
        let mut permutations = case["permutations"].as_array().unwrap().iter().map(numbers::<usize>);
        let shuffle = |bits: &mut [bool]| {
            let permutation = permutations.next().unwrap();
            let before = bits.to_vec();
            assert_eq!(permutation.len(), bits.len());
            for (bit, from) in bits.iter_mut().zip(permutation) {
                *bit = before[from];
            }
        };
        let mask = of(case).mask_with(length, shuffle, case["roll"].as_u64().unwrap() as usize);
        assert_eq!(bits(&mask), case["mask"].as_str().unwrap(), "{length} tokens");
        let tokens: Vec<u32> = (0..length as u32).map(|i| (i * 37 + 11) % 600 + 259).collect();
        let example = SpanCorruption::apply(&tokens, &mask, &sentinels).unwrap();
        assert_eq!(example.inputs, numbers::<u32>(&case["inputs"]), "{length} tokens");
        assert_eq!(example.targets, numbers::<u32>(&case["targets"]), "{length} tokens");
    }
}

/// Returns the stretches of ids between sentinels, and whether the list starts with a sentinel; without `</s>`.
fn stretches(ids: &[u32], sentinels: &Sentinels, vocab: u32) -> (Vec<Vec<u32>>, bool) {
    let (&end, ids) = ids.split_last().unwrap();
    assert_eq!(end, END);
    let first = vocab - sentinels.count() as u32;
    let mut parts = vec![Vec::new()];
    let mut seen = 0;
    for &id in ids {
        if id >= first {
            assert_eq!(Some(id), sentinels.id(seen), "sentinels count down");
            seen += 1;
            parts.push(Vec::new());
        } else {
            parts.last_mut().unwrap().push(id);
        }
    }
    let begins = ids.first().is_some_and(|&id| id >= first);
    if begins {
        parts.remove(0);
    }
    if ids.last().is_some_and(|&id| id >= first) {
        parts.pop();
    }
    (parts, begins)
}

/// Returns the tokens from which an example was made, from the example alone.
fn restore(example: &Example, sentinels: &Sentinels, vocab: u32) -> Vec<u32> {
    let (kept, noise_first) = stretches(&example.inputs, sentinels, vocab);
    let (noise, kept_first) = stretches(&example.targets, sentinels, vocab);
    assert!(noise_first != kept_first || kept.is_empty() && noise.is_empty());
    let (one, other) = if noise_first { (noise, kept) } else { (kept, noise) };
    assert!(one.len() == other.len() || one.len() == other.len() + 1);
    let mut other = other.into_iter();
    one.into_iter().flat_map(|part| [part, other.next().unwrap_or_default()].concat()).collect()
}

proptest! {
    #[test]
    fn every_mask_has_the_counts_of_the_formula(length in 2usize..700, seed: u64, density in 0.05f64..0.45, mean in 1.0f64..12.0) {
        let objective = SpanCorruption { noise_density: density, mean_span: mean, random_roll: false };
        prop_assert!(objective.validate().is_ok());
        let mask = objective.mask(length, &mut SplitMix64::new(seed));
        let noise = ((length as f32 * density as f32).round_ties_even() as usize).clamp(1, length - 1);
        let spans = ((noise as f32 / mean as f32).round_ties_even() as usize).max(1).min(length - noise);
        prop_assert_eq!(mask.len(), length);
        prop_assert_eq!(mask.iter().filter(|&&noise| noise).count(), noise);
        prop_assert_eq!(mask.windows(2).filter(|pair| !pair[0] && pair[1]).count(), spans);
        prop_assert!(!mask[0] && mask[length - 1]);
    }

    #[test]
    fn the_original_comes_back_from_inputs_and_targets(length in 1usize..600, seed: u64, random_roll: bool, mean in 1.0f64..6.0) {
        let objective = SpanCorruption { mean_span: mean, random_roll, ..SpanCorruption::default() };
        let tokens: Vec<u32> = { let mut r = SplitMix64::new(seed ^ 1); (0..length).map(|_| 2 + r.below(998) as u32).collect() };
        let sentinels = Sentinels::new(1128, 1000).unwrap();
        prop_assert!(objective.most_spans(length) <= sentinels.count());
        let example = objective.corrupt(&tokens, &mut SplitMix64::new(seed), &sentinels).unwrap();
        prop_assert_eq!(restore(&example, &sentinels, 1128), tokens);
    }
}

#[test]
fn examples_of_full_length_fill_the_inputs() {
    let sentinels = Sentinels::new(1128, 1000).unwrap();
    for (inputs, seed, random_roll) in
        (4usize..600).flat_map(|n| (0..4).flat_map(move |s| [(n, s, false), (n, s, true)]))
    {
        let objective = SpanCorruption { random_roll, ..SpanCorruption::default() };
        let Lengths { tokens, targets } = objective.lengths(inputs);
        let example = objective.corrupt(&vec![500; tokens], &mut SplitMix64::new(seed), &sentinels).unwrap();
        // T5's two formulas differ: the lengths count no span where the noise rounds to none, but the mask always has
        // one.
        let uncounted = usize::from(tokens < 10);
        // In f32, 15 % of some lengths rounds up: one more noise token, perhaps with its sentinel. Where the rotation
        // splits a span, one more sentinel.
        let slack = usize::from(random_roll) + uncounted;
        let (got, most) = (example.inputs.len(), inputs + slack);
        assert!((inputs - 2..=most).contains(&got), "{got} inputs of {inputs}, seed {seed}, roll {random_roll}");
        let (got, most) = (example.targets.len(), targets + 2 + slack);
        assert!(
            (targets..=most).contains(&got),
            "{got} targets, {targets} expected of {inputs}, seed {seed}, roll {random_roll}"
        );
    }
}

#[test]
fn a_rotated_mask_reaches_every_token() {
    let objective = SpanCorruption { random_roll: true, ..SpanCorruption::default() };
    let mut random = SplitMix64::new(3);
    let mut counts = [0; 12];
    for _ in 0..3000 {
        for (count, noise) in counts.iter_mut().zip(objective.mask(12, &mut random)) {
            *count += u32::from(noise);
        }
    }
    // 2 of 12 tokens are masked: each 500 of 3000 times.
    assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}");
}

#[test]
fn segmentations_are_equally_likely() {
    // 3 noise tokens in 2 spans among 3 others: noise 1 + 2 or 2 + 1, likewise the others.
    let objective = SpanCorruption { noise_density: 0.5, mean_span: 1.5, random_roll: false };
    let mut random = SplitMix64::new(9);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..4000 {
        *seen.entry(bits(&objective.mask(6, &mut random))).or_insert(0) += 1;
    }
    let masks: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(masks, ["001011", "001101", "010011", "011001"]);
    assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_example() {
    let objective = SpanCorruption::default();
    let sentinels = Sentinels::new(1128, 1000).unwrap();
    let tokens: Vec<u32> = (300..700).collect();
    let example = |seed| objective.corrupt(&tokens, &mut SplitMix64::new(seed), &sentinels).unwrap();
    assert_eq!(example(1), example(1));
    assert_ne!(example(1), example(2));
}

#[test]
fn impossible_parameters_are_refused() {
    let with = |noise_density, mean_span| SpanCorruption { noise_density, mean_span, random_roll: false }.validate();
    assert!(with(0.15, 3.0).is_ok() && with(0.5, 1.0).is_ok());
    for (density, mean, name) in [
        (0.0, 3.0, "noise_density is 0"),
        (1.0, 3.0, "noise_density is 1"),
        (f64::NAN, 3.0, "noise_density"),
        (0.15, 0.5, "mean_span is 0.5"),
        (0.15, f64::INFINITY, "mean_span"),
        (0.9, 3.0, "fewer tokens than spans"),
    ] {
        let error = with(density, mean).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn too_few_sentinels_are_an_error() {
    assert!(Sentinels::new(1000, 1000).unwrap_err().to_string().contains("no id is left"));
    let sentinels = Sentinels::new(1003, 1000).unwrap();
    let error = SpanCorruption::default().corrupt(&[5; 100], &mut SplitMix64::new(1), &sentinels).unwrap_err();
    assert!(error.to_string().contains("more spans than the 3 sentinels"), "{error}");
}
