//! Which compressed forms of a file a client accepts (RFC 9110 §12.5.3).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;

/// A compressed form, which lies beside its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Encoding {
    Brotli,
    Zstandard,
    Gzip,
}

impl Encoding {
    /// The best first.
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstandard, Self::Gzip];

    /// As in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What stands behind the name of the file.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zst",
            Self::Gzip => "gz",
        }
    }
}

/// What one client accepts: a weight from 0 to 1,000 of each form, in the order of `Encoding::ALL`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::http) struct Accepted([u16; 3]);

impl Accepted {
    /// Without the header, none.
    pub(in crate::http) fn read(headers: &HeaderMap) -> Self {
        let mut named = [None; 3];
        let (mut others, mut identity) = (0, None);
        let values = headers.get_all(ACCEPT_ENCODING).iter();
        let items = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','));
        for item in items {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| {
                let (key, value) = part.split_once('=')?;
                key.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| weight(value.trim()))
            });
            let weight = weight.unwrap_or(1_000);
            match name.to_ascii_lowercase().as_str() {
                "*" => others = weight,
                "identity" => identity = Some(weight),
                name => {
                    let name = name.strip_prefix("x-").unwrap_or(name);
                    for (slot, encoding) in named.iter_mut().zip(Encoding::ALL) {
                        if encoding.name() == name {
                            *slot = Some(weight);
                        }
                    }
                }
            }
        }
        // Who prefers the original by name gets it.
        let least = identity.unwrap_or(0).max(1);
        Self(
            named
                .map(|weight| weight.unwrap_or(others))
                .map(|weight| if weight < least { 0 } else { weight }),
        )
    }

    /// What is accepted, the best first.
    pub(super) fn in_order(self) -> impl Iterator<Item = Encoding> {
        let mut order: Vec<_> = self
            .0
            .into_iter()
            .zip(Encoding::ALL)
            .filter(|(weight, _)| *weight > 0)
            .collect();
        order.sort_by_key(|(weight, _)| core::cmp::Reverse(*weight));
        order.into_iter().map(|(_, encoding)| encoding)
    }
}

/// A weight in thousandths. What is none counts as 0: the original is always right.
fn weight(text: &str) -> u16 {
    match text.parse::<f32>() {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 0 and 1,000"
        )]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1_000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_browsers_and_programs_accept() {
        use Encoding::{Brotli, Gzip, Zstandard};

        for (value, expected) in [
            ("", &[][..]),
            ("gzip, deflate, br, zstd", &[Brotli, Zstandard, Gzip]),
            ("gzip", &[Gzip]),
            ("x-gzip", &[Gzip]),
            ("GZIP;Q=1", &[Gzip]),
            ("br;q=0", &[]),
            ("br;q=0.0, gzip;q=0.5", &[Gzip]),
            ("br;q=0.2, gzip;q=0.9", &[Gzip, Brotli]),
            ("*", &[Brotli, Zstandard, Gzip]),
            ("*;q=0", &[]),
            ("*;q=0.1, br;q=0", &[Zstandard, Gzip]),
            ("identity", &[]),
            ("identity, br;q=0.5", &[]),
            ("identity;q=0.5, br", &[Brotli]),
            ("identity;q=0, gzip", &[Gzip]),
            ("br;q=x, gzip;q=2", &[]),
            ("deflate", &[]),
            (",,;", &[]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            let found: Vec<_> = Accepted::read(&headers).in_order().collect();
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(Accepted::read(&HeaderMap::new()), Accepted::default());
    }
}
