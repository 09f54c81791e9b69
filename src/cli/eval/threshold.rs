//! Puts a threshold into the user's configuration file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use toml_edit::Value;

use crate::{
    cli::config_file::{Setting, changed, failed, not_hidden, replace},
    config::Config,
    error::StartError,
};

/// First words of the comment that tells where a threshold came from.
const MARK: &str = "# oddlog eval: ";

/// The key of a configuration file that is written.
pub struct Place {
    path: PathBuf,
    source: Option<String>,
}

/// A source's name as a flag gives it.
pub fn source(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("it must not be blank".into()),
        false => Ok(text.to_owned()),
    }
}

impl Place {
    /// The threshold of all requests, or of those from `source`, in the file at `path`.
    ///
    /// # Errors
    /// [`StartError`] if the file is not there, or the environment would hide the key.
    pub fn within(path: &Path, source: Option<&str>) -> Result<Self, StartError> {
        not_hidden(&["ODDLOG_SCORING__THRESHOLD", "ODDLOG_SCORING__THRESHOLDS"], "eval")?;
        // Through links, so that the file itself is replaced.
        let path = fs::canonicalize(path).map_err(failed("finding", path))?;
        Ok(Self { path, source: source.map(str::to_owned) })
    }

    /// Writes `threshold`: at once or not at all.
    ///
    /// # Errors
    /// [`StartError`] if the file cannot be written or would not mean what it should; then it is as it was.
    pub fn write(&self, threshold: f32) -> Result<(), StartError> {
        let old = fs::read_to_string(&self.path).map_err(failed("reading", &self.path))?;
        let mut tables = vec!["scoring".to_owned()];
        let key = match &self.source {
            None => "threshold".to_owned(),
            Some(source) => {
                tables.push("thresholds".to_owned());
                source.clone()
            }
        };
        // As short as it can be written: 0.7 and not 0.699999988.
        let value: f64 = threshold.to_string().parse().expect("what f32 prints is a number");
        let setting = Setting { tables, key, value: Value::from(value) };
        let text = changed(&old, vec![setting], MARK)
            .map_err(|reason| StartError::Config(format!("{}: {reason}", self.path.display())))?;
        let within = |config: &Config| {
            let mut config = config.clone();
            match &self.source {
                None => config.scoring.threshold = threshold,
                Some(source) => drop(config.scoring.thresholds.insert(source.clone(), threshold)),
            }
            config
        };
        replace(&self.path, &text, true, &within)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.source.as_ref().map_or("scoring.threshold".to_owned(), |s| format!("scoring.thresholds.{s}"));
        write!(f, "the best threshold is in {} as {key}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, source: Option<&str>, threshold: f32) -> (String, Config) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.toml");
        fs::write(&path, text).unwrap();
        Place::within(&path, source).unwrap().write(threshold).unwrap();
        let config = Config::load(Some(&path), serde_json::json!({})).unwrap();
        (fs::read_to_string(&path).unwrap(), config)
    }

    #[test]
    fn a_threshold_changes_its_key_alone() {
        let shipped = include_str!("../../../config.toml");
        let (text, config) = written(shipped, None, 0.7);
        assert_eq!(config.scoring.threshold, 0.7);
        let changed: Vec<&str> = text.lines().zip(shipped.lines()).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        assert!(matches!(changed[..], [line] if line.starts_with("threshold = 0.7 ")), "{changed:?}");
    }

    #[test]
    fn a_source_has_its_own() {
        for text in ["", "[scoring]\nthresholds = { web = 0.4 }\n", "[scoring.thresholds]\n\"my app\" = 0.1\n"] {
            let (text, config) = written(text, Some("my app"), 0.25);
            assert_eq!(config.scoring.thresholds["my app"], 0.25, "{text}");
            assert_eq!(config.scoring.threshold, 0.5);
        }
    }
}
