//! The body of an answer: whole, or in parts that come while it is sent. It does not know what the parts say.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::mpsc, time::timeout};

/// Parts that wait to be sent; the next one makes its sender wait.
const PARTS: usize = 2;

/// An answer's body.
#[derive(Debug, Default)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Full<Bytes>),
    Parts { parts: mpsc::Receiver<Part>, ended: bool },
}

/// The end of a body in parts that sends them.
#[derive(Debug)]
pub struct Parts {
    sender: mpsc::Sender<Part>,
}

/// A piece of a body that comes in parts.
#[derive(Debug)]
pub enum Part {
    /// Bytes, at least one.
    Bytes(Bytes),
    /// The body is whole. Without it the connection is cut, so that the client sees that something is missing.
    End,
}

/// A body in parts lost its sender before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

impl Default for Kind {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl Body {
    /// A whole body.
    pub fn new(bytes: Bytes) -> Self {
        Self(Kind::Whole(Full::new(bytes)))
    }

    /// A body, and the end that sends its parts.
    pub fn in_parts() -> (Parts, Self) {
        let (sender, parts) = mpsc::channel(PARTS);
        (Parts { sender }, Self(Kind::Parts { parts, ended: false }))
    }
}

impl Parts {
    /// Sends a part within `patience`; whether the client took those before it.
    pub async fn send(&self, part: Part, patience: Duration) -> bool {
        matches!(timeout(patience, self.sender.send(part)).await, Ok(Ok(())))
    }

    /// Ready once the body is dropped.
    pub async fn gone(&self) {
        self.sender.closed().await;
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (parts, ended) = match &mut self.0 {
            Kind::Whole(whole) => {
                let frame = ready!(Pin::new(whole).poll_frame(context));
                return Poll::Ready(frame.map(|frame| frame.map_err(|never: Infallible| match never {})));
            }
            Kind::Parts { parts, ended } => (parts, ended),
        };
        if *ended {
            return Poll::Ready(None);
        }
        let part = ready!(parts.poll_recv(context));
        if let Some(Part::Bytes(bytes)) = part {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        *ended = true;
        Poll::Ready(part.is_none().then_some(Err(BrokenOff)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(whole) => whole.is_end_stream(),
            Kind::Parts { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(whole) => whole.size_hint(),
            Kind::Parts { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn parts_come_in_order_and_only_a_said_end_is_an_end() {
        let soon = Duration::from_secs(60);
        let (parts, mut body) = Body::in_parts();
        assert!(parts.send(Part::Bytes("a".into()), soon).await && parts.send(Part::End, soon).await);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        drop(parts);
        assert!(body.frame().await.is_none() && body.is_end_stream());

        let (parts, mut body) = Body::in_parts();
        drop(parts);
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());

        let (parts, body) = Body::in_parts();
        drop(body);
        parts.gone().await;
        assert!(!parts.send(Part::End, soon).await);

        assert_eq!(Body::new("b".into()).collect().await.unwrap().to_bytes(), "b");
    }
}
