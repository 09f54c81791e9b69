//! `[log]`: oddlog's own log.

use serde::{Deserialize, Serialize};

/// How oddlog writes its own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a line for each answered request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To level `debug`.
    Debug,
    /// To level `info`.
    Info,
}

/// `[log]`: oddlog's own log, written to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A level, or directives such as `oddlog=debug,warn`.
    pub level: String,
    /// A line for each answered request: `off`, or the level at which it is written, `debug` or `info`.
    pub access: AccessLog,
    /// Keeps the text of log messages out of oddlog's own log. They are never written above level `debug`.
    pub redact: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into(), access: AccessLog::Debug, redact: true }
    }
}
