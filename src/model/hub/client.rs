//! Requests to the hub, and to the hosts it redirects to.
//!
//! Redirects are followed here and not by the HTTP library, because the access token must reach the hub's own origin
//! and no other. It does not know the cache.

use std::{io, path::Path};

use ureq::{
    Agent, Body,
    http::{
        HeaderMap, Method, Request, Response, Uri,
        header::{AUTHORIZATION, LOCATION, RANGE},
    },
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    Hub,
    address::{Origin, join},
    error::HubError,
    retry::Fault,
};

/// Redirects followed for one request.
const MAX_HOPS: usize = 10;

const USER_AGENT: &str = concat!("oddlog/", env!("CARGO_PKG_VERSION"));

pub(super) struct Client<'h> {
    agent: Agent,
    hub: &'h Hub,
    home: Origin,
}

/// A reply that is no redirect, and where it came from.
pub(super) struct Reply {
    pub response: Response<Body>,
    pub host: String,
    /// Whether the hub itself answered.
    pub from_hub: bool,
}

impl<'h> Client<'h> {
    /// # Errors
    /// When the endpoint or the certificate file cannot be used.
    pub fn new(hub: &'h Hub) -> Result<Self, HubError> {
        let bad_endpoint = || HubError::BadEndpoint(hub.endpoint.clone());
        let home = hub.endpoint.parse().ok().as_ref().and_then(Origin::of).ok_or_else(bad_endpoint)?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            // Ranges and lengths must count the bytes of the file itself.
            .accept_encoding("identity")
            .timeout_resolve(Some(hub.limits.connect_timeout))
            .timeout_connect(Some(hub.limits.connect_timeout))
            .timeout_send_request(Some(hub.limits.stall_timeout))
            .timeout_recv_response(Some(hub.limits.stall_timeout))
            .timeout_per_read(Some(hub.limits.stall_timeout));
        if !hub.proxy_from_env {
            config = config.proxy(None);
        }
        if let Some(path) = &hub.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(read_certificates(path)?).build());
        }
        Ok(Self { agent: config.build().new_agent(), hub, home })
    }

    pub fn hub(&self) -> &Hub {
        self.hub
    }

    pub fn endpoint(&self) -> &str {
        &self.hub.endpoint
    }

    /// `GET`, from byte `start` on, following redirects.
    pub fn get(&self, url: &str, start: u64) -> Result<Reply, Fault> {
        self.follow(Method::GET, url, start, &mut |_| false)
    }

    /// `HEAD`, following redirects until one reply satisfies `enough`; `enough` sees the headers of every reply.
    pub fn head(&self, url: &str, enough: &mut dyn FnMut(&HeaderMap) -> bool) -> Result<Reply, Fault> {
        self.follow(Method::HEAD, url, 0, enough)
    }

    fn follow(
        &self,
        method: Method,
        url: &str,
        start: u64,
        enough: &mut dyn FnMut(&HeaderMap) -> bool,
    ) -> Result<Reply, Fault> {
        let bad = |why| Fault::Fatal(HubError::BadRedirect { url: url.to_owned(), why });
        let mut uri: Uri = url.parse().map_err(|_| HubError::BadEndpoint(self.hub.endpoint.clone()))?;
        for _ in 0..=MAX_HOPS {
            let origin = Origin::of(&uri).ok_or_else(|| bad("it is neither http nor https"))?;
            if self.home.is_encrypted() && !origin.is_encrypted() {
                return Err(bad("it is not encrypted, though the hub is"));
            }
            let from_hub = origin == self.home;
            let host = uri.host().unwrap_or_default().to_owned();
            let response = self.send(&method, &uri, start, from_hub).map_err(|e| fault_of(&host, e))?;
            let done = enough(response.headers());
            match response.headers().get(LOCATION) {
                Some(location) if response.status().is_redirection() && !done => {
                    let location = location.to_str().map_err(|_| bad("it is not readable"))?;
                    uri = join(&uri, location).ok_or_else(|| bad("it is not readable"))?;
                }
                _ => return Ok(Reply { response, host, from_hub }),
            }
        }
        Err(bad("there are too many redirects"))
    }

    /// One request and its reply, redirects included.
    fn send(&self, method: &Method, uri: &Uri, start: u64, from_hub: bool) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(uri);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = self.hub.token.as_ref().filter(|_| from_hub) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        self.agent.run(request.body(())?)
    }
}

/// Network trouble may pass; a certificate or an address that is wrong stays wrong.
fn fault_of(host: &str, error: ureq::Error) -> Fault {
    use ureq::Error;
    let host = host.to_owned();
    let reason = match &error {
        Error::HostNotFound => "its name is not known".to_owned(),
        Error::Timeout(phase) => format!("no answer in time ({phase})"),
        Error::Io(e) => e.to_string(),
        other => other.to_string(),
    };
    match error {
        Error::Rustls(_) | Error::Tls(_) | Error::Pem(_) => Fault::Fatal(HubError::Untrusted { host, reason }),
        // What the handshake finds wrong comes as an error of this kind.
        Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => Fault::Fatal(HubError::Untrusted { host, reason }),
        Error::BadUri(_) | Error::Http(_) => Fault::Fatal(HubError::Unreachable { host, reason }),
        _ => Fault::transient(HubError::Unreachable { host, reason }),
    }
}

fn read_certificates(path: &Path) -> Result<RootCerts, HubError> {
    let bad = |why: String| HubError::BadCertificates { path: path.to_owned(), why };
    let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| bad(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
