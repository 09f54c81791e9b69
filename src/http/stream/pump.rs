//! Moves lines from a request's body through the engine to its answer.
//!
//! ```text
//! body -> decoder -> Lines -> Format::log -> Window (bounded) -> Output -> parts (bounded) -> socket
//!                                 `-> Group -> Reader, on any thread -^
//! ```
//!
//! Lines whose text is known are answered at once. Of the others the tokens are needed, which takes most of a stream's time
//! on the processor: they go in groups to whichever thread of the runtime is free.
//!
//! While the window is full, or the client takes no answers, nothing is read, and TCP makes the client wait. What is in
//! memory does not depend on the body's length.

use std::{
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        batch::ItemError,
        body::is_of_connection,
        window::{Next, Seat, Window},
    },
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
/// Lines of a group, and their bytes from which on it takes no further one: it holds its thread about as long as one log that
/// is tokenised at once may.
const GROUP_LINES: usize = 32;
/// See [`GROUP_LINES`].
const GROUP_BYTES: usize = 8 << 10;
/// So many lines are tokenised where they are: another thread would not be sooner.
const FEW: usize = 4;

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
    reader: Reader,
    lines: Lines,
    window: Window<Outcome>,
    group: Group,
    patience: Duration,
    max_line: usize,
    chunk: Vec<u8>,
    /// Bytes of the chunk that are cut into lines already.
    at: usize,
    end: Option<End>,
    /// What the decoder said.
    reason: String,
}

/// A line whose text is not known, and what was learned from it.
struct Fresh {
    seat: Seat,
    log: String,
    sighting: Option<Sighting>,
}

/// Lines that will be read together.
#[derive(Default)]
struct Group {
    lines: Vec<Fresh>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, line: Fresh) {
        self.bytes += line.log.len();
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= GROUP_LINES || self.bytes >= GROUP_BYTES
    }
}

/// Reads lines as the model would.
#[derive(Clone)]
struct Reader {
    verdicts: Verdicts,
    task: Arc<Task>,
    trace: Option<Trace>,
}

impl Reader {
    /// Answers a line if its tokens are known; else it has to go to the engine.
    fn read(&self, Fresh { seat, log, sighting }: Fresh) -> (Seat, Next<Outcome>) {
        let unknown = match self.verdicts.recall_new_text((&*log, sighting.as_ref()), &self.task) {
            Ok(answer) => return (seat, Next::Done(self.outcome(Ok(answer), sighting))),
            Err(unknown) => unknown,
        };
        let reader = self.clone();
        let work = async move {
            // The client waits for its stream and is held back meanwhile: a line that gave up would be a hole in it.
            let deadline = Instant::now() + reader.verdicts.handle().timeouts().max;
            let log = (&*log, sighting.as_ref());
            let answer = reader.verdicts.classify_unknown(unknown, log, &reader.task, Class::Bulk, deadline).await;
            reader.outcome(answer, sighting)
        };
        (seat, Next::Run(Box::pin(work)))
    }

    /// What a line came to, which its request's trace is told.
    fn outcome(&self, answer: Result<Answer, RequestError>, sighting: Option<Sighting>) -> Outcome {
        if let (Some(trace), Ok(answer)) = (&self.trace, &answer) {
            trace.one_of_many(&answer.classified.times);
        }
        Outcome { result: answer.map(|answer| answer.classified).map_err(|error| ItemError::from(&error)), sighting }
    }
}

impl<R: AsyncRead + Send + Unpin> Pump<R> {
    pub fn new(input: Input<R>, output: Output, verdicts: Verdicts, task: Arc<Task>, config: &Server) -> Self {
        let lost = || ItemError::from(&RequestError::Inference).into();
        Self {
            reader: Reader { verdicts, task, trace: input.trace.clone() },
            input,
            output,
            lines: Lines::new(config.max_stream_line_bytes),
            window: Window::new(config.max_stream_lines, config.max_stream_bytes, lost),
            group: Group::default(),
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

    /// Cuts some of what was read into lines, and answers them or has them read, while there is room; whether there may be
    /// more.
    fn cut(&mut self) -> bool {
        let more = self.take_some();
        self.read_group();
        more
    }

    fn take_some(&mut self) -> bool {
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
                let Reader { verdicts, task, .. } = &self.reader;
                if let Some(answer) = verdicts.recall_text(&log, task) {
                    return self.window.put(number, self.reader.outcome(Ok(answer), sighting));
                }
                let seat = self.window.reserve(number, log.len());
                self.group.push(Fresh { seat, log, sighting });
                if self.group.is_full() {
                    self.read_group();
                }
            }
        }
    }

    /// Has the group's lines read: on a thread that is free, if they are many.
    fn read_group(&mut self) {
        let Group { lines, .. } = mem::take(&mut self.group);
        if lines.len() <= FEW {
            for line in lines {
                let (seat, next) = self.reader.read(line);
                self.window.go_on(seat, next);
            }
            return;
        }
        let (reader, seats) = (self.reader.clone(), lines.iter().map(|line| line.seat).collect::<Vec<_>>());
        self.window.run(&seats, async move { lines.into_iter().map(|line| reader.read(line)).collect() });
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
                    self.read_group();
                }
            }
            Some(Ok(bytes)) => self.reader.verdicts.handle().metrics().stream_bytes(bytes as u64),
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
