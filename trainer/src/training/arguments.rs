//! The command that began a run, kept in its folder, so that `COMMAND --resume --out DIR` alone goes on with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet_data::files::write_atomically;

/// Name of the file: a JSON array of the words after the program's name.
pub const FILE: &str = "arguments.json";

/// Writes the command of this process to the folder of a new run.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(out: &Path) -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--force" && word != "--resume").collect();
    let path = out.join(FILE);
    let mut json = serde_json::to_vec(&words)?;
    json.push(b'\n');
    write_atomically(&path, &json).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the words of a command that only says where to go on, completed by those that began the run; options that are given again count.
/// `None` if it does not resume, or nothing is kept there. `takes_value`: whether an option, by its long name, has a value.
///
/// # Errors
/// If the file is damaged or of another command.
pub fn complete(words: &[OsString], takes_value: impl Fn(&str) -> bool) -> Result<Option<Vec<OsString>>> {
    let given: Vec<String> = words.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((program, command)) = words.first().zip(words.get(1)) else { return Ok(None) };
    if !given.iter().any(|word| word == "--resume") {
        return Ok(None);
    }
    let out = given
        .iter()
        .zip(given.iter().skip(1))
        .find_map(|(name, value)| (name == "--out").then(|| PathBuf::from(value)));
    let out = out.or_else(|| given.iter().find_map(|word| word.strip_prefix("--out=").map(PathBuf::from)));
    let Some(path) = out.map(|out| out.join(FILE)).filter(|path| path.exists()) else { return Ok(None) };
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let kept: Vec<String> = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    let (began, kept) = kept.split_first().with_context(|| format!("{} is damaged: it is empty", path.display()))?;
    ensure!(
        began.as_str() == command.as_os_str(),
        "the run was begun by kinglet-train {began}, not {}",
        command.to_string_lossy()
    );
    let name = |word: &str| word.strip_prefix("--").map(|word| word.split('=').next().unwrap_or(word).to_owned());
    let again: Vec<String> = given.iter().filter_map(|word| name(word)).collect();
    let mut all = vec![program.clone(), command.clone()];
    let mut kept = kept.iter();
    while let Some(word) = kept.next() {
        match name(word).filter(|name| again.contains(name)) {
            Some(name) if takes_value(&name) && !word.contains('=') => drop(kept.next()),
            Some(_) => {}
            None => all.push(word.into()),
        }
    }
    all.extend(given.iter().map(OsString::from));
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(kept: &str, words: &[&str]) -> Result<Option<String>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), kept).unwrap();
        let out = dir.path().to_str().unwrap();
        let words: Vec<OsString> = words.iter().map(|word| word.replace("OUT", out).into()).collect();
        let all = complete(&words, |name| name != "skip-unlabelled")?;
        Ok(all.map(|all| {
            let words: Vec<String> = all.iter().map(|word| word.to_string_lossy().replace(out, "OUT")).collect();
            words.join(" ")
        }))
    }

    #[test]
    fn what_is_not_said_again_is_as_it_was() {
        let kept = r#"["fit", "my data.csv", "--minutes", "3", "--skip-unlabelled", "--out=old", "--seed=2"]"#;
        assert_eq!(
            completed(kept, &["kinglet-train", "fit", "--resume", "--out", "OUT"]).unwrap().unwrap(),
            "kinglet-train fit my data.csv --minutes 3 --skip-unlabelled --seed=2 --resume --out OUT"
        );
        assert_eq!(
            completed(kept, &["kinglet-train", "fit", "--out=OUT", "--resume", "--minutes", "9"]).unwrap().unwrap(),
            "kinglet-train fit my data.csv --skip-unlabelled --seed=2 --out=OUT --resume --minutes 9"
        );
    }

    #[test]
    fn only_a_run_of_the_same_command_goes_on() {
        assert_eq!(completed("[\"fit\"]", &["kinglet-train", "fit", "--out", "OUT"]).unwrap(), None);
        assert_eq!(completed("[\"fit\"]", &["kinglet-train", "fit", "--resume", "--out", "elsewhere"]).unwrap(), None);
        let other = completed("[\"fit\"]", &["kinglet-train", "distill", "--resume", "--out", "OUT"]).unwrap_err();
        assert!(other.to_string().contains("begun by kinglet-train fit, not distill"), "{other}");
        for damaged in ["", "{}", "[]"] {
            let error = completed(damaged, &["kinglet-train", "fit", "--resume", "--out", "OUT"]).unwrap_err();
            assert!(error.to_string().contains("is damaged"), "{error}");
        }
    }
}
