//! In which languages texts are, as far as trigrams tell (the library whatlang).

use whatlang::{Lang, detect};

/// Texts that are looked at, spread over the data.
const LOOKED_AT: usize = 1000;
/// Characters that are needed for a guess; shorter texts are judged with the next ones.
const ENOUGH: usize = 100;
/// Languages with a smaller share are guesses gone wrong more often than not.
const LEAST: f64 = 0.05;
/// Share of the characters whose language must be sure.
const SURE: f64 = 0.5;

/// The languages of texts, the most frequent first.
#[derive(Clone, Debug, PartialEq)]
pub struct Languages(Vec<(Lang, f64)>);

impl Languages {
    /// Guesses the languages of texts; of none if most of them are uncertain.
    pub fn of<S: AsRef<str>>(texts: &[S]) -> Self {
        let step = (texts.len() / LOOKED_AT).max(1);
        let (mut found, mut sure, mut all) = (Vec::<(Lang, usize)>::new(), 0, 0);
        let mut judge = |text: &str, characters: usize| {
            all += characters;
            let Some(guess) = detect(text).filter(whatlang::Info::is_reliable) else { return };
            sure += characters;
            match found.iter_mut().find(|(lang, _)| *lang == guess.lang()) {
                Some((_, count)) => *count += characters,
                None => found.push((guess.lang(), characters)),
            }
        };
        let (mut joined, mut characters) = (String::new(), 0);
        for text in texts.iter().step_by(step) {
            joined.push_str(text.as_ref());
            joined.push('\n');
            characters += text.as_ref().chars().count();
            if characters >= ENOUGH {
                judge(&joined, characters);
                joined.clear();
                characters = 0;
            }
        }
        if characters > 0 {
            judge(&joined, characters);
        }
        if (sure as f64) < SURE * all as f64 {
            return Languages(Vec::new());
        }
        let mut shares: Vec<(Lang, f64)> =
            found.into_iter().map(|(lang, count)| (lang, count as f64 / sure as f64)).collect();
        shares.retain(|(_, share)| *share >= LEAST);
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        Languages(shares)
    }

    /// Returns the languages and their shares in words.
    pub fn fact(&self) -> String {
        let names: Vec<String> =
            self.0.iter().map(|(lang, share)| format!("{} {:.0}%", lang.eng_name(), 100.0 * share)).collect();
        format!("languages: {}", if names.is_empty() { "not certain".to_owned() } else { names.join(", ") })
    }

    /// Returns whether most texts are in another language than English.
    pub fn is_foreign(&self) -> bool {
        self.0.first().is_some_and(|(lang, _)| *lang != Lang::Eng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_by_their_words() {
        let english = [
            "what is the balance of my account",
            "please cancel my flight to boston",
            "how do you say hello in french",
        ];
        let german =
            ["wie ist das wetter morgen in berlin", "bitte stell den wecker auf sieben uhr", "spiel das nächste lied"];
        let all = Languages::of(&english.repeat(5));
        assert!(all.fact().starts_with("languages: English") && !all.is_foreign(), "{all:?}");
        let all = Languages::of(&german.repeat(5));
        assert!(all.fact().starts_with("languages: German") && all.is_foreign(), "{all:?}");
        let both: Vec<&str> = german.repeat(20).into_iter().chain(english.repeat(10)).collect();
        let all = Languages::of(&both);
        assert!(all.fact().contains("German 6") && all.fact().contains("English 3"), "{}", all.fact());
    }

    #[test]
    fn where_nothing_is_certain_nothing_is_said() {
        for texts in [vec![], vec!["17 4 2026", "!!!"], vec!["xqz 42", "kkq 17", "zzv 3"]] {
            let all = Languages::of(&texts);
            assert!(!all.is_foreign() && all.fact() == "languages: not certain", "{all:?}");
        }
    }
}
