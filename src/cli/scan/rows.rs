//! Rows as JSON lines, CSV or text, written to standard output.

use std::io::{self, Write};

use serde::Serialize;

use super::args::Format;

/// One record. The fields' order is that of CSV's columns.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    /// Name of the input.
    pub source: &'a str,
    /// Number of the record's first line.
    pub line: u64,
    /// Lines of the record.
    pub lines: u32,
    /// How often the message came; for `--top` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Score of the anomaly label.
    pub score: f32,
    /// The label of the verdict.
    pub label: &'a str,
    /// The score of that label.
    pub confidence: f32,
    pub is_anomaly: bool,
    pub threshold: f32,
    /// The record as it stands in the input.
    pub text: &'a str,
    /// What the model read.
    pub message: &'a str,
}

/// Writes serialisable rows as JSON lines or as CSV with a header.
pub struct Rows {
    format: Format,
    header: bool,
}

impl Rows {
    pub fn new(format: Format) -> Self {
        Self { format, header: true }
    }

    /// Writes one row.
    pub fn write(&mut self, out: &mut impl Write, row: &impl Serialize) -> io::Result<()> {
        if self.format == Format::Json {
            serde_json::to_writer(&mut *out, row)?;
            return out.write_all(b"\n");
        }
        let header = std::mem::take(&mut self.header);
        let mut writer = csv::WriterBuilder::new().has_headers(header).from_writer(out);
        // A pipe that was closed must stay one, so that the caller knows it.
        writer.serialize(row).map_err(|e| match e.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })?;
        writer.flush()
    }
}
