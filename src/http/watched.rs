//! A socket and an answer's body that keep [`Traffic`] informed of what moves. They change nothing on the way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{auth::Pass, traffic::Traffic};
use crate::telemetry::Trace;

/// A socket whose reads and writes are noted.
pub struct WatchedSocket<S> {
    socket: S,
    traffic: Arc<Traffic>,
}

impl<S> WatchedSocket<S> {
    /// Watches `socket`.
    pub fn new(socket: S, traffic: Arc<Traffic>) -> Self {
        Self { socket, traffic }
    }

    /// Notes what became of a write or a flush.
    fn noted<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Pending => self.traffic.blocks(Instant::now()),
            Poll::Ready(_) => self.traffic.flows(Instant::now()),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.traffic.read(&buffer.filled()[before..], Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(context, parts);
        self.noted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes what it has written whole, so one that is ready leaves nothing behind.
        let result = Pin::new(&mut self.socket).poll_flush(context);
        self.noted(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// A request that counts as open until it is dropped: abandoned, unless it was answered.
pub struct OpenRequest {
    traffic: Arc<Traffic>,
    answered: bool,
}

impl OpenRequest {
    /// A request begins.
    pub fn new(traffic: Arc<Traffic>) -> Self {
        traffic.begin();
        Self { traffic, answered: false }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.traffic.end(self.answered, Instant::now());
    }
}

/// What is let go when an answer's body is handed over or given up.
type Held = (Option<Pass>, Option<Trace>);

/// An answer's body. Its request is open, its key's place taken and its trace held until it is handed over or given up.
pub struct WatchedBody<B> {
    body: B,
    request: OpenRequest,
    _held: Held,
    /// Whether a part of it waits for leave to be sent.
    waits: bool,
}

impl<B: Body> WatchedBody<B> {
    /// Watches the answer to `request`.
    pub fn new(body: B, mut request: OpenRequest, held: Held) -> Self {
        // A body that nobody asks for is the answer to a request that was abandoned; an empty one is never asked for.
        request.answered = body.is_end_stream();
        let mut watched = Self { body, request, _held: held, waits: false };
        watched.set_waits(true);
        watched
    }
}

impl<B> WatchedBody<B> {
    fn set_waits(&mut self, waits: bool) {
        if self.waits == waits {
            return;
        }
        self.waits = waits;
        match waits {
            true => self.request.traffic.waits(Instant::now()),
            false => self.request.traffic.left(Instant::now()),
        }
    }
}

impl<B: Body + Unpin> Body for WatchedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // Being asked means that what was given before has left.
        self.set_waits(false);
        self.request.answered = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.set_waits(frame.is_some());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for WatchedBody<B> {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}
