//! Puts the tuned keys into a configuration file: a new one, or the user's own with all else in it kept.
//!
//! The file is written beside its place, read back with the program's own configuration reader, and only then renamed.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use toml_edit::{Array, DocumentMut, Item, Value};

use crate::{
    cli::load::cores,
    config::{Config, Devices},
    error::StartError,
    tuning::Candidate,
};

/// First words of every comment that tune writes, by which it knows its own.
const MARK: &str = "# oddlog tune: ";

/// Environment variables that would hide what is written.
const HIDING: [&str; 4] = [
    "ODDLOG_DEVICES__DEVICES",
    "ODDLOG_DEVICES__INTRA_OP_THREADS",
    "ODDLOG_BATCHING__MAX_BATCH_TOKENS",
    "ODDLOG_BATCHING__MAX_QUEUE_DELAY_US",
];

/// The tuned keys as they stand in a file.
pub struct Settings {
    devices: Vec<String>,
    candidate: Candidate,
}

impl Settings {
    /// `candidate` on devices of one `kind`: named as `present` names them if they are as many as there, else as `auto`
    /// where it means the same, so that the file suits a machine with other cores, too.
    pub fn new(candidate: Candidate, kind: &str, present: &Devices) -> Self {
        let (cores, threads, instances) = (cores(), candidate.intra_op_threads, candidate.instances);
        let devices = if present.intra_op_threads == threads && present.workers(cores).len() == instances {
            present.devices.clone()
        } else if kind == "cpu" && instances == (cores / threads).max(1) {
            vec!["auto".to_owned()]
        } else {
            vec![kind.to_owned(); instances]
        };
        Self { devices, candidate }
    }

    /// `config` with these settings and all else as it is.
    fn within(&self, config: &Config) -> Config {
        let mut config = self.candidate.apply(config, "");
        config.devices.devices.clone_from(&self.devices);
        config
    }

    /// Section, key and value of each.
    fn values(&self) -> Result<[(&'static str, &'static str, Value); 4], String> {
        let whole = |n: u64| i64::try_from(n).map(Value::from).map_err(|_| format!("{n} is too large"));
        let Candidate { intra_op_threads, max_batch_tokens, max_queue_delay_us, .. } = self.candidate;
        Ok([
            ("devices", "devices", Value::Array(Array::from_iter(&self.devices))),
            ("devices", "intra_op_threads", whole(intra_op_threads as u64)?),
            ("batching", "max_batch_tokens", whole(max_batch_tokens as u64)?),
            ("batching", "max_queue_delay_us", whole(max_queue_delay_us)?),
        ])
    }
}

/// Where the result goes.
pub struct Target {
    path: PathBuf,
    /// Whether the file is the user's own, of which only the tuned keys may change.
    keep: bool,
}

impl Target {
    /// A file of its own. One that is there must be from `tune` itself, unless `force`.
    ///
    /// # Errors
    /// [`StartError`] if it is someone else's, or would be hidden by the environment.
    pub fn separate(path: PathBuf, force: bool) -> Result<Self, StartError> {
        not_hidden()?;
        match fs::read(&path) {
            Ok(bytes) if !force && !bytes.starts_with(MARK.as_bytes()) => Err(StartError::Config(format!(
                "{} is there already and not from tune; --force overwrites it, --out names another",
                path.display()
            ))),
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("reading", &path)(source)),
            _ => Ok(Self { path, keep: false }),
        }
    }

    /// The user's own configuration file.
    ///
    /// # Errors
    /// [`StartError`] if it is not there, or would be hidden by the environment.
    pub fn within(path: &Path) -> Result<Self, StartError> {
        not_hidden()?;
        // Through links, so that the file itself is replaced.
        Ok(Self { path: fs::canonicalize(path).map_err(failed("finding", path))?, keep: true })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `settings` with a comment, given line by line: at once or not at all.
    ///
    /// # Errors
    /// [`StartError`] if the file cannot be written or would not mean what it should; then it is as it was.
    pub fn write(&self, settings: &Settings, comment: &[String]) -> Result<(), StartError> {
        let comment: String = comment.iter().map(|line| format!("{MARK}{line}\n")).collect();
        let text = if self.keep {
            let old = fs::read_to_string(&self.path).map_err(failed("reading", &self.path))?;
            changed(&old, settings).map(|text| text + &comment)
        } else {
            changed("", settings).map(|text| comment + "\n" + &text)
        };
        let text = text.map_err(|reason| StartError::Config(format!("{}: {reason}", self.path.display())))?;
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let result = self.replace(&temporary, &text, settings);
        if result.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn replace(&self, temporary: &Path, text: &str, settings: &Settings) -> Result<(), StartError> {
        let mut file = fs::File::create(temporary).map_err(failed("writing", temporary))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("writing", temporary))?;
        let load = |path| Config::load(Some(path), serde_json::json!({}));
        let after = load(temporary)?;
        let before = if self.keep { load(&self.path)? } else { after.clone() };
        if after != settings.within(&before) {
            return Err(StartError::Config(format!("{} could not be changed safely; use --out", self.path.display())));
        }
        if self.keep {
            let old = fs::metadata(&self.path).map_err(failed("reading", &self.path))?;
            fs::set_permissions(temporary, old.permissions()).map_err(failed("writing", temporary))?;
        }
        fs::rename(temporary, &self.path).map_err(failed("writing", &self.path))
    }
}

