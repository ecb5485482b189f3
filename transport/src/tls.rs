//! TLS 1.3 with raw public keys both ways (RFC 7250): each side proves that it holds the job's one key pair.
//!
//! No certificates, no names, no clock, no resumption: the only question is whether the other side has the same job key.

use std::fmt;
use std::io;
use std::sync::Arc;

use ::aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::identity::Identity;
use crate::prefetch::Prefetch;
use crate::stream::{BoxStream, Stream, boxed};

/// Names the protocol inside TLS, so that another TLS server on the same port is recognised as such.
pub const ALPN: &[u8] = b"muster/1";

/// Plaintext that may wait for encryption and for the socket, in bytes, before a writer is held back.
const WRITE_BUFFER_BYTES: usize = 128 << 10;

/// How a handshake, or the first read after it, went wrong.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// The other side holds another key, or none.
    #[error("the job keys differ")]
    WrongKey,
    /// What the other side sends is not this protocol.
    #[error("the other side does not speak the agent protocol ({0})")]
    Garbage(String),
    /// The other side went away.
    #[error("the connection was closed")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for SecureError {
    /// Finds out what an error of a TLS stream means. With TLS 1.3 the dialling side can be done before the other side
    /// refuses its key, so this serves errors of later reads as well.
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return classify(tls);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

fn classify(error: &Error) -> SecureError {
    match error {
        Error::InvalidCertificate(_)
        | Error::NoCertificatesPresented
        | Error::AlertReceived(
            AlertDescription::AccessDenied | AlertDescription::CertificateRequired | AlertDescription::DecryptError,
        ) => SecureError::WrongKey,
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => SecureError::Closed,
        other => SecureError::Garbage(other.to_string()),
    }
}

/// Dials securely.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

/// Accepts securely.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

/// The dialling side for this identity.
pub fn connector(identity: &Identity) -> Connector {
    let provider = provider();
    let verifier = Arc::new(SameKey::new(identity, &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Connector { config: Arc::new(config) }
}

/// The accepting side for this identity.
pub fn acceptor(identity: &Identity) -> Acceptor {
    let provider = provider();
    let verifier = Arc::new(SameKey::new(identity, &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Acceptor { config: Arc::new(config) }
}

impl Connector {
    /// Proves the key over a fresh connection. The caller sets the deadline.
    pub async fn connect<S>(&self, stream: S) -> Result<BoxStream, SecureError>
    where
        S: Stream + 'static,
    {
        // Not sent and not looked at: a key has no name.
        let name = ServerName::try_from("agent").expect("a valid name");
        let tls = TlsConnector::from(self.config.clone())
            .connect_with(name, Prefetch::new(stream), |session| session.set_buffer_limit(Some(WRITE_BUFFER_BYTES)))
            .await?;
        require_alpn(tls.get_ref().1.alpn_protocol())?;
        Ok(boxed(tls))
    }
}

impl Acceptor {
    /// Lets the other side prove the key over a fresh connection. The caller sets the deadline.
    pub async fn accept<S>(&self, stream: S) -> Result<BoxStream, SecureError>
    where
        S: Stream + 'static,
    {
        let tls = TlsAcceptor::from(self.config.clone())
            .accept_with(Prefetch::new(stream), |session| session.set_buffer_limit(Some(WRITE_BUFFER_BYTES)))
            .await?;
        require_alpn(tls.get_ref().1.alpn_protocol())?;
        Ok(boxed(tls))
    }
}

impl<S: Stream> Stream for client::TlsStream<Prefetch<S>> {
    fn rehome(&mut self) -> io::Result<()> {
        self.get_mut().0.inner().rehome()
    }
}

impl<S: Stream> Stream for server::TlsStream<Prefetch<S>> {
    fn rehome(&mut self) -> io::Result<()> {
        self.get_mut().0.inner().rehome()
    }
}

/// A side that names no protocol at all gets through rustls.
fn require_alpn(agreed: Option<&[u8]>) -> Result<(), SecureError> {
    match agreed {
        Some(ALPN) => Ok(()),
        _ => Err(SecureError::Garbage("no protocol was agreed on".to_owned())),
    }
}

/// One key exchange and the fast suites: a small hello, and no algorithm that nobody needs.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256],
        ..aws_lc_rs::default_provider()
    })
}

/// Accepts exactly one public key: our own.
struct SameKey {
    own: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SameKey {
    fn new(identity: &Identity, provider: &CryptoProvider) -> Self {
        Self { own: identity.public_key().to_vec(), algorithms: provider.signature_verification_algorithms }
    }

    fn compare(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        verify_slices_are_equal(presented, &self.own)
            .map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

impl fmt::Debug for SameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SameKey")
    }
}

fn tls12_is_off() -> Error {
    Error::General("TLS 1.2 is not offered".to_owned())
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.compare(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.compare(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
