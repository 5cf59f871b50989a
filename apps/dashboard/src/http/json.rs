//! Messages as JSON.

use core::convert::Infallible;

use bytes::Bytes;
use futures_util::{Stream, stream};
use latchbus_bus::frames::json::{PayloadForm, write_message};

use super::listing::Listing;

/// Pieces of an array are about so long.
const PIECE_BYTES: usize = 32 << 10;

/// A JSON array of messages, each as over WebSocket without `op` and `id`, made piece by piece as it is asked for.
pub(super) fn array(
    listing: Listing,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    stream::unfold(Some((listing, "[")), |rest| async {
        let (mut listing, mut before) = rest?;
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            let Some(delivery) = listing.next().await else {
                // An array without items still has to be opened.
                piece.extend_from_slice(if before == "[" { b"[]\n" } else { b"]\n" });
                return Some((Ok(piece.into()), None));
            };
            piece.extend_from_slice(before.as_bytes());
            before = ",";
            write_message(&mut piece, &delivery);
        }
        Some((Ok(piece.into()), Some((listing, before))))
    })
}

/// What a payload most likely is. None of these is run or shown as a page by a browser that is told not to
/// guess.
pub(super) fn content_type(payload: &[u8]) -> &'static str {
    match PayloadForm::of(payload) {
        PayloadForm::Json(_) => "application/json",
        PayloadForm::Text(_) => "text/plain; charset=utf-8",
        PayloadForm::Bytes(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;
    use latchbus_bus::{Bus, Options, Publish};
    use latchbus_core::topic::{TopicFilter, TopicName};
    use serde_json::Value;

    async fn written(bus: &Bus, filter: &str) -> String {
        let client = bus.client(latchbus_bus::Principal::process()).unwrap();
        let listing = Listing::begin(&client, TopicFilter::parse(filter).unwrap()).unwrap();
        let pieces: Vec<_> = array(listing).map(Result::unwrap).collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn each_payload_has_its_key() {
        let bus = Bus::open(Options::default()).unwrap();
        // One deeper than the strictest reader of the array can take.
        let deep = "[".repeat(64) + &"]".repeat(64);
        for (topic, payload) in [
            ("t/a", &b"{\"c\": 1}"[..]),
            ("t/b", b"red \"1\""),
            ("t/c", b"\xff"),
            ("t/d", b"1e999"),
            ("t/e", deep.as_bytes()),
        ] {
            let topic = TopicName::parse(topic.to_owned()).unwrap();
            bus.publish(Publish::state(topic, payload.to_vec()))
                .await
                .unwrap();
        }
        let items: Vec<Value> = serde_json::from_str(&written(&bus, "t/#").await).unwrap();
        let keys = [
            ("t/a", "payload", serde_json::json!({"c": 1})),
            ("t/b", "text", "red \"1\"".into()),
            ("t/c", "base64", "/w==".into()),
            ("t/d", "text", "1e999".into()),
            ("t/e", "text", deep.as_str().into()),
        ];
        assert_eq!(items.len(), keys.len());
        for (item, (topic, key, value)) in items.iter().zip(keys) {
            assert_eq!((&item["topic"], &item[key]), (&topic.into(), &value));
            assert_eq!(item.as_object().unwrap().len(), 4);
            assert!(item["rev"].is_u64() && item["at"].is_u64());
        }
    }

    #[tokio::test]
    async fn long_and_empty_arrays() {
        let bus = Bus::open(Options::default()).unwrap();
        assert_eq!(written(&bus, "t/#").await, "[]\n");
        for n in 0..1000 {
            let topic = TopicName::parse(format!("t/{n}")).unwrap();
            bus.publish(Publish::state(topic, "x".repeat(200)))
                .await
                .unwrap();
        }
        let items: Vec<Value> = serde_json::from_str(&written(&bus, "t/#").await).unwrap();
        assert_eq!(items.len(), 1000);
    }
}
