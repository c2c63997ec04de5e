//! TLS for QUIC between nodes: both ends show the raw Ed25519 key (RFC 7250) that is their name, and
//! each takes the other for who its key says.

use std::sync::Arc;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme, version,
};
use shoal_reach::identity::{Identity, NodeId};

/// What both ends must want to speak.
const PROTOCOL: &[u8] = b"shoal/1";
/// What stands before an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 §4), and before a secret one
/// in PKCS #8 (§7).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

fn spki(id: &NodeId) -> Vec<u8> {
    [&SPKI[..], &id.0].concat()
}

/// Whose key that is.
pub(super) fn node_of(spki: &[u8]) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI)?;
    let id = NodeId(key.try_into().ok()?);
    id.key().map(|_| id)
}

/// Takes keys for names; at one end the name is known before.
#[derive(Debug)]
struct Names {
    wanted: Option<NodeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Names {
    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let id = node_of(key).ok_or(CertificateError::BadEncoding)?;
        match self.wanted {
            Some(wanted) if wanted != id => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, by, &self.algorithms)
    }
}

/// QUIC is TLS 1.3 (RFC 9001 §4.2), so nothing is signed by the rules of 1.2.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("QUIC is TLS 1.3".into()))
}

impl ServerCertVerifier for Names {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, by)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Names {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, key, by)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The two sides of a node's TLS.
#[derive(Clone)]
pub(super) struct Tls {
    key: Arc<CertifiedKey>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let secret = [&PKCS8[..], &identity.key().to_bytes()].concat();
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(secret));
        let secret = provider.key_provider.load_private_key(secret)?;
        let public = CertificateDer::from(spki(&identity.id()));
        let key = Arc::new(CertifiedKey::new(vec![public], secret));
        Ok(Self { key, provider })
    }

    fn names(&self, wanted: Option<NodeId>) -> Arc<Names> {
        let algorithms = self.provider.signature_verification_algorithms;
        Arc::new(Names { wanted, algorithms })
    }

    pub(super) fn server(&self) -> Result<QuicServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(self.names(None))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                Arc::clone(&self.key),
            )));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map_err(|e| Error::General(e.to_string()))
    }

    /// To reach this node and nobody else.
    pub(super) fn client(&self, to: NodeId) -> Result<QuicClientConfig, Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.names(Some(to)))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&self.key),
            )));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        QuicClientConfig::try_from(config).map_err(|e| Error::General(e.to_string()))
    }
}
