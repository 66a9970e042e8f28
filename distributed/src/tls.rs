//! TLS without anybody who certifies. Each process makes a certificate for itself when it starts, in the name of the job, and
//! TLS proves no more than that both ends of a connection share keys which nobody else has. Who is at the other end the
//! [handshake](crate::auth) proves, with the job's key, over a value that TLS derives from this very connection: whoever stood
//! between and spoke TLS with both sides would have two connections, and two values.
//! [0016](https://github.com/thalweg/thalweg/blob/main/docs/decisions/0016-control.md) says why so.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
};

/// What a value is derived for; see RFC 5705.
const BINDING: &[u8] = b"EXPORTER-thalweg-job-key";

/// A value of one connection that its two ends alone can know; nothing where it is not encrypted.
pub(crate) type Binding = Option<[u8; 32]>;

/// How a process speaks TLS, both when it asks and when it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) asks: Arc<ClientConfig>,
    pub(crate) is_asked: Arc<ServerConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Tls {
    /// With a new certificate, for the job of this name.
    pub(crate) fn new(job: u64) -> io::Result<Self> {
        let name = format!("{job:016x}.job.thalweg");
        let made = rcgen::generate_simple_self_signed([name.clone()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let is_asked = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let is_asked = is_asked.map_err(io::Error::other)?.with_no_client_auth();
        let mut is_asked = is_asked.with_single_cert(vec![made.cert.der().clone()], key).map_err(io::Error::other)?;
        // Nobody resumes: a connection is made once.
        is_asked.send_tls13_tickets = 0;
        let asks = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let asks = asks.map_err(io::Error::other)?.dangerous();
        let mut asks = asks.with_custom_certificate_verifier(Arc::new(OfThisJob(provider))).with_no_client_auth();
        asks.resumption = rustls::client::Resumption::disabled();
        asks.enable_sni = false;
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        Ok(Self { asks: Arc::new(asks), is_asked: Arc::new(is_asked), name })
    }
}

/// What the handshake is to be bound to.
pub(crate) fn binding<Side>(connection: &ConnectionCommon<Side>) -> io::Result<Binding> {
    connection.export_keying_material([0; 32], BINDING, None).map(Some).map_err(io::Error::other)
}

/// Takes whoever names the job and has the key of its own certificate. Nobody vouches for it: what the handshake is bound to
/// does.
#[derive(Debug)]
struct OfThisJob(Arc<CryptoProvider>);

impl ServerCertVerifier for OfThisJob {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // There is no TLS 1.2 here.
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
