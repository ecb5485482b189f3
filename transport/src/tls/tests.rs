use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::identity::JobKey;
use crate::stream::memory;

fn identity(key: &str) -> Identity {
    JobKey::from_bytes(key.as_bytes()).unwrap().identity()
}

const ONE: &str = "the first key of this test";
const TWO: &str = "the second key of this test";

async fn meet(
    connector: Connector,
    acceptor: Acceptor,
) -> (Result<BoxStream, SecureError>, Result<BoxStream, SecureError>) {
    let (near, far) = memory(1 << 16);
    tokio::join!(connector.connect(near), acceptor.accept(far))
}

/// Lets any server through, as an attacker would.
#[derive(Debug)]
struct Gullible(SameKey);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&self.0)
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn gullible(identity: Option<&Identity>) -> Connector {
    let provider = provider();
    let verifier = Arc::new(Gullible(SameKey { own: vec![], algorithms: provider.signature_verification_algorithms }));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Connector { config: Arc::new(config) }
}

#[tokio::test]
async fn the_same_key_connects_and_carries_bytes_both_ways() {
    let (near, far) = meet(connector(&identity(ONE)), acceptor(&identity(ONE))).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let payload: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let mut echoed = vec![0; payload.len()];
    let echo = async {
        let mut buffer = vec![0; payload.len()];
        far.read_exact(&mut buffer).await.unwrap();
        far.write_all(&buffer).await.unwrap();
        far.flush().await.unwrap();
    };
    let ask = async {
        near.write_all(&payload).await.unwrap();
        near.flush().await.unwrap();
        near.read_exact(&mut echoed).await.unwrap();
    };
    tokio::join!(echo, ask);
    assert!(echoed == payload);
}

#[tokio::test]
async fn another_key_is_noticed_by_both_sides() {
    let (near, far) = meet(connector(&identity(ONE)), acceptor(&identity(TWO))).await;
    assert!(matches!(near.err(), Some(SecureError::WrongKey)));
    assert!(matches!(far.err(), Some(SecureError::WrongKey)));
}

#[tokio::test]
async fn a_dialler_that_checks_nothing_is_refused_all_the_same() {
    let (near, far) = meet(gullible(Some(&identity(TWO))), acceptor(&identity(ONE))).await;
    assert!(matches!(far.err(), Some(SecureError::WrongKey)));
    // It is done before the other side refuses: the refusal comes with its first read.
    let error = near.unwrap().read_u8().await.unwrap_err();
    assert!(matches!(SecureError::from(error), SecureError::WrongKey));
}

#[tokio::test]
async fn a_dialler_that_presents_no_key_is_refused() {
    let (_, far) = meet(gullible(None), acceptor(&identity(ONE))).await;
    assert!(matches!(far.err(), Some(SecureError::Garbage(_) | SecureError::WrongKey)));
}

#[tokio::test]
async fn a_stolen_public_key_is_of_no_use_without_its_private_half() {
    let (own, other) = (identity(ONE), identity(TWO));
    let forged = Identity {
        certified: Arc::new(rustls::sign::CertifiedKey::new(own.certified.cert.clone(), other.certified.key.clone())),
    };
    let (_, far) = meet(gullible(Some(&forged)), acceptor(&own)).await;
    assert!(matches!(far.err(), Some(SecureError::WrongKey)));
    let (near, _) = meet(connector(&own), acceptor(&forged)).await;
    assert!(matches!(near.err(), Some(SecureError::WrongKey)));
}

#[tokio::test]
async fn another_protocol_inside_tls_is_not_ours() {
    for offered in [vec![], vec![b"h2".to_vec()]] {
        let mut connector = connector(&identity(ONE));
        Arc::make_mut(&mut connector.config).alpn_protocols = offered;
        let (near, far) = meet(connector, acceptor(&identity(ONE))).await;
        assert!(matches!(far.err(), Some(SecureError::Garbage(_))));
        assert!(matches!(near.err(), Some(SecureError::Garbage(_))));
    }
}

#[tokio::test]
async fn a_plain_text_server_is_garbage_and_a_silent_close_is_closed() {
    let (near, mut far) = memory(1 << 16);
    far.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n").await.unwrap();
    let error = connector(&identity(ONE)).connect(near).await.err();
    assert!(matches!(error, Some(SecureError::Garbage(_))), "{error:?}");
    let (near, far) = memory(1 << 16);
    drop(far);
    let error = connector(&identity(ONE)).connect(near).await.err();
    assert!(matches!(error, Some(SecureError::Closed)), "{error:?}");
}
