//! Figures: lines over the length of a text, both axes logarithmic.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

pub use kinglet_data::survey::grouped;

/// One named line of points `(tokens, value)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Line style.
    pub style: Style,
    /// The points, tokens ascending, all above 0.
    pub points: Vec<(f64, f64)>,
}

/// Style of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Kinglet: black and thick.
    Ours,
    /// A peer in int8.
    Solid,
    /// A peer in float32.
    Dashed,
}

/// Wong's palette, which is distinguishable for colour-blind readers (Nature Methods 8, 441, 2011), and two more
/// colours.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(150, 140, 40),
    RGBColor(110, 60, 160),
    RGBColor(120, 120, 120),
];

/// Draws the lines as SVG, 860 × 520 pixels.
///
/// # Errors
/// If there is no point, or the drawing library fails.
pub fn svg(title: &str, y_label: &str, lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let range = |pick: fn((f64, f64)) -> f64| {
        points().map(pick).fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
    if ![left, low, right, high].iter().all(|v| v.is_finite() && *v > 0.0) {
        return Err(anyhow!("`{title}` has no points, or some that a logarithmic axis cannot show"));
    }
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (860, 520)).into_drawing_area();
        draw(&area, title, y_label, lines, [left / 1.2, right * 1.2], [low / 1.3, high * 1.3])
            .map_err(|e| anyhow!("cannot draw `{title}`: {e}"))?;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    Ok(out)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    y_label: &str,
    lines: &[Line],
    [left, right]: [f64; 2],
    [low, high]: [f64; 2],
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    // The legend has its own column, so it never hides a line.
    let (plot, legend) = area.split_horizontally(600);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((left..right).log_scale().base(2.0), (low..high).log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .x_desc("tokens")
        .y_desc(y_label)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| number(*v))
        .draw()?;
    let mut others = COLOURS.iter().cycle();
    for (i, line) in lines.iter().enumerate() {
        let ours = line.style == Style::Ours;
        let colour = if ours { BLACK } else { *others.next().unwrap_or(&BLACK) };
        let stroke = colour.stroke_width(if ours { 4 } else { 2 });
        let points = line.points.iter().copied();
        let y = 48 + 22 * i as i32;
        let sample = [(0, y), (24, y)];
        if line.style == Style::Dashed {
            chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, stroke))?;
            legend.draw(&plotters::element::DashedPathElement::new(sample, 6, 4, stroke))?;
        } else {
            chart.draw_series(LineSeries::new(points.clone(), stroke))?;
            legend.draw(&PathElement::new(sample, stroke))?;
        }
        chart.draw_series(points.map(|p| Circle::new(p, 3, colour.filled())))?;
        legend.draw(&Text::new(line.name.clone(), (32, y - 6), ("sans-serif", 13)))?;
    }
    area.present()?;
    Ok(())
}

/// Formats a number: `0.0078`, `0.5`, `64`, `8,192`.
fn number(value: f64) -> String {
    if value < 10.0 {
        let text = if value < 0.1 { format!("{value:.4}") } else { format!("{value:.2}") };
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    grouped(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_its_lines_and_shows_their_points() {
        let line = |name: &str, style| Line { name: name.to_owned(), style, points: vec![(32.0, 1.0), (64.0, 2.0)] };
        let svg = svg("Speed", "times ours", &[line("native", Style::Ours), line("peer", Style::Solid)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(["Speed", "times ours", "native", "peer"].iter().all(|word| svg.contains(word)));
        assert_eq!(svg.matches("<circle").count(), 4);
    }

    #[test]
    fn what_a_logarithm_cannot_show_is_refused() {
        let line = |points| Line { name: "x".to_owned(), style: Style::Solid, points };
        assert!(svg("Empty", "y", &[]).is_err());
        assert!(svg("Zero", "y", &[line(vec![(1.0, 0.0)])]).is_err());
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            ["1", "999", "1000", "1048576"].map(|n| grouped(n.parse::<u64>().unwrap())),
            ["1", "999", "1,000", "1,048,576"]
        );
        assert_eq!([0.0078125, 0.5, 2.0, 64.0, 8192.0].map(number), ["0.0078", "0.5", "2", "64", "8,192"]);
    }
}
