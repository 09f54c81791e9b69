//! What callers hold: one log in, scores out.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    admission::{Admission, Class},
    health::Health,
};
use crate::{
    batching::{Entry, Inbox, Job, JobError, NotTaken, Reply},
    classify::{Head, Labels, Task, label_scores},
    config::Scoring,
    error::RequestError,
    metrics::{Metrics, Stage},
    model::{InputTensors, PairTokenizer},
};

/// What every handle shares.
pub(super) struct Shared {
    pub tokenizer: Arc<PairTokenizer>,
    pub head: Head,
    pub default_task: Arc<Task>,
    pub default_labels: Scoring,
    pub request_timeout: Duration,
    pub admission: Arc<Admission>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
}

/// A cheap, clonable way to the engine that does not keep it alive.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    inbox: Weak<Inbox>,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Text to token ids.
    pub tokenization: Duration,
    /// Waiting for a device.
    pub queue: Duration,
    /// The model run of its batch.
    pub inference: Duration,
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

    /// Scores one log. Dropping the future gives its place in the queue back.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify(&self, log: &str, task: &Task, class: Class) -> Result<Classified, RequestError> {
        let result = self.score(log, task, class).await;
        if let Err(error) = &result
            && let Some(reason) = refusal(error)
        {
            self.shared.metrics.refused(reason);
        }
        result
    }

    pub(super) async fn score(&self, log: &str, task: &Task, class: Class) -> Result<Classified, RequestError> {
        let Shared { tokenizer, admission, metrics, .. } = &*self.shared;
        let started = Instant::now();
        let deadline = started + self.shared.request_timeout;
        if !self.is_open() {
            return Err(RequestError::Draining);
        }
        if !self.shared.health.any_up() {
            return Err(RequestError::Unavailable);
        }
        admission.check(class)?;
        let log = tokenizer.encode_log(log, task.lengths.clone());
        let tokenized = Instant::now();
        let padded_len = InputTensors::padded_len(task.longest_pair(tokenizer, log.ids.len()));
        let permit = admission.admit(class, task.rows() * padded_len, deadline).await?;
        let enqueued_at = Instant::now();

        let (reply, answer) = Reply::new(permit);
        let truncated = log.truncated;
        let item = Job { log, hypotheses: task.hypotheses.clone(), reply };
        self.enqueue(Entry { item, rows: task.rows(), padded_len, enqueued_at, deadline })?;

        // The batcher answers what expires in the queue; the time once more is for the run itself, so that a device
        // that hangs does not hold its callers for ever.
        let patience = deadline + self.shared.request_timeout;
        let output = match tokio::time::timeout_at(patience.into(), answer).await {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(JobError::Failed))) => return Err(RequestError::Inference),
            Ok(Ok(Err(JobError::Dropped)) | Err(_)) => return Err(RequestError::Unavailable),
            Ok(Ok(Err(JobError::Expired))) | Err(_) => return Err(RequestError::DeadlineExceeded),
        };
        let times = StageTimes {
            tokenization: tokenized - started,
            queue: output.times.queue,
            inference: output.times.inference,
        };
        metrics.stage(Stage::Tokenize, times.tokenization);
        metrics.stage(Stage::Admission, enqueued_at - tokenized);
        metrics.stage(Stage::Queue, times.queue);
        metrics.stage(Stage::Inference, times.inference);
        metrics.stage(Stage::Total, started.elapsed());
        if truncated {
            metrics.truncated.increment(1);
        }
        let scores = label_scores(&output.logits, self.shared.head, task.multi_label);
        Ok(Classified { scores, truncated, times })
    }

    fn enqueue(&self, entry: Entry<Job>) -> Result<(), RequestError> {
        let inbox = self.inbox.upgrade().ok_or(RequestError::Draining)?;
        let (jobs, tokens) = (1.0, entry.tokens() as f64);
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

/// The metric label of an error that means "not taken".
fn refusal(error: &RequestError) -> Option<&'static str> {
    match error {
        RequestError::Overloaded { .. } => Some("queue_full"),
        RequestError::Draining => Some("draining"),
        RequestError::Unavailable => Some("no_device"),
        RequestError::DeadlineExceeded | RequestError::Inference | RequestError::Invalid { .. } => None,
    }
}
