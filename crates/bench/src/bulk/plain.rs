//! quinn as it comes, with the cryptography that we use (ring) and a certificate of the run.

use std::sync::Arc;

use anyhow::Context;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::{DigitallySignedStruct, Error, SignatureScheme, version};
use serde_json::json;

use super::{Goal, Meter, PIECE, Place, hex, payload, pieces, tell, unhex};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.enable_all().build()?)
}

/// Receives one stream.
pub(super) fn sink(place: &Place) -> anyhow::Result<()> {
    let pair = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    let pair = pair.map_err(|_| anyhow::anyhow!("no key was made"))?;
    let secret = PrivateKeyDer::Pkcs8(pair.as_ref().to_vec().into());
    let provider = provider();
    let secret = provider.key_provider.load_private_key(secret)?;
    let public = secret.public_key().context("a key has a public half")?;
    let public = CertificateDer::from(public.to_vec());
    let key = rustls::sign::CertifiedKey::new(vec![public.clone()], secret);
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(key));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![b"bulk".to_vec()];
    let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    runtime()?.block_on(async {
        let endpoint = Endpoint::server(server, place.listen)?;
        tell(endpoint.local_addr()?, &public);
        let incoming = endpoint.accept().await.context("nobody came")?;
        let connection = incoming.await?;
        let (mut answer, mut stream) = connection.accept_bi().await?;
        let mut buf = vec![0; PIECE];
        let mut len = 0;
        let mut meter = None;
        while let Some(n) = stream.read(&mut buf).await? {
            meter.get_or_insert_with(Meter::start);
            len += n as u64;
        }
        meter.unwrap_or_else(Meter::start).tell(len, &json!({}));
        answer.finish()?;
        connection.closed().await;
        Ok(())
    })
}

/// Takes the one key that it was told.
#[derive(Debug)]
struct Pinned {
    key: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match key.as_ref() == self.key {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General(format!("another key: {}", hex(key)))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("QUIC is TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, by, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Sends by one stream.
pub(super) fn source(place: &Place, goal: &Goal) -> anyhow::Result<()> {
    let pinned = Pinned {
        key: unhex(&goal.key)?,
        provider: provider(),
    };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"bulk".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    runtime()?.block_on(async {
        let endpoint = Endpoint::client(place.listen)?;
        let connection = endpoint.connect_with(config, goal.to, "bench")?.await?;
        let (mut stream, mut answer) = connection.open_bi().await?;
        let piece = payload();
        let meter = Meter::start();
        for now in pieces(&piece, goal.len) {
            stream.write_all(now).await?;
        }
        stream.finish()?;
        // All has arrived when the other side ends its half.
        answer.read_to_end(0).await?;
        let lost = connection.stats().path;
        let more = json!({"sent_packets": lost.sent_packets, "lost_packets": lost.lost_packets, "mtu": lost.current_mtu});
        meter.tell(goal.len, &more);
        connection.close(0u32.into(), b"done");
        endpoint.wait_idle().await;
        Ok(())
    })
}
