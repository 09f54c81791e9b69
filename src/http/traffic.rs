//! What happens on one connection and since when, and which of its time limits has passed.
//!
//! hyper limits the time for a header once the first bytes are there. It does not limit the time before them, the idle
//! time of HTTP/2, a client that does not read its answers, or one that abandons request after request: these rules
//! do. Time is an argument; nothing here waits. It does not know sockets or hyper.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::config::Server;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `preface` of a connection that began otherwise.
const NO_PREFACE: usize = usize::MAX;
/// In place of a time: there is none.
const NEVER: u64 = u64::MAX;

/// Time limits of every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a header to its request.
    pub header: Duration,
    /// Without an open request.
    pub idle: Duration,
    /// Without any progress of an answer that the client must take.
    pub write: Duration,
    /// Requests that may be abandoned beyond those that were answered.
    pub resets: usize,
}

impl Limits {
    /// The configured ones.
    pub fn new(config: &Server) -> Self {
        Self {
            first_byte: Duration::from_millis(config.first_byte_timeout_ms),
            header: Duration::from_millis(config.header_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
            write: Duration::from_millis(config.write_timeout_ms),
            resets: config.http2_max_resets,
        }
    }

    /// The shortest: how often to look.
    pub fn shortest(&self) -> Duration {
        self.first_byte.min(self.header).min(self.idle).min(self.write)
    }
}

/// Which limit has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// Not one byte came.
    FirstByte,
    /// A header was begun and not ended.
    Header,
    /// There is no open request.
    Idle,
    /// The socket takes no more: the client does not read.
    Blocked,
    /// HTTP/2 may send no more of any answer: the client gives no leave.
    Stalled,
}

impl Overdue {
    /// The reason as metrics name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte_timeout",
            Self::Header => "header_timeout",
            Self::Idle => "idle",
            Self::Blocked | Self::Stalled => "slow_reader",
        }
    }

    /// Whether a client that is not to blame, or its other requests, deserve a goodbye.
    pub fn is_polite(self) -> bool {
        matches!(self, Self::Idle | Self::Stalled)
    }
}

/// One connection's record. Times are milliseconds from its beginning.
#[derive(Debug)]
pub struct Traffic {
    limits: Limits,
    since: Instant,
    /// Bytes of HTTP/2's preface so far.
    preface: AtomicUsize,
    received: AtomicBool,
    /// When the first byte of a header came, while there is no request of it.
    heading: AtomicU64,
    /// Requests whose answer is not wholly handed over.
    open: AtomicUsize,
    /// The end of the last request, or when the socket last took something that had to wait.
    rested: AtomicU64,
    /// Since when the socket takes no more.
    blocked: AtomicU64,
    /// Answers with a part that waits for leave to be sent.
    waiting: AtomicUsize,
    /// When any part of an answer last got leave, or began to wait while no other did.
    moved: AtomicU64,
    answered: AtomicUsize,
    abandoned: AtomicUsize,
    flood: Notify,
}

impl Traffic {
    /// A connection that begins at `since`.
    pub fn new(limits: Limits, since: Instant) -> Self {
        Self {
            limits,
            since,
            preface: AtomicUsize::new(0),
            received: AtomicBool::new(false),
            heading: AtomicU64::new(NEVER),
            open: AtomicUsize::new(0),
            rested: AtomicU64::new(0),
            blocked: AtomicU64::new(NEVER),
            waiting: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            answered: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            flood: Notify::new(),
        }
    }

    /// `bytes` came; the calls for one connection do not overlap.
    pub fn read(&self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.received.store(true, Relaxed);
        let seen = self.preface.load(Relaxed);
        if seen < PREFACE.len() {
            let more = bytes.len().min(PREFACE.len() - seen);
            let fits = PREFACE[seen..seen + more] == bytes[..more];
            self.preface.store(if fits { seen + more } else { NO_PREFACE }, Relaxed);
        }
        if self.preface.load(Relaxed) == PREFACE.len() {
            // HTTP/2 sends much that is no header; there the idle time is the limit.
            self.heading.store(NEVER, Relaxed);
        } else if self.open.load(Relaxed) == 0 && self.heading.load(Relaxed) == NEVER {
            self.heading.store(self.at(now), Relaxed);
        }
    }

    /// The socket took something, or has nothing left to take.
    pub fn flows(&self, now: Instant) {
        if self.blocked.swap(NEVER, Relaxed) != NEVER {
            // Who still took an answer was not idle.
            self.rested.store(self.at(now), Relaxed);
        }
    }

    /// The socket takes no more for now.
    pub fn blocks(&self, now: Instant) {
        if self.blocked.load(Relaxed) == NEVER {
            self.blocked.store(self.at(now), Relaxed);
        }
    }

    /// A request begins.
    pub fn begin(&self) {
        self.open.fetch_add(1, Relaxed);
        self.heading.store(NEVER, Relaxed);
    }

