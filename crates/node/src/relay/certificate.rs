//! A certificate of one's own, by which a relay is known: read again when its files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are looked at, at most: when somebody begins with TLS.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a file at most.
const MAX_FILE: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("cannot read {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no certificate in the file.
    #[error("no certificate is in {0}")]
    Empty(PathBuf),
    /// The key is of a kind that cannot sign, or another certificate's.
    #[error("certificate and key do not serve")]
    Unfit(#[from] rustls::Error),
}

/// Where a certificate and its key are, in PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate, and those between it and the root.
    pub chain: PathBuf,
    /// Its key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
}

impl CertificateFiles {
    /// What serves TLS with it. Files that change are read again; while what is there does not serve,
    /// the last that did goes on.
    ///
    /// # Errors
    /// It does not serve now.
    pub fn server(self) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let stamp = self.stamp();
        let kept = Kept {
            key: self.read(&provider)?,
            stamp,
            looked: Instant::now(),
        };
        let resolver = Renewed {
            files: self,
            provider: Arc::clone(&provider),
            kept: Mutex::new(kept),
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        Ok(Arc::new(config))
    }

    /// Tells whether the files are others than before.
    fn stamp(&self) -> Stamp {
        [&self.chain, &self.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }

    fn read(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, CertificateError> {
        let chain = content(&self.chain)?;
        let certificates: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&chain).collect();
        let certificates = certificates.map_err(|e| bad(&self.chain, e))?;
        if certificates.is_empty() {
            return Err(CertificateError::Empty(self.chain.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&content(&self.key)?);
        let key = key.map_err(|e| bad(&self.key, e))?;
        let key = CertifiedKey::from_der(certificates, key, provider)?;
        Ok(Arc::new(key))
    }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> CertificateError {
    CertificateError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn content(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let len = fs::metadata(path).map_err(|e| bad(path, e))?.len();
    if len > MAX_FILE {
        return Err(bad(path, "it is too long"));
    }
    fs::read(path).map_err(|e| bad(path, e))
}

type Stamp = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Kept {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
    looked: Instant,
}

#[derive(Debug)]
struct Renewed {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    kept: Mutex<Kept>,
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.looked.elapsed() >= LOOK {
            kept.looked = Instant::now();
            let stamp = self.files.stamp();
            if stamp != kept.stamp {
                kept.stamp = stamp;
                match self.files.read(&self.provider) {
                    Ok(key) => kept.key = key,
                    Err(error) => tracing::warn!("the old certificate goes on: {error}"),
                }
            }
        }
        Some(Arc::clone(&kept.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gnutella::make_certificate;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls::client::Resumption;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    fn pem(kind: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    }

    /// Puts a fresh certificate there, and gives who trusts it.
    fn renew(files: &CertificateFiles) -> Arc<ClientConfig> {
        let (certificate, key) = make_certificate("relay.example.org").expect("made");
        fs::write(&files.chain, pem("CERTIFICATE", &certificate)).expect("written");
        fs::write(&files.key, pem("PRIVATE KEY", &key)).expect("written");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.into()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A session that goes on shows no certificate.
        client.resumption = Resumption::disabled();
        Arc::new(client)
    }

    /// A handshake in memory, with the client's whole verification.
    fn meets(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> Result<(), rustls::Error> {
        let name = name.try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory");
            server.read_tls(&mut bytes.as_slice()).expect("memory");
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).expect("memory");
            client.read_tls(&mut bytes.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn who_trusts_the_root_is_served_and_a_renewed_certificate_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = CertificateFiles {
            chain: dir.path().join("chain.pem"),
            key: dir.path().join("key.pem"),
        };
        assert!(files.clone().server().is_err());
        let first = renew(&files);
        let server = files.clone().server().expect("it serves");
        assert_eq!(meets(&server, &first, "relay.example.org"), Ok(()));
        assert!(meets(&server, &first, "other.example.org").is_err());
        // Files are looked at once a second; what is no certificate changes nothing.
        fs::write(&files.chain, "nothing").expect("written");
        std::thread::sleep(LOOK);
        assert_eq!(meets(&server, &first, "relay.example.org"), Ok(()));
        let second = renew(&files);
        std::thread::sleep(LOOK);
        assert_eq!(meets(&server, &second, "relay.example.org"), Ok(()));
        assert!(meets(&server, &first, "relay.example.org").is_err());
    }
}
