//! Moves lines from a request's body through the engine to its answer.
//!
//! ```text
//! body -> decoder -> Lines -> Format::log -> Window (bounded) -> Output -> parts (bounded) -> socket
//! ```
//!
//! While the window is full, or the client takes no answers, nothing is read, and TCP makes the client wait. What is in
//! memory does not depend on the body's length.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{batch::ItemError, body::is_of_connection, window::Window},
    entry::Format,
    lines::{Line, Lines},
    output::{ClientGone, LineError, Outcome, Output, Summary},
};
use crate::{
    classify::Task,
    config::Server,
    engine::Class,
    error::RequestError,
    telemetry::Trace,
    templates::Sighting,
    verdicts::{Answer, Verdicts},
};

/// Bytes that are read and decoded at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Lines that are cut before other tasks of the thread get their turn: those that are known take some microseconds each.
const LINES_AT_ONCE: usize = 128;

/// A stream's way in: what is read, and how.
pub struct Input<R> {
    /// The decoded body.
    pub body: R,
    /// What its lines are.
    pub format: Format,
    /// How it is coded, for errors.
    pub coding: Option<&'static str>,
    /// Cancelled when the server begins to end.
    pub draining: CancellationToken,
    /// The request's, if it has one.
    pub trace: Option<Trace>,
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The body is whole.
    Whole,
    /// The server ends.
    Draining,
    /// The client sent nothing for too long.
    Stalled,
    /// The body cannot be decoded.
    Undecodable,
}

impl End {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Draining => "draining",
            Self::Stalled => "stalled",
            Self::Undecodable => "undecodable",
        }
    }
}

/// What a stream came to.
pub type Ended = Result<(End, Summary), ClientGone>;

pub struct Pump<R> {
    input: Input<R>,
    output: Output,
    verdicts: Verdicts,
    task: Arc<Task>,
    lines: Lines,
    window: Window<Outcome>,
    patience: Duration,
    max_line: usize,
    chunk: Vec<u8>,
    /// Bytes of the chunk that are cut into lines already.
    at: usize,
    end: Option<End>,
    /// What the decoder said.
    reason: String,
}

/// What a line came to, which its request's trace is told.
fn outcome(answer: Result<Answer, RequestError>, sighting: Option<Sighting>, trace: Option<&Trace>) -> Outcome {
    if let (Some(trace), Ok(answer)) = (trace, &answer) {
        trace.one_of_many(&answer.classified.times);
    }
    Outcome { result: answer.map(|answer| answer.classified).map_err(|error| ItemError::from(&error)), sighting }
}

impl<R: AsyncRead + Send + Unpin> Pump<R> {
    pub fn new(input: Input<R>, output: Output, verdicts: Verdicts, task: Arc<Task>, config: &Server) -> Self {
        let lost = || ItemError::from(&RequestError::Inference).into();
        Self {
            input,
            output,
            verdicts,
            task,
            lines: Lines::new(config.max_stream_line_bytes),
            window: Window::new(config.max_stream_lines, config.max_stream_bytes, lost),
            patience: Duration::from_millis(config.stream_idle_timeout_ms),
            max_line: config.max_stream_line_bytes,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            at: 0,
            end: None,
            reason: String::new(),
        }
    }

    /// Runs the stream to its end. Dropping the future takes back what waits in the engine.
    ///
    /// # Errors
    /// [`ClientGone`].
    pub async fn run(mut self) -> Ended {
        loop {
            if self.end.is_none() && self.input.draining.is_cancelled() {
                self.stop(End::Draining);
            }
            while self.cut() {
                tokio::task::yield_now().await;
            }
            self.answer().await?;
            let all_cut = self.at == self.chunk.len();
            let room = !self.window.is_full();
            if !all_cut && room {
                continue;
            }
            if self.end.is_some() && all_cut && self.window.is_empty() {
                break;
            }
            let reads = self.end.is_none() && all_cut && room;
            tokio::select! {
                () = self.output.gone() => return Err(ClientGone),
                () = self.window.settled() => {}
                read = timeout(self.patience, self.input.body.read_buf(&mut self.chunk)), if reads => {
                    self.have_read(read.ok())?;
                }
                () = self.input.draining.cancelled(), if self.end.is_none() => {}
            }
        }
        let end = self.end.unwrap_or(End::Whole);
        let mut summary = self.early_end(end);
        if let Some(error) = &summary {
            self.output.early_end(error).map_err(|_| ClientGone)?;
        }
        let mut whole = self.output.finish().await?;
        whole.detail = summary.take().map(|error| error.error.msg.into_owned());
        Ok((end, whole))
    }

