//! Figures of a run: training loss and dev metric over the steps, as SVG.

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What a figure says besides its curves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// Its title.
    pub title: &'a str,
    /// What the vertical axis shows.
    pub y: &'a str,
    /// A remark under the title; empty for none.
    pub note: &'a str,
    /// The step whose weights were kept.
    pub best: Option<f64>,
}

/// A named curve of points `(step, value)`.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// The points, steps ascending.
    pub points: Vec<(f64, f64)>,
}

const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
];

/// Widths of lines, in pixels.
const THIN: u32 = 2;
const BROAD: u32 = 9;

/// Returns whether the two curves have common steps, with equal values at all of them.
fn coincide(a: &Curve<'_>, b: &Curve<'_>) -> bool {
    let mut common =
        a.points.iter().flat_map(|&(x, y)| b.points.iter().filter(move |p| p.0 == x).map(move |p| p.1 == y));
    common.next().is_some_and(|first| first && common.all(|equal| equal))
}

/// Draws the curves as SVG, 800 × 480 pixels, with a dot at every point and a line at the best step. Points that are not finite are
/// omitted. A curve that a later one covers, equal at all common steps, is drawn wider behind it.
///
/// # Errors
/// If the drawing library fails.
pub fn svg(labels: &Labels<'_>, curves: &[Curve<'_>]) -> Result<String> {
    let finite = || curves.iter().flat_map(|c| &c.points).filter(|p| p.1.is_finite());
    let (mut low, mut high, mut last) = (f64::INFINITY, f64::NEG_INFINITY, 1.0f64);
    for &(x, y) in finite() {
        low = low.min(y);
        high = high.max(y);
        last = last.max(x);
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    let margin = ((high - low) * 0.05).max(1e-6);
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (800, 480)).into_drawing_area();
        draw(&area, labels, curves, last, low - margin..high + margin)
            .map_err(|e| anyhow::anyhow!("{e}"))
            .context("cannot draw the SVG")?;
    }
    Ok(out)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    labels: &Labels<'_>,
    curves: &[Curve<'_>],
    last: f64,
    y: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    /// Ticks of the horizontal axis.
    const TICKS: usize = 11;
    area.fill(&WHITE)?;
    let Labels { title, y: y_label, note, best } = *labels;
    let (head, body) = area.split_vertically(if note.is_empty() { 36 } else { 54 });
    let centre = ("sans-serif", 20).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
    head.draw(&Text::new(title.to_owned(), (400, 12), centre))?;
    if !note.is_empty() {
        head.draw(&Text::new(note.to_owned(), (72, 36), ("sans-serif", 12).into_font().color(&BLACK.mix(0.6))))?;
    }
    let (low, high) = (y.start, y.end);
    let mut chart = ChartBuilder::on(&body)
        .margin(12)
        .margin_top(4)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, y)?;
    // Steps are whole: no more ticks than steps.
    let ticks = (last as usize).saturating_add(1).min(TICKS);
    chart
        .configure_mesh()
        .x_desc("step")
        .x_labels(ticks)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_desc(y_label)
        .light_line_style(BLACK.mix(0.05))
        .draw()?;
    if let Some(step) = best.filter(|step| *step <= last) {
        let dash = BLACK.mix(0.5).stroke_width(1);
        chart.draw_series(DashedLineSeries::new([(step, low), (step, high)], 5, 4, dash))?;
        // To the left of the line where there is no room to its right.
        let right = step < 0.75 * last;
        let place = chart.backend_coord(&(step, high));
        let (x, anchor) = if right { (place.0 + 5, HPos::Left) } else { (place.0 - 5, HPos::Right) };
        let style = ("sans-serif", 12).into_font().color(&BLACK.mix(0.6)).pos(Pos::new(anchor, VPos::Top));
        area.draw(&Text::new(format!("kept: step {step:.0}"), (x, place.1 + 3), style))?;
    }
    for (i, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let covered = curves[i + 1..].iter().any(|later| coincide(curve, later));
        let points: Vec<(f64, f64)> = curve.points.iter().copied().filter(|p| p.1.is_finite()).collect();
        let (width, share) = if covered { (BROAD, 0.4) } else { (THIN, 1.0) };
        let line = LineSeries::new(points.iter().copied(), colour.mix(share).stroke_width(width));
        chart
            .draw_series(line)?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        if points.len() <= 100 {
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 2, colour.filled())))?;
        }
    }
    if curves.len() > 1 {
        chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_title_axis_and_a_dot_a_point() {
        let curve = Curve { name: "accuracy", points: vec![(1.0, 0.5), (2.0, 0.75), (3.0, f64::NAN)] };
        let labels = Labels { title: "Dev accuracy", y: "accuracy", note: "a remark", best: Some(2.0) };
        let svg = svg(&labels, &[curve]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("a remark") && svg.contains("kept: step 2"));
        // Steps are whole numbers.
        assert!(svg.contains(">\n2\n<") && !svg.contains(">\n1.5\n<"), "{svg}");
        assert!(svg.contains("Dev accuracy") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn a_curve_under_another_is_drawn_broad() {
        let curve = |name, y: [f64; 2]| Curve { name, points: vec![(1.0, y[0]), (2.0, y[1])] };
        let labels = Labels { title: "Loss", y: "loss", ..Labels::default() };
        let broad = |curves: &[Curve<'_>]| svg(&labels, curves).unwrap().matches("stroke-width=\"9\"").count();
        assert_eq!(broad(&[curve("whole", [1.0, 0.5]), curve("resumed", [1.0, 0.5])]), 1);
        assert_eq!(broad(&[curve("light", [1.0, 0.5]), curve("attention", [1.0, 0.6])]), 0);
        let part = Curve { name: "resumed", points: vec![(2.0, 0.5)] };
        assert_eq!(broad(&[curve("whole", [1.0, 0.5]), part]), 1);
        assert_eq!(broad(&[curve("whole", [1.0, 0.5]), Curve { name: "later", points: vec![(3.0, 0.5)] }]), 0);
    }

    #[test]
    fn a_plot_without_points_is_still_a_picture() {
        assert!(svg(&Labels::default(), &[]).unwrap().contains("</svg>"));
    }
}
