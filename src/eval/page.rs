//! One HTML page for people: a table of all subjects, and for each its confusion matrix, scores and worst mistakes.
//!
//! It stands alone: styles and pictures are inside, there is no script, and nothing is loaded.

use std::{collections::HashMap, fmt::Write};

use super::{
    Comparison, Dataset, Example, comparison,
    curve::Curve,
    metrics::{Confusion, Summary},
    svg,
};

/// Mistakes of each kind that are shown.
const MISTAKES: usize = 12;
/// Characters of a line that are shown.
const SHOWN: usize = 240;

/// Something that scored every line of the data set.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What the reader calls it.
    pub name: String,
    /// One score for each example, 0 to 1.
    pub scores: Vec<f64>,
    /// Its figures.
    pub summary: Summary,
    /// Its figures for each group, in the groups' order.
    pub groups: Vec<(String, Summary)>,
    /// Whether it gets pictures of its own; the others stand beside for comparison.
    pub pictured: bool,
}

/// What the page is about.
#[derive(Debug)]
pub struct Page<'a> {
    /// The data set's name.
    pub name: &'a str,
    /// Its examples.
    pub dataset: &'a Dataset,
    /// What scored them, the most interesting first.
    pub subjects: &'a [Subject],
    /// What settings do to the verdicts.
    pub comparisons: &'a [&'a Comparison],
}

/// The whole page.
pub fn html(page: &Page) -> String {
    let examples = &page.dataset.examples;
    let anomalous = examples.iter().filter(|e| e.anomalous).count();
    let name = escaped(page.name);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{name} - oddlog eval</title>\n\
         <style>\n{}</style></head><body>\n<h1>{name}</h1>\n\
         <p class=\"lead\">{} lines, {anomalous} of them anomalous. Evaluated by oddlog {}.</p>\n",
        include_str!("page.css"),
        examples.len(),
        env!("CARGO_PKG_VERSION"),
    );
    overview(&mut out, page.subjects);
    curves(&mut out, page.subjects, examples);
    page.comparisons.iter().for_each(|compared| comparison::section(&mut out, compared));
    for (index, subject) in page.subjects.iter().enumerate().filter(|(_, s)| s.pictured) {
        details(&mut out, index, subject, examples);
    }
    out + "</body></html>\n"
}

/// The subject's name with the dot of its colour.
fn named(index: usize, name: &str) -> String {
    let colour = index % svg::COLOURS;
    format!("<span class=\"swatch\" style=\"background:var(--c{colour})\"></span>{}", escaped(name))
}

