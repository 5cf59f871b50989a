//! What is done with a store when it is opened.

use redb::ReadableTable;

use super::format_3;
use super::meta::Meta;
use super::tables::{Tables, Topic, decode};
use super::{Commit, FORMAT, FORMATS, Item, Loaded, Mark, StoreError, StoredNote, failed};

/// Checks the format, takes over what the log says, loads everything, and counts this start.
pub(super) fn begin(
    tables: &mut Tables<'_>,
    epoch: u64,
    tombstones: u64,
    (log, mark): (&[Commit<'_>], Mark),
) -> Result<(Meta, Loaded), StoreError> {
    let before = Meta::read(&tables.meta)?;
    let mut meta = before;
    match meta.format {
        // New, unless something is there already.
        0 => (meta.epoch, meta.events) = (epoch, 1),
        // Without revisions.
        2 => {
            meta.epoch = epoch;
            meta.revision = upgrade(tables)?;
            meta.events = 1;
        }
        3 => format_3::upgrade(tables, &mut meta)?,
        found if FORMATS.contains(&found) => {}
        found => {
            return Err(StoreError::Version {
                found,
                known: FORMAT,
            });
        }
    }
    tables.fold(log, &mut meta, tombstones)?;
    (meta.log, meta.applied) = (mark.key, mark.applied);
    let mut loaded = load(tables)?;
    loaded.epoch = meta.epoch;
    loaded.life.forgotten = meta.forgotten;
    loaded.life.left = meta.left;
    let events = meta.events.checked_sub(1);
    loaded.begin(meta.revision, events, tables.lost()?);
    if events.is_none() {
        tables.set_lost(&loaded.life.lost)?;
    }
    // A boot number has 32 bits; a hub that has started that often goes on with the last one.
    loaded.start = u32::try_from(meta.start + 1).unwrap_or(u32::MAX);
    meta.format = FORMAT;
    meta.start = u64::from(loaded.start);
    (meta.revision, meta.events) = (loaded.life.revision, 0);
    meta.write(before, tables)?;
    Ok((meta, loaded))
}

/// Turns what format 2 had into what this one has, and says which revision is the newest.
fn upgrade(tables: &mut Tables<'_>) -> Result<u64, StoreError> {
    let mut topics = Vec::new();
    for row in tables.values.iter().map_err(failed)? {
        let (topic, stored) = row.map_err(failed)?;
        let stored: Topic = decode("values", stored.value())?;
        topics.push((topic.value().to_owned(), stored));
    }
    let mut newest = 0;
    for (topic, mut stored) in topics {
        for (place, _) in &mut stored.values {
            *place += 1;
            newest = newest.max(*place);
        }
        tables.keep(&topic, &stored)?;
    }
    Ok(newest)
}

/// Everything that stands in the hub's order, in none, and what stands beside it.
pub(super) fn load(tables: &Tables<'_>) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    for row in tables.values.iter().map_err(failed)? {
        let (topic, stored) = row.map_err(failed)?;
        let stored: Topic = decode("values", stored.value())?;
        for (rev, value) in stored.values {
            let item = Item::Value(stored.history, value);
            loaded.items.push((rev, topic.value().to_owned(), item));
        }
    }
    for row in tables.cleared.iter().map_err(failed)? {
        let (rev, cleared) = row.map_err(failed)?;
        let (topic, at, expired) = cleared.value();
        let item = Item::Cleared { at, expired };
        loaded.items.push((rev.value(), topic.to_owned(), item));
    }
    for row in tables.events.iter().map_err(failed)? {
        let (rev, event) = row.map_err(failed)?;
        let (topic, event) = event.value();
        let item = Item::Event(decode("events", event)?);
        loaded.items.push((rev.value(), topic.to_owned(), item));
    }
    for row in tables.devices.iter().map_err(failed)? {
        let (key, record) = row.map_err(failed)?;
        let (room, device) = key.value();
        let record = decode("devices", record.value())?;
        let device = (room.to_owned(), device.to_owned(), record);
        loaded.devices.push(device);
    }
    for row in tables.zeros.iter().map_err(failed)? {
        let (key, zero) = row.map_err(failed)?;
        let (room, device) = key.value();
        let zero = decode("zeros", zero.value())?;
        loaded
            .zeros
            .push((room.to_owned(), device.to_owned(), zero));
    }
    for row in tables.resets.iter().map_err(failed)? {
        let (room, reset) = row.map_err(failed)?;
        let reset = decode("resets", reset.value())?;
        loaded.resets.push((room.value().to_owned(), reset));
    }
    let mut ids = Vec::new();
    for row in tables.press_ids.iter().map_err(failed)? {
        let (key, id) = row.map_err(failed)?;
        let ((room, device, _), (order, id)) = (key.value(), id.value());
        ids.push((order, (room.to_owned(), device.to_owned(), id.to_owned())));
    }
    ids.sort_by_key(|(order, _)| *order);
    loaded.press_ids = ids.into_iter().map(|(_, id)| id).collect();
    for row in tables.notes.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let (owner, client, part) = key.value();
        loaded.notes.push(StoredNote {
            owner: owner.to_owned(),
            client: client.to_owned(),
            part: part.to_vec(),
            value: value.value().to_vec(),
        });
    }
    Ok(loaded)
}
