//! Where `serve` listens: sockets of its own, or those that systemd hands over; and how many files it may have open.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{config::Server, error::StartError, http::Doors};

/// Connections that the kernel keeps for a listener until they are accepted.
const BACKLOG: i32 = 4096;
/// Files that are not connections: the model, devices, pipes.
const OTHER_FILES: u64 = 256;

/// Listeners that were handed over: the first is the public one, a second the private one.
pub struct Handed(ListenFd);

impl Handed {
    /// Takes note of them. To be called before other threads run, since it changes the environment.
    pub fn find() -> Self {
        Self(ListenFd::from_env())
    }

    /// The listeners that were handed over; those that were not are opened as configured. Must run within tokio.
    ///
    /// # Errors
    /// [`StartError::Io`] names the address, or the descriptor that is no TCP listener.
    pub fn open(mut self, config: &Server) -> Result<Doors, StartError> {
        let lent = self.0.len() > 0;
        let private = config.private_address().map_err(StartError::Config)?;
        let private = private.map(|address| self.take(1, address, config.reuse_port)).transpose()?;
        Ok(Doors { public: self.take(0, config.listen, config.reuse_port)?, private, lent })
    }

    fn take(
        &mut self,
        index: usize,
        address: SocketAddr,
        reuse_port: bool,
    ) -> Result<tokio::net::TcpListener, StartError> {
        let failed = |what: String| move |source| StartError::Io { what, source };
        let handed = match index < self.0.len() {
            true => {
                self.0.take_tcp_listener(index).map_err(failed(format!("taking listener {index} of LISTEN_FDS")))?
            }
            false => None,
        };
        let what = format!("listening on {address}");
        let listener = match handed {
            Some(listener) => listener,
            None => bind(address, reuse_port).map_err(failed(what.clone()))?,
        };
        listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)).map_err(failed(what))
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit of open files as far as this process may, and returns how many of `wanted` connections fit.
pub fn make_room(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    // `None` is no limit at all.
    let files = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES).max(1));
    let fits = wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
    if fits < wanted {
        tracing::warn!(
            open_files = files,
            max_connections = fits,
            "fewer connections than server.max_connections fit into the limit of open files; raise it (ulimit -n)"
        );
    }
    fits
}
