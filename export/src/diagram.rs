//! The reliability diagram: accuracy against confidence, before and after calibration, as SVG.

use anyhow::{Context, Result, anyhow};
use kinglet_data::calibration_metrics::Bin;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::calibrate::{Measured, Quality};

const ACCURACY: RGBColor = RGBColor(31, 119, 180);
const CONFIDENCE: RGBColor = RGBColor(214, 39, 40);
const ROWS: RGBColor = RGBColor(120, 120, 120);

/// Draws two diagrams side by side as SVG, 900 by 520 pixels.
///
/// Bars show the accuracy of each bin, dots its mean confidence: in a calibrated model each dot is at the top of its bar. Below
/// is the share of rows in each bin.
///
/// # Errors
/// If the drawing library fails.
pub fn svg(title: &str, measured: &Measured) -> Result<String> {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (900, 520)).into_drawing_area();
        draw(&area, title, measured).map_err(|e| anyhow!("{e}")).context("cannot draw the reliability diagram")?;
    }
    Ok(out)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    measured: &Measured,
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let area = area.titled(title, ("sans-serif", 20))?;
    let (left, right) = area.split_horizontally(450);
    for (half, name, quality) in
        [(left, "before", &measured.before), (right, "after temperature scaling", &measured.after)]
    {
        panel(&half, name, quality)?;
    }
    area.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    quality: &Quality,
) -> Result<(), Box<dyn std::error::Error>> {
    let (upper, lower) = area.split_vertically(360);
    let mut chart = ChartBuilder::on(&upper)
        .caption(format!("{name}: ECE {:.2} %", 100.0 * quality.ece), ("sans-serif", 16))
        .margin_left(12)
        .margin_right(16)
        .x_label_area_size(8)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let light = BLACK.mix(0.05);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .y_desc("accuracy")
        .light_line_style(light)
        .draw()?;
    chart
        .draw_series(
            bars(&quality.bins, |bin| bin.accuracy).map(|corners| Rectangle::new(corners, ACCURACY.mix(0.6).filled())),
        )?
        .label("accuracy")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], ACCURACY.mix(0.6).filled()));
    chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4)))?;
    let count = quality.bins.len().max(1) as f64;
    let dots = quality.bins.iter().enumerate().filter(|(_, bin)| bin.rows > 0);
    chart
        .draw_series(
            dots.map(|(i, bin)| Circle::new(((i as f64 + 0.5) / count, bin.confidence), 4, CONFIDENCE.filled())),
        )?
        .label("mean confidence")
        .legend(|(x, y)| Circle::new((x + 6, y), 4, CONFIDENCE.filled()));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;

    let share = |bin: &Bin| bin.share;
    let max = quality.bins.iter().map(share).fold(0.05, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&lower)
        .margin_left(12)
        .margin_right(16)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.0, 0.0..max)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("confidence")
        .y_desc("share of rows")
        .x_labels(6)
        .y_labels(4)
        .light_line_style(light)
        .draw()?;
    chart.draw_series(bars(&quality.bins, share).map(|corners| Rectangle::new(corners, ROWS.mix(0.6).filled())))?;
    Ok(())
}

/// Returns the corners of a bar for each bin with rows.
fn bars(bins: &[Bin], height: impl Fn(&Bin) -> f64) -> impl Iterator<Item = [(f64, f64); 2]> {
    let width = 1.0 / bins.len().max(1) as f64;
    let filled = bins.iter().enumerate().filter(|(_, bin)| bin.rows > 0);
    filled.map(move |(i, bin)| [((i as f64 + 0.06) * width, 0.0), ((i as f64 + 0.94) * width, height(bin))])
}
