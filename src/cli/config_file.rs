//! Changes keys in a configuration file and keeps all else in it to the letter.
//!
//! The file is written beside its place, read back with the program's own configuration reader, and only then renamed.

use std::{fs, io, io::Write, path::Path};

use toml_edit::{DocumentMut, Item, TableLike, Value};

use crate::{config::Config, error::StartError};

/// A key, the tables that it stands in from the outermost, and what it shall be.
pub struct Setting {
    /// For `scoring.thresholds.web`: scoring, thresholds.
    pub tables: Vec<String>,
    /// For `scoring.thresholds.web`: web.
    pub key: String,
    /// Its new value.
    pub value: Value,
}

/// The text of a configuration with the keys changed or added, all else kept as it is, and without the comments at its
/// end that begin with `mark`.
///
/// # Errors
/// A text that says what keeps it from being changed.
pub fn changed(text: &str, settings: Vec<Setting>, mark: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e| format!("it cannot be read: {e}"))?;
    for Setting { tables, key, mut value } in settings {
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for name in tables {
            let section = table.entry(&name).or_insert_with(toml_edit::table);
            table = section.as_table_like_mut().ok_or_else(|| format!("{name} is no section"))?;
        }
        match table.get_mut(&key) {
            Some(Item::Value(old)) => {
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            _ => drop(table.insert(&key, Item::Value(value))),
        }
    }
    let trailing = document.trailing().as_str().unwrap_or_default();
    let kept: String = trailing.split_inclusive('\n').filter(|line| !line.starts_with(mark)).collect();
    document.set_trailing(kept);
    let mut text = document.to_string();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Puts `text` into the file at `path`, at once or not at all. If the file is the user's own (`keep`), the configuration
/// that it then gives must be what `within` makes of the one that it gives now.
///
/// # Errors
/// [`StartError`] if the file cannot be written or would not mean what it should; then it is as it was.
pub fn replace(path: &Path, text: &str, keep: bool, within: &dyn Fn(&Config) -> Config) -> Result<(), StartError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = replace_by(&temporary, path, text, keep, within);
    if result.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn replace_by(
    temporary: &Path,
    path: &Path,
    text: &str,
    keep: bool,
    within: &dyn Fn(&Config) -> Config,
) -> Result<(), StartError> {
    let mut file = fs::File::create(temporary).map_err(failed("writing", temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("writing", temporary))?;
    let load = |path| Config::load(Some(path), serde_json::json!({}));
    let after = load(temporary)?;
    let before = if keep { load(path)? } else { after.clone() };
    if after != within(&before) {
        return Err(StartError::Config(format!("{} could not be changed safely; change it by hand", path.display())));
    }
    if keep {
        let old = fs::metadata(path).map_err(failed("reading", path))?;
        fs::set_permissions(temporary, old.permissions()).map_err(failed("writing", temporary))?;
    }
    fs::rename(temporary, path).map_err(failed("writing", path))
}

/// # Errors
/// [`StartError::Config`] if one of these environment variables would hide what `command` writes.
pub fn not_hidden(variables: &[&str], command: &str) -> Result<(), StartError> {
    match variables.iter().find(|name| std::env::var_os(name).is_some()) {
        Some(name) => Err(StartError::Config(format!("{name} is set and would hide what {command} writes; unset it"))),
        None => Ok(()),
    }
}

/// The error of a file operation.
pub fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let what = format!("{doing} {}", path.display());
    move |source| StartError::Io { what, source }
}
