//! What the address of a request says.

/// The parameters of Engine.IO. Of one that comes several times the first counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) eio: Option<&'a str>,
    pub(crate) transport: Option<&'a str>,
    pub(crate) sid: Option<&'a str>,
}

impl<'a> Query<'a> {
    /// Reads a query. Values that would need escapes are none that these may have.
    pub(crate) fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "EIO" => &mut parsed.eio,
                "transport" => &mut parsed.transport,
                "sid" => &mut parsed.sid,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse("EIO=4&transport=polling&t=abc&sid=x&sid=y&");
        assert_eq!(
            query,
            Query {
                eio: Some("4"),
                transport: Some("polling"),
                sid: Some("x")
            }
        );
        assert_eq!(Query::parse(""), Query::default());
        assert_eq!(Query::parse("sid").sid, Some(""));
    }
}
