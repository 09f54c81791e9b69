//! Configuration: plain data with defaults, one section for each part.
//!
//! Layers, the later wins: built-in defaults, the file, `ODDLOG_SECTION__KEY` variables, command-line flags.
//! `config.toml` at the top of the repository repeats every key with its default; a test holds the two equal.

use std::{fmt, net::SocketAddr, path::Path};

use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

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
    /// What runs the model.
    pub devices: Devices,
    /// oddlog's own log.
    pub log: Log,
}

/// `[server]`: the HTTP front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Threads of the HTTP front end; 0 takes one a core.
    pub http_threads: usize,
    /// Open connections; a further one waits in the kernel's backlog.
    pub max_connections: usize,
    /// Largest request body in bytes; beyond it 413.
    pub max_body_bytes: usize,
    /// Bytes of large request bodies (over 64 KiB) in memory at once; further ones wait.
    pub max_buffered_bytes: usize,
    /// Most logs in one batch call.
    pub max_batch_logs: usize,
    /// Time for a request's header, and idle time of a kept-alive connection, in ms.
    pub header_timeout_ms: u64,
    /// Time for a request's body, in ms; beyond it 408.
    pub body_timeout_ms: u64,
    /// Time for running requests after SIGTERM or SIGINT, in ms.
    pub shutdown_timeout_ms: u64,
    /// Allowed CORS origins; `["*"]` allows any, `[]` turns CORS off.
    pub cors_allow_origins: Vec<String>,
    /// File with bearer keys, one a line; empty turns authentication off.
    pub api_keys_file: String,
    /// Further bearer keys, for the environment.
    pub api_keys: Secrets,
}

/// Texts that are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{} hidden]", self.0.len())
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            http_threads: 0,
            max_connections: 4096,
            max_body_bytes: 4 << 20,
            max_buffered_bytes: 256 << 20,
            max_batch_logs: 1024,
            header_timeout_ms: 30_000,
            body_timeout_ms: 30_000,
            shutdown_timeout_ms: 30_000,
            cors_allow_origins: vec!["*".into()],
            api_keys_file: String::new(),
            api_keys: Secrets::default(),
        }
    }
}

/// `[model]`: which model is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A model directory, or a hub repository `owner/name[@revision]`.
    pub source: String,
    /// Longest pair in tokens; longer logs are cut. At most what the model was made for.
    pub max_length: usize,
    /// Arithmetic of a model that comes as weights and is compiled here.
    pub precision: ModelPrecision,
    /// Share of verdicts, 0 to 1, that 8 bits must have in common with single precision to be served.
    pub least_agreement: f64,
    /// Folder of compiled models; empty takes `oddlog` in the user's cache folder.
    pub cache: String,
}

/// How a model that comes as weights is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPrecision {
    /// Compiled to 8 bits if they agree with single precision, else to single precision.
    Auto,
    /// Compiled to 8 bits.
    Int8,
    /// Compiled to single precision.
    Fp32,
    /// Not compiled: the graph that the model brings.
    Onnx,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            source: "models/oddlog-minilm".into(),
            max_length: 512,
            precision: ModelPrecision::Auto,
            least_agreement: 0.99,
            cache: String::new(),
        }
    }
}

/// Which rule turns a score into `is_anomaly`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// Anomalous when the anomaly label's score reaches the threshold.
    Monotone,
    /// The rule of the service this API comes from: the top label, or the other one when its score is below the threshold.
    Upstream,
}

/// `[scoring]`: what a score means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scoring {
    /// Candidate labels.
    pub labels: Vec<String>,
    /// The label that counts as the anomaly; one of `labels`.
    pub anomaly_label: String,
    /// The hypothesis; `{}` stands for the label.
    pub hypothesis_template: String,
    /// Score from which a log is an anomaly, 0 to 1.
    pub threshold: f32,
    /// How score and threshold make a verdict.
    pub threshold_rule: ThresholdRule,
    /// Score each label on its own instead of against the others.
    pub multi_label: bool,
    /// Most labels that a request may bring.
    pub max_labels: usize,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            labels: vec!["anomaly".into(), "normal".into()],
            anomaly_label: "anomaly".into(),
            hypothesis_template: "This example is {}.".into(),
            threshold: 0.5,
            threshold_rule: ThresholdRule::Monotone,
            multi_label: false,
            max_labels: 32,
        }
    }
}

