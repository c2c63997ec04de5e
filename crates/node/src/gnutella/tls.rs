//! TLS between servents (Gnutella TLS Connection Upgrade; RFC 2817 for transfers).
//!
//! It keeps listeners out and tells nobody who the other is: certificates are signed by themselves,
//! made anew at each start, and not looked at. gtk-gnutella does the same, and takes suites without
//! any certificate besides, which rustls does not have; both have those with one.

mod certificate;

pub(crate) use certificate::make;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig,
    ServerConnection, SignatureScheme,
};

/// The name in servents' certificates, and the one asked for: means nothing.
const NAME: &str = "gnutella";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("the system gives no key for a certificate")]
    Certificate,
    /// It could not be used.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// Both ends of TLS, with the certificate of this run.
#[derive(Debug, Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Makes a key and a servent's certificate.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new() -> Result<Self, TlsError> {
        Self::named(NAME)
    }

    /// Makes a key and its certificate, which says this name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn named(name: &str) -> Result<Self, TlsError> {
        let (certificate, key) = make(name).map_err(|_| TlsError::Certificate)?;
        let certificate = CertificateDer::from(certificate);
        let key = PrivatePkcs8KeyDer::from(key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())?;
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_no_client_auth();
        client.enable_sni = false;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }

    /// What who is called needs.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The end of who was called.
    ///
    /// # Errors
    /// The settings make no sense to rustls.
    pub fn accept(&self) -> Result<Connection, TlsError> {
        let mut connection = ServerConnection::new(Arc::clone(&self.server))?;
        // What waits is bounded where it comes from.
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }

    /// The end of who calls.
    ///
    /// # Errors
    /// The settings make no sense to rustls.
    pub fn connect(&self) -> Result<Connection, TlsError> {
        let name = ServerName::try_from(NAME).map_err(|e| rustls::Error::General(e.to_string()))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.client), name)?;
        connection.set_buffer_limit(None);
        Ok(connection.into())
    }
}

/// Takes everybody for who it is: nobody is known by a certificate here, so that a signature with its
/// key proves nothing either.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether bytes begin as a handshake of TLS does.
pub(super) fn is_hello(first: &[u8]) -> bool {
    first.first() == Some(&0x16)
}

/// A connection that blocks, in clear or not.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<Connection>>,
    /// Bytes that go before anything else, as they are.
    first: Vec<u8>,
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self {
            tcp,
            tls: None,
            first: Vec::new(),
        }
    }
}

impl Stream {
    /// A connection on which TLS has begun; `first` are bytes of it that have not been sent yet.
    pub(super) fn begun(tcp: TcpStream, tls: Option<Box<Connection>>, first: Vec<u8>) -> Self {
        Self { tcp, tls, first }
    }

    /// From here on all goes by TLS. What came so far was all in clear.
    pub fn secure(&mut self, tls: Connection) {
        self.tls = Some(Box::new(tls));
    }

    /// As [`Self::secure`], of which `came` was read already.
    ///
    /// # Errors
    /// That is no TLS.
    pub(super) fn secure_after(&mut self, mut tls: Connection, mut came: &[u8]) -> io::Result<()> {
        while !came.is_empty() {
            if tls.read_tls(&mut came)? == 0 {
                break;
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        self.secure(tls);
        Ok(())
    }

    /// Agrees on a key, if TLS was begun and that has not been done.
    ///
    /// # Errors
    /// TLS does not come about.
    pub(super) fn shake(&mut self) -> io::Result<()> {
        self.send_first()?;
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                if tls.complete_io(&mut self.tcp)? == (0, 0) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(())
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether nobody can listen in.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    fn send_first(&mut self) -> io::Result<()> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.tcp.write_all(&first)?;
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.send_first()?;
        let Some(tls) = &mut self.tls else {
            return self.tcp.read(buf);
        };
        loop {
            match tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The other closed without a word. Whoever reads knows how much was to come.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            match tls.complete_io(&mut self.tcp) {
                Ok((0, 0)) => return Ok(0),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) => return Err(e),
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send_first()?;
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(buf);
        };
        if tls.is_handshaking() {
            tls.complete_io(&mut self.tcp)?;
        }
        let n = tls.writer().write(buf)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_first()?;
        match &mut self.tls {
            Some(tls) => {
                while tls.wants_write() {
                    tls.write_tls(&mut self.tcp)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn what_goes_in_comes_out_and_cannot_be_read_on_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let (here, there) = (Tls::new().expect("TLS"), Tls::new().expect("TLS"));
        let sharer = thread::spawn(move || {
            let mut stream = Stream::from(listener.accept().expect("one").0);
            stream.secure(there.accept().expect("an end"));
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).expect("five bytes");
            assert_eq!(&asked, b"hello");
            let many: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
            stream.write_all(&many).expect("sent");
            stream.tcp().shutdown(std::net::Shutdown::Both)
        });
        let mut stream = Stream::from(TcpStream::connect(to).expect("connected"));
        stream.secure(here.connect().expect("an end"));
        stream.write_all(b"hello").expect("sent");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("all");
        assert!(got.len() == 300_000 && got.iter().zip(0_u32..).all(|(b, n)| *b == n as u8));
        sharer.join().expect("it ends").expect("shut");
    }

    #[test]
    fn clear_text_where_tls_is_wanted_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut caller =
            TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        caller
            .write_all(b"GNUTELLA CONNECT/0.6\r\n\r\n")
            .expect("sent");
        let mut stream = Stream::from(listener.accept().expect("one").0);
        stream.secure(Tls::new().expect("TLS").accept().expect("an end"));
        assert!(stream.read(&mut [0; 9]).is_err());
        assert!(is_hello(&[0x16, 3, 1]) && !is_hello(b"GNUTELLA") && !is_hello(b""));
    }
}