    /// Cuts some of what was read into lines, and answers them or gives them to the engine, while there is room; whether
    /// there may be more.
    fn cut(&mut self) -> bool {
        for _ in 0..LINES_AT_ONCE {
            if self.window.is_full() {
                return false;
            }
            let mut unread = &self.chunk[self.at..];
            let line = self.lines.next(&mut unread);
            self.at = self.chunk.len() - unread.len();
            match line {
                Some(line) => self.take(line),
                None => {
                    self.chunk.clear();
                    self.at = 0;
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, Line { number, bytes }: Line) {
        let log = match bytes {
            Some(bytes) => self.input.format.log(bytes),
            None => Err(ItemError {
                r#type: "line_too_long",
                msg: format!("The line is too long. At most {} bytes are allowed.", self.max_line).into(),
            }),
        };
        self.output.count(matches!(log, Ok(None)));
        match log {
            Ok(None) => {}
            Err(error) => self.window.put(number, error.into()),
            Ok(Some(log)) => {
                let sighting = self.output.observe(&log);
                let unknown = match self.verdicts.recall((&*log, sighting.as_ref()), &self.task) {
                    Ok(answer) => {
                        let outcome = outcome(Ok(answer), sighting, self.input.trace.as_ref());
                        return self.window.put(number, outcome);
                    }
                    Err(unknown) => unknown,
                };
                let (verdicts, task, trace) = (self.verdicts.clone(), self.task.clone(), self.input.trace.clone());
                self.window.run(number, log.len(), async move {
                    // The client waits for its stream and is held back meanwhile: a line that gave up would be a hole in it.
                    let deadline = Instant::now() + verdicts.handle().timeouts().max;
                    let log = (&*log, sighting.as_ref());
                    let answer = verdicts.classify_unknown(unknown, log, &task, Class::Bulk, deadline).await;
                    outcome(answer, sighting, trace.as_ref())
                });
            }
        }
    }

    /// Writes the outcomes that are there, in order, and sends them.
    async fn answer(&mut self) -> Result<(), ClientGone> {
        while let Some((line, outcome)) = self.window.ready() {
            self.output.entry(line, &outcome).map_err(|_| ClientGone)?;
            if self.output.is_due() {
                self.output.send().await?;
            }
        }
        self.output.send().await
    }

    fn have_read(&mut self, read: Option<io::Result<usize>>) -> Result<(), ClientGone> {
        match read {
            None => self.stop(End::Stalled),
            Some(Ok(0)) => {
                self.end = Some(End::Whole);
                if let Some(line) = self.lines.last() {
                    self.take(line);
                }
            }
            Some(Ok(bytes)) => self.verdicts.handle().metrics().stream_bytes(bytes as u64),
            // Of the connection itself: there is nobody to tell.
            Some(Err(error)) if is_of_connection(&error) => return Err(ClientGone),
            Some(Err(error)) => {
                self.reason = error.to_string();
                self.end = Some(End::Undecodable);
            }
        }
        Ok(())
    }

    /// Reads nothing more and leaves what is not with the engine yet.
    fn stop(&mut self, end: End) {
        self.end = Some(end);
        self.chunk.clear();
        self.at = 0;
    }

    /// The entry that says why the stream ended early.
    fn early_end(&self, end: End) -> Option<LineError> {
        let line = self.lines.next_number();
        let (r#type, msg) = match end {
            End::Whole => return None,
            End::Draining => (
                "draining",
                format!("The server is shutting down. Send the body from line {line} on to another instance."),
            ),
            End::Stalled => ("body_timeout", "The rest of the body took too long to arrive.".to_owned()),
            End::Undecodable => {
                let coding = self.input.coding.unwrap_or("a body");
                (
                    "body_undecodable",
                    format!("The body could not be read as {coding} from line {line} on: {}", self.reason),
                )
            }
        };
        Some(LineError { line, error: ItemError { r#type, msg: msg.into() } })
    }
}
