//! The way of a scan: chunks to records, records to texts, each text scored once, records given out in their order.

use std::{collections::VecDeque, ops::ControlFlow, time::Duration};

use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc::error::TryRecvError;

use super::{
    input::{Event, Input},
    memo::{Memo, Slot},
    scorer::{Scored, Scorer, Unscored},
};
use crate::records::{Grouper, Limits, Record, model_text};

/// Most records that wait for a score, theirs or that of one before them.
const MOST_WAITING: usize = 8192;

/// Most bytes of these.
const MOST_WAITING_BYTES: usize = 32 << 20;

/// Most bytes of texts that are asked for together.
const MOST_TOGETHER_BYTES: usize = 512 << 10;

/// How records are made and what is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bounds of a record.
    pub limits: Limits,
    /// Each line a record, read by the model as it is.
    pub raw: bool,
    /// Bytes of texts that are remembered with their scores, about.
    pub memo_bytes: usize,
    /// How long the input must pause for a record to be whole that might go on.
    pub pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let pause = Duration::from_millis(250);
        Self { limits: Limits::default(), raw: false, memo_bytes: 64 << 20, pause }
    }
}

/// A record and what became of it.
#[derive(Debug)]
pub struct Judged<'a> {
    /// Number of its source.
    pub source: usize,
    /// The record.
    pub record: &'a Record,
    /// What the model read of it.
    pub text: &'a str,
    /// Its score, or why it has none.
    pub scored: &'a Result<Scored, Unscored>,
    /// Whether its text was new, so that the model was asked.
    pub is_new: bool,
}

/// What a scan gives out.
#[derive(Debug)]
pub enum Next<'a> {
    /// The next record.
    Record(Judged<'a>),
    /// A source that cannot be read, or read on; the others are.
    Failed(usize, &'a str),
}

struct Waiting {
    source: usize,
    record: Record,
    text: String,
    slot: Slot,
    is_new: bool,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.record.text.len() + self.text.len()
    }
}

/// One scan. See the module.
pub struct Scan<'a> {
    scorer: &'a Scorer,
    settings: Settings,
    memo: Memo,
    /// By number of the source.
    groupers: Vec<Option<Grouper>>,
    /// The source whose records are being taken, and whether it has ended.
    taking: Option<(usize, bool)>,
    /// Texts to be asked for together.
    group: Vec<(String, Slot)>,
    group_bytes: usize,
    in_flight: FuturesUnordered<LocalBoxFuture<'a, ()>>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    text: String,
}

impl<'a> Scan<'a> {
    /// A scan that has not begun.
    pub fn new(scorer: &'a Scorer, settings: Settings) -> Self {
        Self {
            scorer,
            settings,
            memo: Memo::new(settings.memo_bytes),
            groupers: Vec::new(),
            taking: None,
            group: Vec::new(),
            group_bytes: 0,
            in_flight: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            text: String::new(),
        }
    }

    /// Gives every record to `sink`, in order, until it breaks or the input ends. It may be dropped at any await.
    ///
    /// # Errors
    /// The reason why nothing more can be scored.
    pub async fn run(
        mut self,
        mut input: Input,
        mut sink: impl FnMut(Next<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let mut open = true;
        loop {
            let flow = match self.take_records(&mut sink) {
                ControlFlow::Continue(()) => self.give_out(&mut sink)?,
                stop => stop,
            };
            if flow.is_break() {
                return Ok(());
            }
            if self.taking.is_some() || !open {
                // Full, or at the end.
                self.ask();
                if self.in_flight.next().await.is_none() && self.waiting.is_empty() && self.taking.is_none() {
                    return Ok(());
                }
                continue;
            }
            let event = match input.events.try_recv() {
                Ok(event) => Some(event),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) => {
                    // Nothing more for now: what was gathered is asked for.
                    self.ask();
                    let pending = self.groupers.iter().any(Option::is_some);
                    tokio::select! {
                        biased;
                        Some(()) = self.in_flight.next(), if !self.in_flight.is_empty() => continue,
                        event = input.events.recv() => event,
                        () = tokio::time::sleep(self.settings.pause), if pending => {
                            if self.flush(&mut sink).is_break() {
                                return Ok(());
                            }
                            continue;
                        }
                    }
                }
            };
            match event {
                Some(Event::Chunk(source, bytes)) => {
                    let Settings { limits, raw, .. } = self.settings;
                    if self.groupers.len() <= source {
                        self.groupers.resize_with(source + 1, || None);
                    }
                    self.groupers[source].get_or_insert_with(|| Grouper::new(limits, raw)).push(bytes);
                    self.taking = Some((source, false));
                    // Hits never wait, so whoever else runs on this thread gets its turn here.
                    tokio::task::yield_now().await;
                }
                Some(Event::End(source)) => self.taking = Some((source, true)),
                Some(Event::Failed(source, reason)) => {
                    if sink(Next::Failed(source, &reason)).is_break() {
                        return Ok(());
                    }
                }
                None => open = false,
            }
        }
    }

