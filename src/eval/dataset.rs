//! A table as examples: which column is the text, which the truth, and what its values mean.

use std::path::Path;

use super::tables::Table;
use crate::error::StartError;

/// Names under which the text is looked for, the first that a table has.
const TEXT: [&str; 9] = ["text", "log_message", "message", "log", "line", "content", "msg", "event", "body"];
/// Names under which the truth is looked for.
const LABEL: [&str; 9] = ["label", "is_anomaly", "anomaly", "anomalous", "class", "target", "truth", "verdict", "y"];
/// What an anomalous line's label says, unless the caller knows better. Compared without case.
const ANOMALOUS: [&str; 12] =
    ["1", "1.0", "true", "yes", "y", "anomaly", "anomalous", "abnormal", "odd", "bad", "positive", "attack"];
/// What a normal line's label says. The dash is LogHub's.
const NORMAL: [&str; 12] = ["0", "0.0", "false", "no", "n", "normal", "-", "ok", "calm", "good", "negative", "benign"];

/// One line whose truth is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The log line.
    pub text: String,
    /// Whether it is an anomaly in truth.
    pub anomalous: bool,
    /// Its group, if the data set has any.
    pub group: Option<String>,
}

/// What the caller says of the columns; what is not said is found by the usual names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The text's column.
    pub text: Option<String>,
    /// The truth's column.
    pub label: Option<String>,
    /// The column to report groups by.
    pub group: Option<String>,
    /// Labels that mean an anomaly; all others then mean a normal line.
    pub anomalous: Vec<String>,
}

/// The examples of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Dataset {
    /// In the file's order.
    pub examples: Vec<Example>,
    /// Rows left out because their text or label is blank.
    pub skipped: usize,
}

impl Dataset {
    /// Reads the examples of a CSV, TSV, JSON lines or Excel file.
    ///
    /// # Errors
    /// [`StartError`] says which column is missing, or which label is not understood and in which row.
    pub fn read(path: &Path, names: &Names) -> Result<Self, StartError> {
        let table = Table::read(path)?;
        Self::of(table, names).map_err(|reason| StartError::Config(format!("{}: {reason}", path.display())))
    }

    /// The lines, in the file's order.
    pub fn texts(&self) -> Vec<&str> {
        self.examples.iter().map(|example| example.text.as_str()).collect()
    }

    fn of(table: Table, names: &Names) -> Result<Self, String> {
        let text = column(&table, "text", "--text-column", names.text.as_deref(), &TEXT)?;
        let label = column(&table, "label", "--label-column", names.label.as_deref(), &LABEL)?;
        let group = match &names.group {
            Some(name) => Some(column(&table, "group", "--group-column", Some(name), &[])?),
            None => None,
        };
        let (mut examples, mut skipped) = (Vec::with_capacity(table.rows.len()), 0);
        for (number, mut row) in table.rows.into_iter().enumerate() {
            let mut take = |at: usize| row.get_mut(at).map(std::mem::take).unwrap_or_default();
            let (text, label, group) = (take(text), take(label), group.map(take));
            if text.trim().is_empty() || label.trim().is_empty() {
                skipped += 1;
                continue;
            }
            let anomalous = truth(label.trim(), &names.anomalous).ok_or_else(|| {
                format!(
                    "row {}: the label {label:?} is not understood; name those that mean an anomaly with --anomalous",
                    number + 1
                )
            })?;
            examples.push(Example { text, anomalous, group });
        }
        match examples.is_empty() {
            true => Err("there is no row with a text and a label".into()),
            false => Ok(Self { examples, skipped }),
        }
    }
}

/// Where the column is: under the name given, else under the first of the usual names.
fn column(table: &Table, what: &str, flag: &str, given: Option<&str>, usual: &[&str]) -> Result<usize, String> {
    let at = |name: &str| table.header.iter().position(|h| h.trim().eq_ignore_ascii_case(name));
    let found = match given {
        Some(name) => at(name),
        None => usual.iter().find_map(|name| at(name)),
    };
    found.ok_or_else(|| {
        let wanted = given.map_or_else(|| format!("none of {}", usual.join(", ")), |name| format!("no {name:?}"));
        let columns = table.header.join(", ");
        format!("{wanted} among the columns ({columns}); name the {what} column with {flag}")
    })
}

/// Whether `label` means an anomaly; `None` if that cannot be told.
fn truth(label: &str, anomalous: &[String]) -> Option<bool> {
    let is = |word: &str| word.eq_ignore_ascii_case(label);
    if !anomalous.is_empty() {
        return Some(anomalous.iter().any(|word| is(word.trim())));
    }
    match (ANOMALOUS.iter().any(|w| is(w)), NORMAL.iter().any(|w| is(w))) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(header: &[&str], rows: &[&[&str]]) -> Table {
        let own = |cells: &[&str]| cells.iter().map(ToString::to_string).collect();
        Table { header: own(header), rows: rows.iter().map(|row| own(row)).collect() }
    }

    #[test]
    fn columns_are_found_or_named_and_labels_understood() {
        let rows: &[&[&str]] = &[&["web", "a", "Anomaly"], &["db", "b", "normal"], &["db", " ", "1"], &["db", "c"]];
        let found = Dataset::of(table(&["source", "Message", "LABEL"], rows), &Names::default()).unwrap();
        assert_eq!(found.skipped, 2);
        assert!(found.examples[0].anomalous && !found.examples[1].anomalous && found.examples[0].group.is_none());
        let names = Names {
            text: Some("Message".into()),
            group: Some("source".into()),
            anomalous: vec!["NORMAL".into()],
            ..Names::default()
        };
        let found = Dataset::of(table(&["source", "Message", "LABEL"], rows), &names).unwrap();
        assert!(!found.examples[0].anomalous && found.examples[1].anomalous);
        assert_eq!(found.examples[1].group.as_deref(), Some("db"));
    }

    #[test]
    fn what_cannot_be_understood_is_told() {
        let told =
            |header: &[&str], rows: &[&[&str]], names: &Names| Dataset::of(table(header, rows), names).unwrap_err();
        let usual = Names::default();
        assert!(told(&["a", "label"], &[], &usual).contains("--text-column"));
        assert!(told(&["text", "b"], &[], &usual).contains("(text, b)"));
        let named = Names { group: Some("host".into()), ..Names::default() };
        assert!(told(&["text", "label"], &[], &named).contains("no \"host\""));
        let label = told(&["text", "label"], &[&["x", "0"], &["x", "weird"]], &usual);
        assert!(label.contains("row 2") && label.contains("weird") && label.contains("--anomalous"), "{label}");
        assert!(told(&["text", "label"], &[&["", "0"]], &usual).contains("no row"));
    }
}