    /// A request ends, with an answer or abandoned by the client.
    pub fn end(&self, answered: bool, now: Instant) {
        let count = if answered { &self.answered } else { &self.abandoned };
        let count = count.fetch_add(1, Relaxed) + 1;
        if !answered && count > self.limits.resets.saturating_add(self.answered.load(Relaxed)) {
            self.flood.notify_one();
        }
        self.rested.store(self.at(now), Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    /// A part of an answer waits for leave to be sent.
    pub fn waits(&self, now: Instant) {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.moved.store(self.at(now), Relaxed);
        }
    }

    /// A part of an answer has left.
    pub fn left(&self, now: Instant) {
        self.waiting.fetch_sub(1, Relaxed);
        self.moved.store(self.at(now), Relaxed);
    }

    /// Ready when the client has abandoned more requests than it may.
    pub async fn flooded(&self) {
        self.flood.notified().await;
    }

    /// Whether anything has come.
    pub fn has_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    /// The limit that has passed at `now`.
    pub fn overdue(&self, now: Instant) -> Option<Overdue> {
        self.passed().find(|(_, at)| *at <= now).map(|(overdue, _)| overdue)
    }

    /// Time from `now` until a limit passes if nothing happens before; at most the shortest limit, as anything may.
    pub fn next_look(&self, now: Instant) -> Duration {
        let shortest = self.limits.shortest();
        let next = self.passed().map(|(_, at)| at.saturating_duration_since(now)).min();
        next.unwrap_or(shortest).clamp(Duration::from_millis(1), shortest)
    }

    /// The limits that count as things stand, and when each passes.
    fn passed(&self) -> impl Iterator<Item = (Overdue, Instant)> {
        let Limits { first_byte, header, idle, write, .. } = self.limits;
        let blocked = self.blocked.load(Relaxed);
        let blocks = blocked != NEVER;
        let rests = self.open.load(Relaxed) == 0;
        let heading = self.heading.load(Relaxed);
        let limit = |counts: bool, overdue, from: u64, time: Duration| {
            counts.then(|| (overdue, self.since + Duration::from_millis(from) + time))
        };
        let waits = self.waiting.load(Relaxed) > 0;
        [
            limit(blocks, Overdue::Blocked, blocked, write),
            limit(waits, Overdue::Stalled, self.moved.load(Relaxed), write),
            limit(!self.has_received(), Overdue::FirstByte, 0, first_byte),
            limit(rests && heading != NEVER, Overdue::Header, heading, header),
            limit(rests && !blocks && self.has_received(), Overdue::Idle, self.rested.load(Relaxed), idle),
        ]
        .into_iter()
        .flatten()
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        first_byte: Duration::from_secs(1),
        header: Duration::from_secs(2),
        idle: Duration::from_secs(8),
        write: Duration::from_secs(4),
        resets: 2,
    };

    fn traffic() -> (Traffic, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Traffic::new(LIMITS, start), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn each_stage_has_its_limit() {
        let (one, at) = traffic();
        assert_eq!((one.overdue(at(0)), one.overdue(at(1))), (None, Some(Overdue::FirstByte)));
        one.read(b"GE", at(1));
        one.read(b"T", at(2));
        assert_eq!((one.overdue(at(2)), one.overdue(at(3))), (None, Some(Overdue::Header)));
        one.begin();
        assert_eq!(one.overdue(at(1000)), None, "a request has limits of its own");
        one.end(true, at(10));
        assert_eq!((one.overdue(at(17)), one.overdue(at(18))), (None, Some(Overdue::Idle)));
        assert_eq!(one.next_look(at(17)), Duration::from_secs(1));
    }

    #[test]
    fn http2_may_say_other_things_than_headers() {
        let (one, at) = traffic();
        one.read(&PREFACE[..9], at(0));
        one.read(&PREFACE[9..], at(0));
        one.read(b"a ping", at(5));
        assert_eq!((one.overdue(at(7)), one.overdue(at(8))), (None, Some(Overdue::Idle)));
    }

    #[test]
    fn an_answer_that_does_not_move_is_overdue() {
        let (one, at) = traffic();
        one.read(b"x", at(0));
        one.begin();
        one.waits(at(10));
        assert_eq!((one.overdue(at(13)), one.overdue(at(14))), (None, Some(Overdue::Stalled)));
        one.left(at(14));
        assert_eq!(one.overdue(at(100)), None);
        one.blocks(at(100));
        one.blocks(at(103));
        assert_eq!((one.overdue(at(103)), one.overdue(at(104))), (None, Some(Overdue::Blocked)));
        one.flows(at(104));
        assert_eq!(one.overdue(at(200)), None);
    }

    #[test]
    fn an_answer_that_is_not_taken_is_no_idleness() {
        let (one, at) = traffic();
        one.read(b"x", at(0));
        one.begin();
        one.end(true, at(1));
        // Handed over, and the client takes some of it every three seconds.
        for second in (2..20).step_by(3) {
            one.blocks(at(second));
            assert_eq!(one.overdue(at(second + 3)), None);
            one.flows(at(second + 3));
        }
        assert_eq!((one.overdue(at(27)), one.overdue(at(28))), (None, Some(Overdue::Idle)));
        one.blocks(at(21));
        assert_eq!((one.overdue(at(24)), one.overdue(at(40))), (None, Some(Overdue::Blocked)));
    }

    #[tokio::test]
    async fn as_many_requests_may_be_abandoned_as_are_answered_and_some_more() {
        let (one, at) = traffic();
        for answered in [true, false, false, false] {
            one.begin();
            one.end(answered, at(0));
        }
        assert!(futures_util::FutureExt::now_or_never(one.flooded()).is_none());
        one.begin();
        one.end(false, at(0));
        one.flooded().await;
    }
}
