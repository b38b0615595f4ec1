//! fastText's lines: words that begin with `__label__` are labels, all others the text.

use serde_json::Value;

/// What a label begins with.
pub(super) const PREFIX: &str = "__label__";

/// Returns text and labels of a line: a string for one label, a list for several, nothing for none.
pub(super) fn parse(line: &str) -> (String, Option<Value>) {
    let mut labels = Vec::new();
    let mut rest = line.trim_matches(is_separator);
    // Labels stand first almost always: the text is then left as it is.
    while let Some(label) = rest.strip_prefix(PREFIX) {
        let (label, text) = label.split_once(is_separator).unwrap_or((label, ""));
        labels.push(Value::from(label));
        rest = text.trim_start_matches(is_separator);
    }
    let text = if rest.split(is_separator).any(|word| word.starts_with(PREFIX)) {
        let words = rest.split(is_separator).filter(|word| !word.is_empty());
        let (more, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with(PREFIX));
        labels.extend(more.iter().filter_map(|word| word.strip_prefix(PREFIX)).map(Value::from));
        words.join(" ")
    } else {
        rest.to_string()
    };
    let label = match labels.len() {
        0 => None,
        1 => labels.pop(),
        _ => Some(Value::Array(labels)),
    };
    (text, label)
}

/// Returns whether fastText ends a word at this character.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_words_with_the_prefix_wherever_they_stand() {
        assert_eq!(parse("__label__a  the  text "), ("the  text".to_string(), Some(json!("a"))));
        assert_eq!(parse("__label__a __label__b x"), ("x".to_string(), Some(json!(["a", "b"]))));
        assert_eq!(parse("the text __label__a"), ("the text".to_string(), Some(json!("a"))));
        assert_eq!(parse("__label__a"), (String::new(), Some(json!("a"))));
        assert_eq!(parse("x__label__a"), ("x__label__a".to_string(), None));
        assert_eq!(parse(""), (String::new(), None));
    }
}
