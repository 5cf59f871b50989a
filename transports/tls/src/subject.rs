//! Whom a certificate names.

use latchbus_bus::Certificate;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::GeneralName;

/// The names in a certificate; those that are no text of printable characters are left out. None where it cannot be read.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let is_plain = |name: &String| !name.is_empty() && !name.chars().any(char::is_control);
    let mut common = parsed.subject().iter_common_name();
    let common = common.next().and_then(|name| name.as_str().ok());
    let others = parsed.subject_alternative_name().ok().flatten();
    let others = others.iter().flat_map(|others| &others.value.general_names);
    Some(Certificate {
        common_name: common.map(str::to_owned).filter(is_plain),
        alternative_names: others.filter_map(text).filter(is_plain).collect(),
    })
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => match *bytes {
            bytes if bytes.len() == 4 => {
                let bytes: [u8; 4] = bytes.try_into().ok()?;
                Some(core::net::Ipv4Addr::from(bytes).to_string())
            }
            bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(core::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn of(common: Option<&str>, others: &[&str]) -> Certificate {
        let others: Vec<_> = others.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let key = KeyPair::generate().unwrap();
        names(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn all_names_are_read() {
        for (common, expected) in [
            (Some("anna"), Some("anna")),
            (Some("Größe"), Some("Größe")),
            (Some(""), None),
            (Some("an\nna"), None),
            (None, None),
        ] {
            assert_eq!(of(common, &[]).common_name.as_deref(), expected);
        }
        let others = ["a.example", "b.example", "192.0.2.1", "2001:db8::1"];
        assert_eq!(of(None, &others).alternative_names, others);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(names(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
