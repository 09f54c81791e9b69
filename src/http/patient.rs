//! A body that fails when nothing of it comes for too long. It does not know what is in it.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// `body` with a limit to the time between two of its parts.
pub struct Patient<B> {
    body: B,
    patience: Duration,
    /// Runs from the moment when the next part was asked for and was not there.
    clock: Pin<Box<Sleep>>,
    runs: bool,
}

/// Why a [`Patient`] body fails.
#[derive(Debug)]
pub enum Lost<E> {
    /// Nothing came for too long.
    TooSlow,
    /// The body itself failed.
    Broken(E),
}

impl<B> Patient<B> {
    /// Waits at most `patience` for each part of `body`.
    pub fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, clock: Box::pin(sleep(patience)), runs: false }
    }
}

impl<B: Body + Unpin> Body for Patient<B> {
    type Data = B::Data;
    type Error = Lost<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.runs = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Lost::Broken)));
        }
        if !self.runs {
            self.runs = true;
            let until = Instant::now() + self.patience;
            self.clock.as_mut().reset(until);
        }
        self.clock.as_mut().poll(context).map(|()| Some(Err(Lost::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<E: fmt::Display> fmt::Display for Lost<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("nothing more of the body came"),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl<E: Error> Error for Lost<E> {}
