//! An HTTPS server with a certificate authority of its own, for what asks servers of others.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

type Answer = dyn Fn(&HttpsRequest) -> (u16, String) + Send + Sync;

/// Answers on a port of loopback until the test process ends, and remembers who has asked for what.
#[derive(Debug)]
pub struct HttpsServer {
    port: u16,
    authority: PathBuf,
    requests: Arc<Mutex<Vec<HttpsRequest>>>,
}

impl HttpsServer {
    /// Starts a server that answers with a status and a body; its certificate authority is written into the folder.
    ///
    /// # Errors
    /// When there is no port, or the file cannot be written.
    pub fn start(dir: &Path, answer: impl Fn(&HttpsRequest) -> (u16, String) + Send + Sync + 'static) -> Result<Self> {
        let (config, authority) = certify()?;
        let file = dir.join("ca.crt");
        std::fs::write(&file, authority).context("the certificate authority cannot be written")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer): (_, Arc<Answer>) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, kept, answer) = (config.clone(), kept.clone(), answer.clone());
                // Who does not trust it goes away in the middle; that is what some tests want.
                std::thread::spawn(move || serve(stream, config, &kept, &*answer));
            }
        });
        Ok(Self { port, authority: file, requests })
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// File with its certificate authority.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// What it was asked for until now.
    pub fn requests(&self) -> Vec<HttpsRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A new authority, and a server's certificate from it.
fn certify() -> Result<(Arc<ServerConfig>, String)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    Ok((Arc::new(config), authority.pem()))
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, kept: &Mutex<Vec<HttpsRequest>>, answer: &Answer) -> Result<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(config)?, stream);
    let request = read(&mut tls)?;
    let (status, body) = answer(&request);
    // Remembered before it is answered: who has an answer is in the list.
    kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    write!(tls, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    tls.conn.send_close_notify();
    tls.flush()?;
    Ok(())
}

fn read(from: &mut impl Read) -> Result<HttpsRequest> {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| -> Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = from.read(&mut buffer)?;
        ensure!(count > 0, "the request ends in the middle");
        bytes.extend_from_slice(&buffer[..count]);
        Ok(())
    };
    let end = loop {
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end,
            None => more(&mut bytes)?,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: BTreeMap<_, _> = lines.filter_map(header).collect();
    let length: usize = headers.get("content-length").map_or(Ok(0), |text| text.parse())?;
    while bytes.len() < end + 4 + length {
        more(&mut bytes)?;
    }
    let body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec())?;
    Ok(HttpsRequest { method, path, headers, body })
}
