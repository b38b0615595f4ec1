//! Texts that are parts of others.

use std::collections::HashMap;

/// Tokens of the longest text that is sought in others.
const LONGEST: usize = 32;
/// Base of the polynomial by which sequences of tokens are found.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the group of each text, numbered in the order of their first texts. A text that occurs in a longer one, as a phrase does in its
/// sentence, is in the group of the shortest such text, the first of several; equal texts are in one group. Of texts longer than 32 tokens
/// only equal ones are found.
pub fn groups(texts: &[Vec<u32>]) -> Vec<usize> {
    let mut first: HashMap<&[u32], usize> = HashMap::new();
    let mut parent: Vec<usize> = texts.iter().enumerate().map(|(i, text)| *first.entry(text).or_insert(i)).collect();
    let mut short: HashMap<u64, usize> = HashMap::new();
    let mut lengths = [false; LONGEST + 1];
    // Of sequences with one hash, which differ hardly ever, the first is sought.
    for (i, text) in texts.iter().enumerate() {
        if parent[i] == i && (1..=LONGEST).contains(&text.len()) {
            lengths[text.len()] = true;
            short.entry(text.iter().fold(0, extend)).or_insert(i);
        }
    }
    let mut prefixes = Vec::new();
    for (whole, text) in texts.iter().enumerate().filter(|(i, _)| parent[*i] == *i).collect::<Vec<_>>() {
        prefixes.clear();
        prefixes.push(0u64);
        prefixes.extend(text.iter().scan(0, |hash, id| {
            *hash = extend(*hash, id);
            Some(*hash)
        }));
        let mut power = 1u64;
        for length in 1..=LONGEST.min(text.len().saturating_sub(1)) {
            power = power.wrapping_mul(BASE);
            if !lengths[length] {
                continue;
            }
            for begin in 0..=text.len() - length {
                let hash = prefixes[begin + length].wrapping_sub(prefixes[begin].wrapping_mul(power));
                let Some(&part) = short.get(&hash) else { continue };
                let shorter = parent[part] == part || text.len() < texts[parent[part]].len();
                if shorter && texts[part] == text[begin..begin + length] {
                    parent[part] = whole;
                }
            }
        }
    }
    let mut numbers = HashMap::new();
    (0..texts.len())
        .map(|text| {
            let mut root = text;
            // Each parent is longer, or the first of equals.
            while parent[root] != root {
                root = parent[root];
            }
            let next = numbers.len();
            *numbers.entry(root).or_insert(next)
        })
        .collect()
}

fn extend(hash: u64, id: &u32) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(u64::from(*id) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_with_the_shortest_text_that_has_them() {
        let texts = [
            vec![1, 2, 3, 4, 5],
            vec![2, 3],
            vec![9, 2, 3, 9],
            vec![3],
            vec![7, 7],
            vec![1, 2, 3, 4, 5],
            vec![3, 2],
            vec![],
            vec![4, 5],
        ];
        // (2, 3) is in the text of four tokens rather than in that of five, and (3) in (2, 3), which comes before (3, 2).
        assert_eq!(groups(&texts), [0, 1, 1, 1, 2, 0, 3, 4, 0]);
        let long: Vec<u32> = (0..33).collect();
        let longer: Vec<u32> = (0..40).collect();
        assert_eq!(groups(&[long.clone(), longer, long]), [0, 1, 0]);
    }
}
