//! Whom TLS trusts: the system's certificate store, read when the first certificate
//! arrives, with `--ca-cert` added to it; or every certificate.

mod error;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::error::is_own_authority;
pub(crate) use self::error::{AuthorityError, TlsError, error};
use crate::sys::files;

/// Kinds of signatures that ring cannot verify: P-521, Ed448, RSA-PSS keys, SHA-1.
const UNVERIFIED: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED448,
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

/// Whose certificates are accepted.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// The system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR`, else the distribution's).
    System,
    /// The system's store and these.
    SystemAnd(Vec<CertificateDer<'static>>),
    /// Every certificate (`--no-verify-ssl`).
    Anybody,
}

impl Trust {
    /// The system's store and the certificates of a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or holds no certificate.
    pub(crate) fn system_and(file: &Path) -> Result<Self, AuthorityError> {
        let pem = files::read(file).map_err(AuthorityError::Unreadable)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .filter_map(Result::ok)
            .collect();
        let mut usable = RootCertStore::empty();
        match usable.add_parsable_certificates(certificates.iter().cloned()) {
            (0, _) => Err(AuthorityError::Empty),
            _ => Ok(Self::SystemAnd(certificates)),
        }
    }
}

/// The first certificate that a server has presented since it was last forgotten, whether it was accepted or not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presented(Arc<Mutex<Option<CertificateDer<'static>>>>);

impl Presented {
    fn note(&self, certificate: &CertificateDer<'_>) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| certificate.clone().into_owned());
    }

    /// From now on, the next one counts.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When it expires, in Unix time; none where there was none, and where it cannot be understood.
    pub(crate) fn expires(&self) -> Option<u64> {
        let first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, parsed) = X509Certificate::from_der(first.as_ref()?).ok()?;
        u64::try_from(parsed.validity().not_after.timestamp()).ok()
    }
}

/// A TLS client that trusts so.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, Error> {
    watching_config(trust, &Presented::default())
}

/// The same. What servers present to it is noted in `presented`.
pub(crate) fn watching_config(trust: &Trust, presented: &Presented) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        trust: trust.clone(),
        presented: presented.clone(),
        provider: provider.clone(),
        bundle: OnceLock::new(),
        directory: OnceLock::new(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // Each connection is the only one to its server.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    presented: Presented,
    provider: Arc<CryptoProvider>,
    bundle: OnceLock<Store>,
    directory: OnceLock<Store>,
}

/// Trusted certificates, and what verifies a chain up to one of them.
#[derive(Debug)]
struct Store {
    certificates: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
}

impl Store {
    fn of(certificates: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .ok();
        Self {
            certificates,
            chains,
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chains) = &self.chains else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match chains.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // A self-signed certificate as `openssl req -x509` makes it says that it is a CA, and
            // webpki takes no CA for a server. Its dates were checked before that (an expired one
            // has another error), its name was not.
            Err(error)
                if is_ca_as_server(&error)
                    && self.certificates.iter().any(|own| own == end_entity) =>
            {
                match verify_server_name(&ParsedCertificate::try_from(end_entity)?, name) {
                    Ok(()) => Ok(ServerCertVerified::assertion()),
                    Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                        expected,
                        presented,
                    })) if presented.is_empty() => by_common_name(end_entity, expected),
                    Err(error) => Err(error),
                }
            }
            verdict => verdict,
        }
    }
}

/// The SHA-256 hash of a certificate, as `sha256:` and hexadecimal digits.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hash = digest::digest(&digest::SHA256, certificate);
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

/// The verdict by the subject's common name, for a certificate without alternative names:
/// what `openssl req -x509` makes by itself, and what curl judges so.
fn by_common_name(
    certificate: &CertificateDer<'_>,
    expected: ServerName<'static>,
) -> Result<ServerCertVerified, Error> {
    let presented = common_names(certificate);
    let wanted = expected.to_str();
    if presented
        .iter()
        .any(|name| name.eq_ignore_ascii_case(&wanted))
    {
        return Ok(ServerCertVerified::assertion());
    }
    drop(wanted);
    Err(CertificateError::NotValidForNameContext {
        expected,
        presented,
    }
    .into())
}

/// The common names in a certificate's subject.
fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let names = parsed.subject().iter_common_name();
    names
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect()
}

fn is_ca_as_server(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if is_own_authority(other))
}

impl Verifier {
    fn bundle(&self) -> &Store {
        self.bundle.get_or_init(|| {
            let mut certificates = match &self.trust {
                Trust::SystemAnd(own) => own.clone(),
                Trust::System | Trust::Anybody => Vec::new(),
            };
            certificates.extend(read_bundle());
            Store::of(certificates, &self.provider)
        })
    }

    fn directory(&self) -> &Store {
        self.directory
            .get_or_init(|| Store::of(read_directories(), &self.provider))
    }
}

fn read_bundle() -> Vec<CertificateDer<'static>> {
    // `probe` passes over a named file that is not there; an administrator who names one means no other.
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| openssl_probe::probe().cert_file);
    let pem = file.and_then(|file| files::read(&file).ok());
    certificates_of(&pem.unwrap_or_default())
}

fn read_directories() -> Vec<CertificateDer<'static>> {
    let directories: Vec<PathBuf> = match std::env::var_os("SSL_CERT_DIR") {
        Some(named) => std::env::split_paths(&named).collect(),
        None => openssl_probe::candidate_cert_dirs()
            .map(Path::to_owned)
            .collect(),
    };
    directories
        .into_iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| files::read(&path).ok())
        .flat_map(|pem| certificates_of(&pem))
        .collect()
}

fn certificates_of(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.presented.note(end_entity);
        if matches!(self.trust, Trust::Anybody) {
            return Ok(ServerCertVerified::assertion());
        }
        match self
            .bundle()
            .verify(end_entity, intermediates, name, ocsp, now)
        {
            Err(unknown @ Error::InvalidCertificate(CertificateError::UnknownIssuer)) => match self
                .directory()
                .verify(end_entity, intermediates, name, ocsp, now)
            {
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Err(unknown),
                verdict => verdict,
            },
            verdict => verdict,
        }
    }

    // Where anybody is trusted, a signature by anybody's key proves nothing, and a key that ring
    // cannot use must not make a server that answers look down.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if matches!(self.trust, Trust::Anybody) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let supported = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if matches!(self.trust, Trust::Anybody) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let supported = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let supported = &self.provider.signature_verification_algorithms;
        let mut schemes = supported.supported_schemes();
        if matches!(self.trust, Trust::Anybody) {
            schemes.extend(UNVERIFIED);
        }
        schemes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn named(names: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn only_the_subjects_common_name_is_a_name() {
        let named_so = named(&[(DnType::CommonName, "vm.example.com")]);
        assert_eq!(common_names(&named_so), ["vm.example.com"]);
        // The bytes of a common name inside another attribute.
        let forged = "\u{6}\u{3}U\u{4}\u{3}\u{c}\u{e}vm.example.com";
        let forged = named(&[(DnType::OrganizationName, forged)]);
        assert!(common_names(&forged).is_empty());
        assert!(common_names(&CertificateDer::from(vec![0x30, 0x80])).is_empty());
    }
}