/// A column of figures: its head, what stands in it, and whether more of it is better.
struct Column(&'static str, fn(&Summary) -> Option<f64>, bool);

const COLUMNS: [Column; 10] = [
    Column("threshold", |s| Some(s.threshold), false),
    Column("precision", |s| Some(s.precision), true),
    Column("recall", |s| Some(s.recall), true),
    Column("F1", |s| Some(s.f1), true),
    Column("accuracy", |s| Some(s.accuracy), true),
    Column("false alarms", |s| Some(s.false_alarms), false),
    Column("AUROC", |s| s.auroc, true),
    Column("average precision", |s| s.average_precision, true),
    Column("best F1", |s| s.best_f1, true),
    Column("at", |s| s.best_threshold, false),
];

/// A table with a row of figures for each (name in HTML, summary). The best of a column stand out where `compare` says so.
fn table(out: &mut String, head: &str, rows: &[(String, &Summary)], compare: bool) {
    let _ = write!(out, "<div class=\"scroll\"><table><tr><th>{head}</th><th>lines</th><th>anomalous</th>");
    for Column(name, ..) in &COLUMNS {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr>\n");
    for (name, summary) in rows {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td><td>{}</td>", summary.lines, summary.anomalous);
        for Column(_, value, more_is_better) in &COLUMNS {
            let most = rows.iter().filter_map(|(_, s)| value(s)).fold(f64::MIN, f64::max);
            let best = compare && *more_is_better && value(summary) == Some(most);
            let text = value(summary).map_or_else(|| "-".into(), |v| format!("{v:.3}"));
            let _ = write!(out, "<td{}>{text}</td>", if best { " class=\"best\"" } else { "" });
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn overview(out: &mut String, subjects: &[Subject]) {
    let rows: Vec<_> = subjects.iter().enumerate().map(|(i, s)| (named(i, &s.name), &s.summary)).collect();
    table(out, "", &rows, rows.len() > 1);
    out.push_str("<p class=\"key\">Precision to false alarms hold at the threshold. The best F1 is the one that a threshold chosen on these very lines would reach.</p>\n");
}

fn curves(out: &mut String, subjects: &[Subject], examples: &[Example]) {
    let curves: Vec<Curve> = subjects.iter().map(|s| Curve::new(&with_truth(s, examples))).collect();
    let drawn: Vec<_> = curves.iter().zip(subjects).map(|(curve, s)| (curve, s.summary.threshold)).collect();
    let key: Vec<_> = subjects.iter().enumerate().map(|(i, s)| named(i, &s.name)).collect();
    let _ = write!(
        out,
        "<h2>Every threshold</h2>\n<div class=\"cards\"><div class=\"card\"><h3>Precision and recall</h3>{}</div>\n\
         <div class=\"card\"><h3>Recall and false alarms</h3>{}</div></div>\n<p class=\"key\">{} &nbsp; A dot stands at the threshold.</p>\n",
        svg::precision_recall(&drawn),
        svg::recall_false_alarms(&drawn),
        key.join(" &nbsp; "),
    );
}

fn with_truth(subject: &Subject, examples: &[Example]) -> Vec<(f64, bool)> {
    subject.scores.iter().zip(examples).map(|(score, e)| (*score, e.anomalous)).collect()
}

fn details(out: &mut String, index: usize, subject: &Subject, examples: &[Example]) {
    let threshold = subject.summary.threshold;
    let _ = write!(
        out,
        "<h2>{}</h2>\n<div class=\"cards\"><div class=\"card\"><h3>Verdicts at {threshold:.3}</h3>{}</div>\n\
         <div class=\"card\"><h3>Scores</h3>{}<p class=\"key\"><span class=\"swatch\" style=\"background:var(--normal)\"></span>normal \
         &nbsp; <span class=\"swatch\" style=\"background:var(--anomalous)\"></span>anomalous &nbsp; The dashed line is the threshold.</p></div></div>\n",
        named(index, &subject.name),
        matrix(&subject.summary.confusion),
        svg::histogram(&with_truth(subject, examples), threshold),
    );
    if !subject.groups.is_empty() {
        out.push_str("<h3>By group</h3>\n");
        let rows: Vec<_> = subject.groups.iter().map(|(name, summary)| (escaped(name), summary)).collect();
        table(out, "group", &rows, false);
    }
    mistakes(out, subject, examples, true);
    mistakes(out, subject, examples, false);
}

fn matrix(counts: &Confusion) -> String {
    let cell = |count: usize, of: usize, right: bool| {
        let share = count as f64 / of.max(1) as f64;
        let (colour, weight) = (if right { "--c0" } else { "--anomalous" }, (55.0 * share).round());
        format!(
            "<td style=\"background:color-mix(in srgb,var({colour}) {weight}%,transparent)\"><b>{count}</b><small>{:.1} %</small></td>",
            100.0 * share
        )
    };
    let (bad, calm) = (counts.true_positives + counts.false_negatives, counts.false_positives + counts.true_negatives);
    format!(
        "<table class=\"matrix\"><tr><th></th><th>called anomalous</th><th>called normal</th></tr>\n\
         <tr><th>anomalous</th>{}{}</tr>\n<tr><th>normal</th>{}{}</tr></table>",
        cell(counts.true_positives, bad, true),
        cell(counts.false_negatives, bad, false),
        cell(counts.false_positives, calm, false),
        cell(counts.true_negatives, calm, true),
    )
}

/// The lines that are farthest on the wrong side of the threshold, equal ones together.
fn mistakes(out: &mut String, subject: &Subject, examples: &[Example], missed: bool) {
    let threshold = subject.summary.threshold;
    let (mut wrong, mut all) = (HashMap::<&str, (f64, usize)>::new(), 0);
    for (score, example) in subject.scores.iter().zip(examples) {
        if example.anomalous == missed && (*score < threshold) == missed {
            // A text has one score.
            wrong.entry(&example.text).or_insert((*score, 0)).1 += 1;
            all += 1;
        }
    }
    let mut wrong: Vec<(&str, (f64, usize))> = wrong.into_iter().collect();
    wrong.sort_by(|(a_text, (a, _)), (b_text, (b, _))| {
        let worse = if missed { a.total_cmp(b) } else { b.total_cmp(a) };
        worse.then_with(|| a_text.cmp(b_text))
    });
    let title = if missed { "Missed anomalies" } else { "False alarms" };
    if wrong.is_empty() {
        let _ = writeln!(out, "<h3>{title}: none</h3>");
        return;
    }
    let _ =
        write!(out, "<h3>{title}: {all}</h3>\n<table class=\"log\"><tr><th>score</th><th>lines</th><th></th></tr>\n");
    for (text, (score, lines)) in wrong.iter().take(MISTAKES) {
        let _ = writeln!(out, "<tr><td>{score:.3}</td><td>{lines}</td><td>{}</td></tr>", shown(text));
    }
    out.push_str("</table>\n");
    if wrong.len() > MISTAKES {
        let _ = writeln!(out, "<p class=\"key\">The {MISTAKES} worst of {} different ones.</p>", wrong.len());
    }
}

pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > SHOWN {
        cut.push_str(" ...");
    }
    escaped(&cut)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Effect, Remembered, summarise};

    #[test]
    fn a_page_shows_every_subject_and_lets_no_line_become_markup() {
        let example = |text: &str, anomalous| Example { text: text.into(), anomalous, group: None };
        let examples = vec![example("<script>alert(1)</script>\u{7}", true), example("calm & quiet", false)];
        let dataset = Dataset { examples, skipped: 0 };
        let subject = |name: &str, scores: [f64; 2], pictured| {
            let scored = [(scores[0], true), (scores[1], false)];
            let summary = summarise(&scored, 0.5);
            let groups = vec![("web".to_owned(), summary.clone())];
            Subject { name: name.into(), scores: scores.into(), summary, groups, pictured }
        };
        let subjects = [subject("model <a>", [0.2, 0.9], true), subject("pattern", [1.0, 0.0], false)];
        let effect = |name: &str, memory: Option<Remembered>| {
            let effect = Effect::between(name, &[0.2, 0.9], &[0.2, 0.4], &dataset.examples, 0.5);
            memory.into_iter().fold(effect, Effect::answered)
        };
        let memory = Remembered { misses: 1, templates: 1, ..Remembered::default() };
        let compared = |title, effect| Comparison { title, note: "a < b".into(), effects: vec![effect] };
        let comparisons =
            [compared("Memory", effect("<template>", Some(memory))), compared("Arithmetic", effect("int8", None))];
        let comparisons = &comparisons.each_ref();
        let page = html(&Page { name: "set \"x\"", dataset: &dataset, subjects: &subjects, comparisons });
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("http"), "{page}");
        for text in [
            "model &lt;a&gt;",
            "&lt;script&gt;alert(1)&lt;/script&gt; ",
            "calm &amp; quiet",
            "set &quot;x&quot;",
            "web",
            "<td>&lt;template&gt;</td>",
            "<td>1<small>50.00 %</small></td>",
            "a &lt; b",
            "<td>0.5000</td><td>0.2500</td>",
            "<h3>Other verdicts with int8: 1</h3>",
            "<tr><td>0.900</td><td>0.400</td><td>normal</td><td>1</td><td>calm &amp; quiet</td></tr>",
        ] {
            assert!(page.contains(text), "{text} is missing");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        assert!(page.contains("Missed anomalies: 1") && page.contains("False alarms: 1"));
    }
}
