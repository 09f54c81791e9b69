//! What callers hold: one log in, scores out.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{admission::Admission, aside::Aside, health::Health};
use crate::{
    batching::{Class, Entry, Inbox, JobError, JobRun, JobTimes, Load, NotTaken, Ticket},
    classify::{Head, Labels, Task, label_scores},
    config::{Batching, Scoring},
    error::RequestError,
    metrics::{Metrics, Stage},
    model::{EncodedLog, Padding, PairTokenizer},
};

/// Bytes of a log from which on tokenising it takes milliseconds.
const LONG: usize = 8 << 10;

/// What every handle shares.
pub(super) struct Shared {
    pub tokenizer: Arc<PairTokenizer>,
    pub head: Head,
    pub default_task: Arc<Task>,
    pub default_labels: Scoring,
    pub timeouts: Timeouts,
    /// What runs are padded to.
    pub padding: Padding,
    pub admission: Arc<Admission>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub aside: Aside,
}

/// A cheap, clonable way to the engine that does not keep it alive.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    inbox: Weak<Inbox>,
}

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// If it names no time itself.
    pub default: Duration,
    /// The longest that it may name.
    pub max: Duration,
}

impl Timeouts {
    pub(super) fn new(config: &Batching) -> Self {
        Self {
            default: Duration::from_millis(config.request_timeout_ms),
            max: Duration::from_millis(config.max_request_timeout_ms),
        }
    }
}

/// A log as the model reads it beside the hypotheses of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its token ids.
    pub log: EncodedLog,
    /// What it took to find them.
    pub tokenization: Duration,
}

/// One scored log.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// One score a label, 0 to 1, in the order of the task's labels.
    pub scores: Vec<f32>,
    /// Whether the log was longer than the model can read.
    pub truncated: bool,
    /// Where the time went.
    pub times: StageTimes,
}

