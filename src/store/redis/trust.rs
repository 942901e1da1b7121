//! Whom a `rediss://` connection trusts, and who we are to it.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::tls;
use crate::token::Secret;

/// As it was given, in PEM.
#[derive(Clone, Default)]
pub(super) struct Trust {
    /// `None`: the operating system's.
    pub(super) roots: Option<String>,
    /// Our own chain, and its key.
    pub(super) ours: Option<(String, Secret<String>)>,
}

impl Trust {
    pub(super) fn config(&self) -> Result<ClientConfig, String> {
        let config = tls::config().map_err(|error| error.to_string())?;
        let config = match &self.roots {
            None => config.with_platform_verifier().map_err(|error| error.to_string())?,
            Some(pem) => config.with_root_certificates(roots(pem)?),
        };
        let Some((chain, key)) = &self.ours else {
            return Ok(config.with_no_client_auth());
        };
        let (chain, key) = ours(chain, key)?;
        let config = config.with_client_auth_cert(chain, key);
        config.map_err(|_| "the client's key does not fit its certificate".into())
    }
}

/// Why it cannot be used is said in our words.
pub(super) fn roots(pem: &str) -> Result<RootCertStore, &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|_| "holds a certificate that cannot be trusted")?;
    }
    Ok(roots)
}

type Ours = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) fn ours(chain: &str, key: &Secret<String>) -> Result<Ours, &'static str> {
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| "comes with a key that is no private key in PEM")?;
    Ok((certificates(chain)?, key))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|_| "holds a certificate that is no PEM")?;
    if read.is_empty() {
        return Err("holds no certificate in PEM");
    }
    Ok(read)
}
