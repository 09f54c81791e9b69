//! A running server as scorer: `POST /api/v1/analyze/batch`, asked again when it is busy.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::json;

use super::scorer::{Scored, Unscored};
use crate::error::StartError;

/// Times that one call is tried.
const TRIES: u32 = 8;

/// Longest wait between tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Longest time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Texts in one call, unless the server takes fewer.
const TEXTS_A_CALL: usize = 256;

/// Most bytes of an answer that are read.
const MOST_ANSWER_BYTES: u64 = 16 << 20;

/// What is asked of a server.
#[derive(Debug, Default, Clone)]
pub struct Question {
    /// `http://host:port`
    pub url: String,
    /// Bearer key.
    pub api_key: Option<String>,
    /// Score from which a text is odd; the server's own without.
    pub threshold: Option<f32>,
    /// Candidate labels; the server's own without.
    pub labels: Option<Vec<String>>,
    /// The label that counts as the anomaly.
    pub anomaly_label: Option<String>,
}

/// A server that answers.
#[derive(Debug)]
pub struct Remote {
    agent: ureq::Agent,
    question: Question,
    labels: Vec<String>,
    /// The anomaly label, if it could be found out.
    anomaly: Option<usize>,
    threshold: f32,
    /// Most texts that one call may hold, as far as is known.
    together: AtomicUsize,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Entry>,
    threshold: f32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Verdict { label: String, confidence: f32, is_anomaly: bool, scores: HashMap<String, f32>, truncated: bool },
    Refusal { error: Refusal },
}

#[derive(Deserialize)]
struct Refusal {
    msg: String,
}

/// What became of one try.
enum Try {
    Answer(Answer),
    /// Not now; the server may have said how long to wait.
    Busy(String, Option<Duration>),
    /// Not so many logs in one call, or not this one.
    TooLarge(String),
    /// Never.
    Refused(String),
}

impl Remote {
    /// Asks the server for one verdict, to know its labels and threshold and that it takes the question.
    ///
    /// # Errors
    /// [`StartError::Io`] names the server and what is wrong with it, with the way to it, or with the question.
    pub fn connect(question: Question) -> Result<Self, StartError> {
        let config = ureq::Agent::config_builder();
        let agent = config.http_status_as_error(false).timeout_global(Some(CALL_TIMEOUT)).build().into();
        let url = question.url.trim_end_matches('/').to_owned();
        let question = Question { url, ..question };
        let together = AtomicUsize::new(TEXTS_A_CALL);
        let mut remote = Self { agent, question, labels: Vec::new(), anomaly: None, threshold: 0.0, together };
        let what = format!("server {}", remote.question.url);
        let failed = |reason: String| StartError::Io { what: what.clone(), source: io::Error::other(reason) };
        let ask = |remote: &Self, threshold| match remote.attempt(&["connection refused".into()], threshold) {
            Try::Answer(answer) => Ok(answer),
            Try::Busy(reason, _) | Try::TooLarge(reason) | Try::Refused(reason) => Err(failed(reason)),
        };
        let first = ask(&remote, remote.question.threshold)?;
        remote.threshold = first.threshold;
        // At threshold 0 every text is an anomaly, so the label that comes back is the one that counts as such.
        let lowest = ask(&remote, Some(0.0))?;
        match lowest.results.first() {
            Some(Entry::Verdict { label, is_anomaly, scores, .. }) => {
                remote.labels = scores.keys().cloned().collect();
                remote.labels.sort();
                remote.anomaly = remote.labels.iter().position(|l| l == label).filter(|_| *is_anomaly);
            }
            Some(Entry::Refusal { error }) => return Err(failed(error.msg.clone())),
            None => return Err(failed("it gave no verdict".into())),
        }
        Ok(remote)
    }

    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(super) fn together(&self) -> usize {
        self.together.load(Relaxed)
    }