/// The text of a configuration with the tuned keys changed or added, all else kept as it is, and without the comments
/// that `tune` wrote at its end before.
fn changed(text: &str, settings: &Settings) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e| format!("it cannot be read: {e}"))?;
    for (section, key, mut value) in settings.values()? {
        let item = document.entry(section).or_insert_with(toml_edit::table);
        let table = item.as_table_like_mut().ok_or_else(|| format!("{section} is no section"))?;
        match table.get_mut(key) {
            Some(Item::Value(old)) => {
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            _ => drop(table.insert(key, Item::Value(value))),
        }
    }
    let trailing = document.trailing().as_str().unwrap_or_default();
    let kept: String = trailing.split_inclusive('\n').filter(|line| !line.starts_with(MARK)).collect();
    document.set_trailing(kept);
    let mut text = document.to_string();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn not_hidden() -> Result<(), StartError> {
    match HIDING.into_iter().find(|name| std::env::var_os(name).is_some()) {
        Some(name) => Err(StartError::Config(format!("{name} is set and would hide what tune writes; unset it"))),
        None => Ok(()),
    }
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let what = format!("{doing} {}", path.display());
    move |source| StartError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let candidate =
            Candidate { instances: 3, intra_op_threads: 2, max_batch_tokens: 1024, max_queue_delay_us: 2000 };
        Settings { devices: vec!["cpu".into(); 3], candidate }
    }

    /// Changes a file that holds `text`, twice; returns what it holds then.
    fn written(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.toml");
        fs::write(&path, text).unwrap();
        let target = Target::within(&path).unwrap();
        let before = Config::load(Some(&path), serde_json::json!({})).unwrap();
        target.write(&settings(), &["the first time".into(), "on two lines".into()]).unwrap();
        target.write(&settings(), &["again".into()]).unwrap();
        let after = Config::load(Some(&path), serde_json::json!({})).unwrap();
        assert_eq!(after, settings().within(&before));
        assert_ne!(after, before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn all_else_in_the_file_stays_to_the_letter() {
        let shipped = include_str!("../../../config.toml");
        let got = written(shipped);
        let changed: Vec<(&str, &str)> = shipped.lines().zip(got.lines()).filter(|(a, b)| a != b).collect();
        let keys: Vec<&str> = changed.iter().map(|(a, _)| a.split(" =").next().unwrap()).collect();
        assert_eq!(keys, ["max_batch_tokens", "max_queue_delay_us", "devices", "intra_op_threads"]);
        for (old, new) in changed {
            assert_eq!(old.split_once(" #").unwrap().1, new.split_once(" #").unwrap().1);
        }
        assert_eq!(&got[got.len() - 22..], "\n# oddlog tune: again\n");
        assert_eq!(got.lines().count(), shipped.lines().count() + 1);
    }

    #[test]
    fn every_way_to_write_a_section_is_understood() {
        for (text, kept) in [
            ("", ""),
            ("# mine\n", "# mine"),
            ("[batching]\nmax_batch_rows = 8 # no newline", "max_batch_rows = 8 # no newline\n"),
            ("batching = { max_batch_rows = 8, max_batch_tokens = 7 }\n", "max_batch_rows = 8"),
            ("batching.max_batch_tokens = 7 # why\nmodel.max_length = 9\n", "batching.max_batch_tokens = 1024 # why\n"),
            ("devices.devices = [\n  'cpu', # one\n]\n# the end\n", "# the end\n"),
        ] {
            let got = written(text);
            assert!(got.contains(kept), "{text:?} became {got:?}");
            assert_eq!(got.matches(MARK).count(), 1, "{got:?}");
        }
    }

    #[test]
    fn devices_keep_their_names_where_they_stay() {
        let named = |present: &[&str], instances, intra_op_threads| {
            let present = Devices { devices: present.iter().map(|d| (*d).to_owned()).collect(), ..Devices::default() };
            let candidate = Candidate { instances, intra_op_threads, ..settings().candidate };
            Settings::new(candidate, "cpu", &present).devices
        };
        let cores = cores();
        assert_eq!(named(&["auto"], cores, 1), ["auto"]);
        assert_eq!(named(&vec!["cpu"; cores], cores, 1), vec!["cpu"; cores]);
        assert_eq!(named(&vec!["cpu"; cores + 1], cores, 1), ["auto"]);
        assert_eq!(named(&["auto"], 1, cores + 1), ["auto"]);
        assert_eq!(named(&["auto"], cores + 1, 1), vec!["cpu"; cores + 1]);
    }

    #[test]
    fn a_file_of_its_own_has_the_keys_alone_and_no_other_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.toml");
        for round in 0..2 {
            Target::separate(path.clone(), false).unwrap().write(&settings(), &[format!("round {round}")]).unwrap();
        }
        let expected = "# oddlog tune: round 1\n\n[devices]\ndevices = [\"cpu\", \"cpu\", \"cpu\"]\nintra_op_threads = 2\n\n\
                        [batching]\nmax_batch_tokens = 1024\nmax_queue_delay_us = 2000\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        fs::write(&path, "[log]\n").unwrap();
        assert!(Target::separate(path.clone(), false).err().unwrap().to_string().contains("--force"));
        Target::separate(path.clone(), true).unwrap().write(&settings(), &[]).unwrap();
        assert!(Config::load(Some(&path), serde_json::json!({})).is_ok());
    }

    #[test]
    fn what_cannot_be_written_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.toml");
        // A section that is none, a key that is none, and a value that only the result's check can see.
        for text in ["devices = 1\n", "[batching\n", "[batching]\nmax_queue_tokens = 5\n"] {
            fs::write(&path, text).unwrap();
            assert!(Target::within(&path).unwrap().write(&settings(), &[]).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        assert!(Target::within(&dir.path().join("none.toml")).is_err());
    }
}