    /// Takes records until there is none or enough wait.
    fn take_records(&mut self, sink: &mut impl FnMut(Next<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        while let Some((source, ended)) = self.taking {
            if self.is_full() {
                return ControlFlow::Continue(());
            }
            let Some(Some(mut grouper)) = self.groupers.get_mut(source).map(Option::take) else {
                self.taking = None;
                break;
            };
            loop {
                let next = if ended { grouper.finish() } else { grouper.next_record() };
                let Some(record) = next else {
                    self.taking = None;
                    break;
                };
                self.judge(source, record, sink)?;
                if self.is_full() {
                    break;
                }
            }
            if !(ended && self.taking.is_none()) {
                self.groupers[source] = Some(grouper);
            }
        }
        ControlFlow::Continue(())
    }

    /// The input has paused: records that might have gone on are whole.
    fn flush(&mut self, sink: &mut impl FnMut(Next<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        for source in 0..self.groupers.len() {
            let Some(mut grouper) = self.groupers[source].take() else { continue };
            let flow = match grouper.flush() {
                Some(record) => self.judge(source, record, sink),
                None => ControlFlow::Continue(()),
            };
            self.groupers[source] = Some(grouper);
            flow?;
        }
        ControlFlow::Continue(())
    }

    fn judge(
        &mut self,
        source: usize,
        record: &Record,
        sink: &mut impl FnMut(Next<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.settings.raw {
            self.text.clear();
            self.text.push_str(&record.text);
        } else {
            model_text(record, &mut self.text);
        }
        let (slot, is_new) = self.memo.slot(&self.text);
        if is_new {
            self.group_bytes += self.text.len();
            self.group.push((self.text.clone(), slot.clone()));
            if self.group.len() >= self.scorer.together() || self.group_bytes >= MOST_TOGETHER_BYTES {
                self.ask();
            }
        } else if self.waiting.is_empty()
            && let Some(scored) = slot.get()
            && scored.is_ok()
        {
            return sink(Next::Record(Judged { source, record, text: &self.text, scored, is_new }));
        }
        let waiting = Waiting { source, record: record.clone(), text: self.text.clone(), slot, is_new };
        self.waiting_bytes += waiting.bytes();
        self.waiting.push_back(waiting);
        ControlFlow::Continue(())
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
            || self.waiting_bytes >= MOST_WAITING_BYTES
            || self.in_flight.len() >= self.scorer.in_flight()
    }

    /// Asks for what was gathered.
    fn ask(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let (texts, slots): (Vec<String>, Vec<Slot>) = self.group.drain(..).unzip();
        self.group_bytes = 0;
        let scorer = self.scorer;
        self.in_flight.push(Box::pin(async move {
            for (slot, answer) in slots.into_iter().zip(scorer.score(texts).await) {
                // Nobody else sets it: a slot is asked for when it is made.
                let _ = slot.set(answer);
            }
        }));
    }

    /// Gives out the records at the front that have their scores.
    fn give_out(&mut self, sink: &mut impl FnMut(Next<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        while let Some(first) = self.waiting.front() {
            let Some(scored) = first.slot.get() else { break };
            if let Err(Unscored::All(reason)) = scored {
                return Err(reason.clone());
            }
            let Waiting { source, record, text, is_new, .. } = first;
            let judged = Judged { source: *source, record, text, scored, is_new: *is_new };
            if sink(Next::Record(judged)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.waiting_bytes -= first.bytes();
            self.waiting.pop_front();
        }
        Ok(ControlFlow::Continue(()))
    }
}
