//! The page `report.html` of a model of which any number of labels may apply to a text.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

use kinglet_data::multilabel::Scored;

use crate::checkpoint::Checkpoint;
use crate::data::LabelledData;
use crate::html::{ERRORS, costs, end, escaped, head, shortened};
use crate::labels::{Row, judged};
use crate::report::Report;
use crate::search::Search;

/// Returns the page of a report. `data`, `rows`: the dev data with the scores of the int8 model; `search`: the search that led to the model.
/// Without thresholds there is none.
pub fn page(
    report: &Report,
    checkpoint: &Checkpoint,
    (data, rows): (&LabelledData, &[Row]),
    search: Option<&Search>,
) -> Option<String> {
    let labels = report.labels.as_ref()?;
    let (values, measured) = (&labels.int8.values, &labels.int8.measured);
    let (probabilities, gold) = judged(rows, values).ok()?;
    let scored = Scored { probabilities: &probabilities, gold: &gold, labels: checkpoint.labels.len() };
    let counts = scored.counts(&values.thresholds);
    let name = |label: usize| escaped(checkpoint.labels.get(label).map_or("", String::as_str));

    let mut out = head("Report on a classifier of several labels");
    let _ = write!(
        out,
        "<p><span class=\"big\">{:.2}%</span> micro F1, <span class=\"big\">{:.2}%</span> macro F1 on {} texts, by the int8 model; all labels are right of \
         {:.2}%. By cross-fitting: each text with the thresholds that others chose. With the thresholds that all of them chose: {:.2}% and {:.2}%. Mean \
         average precision: {:.2}%.</p>\n<p class=\"soft\">{}, SHA-256 {}. Training chose its best weights on these texts, so expect slightly less on \
         others.</p>\n",
        100.0 * measured.micro_f1,
        100.0 * measured.macro_f1,
        rows.len(),
        100.0 * measured.exact_match,
        100.0 * counts.micro_f1(),
        100.0 * counts.macro_f1(),
        100.0 * scored.mean_average_precision(),
        escaped(Path::new(&data.file).file_name().and_then(OsStr::to_str).unwrap_or_default()),
        escaped(&data.data.sha256)
    );
    costs(&mut out, report);
    if let Some(search) = search {
        out.push_str(&search.html(escaped));
    }
    let _ = writeln!(
        out,
        "<h2>Confidence</h2>\n<p>Sets of labels hold {:.2}% of a text's labels on average (target {}%), in {:.2} labels. Expected calibration error of a \
         label: {:.2}% after temperature scaling, {:.2}% before.</p>",
        100.0 * measured.set_coverage,
        100.0 * labels.coverage,
        measured.mean_set_size,
        100.0 * measured.ece[1],
        100.0 * measured.ece[0]
    );

    // Labels, the worst first.
    out.push_str(
        "<h2>Labels</h2>\n<p class=\"soft\">The lowest F1 first.</p>\n<div class=\"scroll\"><table>\n<tr><th>label</th><th class=\"n\">texts</th>\
         <th class=\"n\">precision</th><th class=\"n\">recall</th><th class=\"n\">F1</th><th class=\"n\">threshold</th></tr>\n",
    );
    let mut all: Vec<(f64, usize)> =
        (0..checkpoint.labels.len()).map(|label| (counts.f1(label).unwrap_or(-1.0), label)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let shown = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{share:.3}"));
    for (_, label) in all {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td></tr>",
            name(label),
            counts.of_label(label),
            shown(counts.precision(label)),
            shown(counts.recall(label)),
            shown(counts.f1(label)),
            values.thresholds.get(label).copied().unwrap_or_default()
        );
    }
    out.push_str("</table></div>\n");

    // Errors, the surest first.
    let mut errors: Vec<(f32, usize, usize)> = Vec::new();
    for (at, (row, gold)) in probabilities.chunks_exact(checkpoint.labels.len().max(1)).zip(&gold).enumerate() {
        let given = |label: usize| row.get(label) > values.thresholds.get(label);
        let apart = |(label, &p): (usize, &f32)| {
            let has = gold.contains(&label);
            (given(label) != has).then_some((if has { 1.0 - p } else { p }, label))
        };
        let worst = row.iter().enumerate().filter_map(apart).max_by(|a, b| a.0.total_cmp(&b.0));
        errors.extend(worst.map(|(surprise, label)| (surprise, at, label)));
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let _ = writeln!(
        out,
        "<h2>Most surely wrong</h2>\n<p>{} of {} texts get other labels than the data have. Where the model is sure, look at the data first.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th>text</th><th>labels in the data</th><th>model</th><th>most surely wrong</th><th class=\"n\">by</th></tr>",
        errors.len(),
        rows.len()
    );
    for (surprise, at, label) in errors.into_iter().take(ERRORS) {
        let row = probabilities.chunks_exact(checkpoint.labels.len().max(1)).nth(at).unwrap_or_default();
        let given: Vec<usize> = row
            .iter()
            .zip(&values.thresholds)
            .enumerate()
            .filter(|(_, (p, threshold))| p > threshold)
            .map(|(label, _)| label)
            .collect();
        let _ = writeln!(
            out,
            "<tr><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{surprise:.2}</td></tr>",
            escaped(&shortened(data.data.texts.get(at).map_or("", String::as_str))),
            escaped(&checkpoint.names(gold.get(at).map_or(&[], Vec::as_slice))),
            escaped(&checkpoint.names(&given)),
            name(label)
        );
    }
    out.push_str("</table></div>\n");
    end(&mut out, report);
    Some(out)
}
