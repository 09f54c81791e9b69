//! TLS: a certificate and its key, which can be read again while serving. It does not know HTTP beyond its versions'
//! names.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
};

use crate::{config::Server, error::StartError};

/// What a client may speak after the handshake.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The configured files and what was last read from them.
pub struct Tls {
    config: Server,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads certificate and key; `None` if none are configured.
    ///
    /// # Errors
    /// [`StartError::Io`] for an unreadable file, [`StartError::Config`] for one that does not hold what it should, or
    /// for a key that is not the certificate's.
    pub fn read(config: &Server) -> Result<Option<Self>, StartError> {
        if config.tls_certificate_file.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { current: RwLock::new(load(config)?), config: config.clone() }))
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// As [`Tls::read`]; the certificate stays as it was.
    pub fn reload(&self) -> Result<(), StartError> {
        let fresh = load(&self.config)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What makes a connection's handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

fn load(config: &Server) -> Result<Arc<ServerConfig>, StartError> {
    let (certificate, key) = (Path::new(&config.tls_certificate_file), Path::new(&config.tls_key_file));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("server.tls_certificate_file", certificate, error, "certificate"))?;
    if chain.is_empty() {
        return Err(holds_none("server.tls_certificate_file", certificate, "certificate"));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unreadable("server.tls_key_file", key, error, "private key"))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::Config(format!("TLS: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| {
            StartError::Config(format!(
                "server.tls_certificate_file {} cannot be used with server.tls_key_file {}: {error}. The file needs the \
                 server's own certificate first, then its issuers, and the key that belongs to it",
                certificate.display(),
                key.display()
            ))
        })?;
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(tls))
}

fn unreadable(name: &str, path: &Path, error: pem::Error, what: &str) -> StartError {
    match error {
        pem::Error::Io(source) => StartError::Io { what: format!("reading {name} {}", path.display()), source },
        pem::Error::NoItemsFound => holds_none(name, path, what),
        other => StartError::Config(format!("{name} {} is no PEM file: {other}", path.display())),
    }
}

fn holds_none(name: &str, path: &Path, what: &str) -> StartError {
    let mark = what.to_uppercase();
    StartError::Config(format!(
        "{name} {} holds no {what}. It must be PEM, with a block that begins with -----BEGIN {mark}-----",
        path.display()
    ))
}
