//! Files of named columns: CSV, TSV, JSON lines, and the first sheet of an Excel workbook.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use calamine::{Data, Reader, Xlsx, XlsxError};
use serde_json::{Map, Value};

use crate::error::StartError;

/// Most rows that are read; every one stays in memory.
const MOST_ROWS: usize = 5_000_000;

/// Rows of text cells under named columns. A row may be shorter than the header.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// The columns' names.
    pub header: Vec<String>,
    /// The rows, in the file's order.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads `path`, whose ending says what it is.
    ///
    /// # Errors
    /// [`StartError::Io`] if it cannot be read; [`StartError::Config`] for another ending, or naming the row that is not
    /// well-formed.
    pub fn read(path: &Path) -> Result<Self, StartError> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let open = || {
            File::open(path).map_err(|source| StartError::Io { what: format!("opening {}", path.display()), source })
        };
        let table = match ending.as_deref() {
            Some("csv") => separated(open()?, b','),
            Some("tsv" | "tab") => separated(open()?, b'\t'),
            Some("jsonl" | "ndjson") => json_lines(open()?),
            Some("xlsx") => workbook(open()?),
            _ => Err("its name must end in .csv, .tsv, .jsonl or .xlsx".into()),
        };
        table.map_err(|reason| StartError::Config(format!("{}: {reason}", path.display())))
    }
}

fn too_many(rows: usize) -> Result<(), String> {
    match rows < MOST_ROWS {
        true => Ok(()),
        false => Err(format!("more than {MOST_ROWS} rows; evaluate on a sample")),
    }
}

fn separated(file: File, delimiter: u8) -> Result<Table, String> {
    // A quote begins a quoted cell in CSV. Log lines in TSV hold quotes that mean nothing.
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).quoting(delimiter == b',').flexible(true).from_reader(file);
    let text = |record: csv::ByteRecord| record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
    let mut header: Vec<String> = text(reader.byte_headers().map_err(|e| e.to_string())?.clone());
    if let Some(first) = header.first_mut() {
        *first = first.trim_start_matches('\u{feff}').to_owned();
    }
    let mut rows = Vec::new();
    for record in reader.into_byte_records() {
        too_many(rows.len())?;
        rows.push(text(record.map_err(|e| e.to_string())?));
    }
    Ok(Table { header, rows })
}

/// Columns are the keys of the first object, then what later ones add.
fn json_lines(file: File) -> Result<Table, String> {
    let (mut header, mut rows): (Vec<String>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|e| format!("line {}: {e}", number + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        too_many(rows.len())?;
        let object: Map<String, Value> =
            serde_json::from_str(&line).map_err(|e| format!("line {} is not a JSON object: {e}", number + 1))?;
        let mut row = vec![String::new(); header.len()];
        for (key, value) in object {
            let cell = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            };
            match header.iter().position(|name| *name == key) {
                Some(at) => row[at] = cell,
                None => {
                    header.push(key);
                    row.push(cell);
                }
            }
        }
        rows.push(row);
    }
    Ok(Table { header, rows })
}

fn workbook(file: File) -> Result<Table, String> {
    let mut book: Xlsx<_> = Xlsx::new(BufReader::new(file)).map_err(|e: XlsxError| e.to_string())?;
    let sheet = book.worksheet_range_at(0).ok_or("the workbook has no sheet")?.map_err(|e| e.to_string())?;
    let text = |row: &[Data]| row.iter().map(ToString::to_string).collect();
    let mut rows = sheet.rows();
    let header = rows.next().map(text).ok_or("its first sheet is empty")?;
    too_many(sheet.height())?;
    Ok(Table { header, rows: rows.map(text).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Table, StartError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        Table::read(&dir.path().join(name))
    }

    fn table(header: [&str; 2], rows: &[&[&str]]) -> Table {
        let own = |cells: &[&str]| cells.iter().map(ToString::to_string).collect();
        Table { header: own(&header), rows: rows.iter().map(|row| own(row)).collect() }
    }

    #[test]
    fn every_format_gives_the_same_table() {
        let csv = read("a.csv", b"\xef\xbb\xbftext,label\r\n\"disk, \"\"sda\"\" gone\",1\nok,0\n").unwrap();
        assert_eq!(csv, table(["text", "label"], &[&["disk, \"sda\" gone", "1"], &["ok", "0"]]));
        let tsv = read("a.TSV", b"text\tlabel\ndisk, \"sda\" gone\t1\nok\t0\n").unwrap();
        assert_eq!(tsv, csv);
        // The keys of an object come sorted.
        let json = b"{\"text\":\"disk, \\\"sda\\\" gone\",\"label\":1}\n\n{\"label\":0,\"text\":\"ok\"}\n";
        assert_eq!(
            read("a.jsonl", json).unwrap(),
            table(["label", "text"], &[&["1", "disk, \"sda\" gone"], &["0", "ok"]])
        );
    }

    #[test]
    fn json_lines_may_differ_in_their_keys() {
        let found = read("a.ndjson", b"{\"text\":\"a\"}\n{\"label\":true,\"text\":null}\n").unwrap();
        assert_eq!(found, table(["text", "label"], &[&["a"], &["", "true"]]));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_files_name() {
        for (name, bytes, told) in [
            ("a.jsonl", &b"{}\nno\n"[..], "line 2"),
            ("a.log", b"x", ".csv, .tsv, .jsonl or .xlsx"),
            ("a.xlsx", b"no zip", "a.xlsx"),
        ] {
            let error = read(name, bytes).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains(name), "{error}");
        }
        assert!(matches!(Table::read(Path::new("/no/such.csv")), Err(StartError::Io { .. })));
    }
}