/// `[batching]`: how requests become batches, and how many may wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most padded tokens in one model run (rows x padded length).
    pub max_batch_tokens: usize,
    /// Most rows in one model run; a log has one row for each label.
    pub max_batch_rows: usize,
    /// Largest share of padding for which logs of other lengths join a batch, 0 to 1.
    pub max_padding: f32,
    /// How long an idle device waits for company for a log, in microseconds.
    pub max_queue_delay_us: u64,
    /// Padded tokens of single requests that may wait or run; beyond it 429.
    pub max_queue_tokens: usize,
    /// Padded tokens of batch calls that may wait or run; the rest of a call waits for its turn.
    pub max_bulk_tokens: usize,
    /// Time from admission to a device, in ms; beyond it 504.
    pub request_timeout_ms: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_batch_tokens: 512,
            max_batch_rows: 64,
            max_padding: 0.25,
            max_queue_delay_us: 0,
            max_queue_tokens: 262_144,
            max_bulk_tokens: 32_768,
            request_timeout_ms: 30_000,
        }
    }
}

/// `[devices]`: what runs the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Devices {
    /// One worker and one session for each entry: `auto` or `cpu`; `auto` is a CPU worker for each core.
    pub devices: Vec<String>,
    /// Threads of one CPU session.
    pub intra_op_threads: usize,
    /// ONNX Runtime's shared library; empty looks at `ORT_DYLIB_PATH`, then where `make` puts it.
    pub onnxruntime: String,
}

impl Default for Devices {
    fn default() -> Self {
        Self { devices: vec!["auto".into()], intra_op_threads: 1, onnxruntime: String::new() }
    }
}

impl Devices {
    /// The kind of each worker's device: `auto` becomes one `cpu` for every [`Devices::intra_op_threads`] of `cores`.
    pub fn workers(&self, cores: usize) -> Vec<&str> {
        let auto = (cores / self.intra_op_threads.max(1)).max(1);
        let kinds = self.devices.iter().map(|entry| match entry.as_str() {
            "auto" => ("cpu", auto),
            other => (other, 1),
        });
        kinds.flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).collect()
    }
}

/// How oddlog writes its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`: oddlog's own log, written to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A level, or directives such as `oddlog=debug,warn`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
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
        let (s, b, d) = (&self.scoring, &self.batching, &self.devices);
        let at_least_one = [
            ("server.max_connections", self.server.max_connections),
            ("server.max_body_bytes", self.server.max_body_bytes),
            ("server.max_batch_logs", self.server.max_batch_logs),
            ("model.max_length", self.model.max_length),
            ("scoring.max_labels", s.max_labels),
            ("batching.max_batch_tokens", b.max_batch_tokens),
            ("devices.intra_op_threads", d.intra_op_threads),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be at least 1"));
        }
        if self.server.max_buffered_bytes < self.server.max_body_bytes {
            return Err("server.max_buffered_bytes must be at least server.max_body_bytes".into());
        }
        if b.max_batch_rows < 2 {
            return Err("batching.max_batch_rows must be at least 2: a log has a row for each label".into());
        }
        if !(0.0..=1.0).contains(&s.threshold) {
            return Err(format!("scoring.threshold must be from 0 to 1, not {}", s.threshold));
        }
        if !(0.0..=1.0).contains(&self.model.least_agreement) {
            return Err(format!("model.least_agreement must be from 0 to 1, not {}", self.model.least_agreement));
        }
        if !(0.0..=1.0).contains(&b.max_padding) {
            return Err(format!("batching.max_padding must be from 0 to 1, not {}", b.max_padding));
        }
        let longest = s.max_labels.max(s.labels.len()) * self.model.max_length.next_multiple_of(16);
        for (key, tokens) in
            [("batching.max_queue_tokens", b.max_queue_tokens), ("batching.max_bulk_tokens", b.max_bulk_tokens)]
        {
            if tokens < longest {
                return Err(format!(
                    "{key} = {tokens} is too small for one log: scoring.max_labels x model.max_length needs {longest}"
                ));
            }
            if tokens > u32::MAX as usize {
                return Err(format!("{key} must be at most {}", u32::MAX));
            }
        }
        if d.devices.is_empty() {
            return Err("devices.devices needs at least one entry, for example [\"cpu\"]".into());
        }
        Ok(())
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
        let text = include_str!("../config.toml");
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
            ("[server]\nlisten = \"nowhere\"\n", "server.listen"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(Config::load(Some(Path::new("/no/such.toml")), serde_json::json!({})).is_err());
    }
}
