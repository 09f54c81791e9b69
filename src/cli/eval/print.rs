//! The figures as text and as JSON.

use serde_json::{Map, Value, json};

use super::Comparisons;
use crate::{
    eval::{Comparison, Effect, Subject, Summary},
    fidelity::Agreement,
};

/// What is told of an evaluation.
pub struct Report<'a> {
    pub dataset: &'a str,
    /// Rows left out.
    pub skipped: usize,
    pub subjects: &'a [Subject],
    /// The first subject's verdicts beside another model's.
    pub agreement: Option<Agreement>,
    /// What settings do to the verdicts.
    pub comparisons: Comparisons,
}

impl Report<'_> {
    /// One JSON object with every figure.
    pub fn json(&self) -> String {
        let subjects: Vec<Value> = self
            .subjects
            .iter()
            .map(|s| {
                let groups: Map<String, Value> =
                    s.groups.iter().map(|(n, summary)| (n.clone(), json!(summary))).collect();
                json!({ "name": s.name, "all": s.summary, "groups": groups })
            })
            .collect();
        let effects = |comparison: &Option<Comparison>| comparison.as_ref().map(|c| json!(c.effects));
        let report = json!({
            "dataset": self.dataset, "skipped_rows": self.skipped, "subjects": subjects, "beside": self.agreement,
            "cache_modes": effects(&self.comparisons.cache_modes),
            "precisions": effects(&self.comparisons.precisions),
        });
        format!("{report:#}")
    }

    /// Tables for people.
    pub fn text(&self) -> String {
        let first = &self.subjects[0].summary;
        let mut out = format!("{}: {} lines, {} anomalous", self.dataset, first.lines, first.anomalous);
        if self.skipped > 0 {
            out.push_str(&format!(" ({} rows without text or label left out)", self.skipped));
        }
        out.push_str("\n\n");
        let rows = self.subjects.iter().map(|s| (s.name.as_str(), &s.summary)).collect::<Vec<_>>();
        out.push_str(&table("", &rows));
        let counts = first.confusion;
        out.push_str(&format!(
            "\n{} at {:.3}: {} found, {} missed, {} false alarms, {} rightly left alone\n",
            self.subjects[0].name,
            first.threshold,
            counts.true_positives,
            counts.false_negatives,
            counts.false_positives,
            counts.true_negatives,
        ));
        for subject in self.subjects.iter().filter(|s| s.pictured && !s.groups.is_empty()) {
            let rows = subject.groups.iter().map(|(name, s)| (name.as_str(), s)).collect::<Vec<_>>();
            out.push_str(&format!("\n{}", table(&format!("{}, by group", subject.name), &rows)));
        }
        if let Some(agreement) = &self.agreement {
            out.push_str(&format!("\nbeside the other model: {agreement}\n"));
        }
        for comparison in self.comparisons.all() {
            out.push_str(&format!("\n{}\n{}\n", effects(comparison), wrapped(&comparison.note)));
        }
        out.trim_end().to_owned()
    }
}

const HEADS: [&str; 10] = ["lines", "precision", "recall", "F1", "accuracy", "alarms", "AUROC", "AP", "best F1", "at"];

fn table(head: &str, rows: &[(&str, &Summary)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).chain([head.chars().count()]).max().unwrap_or(0);
    let mut out = format!("{head:width$}");
    HEADS.iter().for_each(|head| out.push_str(&format!("  {head:>9}")));
    out.push('\n');
    for (name, s) in rows {
        out.push_str(&format!("{name:width$}  {:>9}", s.lines));
        let figures = [Some(s.precision), Some(s.recall), Some(s.f1), Some(s.accuracy), Some(s.false_alarms)];
        for figure in figures.into_iter().chain([s.auroc, s.average_precision, s.best_f1, s.best_threshold]) {
            let text = figure.map_or_else(|| "-".into(), |v| format!("{v:.3}"));
            out.push_str(&format!("  {text:>9}"));
        }
        out.push('\n');
    }
    out
}

/// A way's cell in one column.
type Cell = fn(&Effect) -> String;

const EFFECTS: [(&str, Cell); 6] = [
    ("equal verdicts", |e| format!("{} ({:.2} %)", e.equal_verdicts, 100.0 * e.equal_share)),
    ("largest diff.", |e| format!("{:.4}", e.largest_difference)),
    ("mean diff.", |e| format!("{:.4}", e.mean_difference)),
    ("precision", |e| format!("{:.3}", e.all.precision)),
    ("recall", |e| format!("{:.3}", e.all.recall)),
    ("F1", |e| format!("{:.3}", e.all.f1)),
];

const MEMORY: [(&str, Cell); 4] = [
    ("to the model", |e| {
        let lines = e.memory.unwrap_or_default().to_model();
        format!("{lines} ({:.2} %)", 100.0 * lines as f64 / e.all.lines.max(1) as f64)
    }),
    ("the same", |e| e.memory.map(|m| m.hits + m.joined).unwrap_or_default().to_string()),
    ("by template", |e| e.memory.unwrap_or_default().templates.to_string()),
    ("checks (differ)", |e| {
        let memory = e.memory.unwrap_or_default();
        format!("{} ({})", memory.checks, memory.checks_differ)
    }),
];

fn effects(comparison: &Comparison) -> String {
    let memory = comparison.effects.iter().any(|effect| effect.memory.is_some());
    let columns: Vec<(&str, Cell)> = MEMORY.into_iter().filter(|_| memory).chain(EFFECTS).collect();
    let mut rows = vec![vec![comparison.title.to_owned()]];
    rows[0].extend(columns.iter().map(|(head, _)| (*head).to_owned()));
    for effect in &comparison.effects {
        rows.push(std::iter::once(effect.name.clone()).chain(columns.iter().map(|(_, cell)| cell(effect))).collect());
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let lines = rows.iter().map(|row| {
        let cells = row.iter().enumerate().skip(1).map(|(at, cell)| format!("  {cell:>0$}", width(at)));
        format!("{:1$}{2}", row[0], width(0), cells.collect::<String>())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// In lines of at most 120 characters, as long as words allow.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 120 {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}
