//! The figures as text and as JSON.

use serde_json::{Map, Value, json};

use crate::{
    eval::{Subject, Summary},
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
        let report = json!({
            "dataset": self.dataset, "skipped_rows": self.skipped, "subjects": subjects, "beside": self.agreement,
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
