//! The page `report.html`: accuracy, classes, confusions, calibration, and the texts that the model is most surely wrong about.
//!
//! One file without scripts that needs no network, in light and dark.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

use kinglet::answer::softmax;
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet_data::metrics::{Confusion, interval};
use kinglet_data::survey::grouped;

use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::readme::sentence;
use crate::report::Report;
use crate::scored::{ScoredText, best};
use crate::search::Search;

/// Errors that are listed.
pub(crate) const ERRORS: usize = 40;
/// Pairs of classes that are listed.
const PAIRS: usize = 20;
/// Classes up to which the whole confusion matrix is drawn.
const MATRIX: usize = 30;
/// Probability of another class from which a label is called doubtful.
const DOUBTFUL: f32 = 0.95;

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5f6670; --line: #dfe3e8; --page: #ffffff; --card: #f6f8fa; --bar: 31, 119, 180; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #9aa3ad; --line: #343a41; --page: #16191d; --card: #1f242a; --bar: 90, 170, 230; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.big { font-size: 2.4rem; font-weight: 600; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; } .scroll { overflow-x: auto; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; } .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.matrix td { text-align: right; padding: .2rem .35rem; } .matrix th { white-space: nowrap; } .matrix .up { writing-mode: vertical-rl; transform: rotate(180deg); }
.text { overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
code { background: var(--card); padding: .1rem .3rem; border-radius: .2rem; }
";

/// Returns the page. `rows`: the int8 model's scores of the dev data; `diagram`: the reliability diagram, an SVG; `search`: the trainings
/// that led to the model.
pub fn page(
    report: &Report,
    checkpoint: &Checkpoint,
    (data, rows): (&LabelledData, &[ScoredText]),
    diagram: Option<&str>,
    search: Option<&Search>,
) -> String {
    let labels = &checkpoint.labels;
    let name = |class: usize| escaped(labels.get(class).map_or("", String::as_str));
    let mut confusion = Confusion::new(labels.len());
    rows.iter().for_each(|row| confusion.add(row.gold, best(&row.logits)));
    let temperature = report.calibration.as_ref().map_or(1.0, |calibration| calibration.int8.values.temperature);
    let accuracy = confusion.accuracy();
    let [low, high] = interval(accuracy, rows.len()).map(|end| 100.0 * end);

    let mut out = head("Report on a text classifier");
    let _ = write!(
        out,
        "<p><span class=\"big\">{:.2}%</span> <span class=\"soft\">({low:.1} to {high:.1})</span> of {} texts are labelled correctly by the int8 model \
         (float: {:.2}%). Macro F1: {:.4}.</p>\n\
         <p class=\"soft\">{}, SHA-256 {}. Training chose its best weights on these texts, so expect slightly less on others; in brackets \
         the 95% interval of the sample.</p>\n",
        100.0 * accuracy,
        rows.len(),
        report.dev.as_ref().map_or(f64::NAN, |dev| 100.0 * dev.accuracy_fp32),
        confusion.macro_f1(),
        escaped(Path::new(&data.file).file_name().and_then(OsStr::to_str).unwrap_or_default()),
        escaped(&data.data.sha256)
    );

    costs(&mut out, report);
    if let Some(search) = search {
        out.push_str(&search.html(escaped));
    }

    // Confidence.
    if let Some(calibration) = &report.calibration {
        let (values, measured) = (&calibration.int8.values, &calibration.int8.measured);
        let answered = if values.threshold > 0.0 {
            format!("Up to a score of {:.3} the answer is <code>unsure</code>", values.threshold)
        } else {
            "No answer needs to be withheld".to_owned()
        };
        let _ = writeln!(
            out,
            "<h2>Confidence</h2>\n<p>{answered}: {:.1}% of the texts are answered, {:.2}% of these wrongly (target {}%). Expected calibration \
             error: {:.2}% after temperature scaling, {:.2}% before. {}.</p>",
            100.0 * measured.selective.answered,
            100.0 * (1.0 - measured.selective.accuracy),
            100.0 * calibration.stated.error_rate,
            100.0 * measured.after.ece,
            100.0 * measured.before.ece,
            escaped(&sentence(&calibration.holds_for()))
        );
    }
    if let Some(diagram) = diagram {
        // Without the prologue of a file of its own.
        let svg = diagram.find("<svg").map_or(diagram, |at| &diagram[at..]);
        let _ = writeln!(out, "{svg}");
    }

    // Classes, the worst first.
    out.push_str(
        "<h2>Classes</h2>\n<p class=\"soft\">The lowest F1 first.</p>\n<div class=\"scroll\"><table>\n<tr><th>class</th><th class=\"n\">texts\
         </th><th class=\"n\">precision</th><th class=\"n\">recall</th><th class=\"n\">F1</th></tr>\n",
    );
    let mut classes: Vec<(f64, usize)> =
        (0..labels.len()).filter_map(|class| confusion.f1(class).map(|f1| (f1, class))).collect();
    classes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for &(f1, class) in &classes {
        let gold = confusion.of_class(class);
        let shown = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{share:.3}"));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{gold}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{f1:.3}</td></tr>",
            name(class),
            shown(confusion.precision(class)),
            shown(confusion.recall(class))
        );
    }
    out.push_str("</table></div>\n");

    // Confusions.
    if labels.len() <= MATRIX {
        matrix(&mut out, &confusion, labels.len(), &name);
    }
    let worst = confusion.worst(PAIRS);
    if !worst.is_empty() {
        out.push_str("<h2>Most frequent confusions</h2>\n<table>\n<tr><th>right</th><th>given</th><th class=\"n\">texts</th></tr>\n");
        for (gold, given, count) in worst {
            let _ =
                writeln!(out, "<tr><td>{}</td><td>{}</td><td class=\"n\">{count}</td></tr>", name(gold), name(given));
        }
        out.push_str("</table>\n");
    }

    // Errors, the surest first.
    let mut errors: Vec<(f32, f32, usize, usize)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let given = best(&row.logits);
        let mut probabilities = vec![0.0; row.logits.len()];
        if given != row.gold && softmax(&row.logits, temperature, &mut probabilities).is_ok() {
            let of = |class: usize| probabilities.get(class).copied().unwrap_or(0.0);
            errors.push((of(given), of(row.gold), at, given));
        }
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
    let doubtful = errors.iter().filter(|error| error.0 >= DOUBTFUL).count();
    let _ = writeln!(
        out,
        "<h2>Most surely wrong</h2>\n<p>{} of {} texts get another label than the data have. Where the model is sure, look at the data first: {doubtful} \
         have a probability of at least {DOUBTFUL} for another class (marked ●), which may be an error of the label.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th></th><th>text</th><th>label in the data</th><th>model</th><th class=\"n\">probability</th></tr>",
        errors.len(),
        rows.len()
    );
    for (probability, right, at, given) in errors.into_iter().take(ERRORS) {
        let text = data.data.texts.get(at).map_or("", String::as_str);
        let gold = rows.get(at).map_or(0, |row| row.gold);
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{} <span class=\"soft\">{right:.2}</span></td><td>{}</td><td class=\"n\">{probability:.2}</td></tr>",
            if probability >= DOUBTFUL { "●" } else { "" },
            escaped(&shortened(text)),
            name(gold),
            name(given)
        );
    }
    out.push_str("</table></div>\n");
    end(&mut out, report);
    out
}

