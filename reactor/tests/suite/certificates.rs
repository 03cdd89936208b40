//! Certificates for tests: an authority, and those for whom it vouches.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ropewalk::tls::{ClientTls, Identities, Identity, ServerTls};

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(parameters, key), pem }
    }

    /// Makes a certificate for these names, and its key, as files hold them.
    pub(crate) fn certify_pem(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let parameters = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn certify(&self, names: &[&str]) -> Identity {
        let (certificate, key) = self.certify_pem(names);
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    /// A server with this one name.
    pub(crate) fn server(&self, name: &str) -> ServerTls {
        ServerTls::new(Identities::new([self.certify(&[name])]).unwrap())
    }

    /// A client that believes those for whom this authority vouches.
    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::new().roots_from_pem(self.pem.as_bytes()).unwrap()
    }
}
