//! TLS: both protocols, a certificate that is exchanged while serving, and what is said about files that cannot be used.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use oddlog::{
    config::{Cache, Server},
    http::App,
    verdicts::Verdicts,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, pki_types::CertificateDer,
};

use crate::support::{PATIENCE, Running, Setup, eventually, frames};

/// A certificate for `localhost` and its key, in files.
struct Files {
    dir: TempDir,
    certificate: CertificateDer<'static>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificate = write_pair(dir.path());
        Self { dir, certificate }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve(&self) -> Running {
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        Setup::default()
            .with(|c| {
                c.server.tls_certificate_file = certificate.display().to_string();
                c.server.tls_key_file = key.display().to_string();
                c.server.first_byte_timeout_ms = 300;
            })
            .serve()
    }
}

fn write_pair(dir: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".into()]).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// A client that trusts `certificate` alone and offers these protocols; an error if the handshake fails.
fn connect(
    server: &Running,
    certificate: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let mut session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(server.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

fn get(stream: &mut (impl Read + Write)) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    // A server that says goodbye in TLS too ends this without an error.
    stream.read_to_string(&mut text).unwrap();
    text
}

fn closed(server: &Running, reason: &str) -> f64 {
    server.sample("oddlog_connections_closed_total", Some(("reason", reason)))
}

#[test]
fn both_protocols_are_spoken() {
    let files = Files::new();
    let server = files.serve();
    let mut one = connect(&server, &files.certificate, &[b"http/1.1"]).unwrap();
    assert_eq!(one.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get(&mut one).starts_with("HTTP/1.1 200 OK\r\n"));
    let mut two = connect(&server, &files.certificate, &[b"h2", b"http/1.1"]).unwrap();
    assert_eq!(two.conn.alpn_protocol(), Some(&b"h2"[..]));
    two.write_all(&frames::preface(&[])).unwrap();
    let flags = frames::END_HEADERS | frames::END_STREAM;
    two.write_all(&frames::frame(frames::HEADERS, flags, 1, &frames::block(false, "/livez", &[]))).unwrap();
    let mut head = [0; 9];
    while head[3] != frames::HEADERS {
        two.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        two.read_exact(&mut payload).unwrap();
    }
}

#[test]
fn a_handshake_that_fails_or_never_comes_ends_the_connection() {
    let files = Files::new();
    let server = files.serve();
    let mut plain = server.connect();
    plain.send("GET", "/livez", &[], b"");
    assert!(!plain.rest().starts_with(b"HTTP"));
    eventually("it is counted", || closed(&server, "tls_handshake_failed") == 1.0);
    let mut silent = server.connect();
    assert_eq!(silent.rest(), b"");
    eventually("it is counted", || closed(&server, "tls_handshake_timeout") == 1.0);
    let stranger = Files::new();
    assert!(connect(&server, &stranger.certificate, &[]).is_err());
    assert!(get(&mut connect(&server, &files.certificate, &[]).unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_certificate_is_read_again_while_serving() {
    let files = Files::new();
    let server = files.serve();
    let mut kept = connect(&server, &files.certificate, &[]).unwrap();
    let second = write_pair(files.dir.path());
    server.app.reload();
    assert!(connect(&server, &files.certificate, &[]).is_err());
    assert!(connect(&server, &second, &[]).is_ok());
    // Connections that were there stay.
    assert!(get(&mut kept).starts_with("HTTP/1.1 200"));
    std::fs::write(files.path("cert.pem"), "no certificate").unwrap();
    server.app.reload();
    assert!(connect(&server, &second, &[]).is_ok());
    let reloads = |result| server.sample("oddlog_reloads_total", Some(("result", result)));
    assert_eq!((reloads("ok"), reloads("error")), (1.0, 1.0));
}

#[test]
fn files_that_cannot_be_used_say_what_to_do() {
    let (files, other) = (Files::new(), Files::new());
    let engine = Setup::default().engine();
    std::fs::write(files.path("empty.pem"), "").unwrap();
    std::fs::write(files.path("broken.pem"), "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    let key = files.path("key.pem");
    let cases = [
        (files.path("none.pem"), key.clone(), "none.pem"),
        (files.path("empty.pem"), key.clone(), "-----BEGIN CERTIFICATE-----"),
        (files.path("broken.pem"), key.clone(), "is no PEM file"),
        (key.clone(), key.clone(), "holds no certificate"),
        (files.path("cert.pem"), files.path("cert.pem"), "holds no private key"),
        (files.path("cert.pem"), other.path("key.pem"), "the key that belongs to it"),
    ];
    for (certificate, key, part) in cases {
        let config = Server {
            tls_certificate_file: certificate.display().to_string(),
            tls_key_file: key.display().to_string(),
            ..Server::default()
        };
        let error = App::new(Verdicts::new(engine.handle(), &Cache::default()), config, "tiny".into())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(part) && error.contains("server.tls_"), "{part}: {error}");
    }
}
