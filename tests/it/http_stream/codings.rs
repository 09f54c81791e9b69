//! gzip and zstd, both ways, of streams and of single and batch calls; broken bodies, and bombs.

use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;

use super::{Client, PLAIN, STREAM, gzip, kinds, some_lines, stream, zstd};
use crate::support::Setup;

#[test]
fn answers_come_while_the_body_is_sent_in_every_coding() {
    let server = Setup::default().serve();
    for coding in ["identity", "gzip", "zstd"] {
        let mut client = Client::open(&server, "", &[PLAIN, ("accept-encoding", coding)]);
        let mut seen = String::new();
        for line in 1..=3 {
            client.send("disk");
            client.send(" full\n");
            // What came so far can be decoded, though the stream is not at its end.
            let wanted = format!("{{\"line\":{line},");
            while !seen.contains(&wanted) {
                client.chunk();
                seen.clear();
                let mut decoder: Box<dyn Read + '_> = match coding {
                    "gzip" => Box::new(MultiGzDecoder::new(&client.body[..])),
                    "zstd" => Box::new(zstd::Decoder::new(&client.body[..]).unwrap()),
                    _ => Box::new(&client.body[..]),
                };
                let mut byte = [0];
                while decoder.read(&mut byte).is_ok_and(|read| read == 1) {
                    seen.push(char::from(byte[0]));
                }
            }
            assert!(seen.ends_with("}\n"), "{seen}");
        }
        let named = client.head.contains(&format!("content-encoding: {coding}"));
        assert!(client.head.contains(&"vary: accept-encoding".into()) && named == (coding != "identity"));
        client.end();
        let bytes = client.bytes();
        let text = match coding {
            "gzip" => std::io::read_to_string(MultiGzDecoder::new(&bytes[..])).unwrap(),
            "zstd" => String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap(),
            _ => String::from_utf8(bytes).unwrap(),
        };
        assert_eq!(text, seen, "{coding}");
    }
}

#[test]
fn coded_bodies_are_read_and_broken_ones_end_with_an_error() {
    let server = Setup::default().serve();
    let text = some_lines(300).join("\n");
    let expected = stream(&server, "", &[PLAIN], &text);
    for (coding, coded) in [("gzip", gzip(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
        let headers = [PLAIN, ("content-encoding", coding)];
        assert_eq!(stream(&server, "", &headers, &coded), expected, "{coding}");
        // In small pieces, and with a second member.
        let mut client = Client::open(&server, "", &headers);
        coded.chunks(7).for_each(|piece| client.send(piece));
        client.send(if coding == "gzip" { gzip(b"\nmore") } else { zstd(b"\nmore") });
        client.end();
        assert_eq!(client.entries().len(), 301);
        let mut corrupt = coded.clone();
        let middle = coded.len() / 2;
        corrupt[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0x55);
        for broken in [&coded[..coded.len() - 5], &corrupt, b"no such thing" as &[u8]] {
            let entries = stream(&server, "", &headers, broken);
            let (last, before) = entries.split_last().unwrap();
            assert_eq!(last["error"]["type"], "body_undecodable", "{coding}: {last}");
            assert!(last["error"]["msg"].as_str().unwrap().contains(coding), "{last}");
            // What was read before it is answered; a corrupt part may have said anything.
            let numbers: Vec<u64> = before.iter().map(|entry| entry["line"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted() && numbers.iter().all(|number| *number < last["line"].as_u64().unwrap()));
            let whole = server.call("POST", &format!("{STREAM}?respond=summary"), &headers, broken);
            assert_eq!(whole.status, 400, "{}", whole.text());
            assert!(whole.json()["detail"].as_str().unwrap().contains(coding));
        }
    }
    // More than the window that HTTP allows.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(text.as_bytes()).unwrap();
    let entries = stream(&server, "", &[PLAIN, ("content-encoding", "zstd")], wide.finish().unwrap());
    assert_eq!(kinds(&entries), [(1, "body_undecodable")]);
}

#[test]
fn single_and_batch_calls_take_coded_bodies_too() {
    let server = Setup::default().with(|c| c.server.max_body_bytes = 100_000).serve();
    let (one, many) = (br#"{"log_message": "x"}"#, br#"{"logs": ["x", "y"]}"#);
    for (path, body) in [("/api/v1/analyze", &one[..]), ("/api/v1/analyze/batch", many)] {
        let plain = server.post(path, body);
        let text = plain.text();
        for (coding, coded) in [("gzip", gzip(body)), ("zstd", zstd(body)), ("identity", body.to_vec())] {
            let answer = server.call("POST", path, &[("content-encoding", coding)], &coded);
            assert_eq!((answer.status, answer.text()), (200, text), "{coding}");
            if coding != "identity" {
                let answer = server.call("POST", path, &[("content-encoding", coding)], &coded[..coded.len() - 2]);
                assert_eq!(answer.status, 400, "{coding} truncated");
                assert!(answer.text().contains(coding));
            }
        }
        // A bomb is as large as what it says.
        let bomb = [body, &vec![b' '; 20 << 20]].concat();
        for (coding, coded) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
            let small = coded.len() < 100_000;
            let answer = server.call("POST", path, &[("content-encoding", coding)], &coded);
            assert_eq!(answer.status, 413, "{coding}: {}, {small}", answer.text());
        }
    }
    for path in ["/api/v1/analyze", "/api/v1/analyze/batch", STREAM] {
        for coding in ["br", "gzip, zstd"] {
            let answer = server.call("POST", path, &[("content-encoding", coding)], one);
            assert_eq!((answer.status, answer.header("accept-encoding")), (415, "gzip, zstd"), "{path}");
        }
    }
    let answer = server.call("POST", STREAM, &[("content-type", "application/msgpack")], one);
    assert_eq!(answer.status, 415);
    assert!(answer.text().contains("application/x-ndjson"));
}

#[test]
fn a_bomb_is_one_long_line() {
    let server = Setup::default().serve();
    let bomb = [&vec![b'x'; 100 << 20], &b"\nafter\n"[..]].concat();
    for (coding, coded) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        assert!(coded.len() < 1 << 20);
        let entries = stream(&server, "", &[PLAIN, ("content-encoding", coding)], coded);
        assert_eq!(kinds(&entries), [(1, "line_too_long"), (2, "scored")], "{coding}");
    }
}
