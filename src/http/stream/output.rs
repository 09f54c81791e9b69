//! Outcomes of lines to what the client gets: entries, counts, and what is sent when. It does not read lines.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        batch::{BatchEntry, BatchRefusal, BatchResult, BatchVerdict, ItemError},
        coding::Encoder,
        detail::Learner,
        flow::{Part, Parts},
    },
    query::Respond,
};
use crate::{
    classify::Task,
    engine::{Classified, Handle},
    templates::Sighting,
};

/// Bytes that are sent without waiting for more.
const PART_BYTES: usize = 16 << 10;
/// Anomalies that a summary lists: little enough for the 4 KiB that Fluent Bit reads of an answer.
const LISTED: usize = 32;

/// What became of a line.
pub struct Outcome {
    /// Its scores, or why it has none.
    pub result: Result<Classified, ItemError>,
    /// What was learned from it.
    pub sighting: Option<Sighting>,
}

impl From<ItemError> for Outcome {
    fn from(error: ItemError) -> Self {
        Self { result: Err(error), sighting: None }
    }
}

/// What a stream was asked for.
pub struct Asked {
    /// What is asked of each log.
    pub task: Arc<Task>,
    /// Score from which it is an anomaly.
    pub threshold: f32,
    /// Which entries are sent.
    pub respond: Respond,
    /// Learns from the lines, and knows what is told of that.
    pub learner: Learner,
}

/// One line of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "line": 1, "label": "anomaly", "confidence": 0.97, "is_anomaly": true,
    "scores": { "anomaly": 0.97, "normal": 0.03 }, "truncated": false
}))]
pub struct StreamEntry<'a> {
    /// Which line of the body, from 1.
    line: u64,
    /// What became of it.
    #[serde(flatten)]
    result: BatchEntry<'a>,
}

/// What became of a whole stream.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({
    "lines": 3, "scored": 2, "anomalies": 1, "errors": 0, "blank": 1, "threshold": 0.5,
    "first_anomalies": [{ "line": 2, "confidence": 0.97 }]
}))]
pub struct Summary {
    /// Lines that were read.
    pub lines: u64,
    /// Lines with a verdict.
    pub scored: u64,
    /// Those of them that are anomalies.
    pub anomalies: u64,
    /// Lines with an error.
    pub errors: u64,
    /// Lines without anything, which have no entry.
    pub blank: u64,
    /// The threshold that was used.
    pub threshold: f32,
    /// The first anomalies.
    pub first_anomalies: Vec<ListedAnomaly>,
    /// The first error of a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<LineError>,
    /// What to do, if sending the body again can help or something is wrong with all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub detail: Option<String>,
    /// Lines with an error that may go away.
    #[serde(skip)]
    pub passing: u64,
}

/// An anomaly of a summary.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedAnomaly {
    line: u64,
    confidence: f32,
}

/// An error of a summary, or why a stream ended early: then `line` is the first that was not read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineError {
    /// Which line.
    pub line: u64,
    /// The reason.
    pub error: ItemError,
}

/// The last line of an answer of `respond=anomalies`.
#[derive(Serialize)]
struct Last<'a> {
    summary: &'a Summary,
}

/// The client takes nothing more.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientGone;

/// Collects outcomes and sends what was asked for.
pub struct Output {
    handle: Handle,
    asked: Asked,
    summary: Summary,
    /// Scored lines, errors and blank lines that the metrics know of.
    reported: [u64; 3],
    /// Bytes written since the last part.
    pending: usize,
    /// An entry that is being written.
    text: Vec<u8>,
    sent: Option<Sent>,
}

/// The way to the client, for answers that come in parts.
pub struct Sent {
    /// Codes the entries.
    pub encoder: Encoder,
    /// Takes the parts.
    pub parts: Parts,
    /// How long the client may take none.
    pub patience: Duration,
}

impl Output {
    /// Without `sent` there is a summary alone.
    pub fn new(handle: Handle, asked: Asked, sent: Option<Sent>) -> Self {
        let summary = Summary { threshold: asked.threshold, ..Summary::default() };
        Self { handle, asked, summary, reported: [0; 3], pending: 0, text: Vec::new(), sent }
    }

    /// A line was read.
    pub fn count(&mut self, blank: bool) {
        self.summary.lines += 1;
        self.summary.blank += u64::from(blank);
    }

    /// Whether enough is written for a part.
    pub fn is_due(&self) -> bool {
        self.pending >= PART_BYTES
    }