    /// One answer a text. A busy server is asked again after the time it names, with patience growing.
    pub(super) async fn score(remote: Arc<Self>, texts: Vec<String>) -> Vec<Result<Scored, Unscored>> {
        let texts: Arc<[String]> = texts.into();
        let mut why = String::new();
        for number in 0..TRIES {
            let (asking, asked) = (remote.clone(), texts.clone());
            let threshold = remote.question.threshold;
            let tried = tokio::task::spawn_blocking(move || asking.attempt(&asked, threshold)).await;
            match tried {
                Ok(Try::Answer(answer)) if answer.results.len() == texts.len() => {
                    return answer.results.into_iter().map(|entry| remote.read(entry)).collect();
                }
                Ok(Try::Answer(_)) => return fail(&texts, "the server answered for other logs than it was sent"),
                Ok(Try::TooLarge(_)) if texts.len() > 1 => {
                    remote.together.fetch_min(texts.len() / 2, Relaxed);
                    let (left, right) = texts.split_at(texts.len() / 2);
                    let mut answers = Box::pin(Self::score(remote.clone(), left.to_vec())).await;
                    answers.extend(Box::pin(Self::score(remote.clone(), right.to_vec())).await);
                    return answers;
                }
                Ok(Try::TooLarge(reason)) => return vec![Err(Unscored::Text(reason))],
                Ok(Try::Refused(reason)) => return fail(&texts, &reason),
                Ok(Try::Busy(reason, wait)) => {
                    why = reason;
                    let growing = Duration::from_millis(250) * 2u32.pow(number);
                    tokio::time::sleep(wait.unwrap_or(growing).min(LONGEST_WAIT)).await;
                }
                Err(_) => return fail(&texts, "the call was given up"),
            }
        }
        fail(&texts, &why)
    }

    fn read(&self, entry: Entry) -> Result<Scored, Unscored> {
        match entry {
            Entry::Refusal { error } => Err(Unscored::Text(error.msg)),
            Entry::Verdict { label, confidence, is_anomaly, scores, truncated } => {
                let anomaly = self.anomaly.and_then(|i| scores.get(&self.labels[i])).copied();
                let score = anomaly.unwrap_or(if is_anomaly { confidence } else { 1.0 - confidence });
                let label = self.labels.iter().position(|l| *l == label).unwrap_or_default();
                Ok(Scored { score, label, confidence, is_odd: is_anomaly, truncated })
            }
        }
    }

    /// One call.
    fn attempt(&self, texts: &[String], threshold: Option<f32>) -> Try {
        let Question { url, api_key, labels, anomaly_label, .. } = &self.question;
        let mut body = json!({ "logs": texts });
        for (name, value) in [
            ("threshold", threshold.map(|t| json!(t))),
            ("labels", labels.as_ref().map(|l| json!(l))),
            ("anomaly_label", anomaly_label.as_ref().map(|l| json!(l))),
        ] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let mut call =
            self.agent.post(format!("{url}/api/v1/analyze/batch")).header("content-type", "application/json");
        if let Some(key) = api_key {
            call = call.header("authorization", format!("Bearer {key}"));
        }
        let mut answer = match call.send(body.to_string()) {
            Ok(answer) => answer,
            Err(e @ (ureq::Error::BadUri(_) | ureq::Error::HostNotFound)) => return Try::Refused(e.to_string()),
            Err(e) => return Try::Busy(e.to_string(), None),
        };
        let status = answer.status().as_u16();
        let wait = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(seconds);
        let body = match answer.body_mut().with_config().limit(MOST_ANSWER_BYTES).read_to_string() {
            Ok(body) => body,
            Err(e) => return Try::Busy(e.to_string(), None),
        };
        let reason = || format!("status {status}: {}", body.chars().take(300).collect::<String>());
        match status {
            200 => serde_json::from_str(&body).map_or_else(|e| Try::Refused(e.to_string()), Try::Answer),
            429 | 502..=504 => Try::Busy(reason(), wait),
            413 | 422 => Try::TooLarge(reason()),
            _ => Try::Refused(reason()),
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn seconds(value: &str) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

fn fail(texts: &[String], reason: &str) -> Vec<Result<Scored, Unscored>> {
    texts.iter().map(|_| Err(Unscored::All(reason.to_owned()))).collect()
}
