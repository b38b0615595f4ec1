//! Names near to one that does not exist, for messages.

/// Returns the names that `typed` may have been meant to be: at most three, the nearest first, by the edit distance of
/// their characters without case.
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed: Vec<char> = typed.to_lowercase().chars().collect();
    // A third of the letters may be wrong.
    let most = (typed.len() / 3).max(1);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let known: Vec<char> = name.to_lowercase().chars().take(typed.len() + most + 1).collect();
            (known.len().abs_diff(typed.len()) <= most).then(|| (distance(&typed, &known), name))
        })
        .filter(|(distance, _)| *distance <= most)
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Returns `; did you mean "a" or "b"?`, or nothing if no name is near.
pub fn question<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = nearest(typed, names).into_iter().map(|name| format!("{name:?}")).collect();
    if quoted.is_empty() { String::new() } else { format!("; did you mean {}?", quoted.join(" or ")) }
}

/// Returns the optimal string alignment distance: insertions, deletions, replacements, and exchanges of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::from([i + 1]);
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_edits_and_exchanges() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(of("", ""), 0);
        assert_eq!(of("", "ab"), 2);
        assert_eq!(of("kitten", "sitting"), 3);
        assert_eq!(of("ab", "ba"), 1);
        assert_eq!(of("categry", "category"), 1);
    }

    #[test]
    fn near_names_come_nearest_first_and_far_ones_not_at_all() {
        let names = ["card_arrival", "card_arriving", "lost_card", "Card_Arrival"];
        assert_eq!(nearest("card_arival", names), ["card_arrival", "Card_Arrival"]);
        assert_eq!(question("categry", ["category", "text"]), "; did you mean \"category\"?");
        assert_eq!(question("x", ["category"]), "");
        assert_eq!(question("", []), "");
    }
}
