//! Very many connections and very large bodies, against a process of its own whose memory can be looked at.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{
    Connection,
    process::{serve, signal},
};

fn fake(command: &mut Command) {
    command.env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]");
}

/// A figure of the process in KiB.
fn kib(child: &Child, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn end(mut child: Child) {
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn ten_thousand_idle_connections_are_held_and_others_served() {
    let limit = getrlimit(Resource::Nofile);
    // Files that other tests need at the same time.
    let room = limit.maximum.unwrap_or(1 << 20).saturating_sub(2000);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let count = room.clamp(500, 10_000) as usize;
    let (child, address) = serve(fake);
    let listen: SocketAddr = address.parse().unwrap();
    let before = kib(&child, "VmRSS");
    let get = |socket: &mut TcpStream| {
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let length = socket.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..length]));
    };
    let mut idle: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(listen).unwrap()).collect();
    idle.iter_mut().for_each(get);
    let mut asking = Connection::open(listen);
    asking.send("GET", "/metrics", &[], b"");
    let metrics = asking.answer();
    let open = metrics.text().lines().find_map(|line| line.strip_prefix("oddlog_connections ")).unwrap();
    assert_eq!(open.parse::<f64>().unwrap(), (count + 1) as f64);
    asking.send("POST", "/api/v1/analyze", &[], br#"{"log_message": "x"}"#);
    assert_eq!(asking.answer().status, 200);
    let each = (kib(&child, "VmRSS") - before) as f64 / count as f64;
    println!("{count} idle connections: {each:.1} KiB each");
    assert!(each < 64.0, "{each} KiB a connection");
    // They still work.
    idle.iter_mut().step_by(100).for_each(get);
    drop(idle);
    end(child);
}

#[test]
fn a_body_of_a_gigabyte_is_refused_early_and_takes_no_memory() {
    const GIGABYTE: u64 = 1 << 30;
    let (child, address) = serve(fake);
    let listen: SocketAddr = address.parse().unwrap();
    let before = kib(&child, "VmHWM");
    let block = vec![b'x'; 64 << 10];
    let chunk = [b"10000\r\n", &block[..], b"\r\n"].concat();
    let length = format!("content-length: {GIGABYTE}");
    for (header, part) in [(&length[..], &block), ("transfer-encoding: chunked", &chunk)] {
        let mut connection = Connection::open(listen);
        connection.write(format!("POST /api/v1/analyze HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n"));
        let mut sent = 0;
        // A little more than is allowed; then the answer is there.
        for _ in 0..70 {
            connection.write(part);
            sent += part.len() as u64;
        }
        assert_eq!(connection.answer().status, 413, "{header}");
        while connection.try_write(part) && sent < GIGABYTE {
            sent += part.len() as u64;
        }
        assert!(sent < GIGABYTE / 8, "{header}: {sent} bytes were taken");
    }
    let grown = kib(&child, "VmHWM") - before;
    println!("two gigabytes refused: {grown} KiB more at most");
    assert!(grown < 48 << 10, "{grown} KiB");
    end(child);
}
