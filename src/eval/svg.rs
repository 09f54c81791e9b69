//! The report's pictures, as SVG that follows the page's colours (CSS variables of `page.css`).

use std::fmt::Write;

use super::curve::{Curve, Point};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Most points of a drawn curve; more would not be seen.
const MOST_POINTS: usize = 400;
/// Colours that the style knows.
pub(super) const COLOURS: usize = 6;
/// Bars of a histogram for each kind of line.
const BINS: usize = 20;

fn x_of(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn y_of(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

/// The frame of a picture whose axes go from 0 to 1 and from 0 to `top`.
fn frame(title: &str, x: &str, y: &str, top: f64) -> String {
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#);
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        let (across, up) = (x_of(share), y_of(share));
        let (right, foot, at) = (WIDTH - RIGHT, HEIGHT - BOTTOM, share * top);
        let digits = if top < 1.0 { 2 } else { 1 };
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{LEFT} {up:.1}H{right}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{at:.digits$}</text>
<text class="tick" x="{across:.1}" y="{:.1}" text-anchor="middle">{share:.1}</text>"#,
            LEFT - 7.0,
            up + 4.0,
            foot + 17.0,
        );
    }
    let (middle, foot, up) = (x_of(0.5), HEIGHT - 4.0, y_of(0.5));
    let _ = write!(
        svg,
        r#"<text class="axis" x="{middle:.1}" y="{foot}" text-anchor="middle">{x}</text>
<text class="axis" x="12" y="{up:.1}" text-anchor="middle" transform="rotate(-90 12 {up:.1})">{y}</text>"#,
    );
    svg
}

/// Precision over recall of several subjects, each in its colour, with a dot where its threshold stands.
pub fn precision_recall(subjects: &[(&Curve, f64)]) -> String {
    let of = |curve: &Curve, point: &Point| (curve.recall(point), curve.precision(point));
    curves(frame("Precision and recall", "recall", "precision", 1.0), subjects, &of, "")
}

/// Recall over the share of normal lines that are called anomalous, likewise; the dashes are what guessing reaches.
pub fn recall_false_alarms(subjects: &[(&Curve, f64)]) -> String {
    let of = |curve: &Curve, point: &Point| (curve.false_alarms(point), curve.recall(point));
    let mut svg = frame("Recall and false alarms", "false alarms, share of the normal lines", "recall", 1.0);
    let (left, foot, right, top) = (x_of(0.0), y_of(0.0), x_of(1.0), y_of(1.0));
    let _ = write!(svg, r#"<path class="guess" d="M{left:.1} {foot:.1}L{right:.1} {top:.1}"/>"#);
    curves(svg, subjects, &of, &format!("M{left:.1} {foot:.1}"))
}

/// The subjects' curves in a frame; each begins with `start`, or with its first point.
fn curves(
    mut svg: String,
    subjects: &[(&Curve, f64)],
    of: &dyn Fn(&Curve, &Point) -> (f64, f64),
    start: &str,
) -> String {
    for (index, (curve, threshold)) in subjects.iter().enumerate() {
        let colour = index % COLOURS;
        let place = |point: &Point| {
            let (x, y) = of(curve, point);
            (x_of(x), y_of(y))
        };
        let points = curve.points();
        let step = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let drawn = points.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last).map(|(_, point)| point);
        let mut path = start.to_owned();
        for point in drawn {
            let command = if path.is_empty() { 'M' } else { 'L' };
            let (x, y) = place(point);
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        let _ = write!(svg, r#"<path class="curve c{colour}" d="{path}"/>"#);
        if let Some(point) = points.iter().take_while(|point| point.threshold >= *threshold).last() {
            let (x, y) = place(point);
            let _ = write!(svg, r#"<circle class="dot c{colour}" cx="{x:.1}" cy="{y:.1}" r="4.5"/>"#);
        }
    }
    svg + "</svg>"
}

/// How the scores of normal and of anomalous lines lie, each kind as shares of its own lines, and the threshold.
pub fn histogram(scored: &[(f64, bool)], threshold: f64) -> String {
    let mut counts = [[0usize; BINS]; 2];
    for (score, anomalous) in scored {
        let bin = ((score * BINS as f64) as usize).min(BINS - 1);
        counts[usize::from(*anomalous)][bin] += 1;
    }
    let shares = counts.map(|bins| {
        let all = bins.iter().sum::<usize>().max(1) as f64;
        bins.map(|count| count as f64 / all)
    });
    let most = shares.iter().flatten().copied().fold(0.05, f64::max);
    let top = (most * 20.0).ceil() / 20.0;
    let mut svg = frame("Scores", "score", "share of the kind's lines", top);
    let width = (x_of(1.0 / BINS as f64) - x_of(0.0)) / 2.0 - 1.0;
    for (kind, (class, bins)) in ["normal", "anomalous"].iter().zip(shares).enumerate() {
        for (bin, share) in bins.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let x = x_of(bin as f64 / BINS as f64) + 1.0 + kind as f64 * width;
            let y = y_of(share / top);
            let height = HEIGHT - BOTTOM - y;
            let count = counts[kind][bin];
            let _ = write!(
                svg,
                r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{count} {class} lines</title></rect>"#,
            );
        }
    }
    let (x, foot) = (x_of(threshold), HEIGHT - BOTTOM);
    let _ = write!(svg, r#"<path class="threshold" d="M{x:.1} {TOP}V{foot}"/>"#);
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_line_once_and_the_edges_too() {
        let svg = histogram(&[(0.0, false), (1.0, true), (0.999, true), (0.5, false)], 0.5);
        for count in ["1 normal lines", "2 anomalous lines"] {
            assert!(svg.contains(count), "{svg}");
        }
        assert_eq!(svg.matches("<rect").count(), 3);
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let scored: Vec<(f64, bool)> = (0..10_000).map(|i| (f64::from(i) / 1e4, i % 3 == 0)).collect();
        let curve = Curve::new(&scored);
        let svg = precision_recall(&[(&curve, 0.5)]);
        let lines = svg.matches('L').count();
        assert!((300..=MOST_POINTS + 1).contains(&lines), "{lines}");
        assert!(svg.contains(&format!("{:.1} {:.1}", x_of(1.0), y_of(3334.0 / 1e4))));
        assert!(svg.contains("circle"));
        assert!(precision_recall(&[(&Curve::new(&[]), 0.5)]).ends_with("</svg>"));
    }

    #[test]
    fn recall_over_false_alarms_goes_from_corner_to_corner() {
        // All three anomalous lines above .5, and one of the two normal ones.
        let curve = Curve::new(&[(0.9, true), (0.8, true), (0.7, false), (0.6, true), (0.1, false)]);
        let svg = recall_false_alarms(&[(&curve, 0.5)]);
        let at = |x: f64, y: f64| format!("{:.1} {:.1}", x_of(x), y_of(y));
        let path =
            [at(0.0, 0.0), at(0.0, 1.0 / 3.0), at(0.0, 2.0 / 3.0), at(0.5, 2.0 / 3.0), at(0.5, 1.0), at(1.0, 1.0)];
        assert!(svg.contains(&format!("M{}", path.join("L"))), "{svg}");
        assert!(svg.contains(&format!(r#"cx="{:.1}" cy="{:.1}""#, x_of(0.5), y_of(1.0))), "{svg}");
    }
}