/// Stage times of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Text to token ids.
    pub tokenization: Duration,
    /// Waiting for a device.
    pub queue: Duration,
    /// The model run of its batch.
    pub inference: Duration,
    /// That run; `None` for a log that came from memory.
    pub run: Option<JobRun>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, inbox: Weak<Inbox>) -> Self {
        Self { shared, inbox }
    }

    /// The configured labels, ready for use.
    pub fn default_task(&self) -> &Arc<Task> {
        &self.shared.default_task
    }

    /// The labels of a request; what it does not bring is taken from the configuration.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] says which part cannot be used.
    pub fn task(
        &self,
        labels: Option<Vec<String>>,
        anomaly_label: Option<String>,
        hypothesis_template: Option<String>,
        multi_label: Option<bool>,
    ) -> Result<Arc<Task>, RequestError> {
        if labels.is_none() && anomaly_label.is_none() && hypothesis_template.is_none() && multi_label.is_none() {
            return Ok(self.shared.default_task.clone());
        }
        let default = &self.shared.default_labels;
        let labels = labels.unwrap_or_else(|| default.labels.clone());
        // Labels of the request's own that leave out the configured anomaly label: the first one counts.
        let fallback = || match labels.contains(&default.anomaly_label) {
            true => default.anomaly_label.clone(),
            false => labels.first().cloned().unwrap_or_default(),
        };
        let labels = Labels {
            anomaly_label: anomaly_label.unwrap_or_else(fallback),
            labels,
            hypothesis_template: hypothesis_template.unwrap_or_else(|| default.hypothesis_template.clone()),
            multi_label: multi_label.unwrap_or(default.multi_label),
        };
        Task::new(labels, &self.shared.tokenizer, default.max_labels).map(Arc::new)
    }

    /// The scoring section that the engine was started with.
    pub fn scoring(&self) -> &Scoring {
        &self.shared.default_labels
    }

    /// The metrics that the engine records into.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Whether the engine takes requests.
    pub fn is_open(&self) -> bool {
        self.inbox.strong_count() > 0
    }

    /// How long requests may take.
    pub fn timeouts(&self) -> Timeouts {
        self.shared.timeouts
    }

    /// Tokens that all devices together run at once.
    pub fn tokens_at_once(&self) -> usize {
        self.shared.admission.at_once()
    }

    /// Whether a request would be let in now: worth asking before its body is read closely.
    ///
    /// # Errors
    /// The refusal, already counted.
    pub fn check(&self, class: Class, deadline: Instant) -> Result<(), RequestError> {
        self.counted(self.shared.admission.check(class, Instant::now(), deadline))
    }

    /// Scores one log within the configured time. Dropping the future gives its place in the queue back.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify(&self, log: &str, task: &Task, class: Class) -> Result<Classified, RequestError> {
        self.classify_by(log, task, class, Instant::now() + self.shared.timeouts.default).await
    }

    /// Scores one log. At `deadline` the answer is [`RequestError::DeadlineExceeded`], and no device takes it any more.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub async fn classify_by(
        &self,
        log: &str,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Classified, RequestError> {
        let gone = Gone(Some(&self.shared.metrics));
        let result = self.score(log, task, class, deadline).await;
        gone.stayed();
        self.counted(result)
    }

    /// The token ids of a log that `task` is asked about. It costs processor time and nothing else: whoever may do
    /// without the engine asks for this first, and then for [`classify_encoded`](Self::classify_encoded). Long logs do not
    /// block the tasks of the same thread.
    pub async fn encode(&self, log: &str, task: &Task) -> Encoded {
        match self.encode_short(log, task) {
            Some(encoded) => encoded,
            None => self.shared.aside.run(|| self.encode_now(log, task)).await,
        }
    }

    /// As [`encode`](Self::encode), at once; `None` for a log that takes long.
    pub fn encode_short(&self, log: &str, task: &Task) -> Option<Encoded> {
        (log.len() <= LONG).then(|| self.encode_now(log, task))
    }

    fn encode_now(&self, log: &str, task: &Task) -> Encoded {
        let started = Instant::now();
        let log = self.shared.tokenizer.encode_log(log, task.lengths.clone());
        Encoded { log, tokenization: started.elapsed() }
    }

    /// Whether no log waits for a device or is with one.
    pub fn is_idle(&self) -> bool {
        self.shared.admission.is_idle()
    }

    /// As [`classify_by`](Self::classify_by), for a log that was encoded for the same `task`.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub async fn classify_encoded(
        &self,
        log: Encoded,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Classified, RequestError> {
        let gone = Gone(Some(&self.shared.metrics));
        let result = match self.look(class, Instant::now(), deadline) {
            Ok(()) => self.run(log, task, class, deadline).await,
            Err(refusal) => Err(refusal),
        };
        gone.stayed();
        self.counted(result)
    }

    /// For whoever answers without the engine.
    ///
    /// # Errors
    /// [`RequestError::Draining`], which is counted, once the end has begun.
    pub fn must_be_open(&self) -> Result<(), RequestError> {
        self.counted(if self.is_open() { Ok(()) } else { Err(RequestError::Draining) })
    }

    fn counted<T>(&self, result: Result<T, RequestError>) -> Result<T, RequestError> {
        result.inspect_err(|error| count(&self.shared.metrics, error))
    }

    pub(super) async fn score(
        &self,
        log: &str,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Classified, RequestError> {
        self.look(class, Instant::now(), deadline)?;
        let encoded = self.encode(log, task).await;
        self.run(encoded, task, class, deadline).await
    }

    /// Whether a log has a chance at all, before it costs anything.
    fn look(&self, class: Class, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        if !self.is_open() {
            return Err(RequestError::Draining);
        }
        if !self.shared.health.any_up() {
            return Err(RequestError::Unavailable);
        }
        match class {
            Class::Interactive => self.shared.admission.check(class, now, deadline),
            Class::Bulk => Ok(()),
        }
    }

    /// Admits a log, queues it and waits for its logits.
    async fn run(
        &self,
        Encoded { log, tokenization }: Encoded,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Classified, RequestError> {
        let Shared { tokenizer, padding, admission, metrics, .. } = &*self.shared;
        let tokenized = Instant::now();
        let (tokens, len) = padding.cost(tokenizer.pair_lens(log.ids.len(), &task.hypotheses));
        let permit = admission.admit(class, tokens, tokenized, deadline).await?;
        let enqueued_at = Instant::now();

        let truncated = log.truncated;
        let (item, answer) = Load { log, hypotheses: task.hypotheses.clone(), permit }.wait();
        self.enqueue(Entry { item, class, rows: task.rows(), tokens, len, enqueued_at, deadline })?;

        let output = match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(JobError::Failed))) => return Err(RequestError::Inference),
            Ok(Ok(Err(JobError::Dropped)) | Err(_)) => return Err(RequestError::Unavailable),
            Ok(Ok(Err(JobError::Expired))) | Err(_) => return Err(RequestError::DeadlineExceeded),
        };
        let JobTimes { queue, inference } = output.times;
        let times = StageTimes { tokenization, queue, inference, run: Some(output.run) };
        metrics.stage(Stage::Tokenize, times.tokenization);
        metrics.stage(Stage::Admission, enqueued_at - tokenized);
        metrics.stage(Stage::Queue, times.queue);
        metrics.stage(Stage::Inference, times.inference);
        metrics.stage(Stage::Total, tokenization + tokenized.elapsed());
        if truncated {
            metrics.truncated.increment(1);
        }
        let scores = label_scores(&output.logits, self.shared.head, task.multi_label);
        Ok(Classified { scores, truncated, times })
    }

    fn enqueue(&self, entry: Entry<Ticket>) -> Result<(), RequestError> {
        let inbox = self.inbox.upgrade().ok_or(RequestError::Draining)?;
        let (jobs, tokens) = (1.0, entry.tokens as f64);
        self.shared.metrics.queue_jobs.increment(jobs);
        self.shared.metrics.queue_tokens.increment(tokens);
        inbox.try_send(entry).map_err(|e| {
            self.shared.metrics.queue_jobs.decrement(jobs);
            self.shared.metrics.queue_tokens.decrement(tokens);
            match e {
                // The inbox has room for all that admission lets in; a full one is an overload all the same.
                NotTaken::Full => RequestError::Overloaded { retry_after: Duration::from_secs(1) },
                NotTaken::Closed => RequestError::Unavailable,
            }
        })
    }
}

