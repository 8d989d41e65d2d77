//! Plots as SVG, drawn with the few elements they need.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
const BAR_HEIGHT: f64 = 18.0;
const COLOURS: [&str; 6] = [
    "#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a",
];

/// A line of a plot.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over a common axis that begins at zero.
pub(crate) fn lines(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_max = round_up(points().map(|point| point.0).fold(0.0, f64::max));
    let y_max = round_up(points().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
    let mut svg = begin(HEIGHT, title);
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (at_x, at_y) = (x(share * x_max), y(share * y_max));
        rule(&mut svg, LEFT, at_y, WIDTH - RIGHT, at_y);
        text(
            &mut svg,
            LEFT - 6.0,
            at_y + 4.0,
            "end",
            &short(share * y_max),
        );
        text(
            &mut svg,
            at_x,
            HEIGHT - BOTTOM + 16.0,
            "middle",
            &short(share * x_max),
        );
    }
    text(&mut svg, WIDTH / 2.0, HEIGHT - 8.0, "middle", x_name);
    text(&mut svg, 8.0, TOP - 10.0, "start", y_name);
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for point in &line.points {
            push(
                &mut path,
                format_args!("{:.1},{:.1} ", x(point.0), y(point.1)),
            );
        }
        push(
            &mut svg,
            format_args!(
                "<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{path}'/>\n"
            ),
        );
        let at = LEFT + 150.0 * number as f64;
        push(
            &mut svg,
            format_args!(
                "<rect x='{at}' y='{}' width='10' height='10' fill='{colour}'/>\n",
                TOP - 14.0 + 2.0
            ),
        );
        text(&mut svg, at + 14.0, TOP - 3.0, "start", &line.name);
    }
    svg + "</svg>\n"
}

/// Bars from zero, one below the other, with their values.
pub(crate) fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    let label_width = 230.0;
    let max = round_up(bars.iter().map(|bar| bar.1).fold(0.0, f64::max));
    let mut svg = begin(TOP + BAR_HEIGHT * bars.len() as f64 + 10.0, title);
    for (number, (name, value)) in bars.iter().enumerate() {
        let y = TOP + BAR_HEIGHT * number as f64;
        let width = (value.max(0.0) / max) * (WIDTH - label_width - 110.0);
        let colour = COLOURS[usize::from(!name.contains("ethogram"))];
        text(&mut svg, label_width - 6.0, y + 12.0, "end", name);
        push(
            &mut svg,
            format_args!(
                "<rect x='{label_width}' y='{y}' width='{width:.1}' height='{}' fill='{colour}'/>\n",
                BAR_HEIGHT - 4.0
            ),
        );
        let label = format!("{} {unit}", short(*value));
        text(
            &mut svg,
            label_width + width + 5.0,
            y + 12.0,
            "start",
            &label,
        );
    }
    svg + "</svg>\n"
}

fn begin(height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    push(
        &mut svg,
        format_args!(
            "<text x='8' y='16' font-size='13' font-weight='bold'>{}</text>\n",
            escaped(title)
        ),
    );
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = escaped(text);
    push(
        svg,
        format_args!("<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{text}</text>\n"),
    );
}

fn rule(svg: &mut String, x1: f64, y1: f64, x2: f64, y2: f64) {
    push(
        svg,
        format_args!(
            "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' stroke='#d0d7de'/>\n"
        ),
    );
}

fn push(svg: &mut String, what: std::fmt::Arguments<'_>) {
    svg.write_fmt(what).expect("a String takes all");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The next of 1, 2, 4, 5, 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

/// 1500000 as `1.5M`.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = usize::from(scaled.abs() < 100.0 && scaled.fract().abs() > 0.05);
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_svg() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (60.0, 3.5e6)],
        };
        let svg = lines("a < b", "s", "bytes", &[line("one"), line("two")]);
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(
            svg.contains("a &lt; b") && svg.contains("4.0M") || svg.contains("4M"),
            "{svg}"
        );
        assert_eq!(svg.matches("<polyline").count(), 2);
        let svg = bars(
            "t",
            "ns",
            &[("ethogram".to_owned(), 300.0), ("x".to_owned(), -1.0)],
        );
        assert!(svg.contains("300 ns"), "{svg}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [
            (0.0, 1.0),
            (0.9, 1.0),
            (3.0, 4.0),
            (41.0, 50.0),
            (999.0, 1_000.0),
        ] {
            assert!((round_up(value) - end).abs() < 1e-9, "{value}");
        }
    }
}