/// Returns the beginning of a page, up to its heading.
pub(crate) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    )
}

/// Writes the sizes of the files and of the memory.
pub(crate) fn costs(out: &mut String, report: &Report) {
    out.push_str("<h2>Size and memory</h2>\n<table>\n<tr><th>file</th><th class=\"n\">bytes</th></tr>\n");
    for file in &report.files {
        let _ =
            writeln!(out, "<tr><td><code>{}</code></td><td class=\"n\">{}</td></tr>", file.name, grouped(file.bytes));
    }
    out.push_str("</table>\n");
    if report.native.is_some() {
        let ram = |chunk| grouped(scratch_bytes(&report.config, chunk));
        let _ = writeln!(
            out,
            "<p>Working memory of the native engine, whatever the length of the text: {} bytes in chunks of {DEFAULT_CHUNK} tokens (servers, \
             phones, browsers), {} of 16, {} of 8 (microcontrollers). The bundle is read in place, from flash or a mapped file.</p>",
            ram(DEFAULT_CHUNK),
            ram(16),
            ram(8)
        );
    }
}

/// Writes the end of a page.
pub(crate) fn end(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "<p class=\"soft\">Made by kinglet-export {}; all numbers are in report.json.</p>\n</body>\n</html>",
        report.kinglet
    );
}

/// Draws the confusion matrix: the darker a cell, the larger its share of the row.
fn matrix(out: &mut String, confusion: &Confusion, classes: usize, name: &impl Fn(usize) -> String) {
    out.push_str("<h2>Confusion</h2>\n<p class=\"soft\">Rows: label in the data; columns: model.</p>\n<div class=\"scroll\"><table class=\"matrix\">\n<tr><th></th>");
    for class in 0..classes {
        let _ = write!(out, "<th><span class=\"up\">{}</span></th>", name(class));
    }
    out.push_str("</tr>\n");
    for gold in 0..classes {
        let all = confusion.of_class(gold);
        let _ = write!(out, "<tr><th>{}</th>", name(gold));
        for given in 0..classes {
            let count = confusion.count(gold, given);
            let share = count as f64 / all.max(1) as f64;
            let shown = if count == 0 { "·".to_owned() } else { count.to_string() };
            let _ = write!(out, "<td style=\"background: rgba(var(--bar), {:.2})\">{shown}</td>", 0.7 * share);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// Returns text for a page: special characters as entities, control characters as spaces.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 400;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_become_markup() {
        assert_eq!(escaped("<b a=\"1\">&'\n</b>"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39; &lt;/b&gt;");
        assert_eq!(shortened("ab"), "ab");
        assert_eq!(shortened(&"é".repeat(401)).chars().count(), 401);
    }
}
