//! Configuration: plain data with defaults, one section for each part.
//!
//! Layers, the later wins: built-in defaults, the file, `ODDLOG_SECTION__KEY` variables, command-line flags.
//! `config.toml` at the top of the repository repeats every key with its default; a test holds the two equal.

mod batching;
mod cache;
mod devices;
mod log;
mod model;
mod scoring;
mod server;
mod telemetry;

use std::{fmt, path::Path};

use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

pub use batching::Batching;
pub use cache::{Cache, CacheMode};
pub use devices::Devices;
pub use log::{AccessLog, Log, LogFormat};
pub use model::{Model, ModelPrecision};
pub use scoring::{Scoring, ThresholdRule};
pub use server::{Secrets, Server};
pub use telemetry::{Headers, Telemetry};

use crate::error::StartError;

/// Everything an operator can set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP front end.
    pub server: Server,
    /// Which model is served.
    pub model: Model,
    /// What a score means.
    pub scoring: Scoring,
    /// How requests become batches, and how many may wait.
    pub batching: Batching,
    /// What is remembered of earlier logs.
    pub cache: Cache,
    /// What runs the model.
    pub devices: Devices,
    /// oddlog's own log.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads the layers in order: defaults, `file`, the environment, `flags`.
    ///
    /// # Errors
    /// [`StartError::Config`] for an unreadable file, an unknown key (naming the nearest known one), a value of the
    /// wrong type or out of range.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, StartError> {
        let mut layers = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(StartError::Config(format!("there is no file {}", path.display())));
            }
            layers = layers.merge(Toml::file(path).search(false));
        }
        let config: Self = layers
            .merge(Env::prefixed("ODDLOG_").split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|e| StartError::Config(explain(&e)))?;
        config.check().map_err(StartError::Config)?;
        Ok(config)
    }

    /// Whether all values can be used together.
    ///
    /// # Errors
    /// A text that names the first key that cannot.
    pub fn check(&self) -> Result<(), String> {
        self.server.check()?;
        self.model.check()?;
        self.scoring.check()?;
        let labels = self.scoring.max_labels.max(self.scoring.labels.len());
        self.batching.check(labels * self.model.max_length.next_multiple_of(16))?;
        self.cache.check()?;
        self.devices.check()?;
        self.telemetry.check()
    }
}

fn at_least_one(keys: &[(&str, usize)]) -> Result<(), String> {
    match keys.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(format!("{key} must be at least 1")),
        None => Ok(()),
    }
}

fn share(key: &str, value: impl Into<f64> + fmt::Display + Copy) -> Result<(), String> {
    match (0.0..=1.0).contains(&value.into()) {
        true => Ok(()),
        false => Err(format!("{key} must be from 0 to 1, not {value}")),
    }
}

/// One line an error, with the key and where it came from.
fn explain(error: &figment::Error) -> String {
    let mut lines = Vec::new();
    for e in error.clone() {
        let mut line = e.to_string();
        if let Kind::UnknownField(name, known) = &e.kind
            && let Some(near) = nearest(name, known)
        {
            line.push_str(&format!(" - did you mean `{near}`?"));
        }
        lines.push(line);
    }
    lines.join("; ")
}

fn nearest<'a>(name: &str, known: &'a [&'static str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), *k))
        .min()
        .filter(|(distance, k)| *distance <= k.len().max(name.len()) / 2)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, StartError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), serde_json::json!({}))
    }

    #[test]
    fn the_shipped_file_equals_the_defaults_and_names_every_key() {
        let text = include_str!("../../config.toml");
        assert_eq!(load(text).unwrap(), Config::default());
        let file: figment::value::Dict = Figment::from(Toml::string(text)).extract().unwrap();
        let code: figment::value::Dict = Figment::from(Serialized::defaults(Config::default())).extract().unwrap();
        for (section, keys) in &code {
            let in_file = file[section].as_dict().unwrap();
            for key in keys.as_dict().unwrap().keys() {
                assert!(in_file.contains_key(key), "config.toml lacks {section}.{key}");
            }
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = load("[batching]\nmax_batch_token = 5\n").unwrap_err().to_string();
        assert!(error.contains("max_batch_token`") && error.contains("did you mean `max_batch_tokens`?"), "{error}");
        let error = load("[batchin]\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `batching`?"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (text, key) in [
            ("[scoring]\nthreshold = 1.5\n", "scoring.threshold"),
            ("[batching]\nmax_batch_rows = 1\n", "batching.max_batch_rows"),
            ("[batching]\nmax_bulk_tokens = 100\n", "batching.max_bulk_tokens"),
            ("[devices]\ndevices = []\n", "devices.devices"),
            ("[cache]\nmax_bytes = 1000\n", "cache.max_bytes"),
            ("[cache]\nttl_s = 0\n", "cache.ttl_s"),
            ("[devices]\nrun_timeout_ms = 0\n", "devices.run_timeout_ms"),
            ("[devices]\nready_timeout_ms = 86400001\n", "devices.ready_timeout_ms"),
            ("[devices]\nmax_rebuild_backoff_ms = 1\n", "devices.max_rebuild_backoff_ms"),
            ("[server]\nlisten = \"nowhere\"\n", "server.listen"),
            ("[server]\nidle_timeout_ms = 0\n", "server.idle_timeout_ms"),
            ("[server]\nprivate_listen = \"nowhere\"\n", "server.private_listen"),
            ("[server]\ntls_key_file = \"key.pem\"\n", "server.tls_certificate_file"),
            ("[server]\nkey_max_in_flight = 3\n", "server.key_max_in_flight"),
            ("[telemetry]\nsample_ratio = 1.5\n", "telemetry.sample_ratio"),
            ("[telemetry]\nmax_queued_spans = 0\n", "telemetry.max_queued_spans"),
            ("[telemetry]\nexport_interval_ms = 0\n", "telemetry.export_interval_ms"),
            ("[telemetry]\nservice_name = \" \"\n", "telemetry.service_name"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(Config::load(Some(Path::new("/no/such.toml")), serde_json::json!({})).is_err());
    }
}
