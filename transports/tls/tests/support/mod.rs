//! A private authority.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the lints spare tests, and this is a part of them"
)]

use core::cell::Cell;
use core::time::Duration;
use std::fs;
use std::path::PathBuf;

use latchbus_tls::client::{Client, Options};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("in time")
}

pub(crate) struct Authority {
    pub(crate) directory: TempDir,
    pub(crate) file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    issued: Cell<usize>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            directory,
            file,
            issuer: Issuer::new(params, key),
            issued: Cell::new(0),
        }
    }

    fn issue(&self, params: &CertificateParams) -> (PathBuf, PathBuf) {
        let number = self.issued.get() + 1;
        self.issued.set(number);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind| self.directory.path().join(format!("{number}.{kind}"));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("pem"), path("key"))
    }

    /// A certificate for these names, and its key.
    pub(crate) fn server(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue(&CertificateParams::new(names).unwrap())
    }

    pub(crate) fn client_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue(&params)
    }

    /// A client that trusts this authority, with a certificate of it or without.
    pub(crate) fn client(&self, name: Option<&str>) -> Client {
        Client::open(&Options {
            authorities: Some(self.file.clone()),
            certificate: name.map(|name| self.client_files(name)),
        })
        .unwrap()
    }
}
