//! Ends and successions of real processes: no accepted request is lost, no connection refused, files are read again.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    PATIENCE,
    process::{entry_with, oddlog, prepared, serve, signal, start},
};

const REQUEST: &str = "POST /api/v1/analyze HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 20\r\n\r\n\
                       {\"log_message\": \"x\"}";

/// What became of one request on a connection of its own.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    Lost(String),
}

fn ask(address: SocketAddr) -> Fate {
    let Ok(mut socket) = TcpStream::connect(address) else { return Fate::Refused };
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    let exchanged = socket.write_all(REQUEST.as_bytes()).and_then(|()| socket.read_to_string(&mut answer));
    match exchanged {
        Ok(_) if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}') => Fate::Answered,
        other => Fate::Lost(format!("{other:?} {answer}")),
    }
}

/// A fake device that waits a little for company, so that there are always requests under way.
fn busy(command: &mut Command) {
    command.env("ODDLOG_BATCHING__MAX_QUEUE_DELAY_US", "3000").env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]");
}

fn wait(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn sigterm_under_load_loses_nothing_twenty_times() {
    let one = || {
        let (child, address) = serve(busy);
        let address: SocketAddr = address.parse().unwrap();
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        loop {
                            match ask(address) {
                                Fate::Answered => answered.fetch_add(1, Ordering::Relaxed),
                                other => return other,
                            };
                        }
                    })
                })
                .collect();
            while answered.load(Ordering::Relaxed) < 20 {
                thread::yield_now();
            }
            signal(&child, "TERM");
            for client in clients {
                assert_eq!(client.join().unwrap(), Fate::Refused);
            }
        });
        assert_eq!(wait(child), Some(0));
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| one()));
        }
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        // A lone request that waits for company keeps the server from ending.
        let (mut child, address) = serve(|command| {
            command.env("ODDLOG_BATCHING__MAX_QUEUE_DELAY_US", "60000000").env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]");
            command.env("ODDLOG_LOG__LEVEL", "info");
        });
        let mut waiting = TcpStream::connect(&address).unwrap();
        waiting.write_all(REQUEST.as_bytes()).unwrap();
        let metrics = || ureq::get(format!("http://{address}/metrics")).call().unwrap().into_body().read_to_string();
        while !metrics().unwrap().contains("oddlog_queue_jobs 1") {
            thread::yield_now();
        }
        let mut log = BufReader::new(child.stderr.take().unwrap());
        signal(&child, "TERM");
        let said = entry_with(&mut log, "message");
        assert!(said["fields"]["message"].as_str().unwrap().contains("a second signal ends at once"), "{said}");
        signal(&child, name);
        assert_eq!(wait(child), Some(code));
        assert_eq!(waiting.read(&mut [0]).unwrap_or(0), 0, "it was cut off");
    }
}

/// Clients that ask without a pause until they are told to stop; everything must be answered.
fn under_requests(address: SocketAddr, change: impl FnOnce()) {
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(ask(address), Fate::Answered);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        change();
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 3);
}

#[test]
fn a_successor_on_the_same_port_takes_over_without_a_refused_connection() {
    let reuse = |command: &mut Command| {
        busy(command);
        command.env("ODDLOG_SERVER__REUSE_PORT", "true");
    };
    let (mut child, address) = serve(reuse);
    let listen: SocketAddr = address.parse().unwrap();
    under_requests(listen, || {
        for _ in 0..2 {
            let mut command = oddlog(&["serve", "--listen", &address]);
            reuse(&mut command);
            let (successor, same) = start(command);
            assert_eq!(same, address);
            signal(&child, "TERM");
            assert_eq!(wait(std::mem::replace(&mut child, successor)), Some(0));
        }
    });
    signal(&child, "TERM");
    assert_eq!(wait(child), Some(0));
}

#[test]
fn a_listener_that_is_handed_over_outlives_the_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let begin = || {
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" serve --listen 203.0.113.1:1 3<&0";
        let mut command = Command::new("sh");
        prepared(&mut command).args(["-c", script, env!("CARGO_BIN_EXE_oddlog")]);
        busy(&mut command);
        command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        let (child, serves) = start(command);
        assert_eq!(serves, address.to_string());
        child
    };
    let mut child = begin();
    under_requests(address, || {
        for _ in 0..2 {
            signal(&child, "TERM");
            assert_eq!(child.wait().unwrap().code(), Some(0));
            // Until the next one begins, connections wait in the listener.
            child = begin();
            assert_eq!(ask(address), Fate::Answered);
        }
    });
    signal(&child, "TERM");
    assert_eq!(wait(child), Some(0));
}

#[test]
fn systemd_is_told_and_sighup_reads_the_keys_again() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, keys) = (dir.path().join("notify"), dir.path().join("keys"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    fs::write(&keys, "one\n").unwrap();
    let (child, address) = serve(|command| {
        busy(command);
        command.env("NOTIFY_SOCKET", &notify).env("ODDLOG_SERVER__API_KEYS_FILE", &keys);
    });
    assert_eq!(told(), "READY=1\n");
    let status = |key: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let post = agent.post(format!("http://{address}/api/v1/analyze"));
        post.header("authorization", format!("Bearer {key}"))
            .send("{\"log_message\": \"x\"}")
            .unwrap()
            .status()
            .as_u16()
    };
    for (text, one, two) in [("two\n", 401, 200), ("# none\n", 401, 200), ("one\n", 200, 401)] {
        fs::write(&keys, text).unwrap();
        signal(&child, "HUP");
        assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(told(), "READY=1\n");
        assert_eq!((status("one"), status("two")), (one, two), "{text}");
    }
    signal(&child, "TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(wait(child), Some(0));
}

#[test]
fn a_delayed_end_goes_on_serving_while_it_says_not_ready() {
    let (child, address) = serve(|command| {
        busy(command);
        command.env("ODDLOG_SERVER__SHUTDOWN_DELAY_MS", "700");
    });
    let listen: SocketAddr = address.parse().unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ready = || agent.get(format!("http://{address}/readyz")).call().unwrap().status().as_u16();
    assert_eq!(ready(), 200);
    signal(&child, "TERM");
    while ready() == 200 {}
    assert_eq!(ask(listen), Fate::Answered);
    assert_eq!(wait(child), Some(0));
}