    /// Ready once the client is gone.
    pub async fn gone(&self) {
        match &self.sent {
            Some(sent) => sent.parts.gone().await,
            None => std::future::pending().await,
        }
    }

    /// Writes what became of a line.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn entry(&mut self, line: u64, outcome: &Outcome) -> io::Result<()> {
        let (task, learner) = (self.asked.task.clone(), self.asked.learner.clone());
        let sighting = outcome.sighting.as_ref();
        let (result, told) = match &outcome.result {
            Ok(classified) => {
                let verdict = BatchVerdict::new(&self.handle, &task, self.summary.threshold, classified);
                let (is_anomaly, confidence) = verdict.outcome();
                learner.note_verdict(sighting, is_anomaly, classified.scores[task.anomaly]);
                self.summary.scored += 1;
                self.summary.anomalies += u64::from(is_anomaly);
                if is_anomaly && self.summary.first_anomalies.len() < LISTED {
                    self.summary.first_anomalies.push(ListedAnomaly { line, confidence });
                }
                (BatchResult::Verdict(verdict), is_anomaly)
            }
            Err(error) => {
                self.summary.errors += 1;
                self.summary.passing +=
                    u64::from(matches!(error.r#type, "overloaded" | "unavailable" | "deadline_exceeded"));
                self.summary.first_error.get_or_insert_with(|| LineError { line, error: error.clone() });
                (BatchResult::Refusal(BatchRefusal { error: error.clone() }), true)
            }
        };
        match told || self.asked.respond == Respond::All {
            true => self.write(&StreamEntry { line, result: BatchEntry::new(result, learner.tell(sighting)) }),
            false => Ok(()),
        }
    }

    /// Writes why reading ended early.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn early_end(&mut self, end: &LineError) -> io::Result<()> {
        self.write(end)
    }

    /// Learns from a line, to be called once for each in order.
    pub fn observe(&self, log: &str) -> Option<Sighting> {
        self.asked.learner.observe(log)
    }

    /// Adds to the metrics what came since the last time.
    fn report(&mut self) {
        let Summary { scored, errors, blank, .. } = self.summary;
        let now = [scored, errors, blank];
        for (at, outcome) in ["scored", "error", "blank"].into_iter().enumerate() {
            self.handle.metrics().stream_lines(outcome, now[at] - self.reported[at]);
        }
        self.reported = now;
    }

    fn write(&mut self, value: &impl Serialize) -> io::Result<()> {
        if let Some(sent) = &mut self.sent {
            self.text.clear();
            serde_json::to_writer(&mut self.text, value)?;
            self.text.push(b'\n');
            sent.encoder.write_all(&self.text)?;
            self.pending += self.text.len();
        }
        Ok(())
    }

    /// Sends what was written. Waits while the client does not read.
    ///
    /// # Errors
    /// [`ClientGone`], also if it does not read for too long.
    pub async fn send(&mut self) -> Result<(), ClientGone> {
        self.report();
        if self.pending == 0 {
            return Ok(());
        }
        self.pending = 0;
        match &mut self.sent {
            Some(sent) => {
                let bytes = sent.encoder.take().map_err(|_| ClientGone)?;
                part(&sent.parts, sent.patience, bytes).await
            }
            None => Ok(()),
        }
    }

    /// Sends the rest and ends the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(mut self) -> Result<Summary, ClientGone> {
        if let Some(mut sent) = self.sent.take() {
            if self.asked.respond == Respond::Anomalies {
                let text = serde_json::to_vec(&Last { summary: &self.summary }).map_err(|_| ClientGone)?;
                sent.encoder.write_all(&text).and_then(|()| sent.encoder.write_all(b"\n")).map_err(|_| ClientGone)?;
            }
            let Sent { encoder, parts, patience } = sent;
            let rest = encoder.finish().map_err(|_| ClientGone)?;
            part(&parts, patience, rest).await?;
            if !parts.send(Part::End, patience).await {
                return Err(ClientGone);
            }
        }
        self.report();
        self.reported = [0; 3];
        Ok(mem::take(&mut self.summary))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.report();
    }
}

async fn part(parts: &Parts, patience: Duration, bytes: Vec<u8>) -> Result<(), ClientGone> {
    match bytes.is_empty() || parts.send(Part::Bytes(Bytes::from(bytes)), patience).await {
        true => Ok(()),
        false => Err(ClientGone),
    }
}
