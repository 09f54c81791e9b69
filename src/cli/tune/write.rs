//! Puts the tuned keys into a configuration file: a new one, or the user's own with all else in it kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml_edit::{Array, Value};

use crate::{
    cli::{
        config_file::{Setting, changed, failed, not_hidden, replace},
        load::cores,
    },
    config::{Config, Devices},
    error::StartError,
    tuning::{Candidate, Sites},
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
    /// `candidate` on `sites`: named as `present` names them if there are as many workers as `current` has, else as `auto`
    /// where it means the same, so that the file suits a machine with other cores, too.
    pub fn new(candidate: Candidate, sites: &Sites, current: &Candidate, present: &Devices) -> Self {
        let (threads, instances) = (candidate.intra_op_threads, candidate.instances);
        let devices = if current.intra_op_threads == threads && current.instances == instances {
            present.devices.clone()
        } else if sites.are_cpu() && instances == (cores() / threads).max(1) {
            vec!["auto".to_owned()]
        } else {
            sites.entries(instances)
        };
        Self { devices, candidate }
    }

    /// `config` with these settings and all else as it is.
    fn within(&self, config: &Config) -> Config {
        self.candidate.apply(config, self.devices.clone())
    }

    fn keys(&self) -> Result<Vec<Setting>, String> {
        let whole = |n: u64| i64::try_from(n).map(Value::from).map_err(|_| format!("{n} is too large"));
        let Candidate { intra_op_threads, max_batch_tokens, max_queue_delay_us, .. } = self.candidate;
        let key = |table: &str, key: &str, value| Setting { tables: vec![table.into()], key: key.into(), value };
        Ok(vec![
            key("devices", "devices", Value::Array(Array::from_iter(&self.devices))),
            key("devices", "intra_op_threads", whole(intra_op_threads as u64)?),
            key("batching", "max_batch_tokens", whole(max_batch_tokens as u64)?),
            key("batching", "max_queue_delay_us", whole(max_queue_delay_us)?),
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
        not_hidden(&HIDING, "tune")?;
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
        not_hidden(&HIDING, "tune")?;
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
        let refused = |reason| StartError::Config(format!("{}: {reason}", self.path.display()));
        let keys = settings.keys().map_err(refused)?;
        let text = if self.keep {
            let old = fs::read_to_string(&self.path).map_err(failed("reading", &self.path))?;
            changed(&old, keys, MARK).map(|text| text + &comment)
        } else {
            changed("", keys, MARK).map(|text| comment + "\n" + &text)
        };
        replace(&self.path, &text.map_err(refused)?, self.keep, &|config| settings.within(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Place;

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
        let named = |sites: &[Place], present: (&[&str], usize), instances, intra_op_threads| {
            let texts = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
            let candidate = Candidate { instances, intra_op_threads, ..settings().candidate };
            let current = Candidate { instances: present.1, intra_op_threads: 1, ..candidate };
            let present = Devices { devices: texts(present.0), ..Devices::default() };
            Settings::new(candidate, &Sites::of(sites).unwrap().0, &current, &present).devices
        };
        let cores = cores();
        let many = |count| vec!["cpu"; count];
        assert_eq!(named(&[Place::Cpu], (&["auto"], cores), cores, 1), ["auto"]);
        assert_eq!(named(&[Place::Cpu], (&many(cores), cores), cores, 1), many(cores));
        assert_eq!(named(&[Place::Cpu], (&many(cores + 1), cores + 1), cores, 1), ["auto"]);
        assert_eq!(named(&[Place::Cpu], (&["auto"], cores), 1, cores + 1), ["auto"]);
        assert_eq!(named(&[Place::Cpu], (&["auto"], cores), cores + 1, 1), many(cores + 1));
        let gpus = [Place::Cuda(0), Place::Cuda(1)];
        assert_eq!(named(&gpus, (&["auto"], 1), 1, 1), ["auto"]);
        assert_eq!(named(&gpus, (&["cuda"], 1), 2, 1), ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]);
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
