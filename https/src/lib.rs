#![forbid(unsafe_code)]
//! One request to somebody's HTTPS server: a certificate authority from a file, a bearer token from another, one connection for each.
//!
//! Both files are read for every request, since those who mount them also replace them. TLS 1.3 only, redirects are not followed:
//! a token must not go to whom the server names.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
pub use hyper::Method;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use muster_protocol::limits::HTTPS_REPLY_BYTES_MAX;
use muster_transport::resolve::{ResolveError, Resolver};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Port of a URL that names none.
const PORT_DEFAULT: u16 = 443;

/// Why there is no answer. None of this has a token in it.
#[derive(Debug, Error)]
pub enum HttpsError {
    /// The address is none.
    #[error("{url:?} is not the address of an HTTPS server: {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that belongs to the request cannot be used.
    #[error("{what} {file}: {why}", file = file.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server has no address.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
    /// It cannot be connected.
    #[error("{server} cannot be connected: {source}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS has failed; most often the certificate authority is another one.
    #[error("{server} is not trusted, or speaks no TLS 1.3: {source}")]
    Tls {
        /// Host and port.
        server: String,
        /// What is wrong.
        source: io::Error,
    },
    /// What it sends is not HTTP, or it went away.
    #[error("{server} gives no answer: {why}")]
    Http {
        /// Host and port.
        server: String,
        /// What happened.
        why: String,
    },
    /// It takes too long.
    #[error("{server} has not answered within {limit_ms} ms")]
    TimedOut {
        /// Host and port.
        server: String,
        /// The time it had.
        limit_ms: u128,
    },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// `GET`, `POST`, …
    pub method: Method,
    /// `https://HOST[:PORT]/PATH`.
    pub url: &'a str,
    /// Form of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Whether the server has done what it was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Asks servers. Belongs to the runtime it is used on, as its resolver does.
pub struct Client {
    resolver: Resolver,
    authority: PathBuf,
    token: PathBuf,
}

impl Client {
    /// A client that trusts the certificates in one file and shows the token in another.
    pub fn new(authority: PathBuf, token: PathBuf) -> Self {
        Self { resolver: Resolver::default(), authority, token }
    }

    /// Asks once, all of it within `limit`.
    pub async fn ask(&self, ask: Ask<'_>, limit: Duration) -> Result<Reply, HttpsError> {
        let place = Place::of(ask.url)?;
        let server = format!("{}:{}", place.host, place.port);
        let late = HttpsError::TimedOut { server: server.clone(), limit_ms: limit.as_millis() };
        tokio::time::timeout(limit, self.exchange(ask, place, server)).await.unwrap_or(Err(late))
    }

    async fn exchange(&self, ask: Ask<'_>, place: Place, server: String) -> Result<Reply, HttpsError> {
        let config = trust(&self.authority)?;
        let bearer = bearer(&self.token)?;
        let tcp = self.connect(&place, &server).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(place.name, tcp).await;
        let tls = tls.map_err(|source| HttpsError::Tls { server: server.clone(), source })?;
        let failed = |why: String| HttpsError::Http { server: server.clone(), why };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| failed(reason(&e)))?;
        let path = place.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(ask.method)
            .uri(path)
            .header(HOST, place.authority)
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, ask.content_type)
            .body(Full::new(Bytes::from(ask.body)))
            .map_err(|e| failed(e.to_string()))?;
        // The connection is driven by hand, beside the request: nothing of it is left when this ends or is dropped.
        let mut connection = std::pin::pin!(connection);
        let mut reply = std::pin::pin!(async {
            let reply = sender.send_request(request).await.map_err(|e| failed(reason(&e)))?;
            let status = reply.status().as_u16();
            let body = Limited::new(reply.into_body(), HTTPS_REPLY_BYTES_MAX).collect().await;
            let body = body.map_err(|e| failed(e.to_string()))?.to_bytes().to_vec();
            Ok(Reply { status, body })
        });
        tokio::select! {
            biased;
            reply = &mut reply => reply,
            // A server may close as soon as it has answered; what it has said is still read.
            _ = &mut connection => reply.await,
        }
    }

    async fn connect(&self, place: &Place, server: &str) -> Result<TcpStream, HttpsError> {
        let mut last = io::Error::other("it has no address");
        for ip in self.resolver.resolve(&place.host).await? {
            match TcpStream::connect((ip, place.port)).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error,
            }
        }
        Err(HttpsError::Unreachable { server: server.to_owned(), source: last })
    }
}

/// Where a URL leads.
struct Place {
    uri: Uri,
    authority: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Place {
    fn of(url: &str) -> Result<Self, HttpsError> {
        let wrong = |why| HttpsError::Url { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it does not begin with https://"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong("its host is no name"))?;
        let (authority, port) = (authority.as_str().to_owned(), authority.port_u16().unwrap_or(PORT_DEFAULT));
        Ok(Self { authority, host, port, name, uri })
    }
}

/// Trusts the certificates in a file, and no others.
fn trust(file: &Path) -> Result<ClientConfig, HttpsError> {
    let wrong = |why: String| HttpsError::File { what: "certificate authority", file: file.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| wrong(e.to_string()))? {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// The token, marked so that nobody prints it.
fn bearer(file: &Path) -> Result<HeaderValue, HttpsError> {
    let wrong = |why: String| HttpsError::File { what: "token", file: file.to_owned(), why };
    let token = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| wrong("it holds what no header may hold".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error of HTTP with what caused it: by itself it says little.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_servers_are_asked() {
        for (url, want) in [
            ("https://trainer.ns.svc:8082/a/b?c=d", Ok(("trainer.ns.svc", 8082))),
            ("https://10.0.0.1/a", Ok(("10.0.0.1", 443))),
            ("https://[fd00::1]:6443/a", Ok(("fd00::1", 6443))),
            ("http://trainer/a", Err("it does not begin with https://")),
            ("/a", Err("it does not begin with https://")),
            ("", Err("it is no URL")),
            ("https://a b/", Err("it is no URL")),
        ] {
            match (Place::of(url), want) {
                (Ok(place), Ok(want)) => assert_eq!((place.host.as_str(), place.port), want),
                (Err(HttpsError::Url { why, .. }), Err(want)) => assert_eq!(why, want, "{url}"),
                (got, _) => panic!("{url}: {:?}", got.map(|place| place.authority)),
            }
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_a_token_is_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let said = |error: HttpsError| error.to_string().replace(dir.path().to_str().unwrap(), "");
        assert_eq!(
            said(trust(&file("ca", "")).unwrap_err()),
            "certificate authority /ca: there is no certificate in it"
        );
        assert!(said(trust(&dir.path().join("none")).unwrap_err()).starts_with("certificate authority /none: "));
        let broken = said(bearer(&file("token", "se\ncret")).unwrap_err());
        assert_eq!(broken, "token /token: it holds what no header may hold");
        let whole = bearer(&file("token", "secret\n")).unwrap();
        assert_eq!(whole.as_bytes(), b"Bearer secret");
        assert!(!format!("{whole:?}").contains("secret"));
    }
}
