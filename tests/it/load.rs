//! Many clients at once, some of them gone mid-way, and the end under load: nothing is lost, nothing hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::support::{Connection, Setup};

const THREADS: usize = 32;

fn body(number: usize) -> String {
    format!(r#"{{"log_message": "request {number} came"}}"#)
}

/// Sends a request whose answer names it, and checks that it is its own.
fn ask(connection: &mut Connection, number: usize) {
    connection.send("POST", "/api/v1/analyze", &[], body(number).as_bytes());
    let answer = connection.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["log_message"], format!("request {number} came"));
}

#[test]
fn with_every_tenth_client_gone_each_other_one_is_answered_once() {
    const REQUESTS: usize = 10_000;
    let server = Setup::default().serve();
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut connection = server.connect();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= REQUESTS {
                        break;
                    }
                    if number % 10 == 9 {
                        connection.send("POST", "/api/v1/analyze", &[], body(number).as_bytes());
                        connection = server.connect();
                    } else {
                        ask(&mut connection, number);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), REQUESTS / 10 * 9);
    let mut server = server;
    assert_eq!(server.get("/readyz").status, 200);
    server.begin_end();
    assert!(server.wait_end());
    assert_eq!(server.sample("oddlog_queue_jobs", None), 0.0);
    assert_eq!(server.sample("oddlog_http_requests_in_flight", None), 0.0);
}

/// Asks until the server says that it closes the connection; every request is answered whole.
fn ask_until_closed(mut connection: Connection, answered: &AtomicUsize) {
    for number in 0.. {
        connection.send("POST", "/api/v1/analyze", &[], body(number).as_bytes());
        let answer = connection.answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered.fetch_add(1, Ordering::Relaxed);
        if answer.has("connection") {
            assert_eq!(answer.header("connection"), "close");
            return;
        }
    }
}

#[test]
fn the_end_under_load_answers_every_accepted_request() {
    let (setup, gate) = Setup::gated();
    let mut server = setup.serve();
    let answered = Arc::new(AtomicUsize::new(0));
    let client = |_| {
        let (connection, answered) = (server.connect(), answered.clone());
        thread::spawn(move || ask_until_closed(connection, &answered))
    };
    let clients: Vec<_> = (0..THREADS).map(client).collect();
    // All of them wait behind the gate when the end begins.
    while server.sample("oddlog_http_requests_in_flight", None) < THREADS as f64 {
        thread::yield_now();
    }
    server.begin_end();
    drop(gate);
    for client in clients {
        client.join().unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) >= THREADS);
    assert!(server.wait_end());
}