/// Counts a log that gets no verdict.
fn count(metrics: &Metrics, error: &RequestError) {
    let reason = match error {
        RequestError::Overloaded { .. } => "queue_full",
        RequestError::TooLate { .. } => "too_late",
        RequestError::Draining => "draining",
        RequestError::Unavailable => "no_device",
        RequestError::DeadlineExceeded => return metrics.expired.increment(1),
        // Counted where the model failed, among the failed jobs.
        RequestError::Inference => return,
        // The request's own fault: its status counts it.
        RequestError::Invalid { .. } => return,
    };
    metrics.refused(reason);
}

/// Counts a client that leaves before its answer: then the future is dropped, and this with it.
struct Gone<'a>(Option<&'a Metrics>);

impl Gone<'_> {
    fn stayed(mut self) {
        self.0 = None;
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.dropped_by_client.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_counter_of_its_own() {
        let retry_after = Duration::from_secs(1);
        for (error, counter) in [
            (RequestError::Overloaded { retry_after }, r#"oddlog_refused_total{reason="queue_full"} 1"#),
            (RequestError::TooLate { retry_after }, r#"oddlog_refused_total{reason="too_late"} 1"#),
            (RequestError::Draining, r#"oddlog_refused_total{reason="draining"} 1"#),
            (RequestError::Unavailable, r#"oddlog_refused_total{reason="no_device"} 1"#),
            (RequestError::DeadlineExceeded, "oddlog_expired_total 1"),
        ] {
            let metrics = Metrics::new().unwrap();
            count(&metrics, &error);
            assert!(metrics.render().contains(counter), "{error:?}");
        }
    }
}
