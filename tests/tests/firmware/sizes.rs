//! What the core costs a small part, held under ceilings and shown beside what others offer.

use crate::images;

/// Hub, wire and clicks, with 16 kept values of 24 bytes and 4 subscriptions: more than an image without them.
const FLASH_BYTES: usize = (10 << 10) + 512;
const RAM_BYTES: usize = (2 << 10) + 64;

/// The same, when the device serves others: with clears, refusals, and counts that it reads. Half a kilobyte of it are
/// the reasons that a peer is given whose click topic or count is nearly right.
const SERVING_FLASH_BYTES: usize = (14 << 10) + 512;

#[tokio::test]
async fn the_core_fits_a_small_part() {
    let Some(images) = images::build().await else {
        return;
    };
    let costs = |name: &str, empty: &str| {
        let (image, empty) = (&images[name], &images[empty]);
        let flash_bytes = image.flash_bytes - empty.flash_bytes;
        let ram_bytes = image.ram_bytes - empty.ram_bytes;
        println!("{name}: flash {flash_bytes} bytes, static RAM {ram_bytes} bytes");
        (flash_bytes, ram_bytes)
    };
    let (flash_bytes, ram_bytes) = costs("sizes", "sizes-empty");
    assert!(flash_bytes <= FLASH_BYTES, "{flash_bytes}");
    assert!(ram_bytes <= RAM_BYTES, "{ram_bytes}");
    let (flash_bytes, _) = costs("sizes-serving", "sizes-empty");
    assert!(flash_bytes <= SERVING_FLASH_BYTES, "{flash_bytes}");
    // No topics, no filters, no wire format; and no subscriptions, no wire format.
    costs("peer-embassy-sync", "peer-empty");
    costs("peer-gatomqtt", "peer-empty");
}
