//! Where bytes come from: one thread that reads files and pipes, because both may block, and hands chunks on.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::mpsc;

use super::follow::{Follow, Look};
use crate::{
    error::StartError,
    records::{Encoding, decode},
};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 128 << 10;

/// Chunks that wait to be taken.
const CHUNKS: usize = 4;

/// Time between two looks at files that are followed and have nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file, compressed or not.
    File(PathBuf),
}

impl Source {
    /// How it is called in output.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".into(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// How far reading is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from files, before they are decompressed.
    pub read: AtomicU64,
    /// Bytes that all files have, if that is known.
    pub total: Option<u64>,
}

/// What the reading thread tells; the number is the source's.
pub(super) enum Event {
    Chunk(usize, Vec<u8>),
    /// The source ends here. A file that is followed may begin again.
    End(usize),
    Failed(usize, String),
}

/// The end that takes. Dropping it ends the thread at its next chunk or look; a read that blocks it only ends with the
/// process.
pub struct Input {
    pub(super) events: mpsc::Receiver<Event>,
    progress: Arc<Progress>,
    _stop: Sender<()>,
}

impl Input {
    /// Starts reading `sources`, one after another; with `follow`, all at once and for ever. With `from_end` files are
    /// followed from where they end now.
    ///
    /// # Errors
    /// [`StartError::Io`] if the thread cannot be started.
    pub fn start(sources: Vec<Source>, follow: bool, from_end: bool) -> Result<Self, StartError> {
        let size = |source: &Source| match source {
            Source::File(path) => path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len()),
            Source::Stdin => None,
        };
        let total: Option<u64> = if follow { None } else { sources.iter().map(size).sum() };
        let progress = Arc::new(Progress { read: AtomicU64::new(0), total });
        let (sender, events) = mpsc::channel(CHUNKS);
        let (stop, stopped) = bounded(0);
        let reader = Reader { sender, progress: progress.clone() };
        let run = move || match follow {
            true => reader.follow(&sources, from_end, &stopped),
            false => reader.read(&sources),
        };
        thread::Builder::new()
            .name("scan-reader".into())
            .spawn(run)
            .map_err(|source| StartError::Io { what: "starting the reading thread".into(), source })?;
        Ok(Self { events, progress, _stop: stop })
    }

    /// How far reading is.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

/// The consumer is gone.
struct Gone;

struct Reader {
    sender: mpsc::Sender<Event>,
    progress: Arc<Progress>,
}

impl Reader {
    fn send(&self, event: Event) -> Result<(), Gone> {
        self.sender.blocking_send(event).map_err(|_| Gone)
    }

    fn read(&self, sources: &[Source]) {
        for (number, source) in sources.iter().enumerate() {
            match self.read_one(number, source) {
                Err(Gone) => return,
                Ok(Err(error)) if self.send(Event::Failed(number, error.to_string())).is_err() => return,
                Ok(_) => {}
            }
            if self.send(Event::End(number)).is_err() {
                return;
            }
        }
    }

    fn read_one(&self, number: usize, source: &Source) -> Result<io::Result<()>, Gone> {
        let progress = self.progress.clone();
        let opened = match source {
            Source::Stdin => decode(Counted { inner: io::stdin(), progress }),
            Source::File(path) => File::open(path).and_then(|file| decode(Counted { inner: file, progress })),
        };
        let mut input = match opened {
            Ok((_, input)) => input,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            match input.read(&mut chunk) {
                Ok(0) => return Ok(Ok(())),
                Ok(n) => {
                    chunk.truncate(n);
                    self.send(Event::Chunk(number, chunk))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn follow(&self, sources: &[Source], from_end: bool, stopped: &Receiver<()>) {
        let mut follows = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let opened = match source {
                Source::Stdin => {
                    Err(io::Error::other("standard input cannot be followed; it is read to its end anyway"))
                }
                Source::File(path) => check_plain(path).and_then(|()| Follow::open(path.clone(), from_end)),
            };
            match opened {
                Ok(follow) => follows.push((number, follow)),
                Err(error) if self.send(Event::Failed(number, error.to_string())).is_err() => return,
                Err(_) => {}
            }
        }
        while !follows.is_empty() {
            let mut news = false;
            let mut broken = None;
            for (at, (number, follow)) in follows.iter_mut().enumerate() {
                let mut chunk = vec![0; CHUNK_BYTES];
                let event = match follow.look(&mut chunk) {
                    Ok(Look::Nothing) => continue,
                    Ok(Look::Rotated) => Event::End(*number),
                    Ok(Look::Bytes(n)) => {
                        chunk.truncate(n);
                        Event::Chunk(*number, chunk)
                    }
                    Err(error) => {
                        broken = Some(at);
                        Event::Failed(*number, error.to_string())
                    }
                };
                news = true;
                if self.send(event).is_err() {
                    return;
                }
            }
            if let Some(at) = broken {
                follows.remove(at);
            }
            if !news && stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

fn check_plain(path: &PathBuf) -> io::Result<()> {
    match decode(File::open(path)?)? {
        (Encoding::Plain, _) => Ok(()),
        _ => Err(io::Error::other("a compressed file cannot be followed")),
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.progress.read.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}
