//! Stores of format 3, which had no log: revisions were given out before their commit, and two numbers of `meta` kept
//! the two together.

use super::meta::Meta;
use super::opening::load;
use super::tables::Tables;
use super::{Item, StoreError, failed};

/// The first revision of the last commit, unless a later one had confirmed it; 0: none.
const DOUBT: &str = "doubt";
/// No revision beyond it was used.
const CEILING: &str = "ceiling";

/// Gives what was in doubt new revisions behind all that were used, and takes the two numbers out.
pub(super) fn upgrade(tables: &mut Tables<'_>, meta: &mut Meta) -> Result<(), StoreError> {
    let mut take = |name| {
        let number = tables.meta.remove(name).map_err(failed)?;
        Ok::<_, StoreError>(number.map_or(0, |number| number.value()))
    };
    let (doubt, ceiling) = (take(DOUBT)?, take(CEILING)?);
    let mut items = load(tables)?.items;
    items.sort_by_key(|(rev, ..)| *rev);
    let certain = match doubt {
        0 => items.len(),
        doubt => items.partition_point(|(rev, ..)| *rev < doubt),
    };
    if doubt > 0 {
        let is_certain = |rev| rev < doubt;
        (tables.cleared)
            .retain(|rev, _| is_certain(rev))
            .map_err(failed)?;
        (tables.events)
            .retain(|rev, _| is_certain(rev))
            .map_err(failed)?;
    }
    let mut rev = ceiling.max(meta.revision);
    for (was, topic, item) in items.iter().skip(certain) {
        rev += 1;
        match item {
            Item::Value(..) => {
                let mut stored = tables.topic(topic)?.unwrap_or_default();
                let this = stored.values.iter_mut().find(|(of, _)| of == was);
                if let Some((of, _)) = this {
                    *of = rev;
                }
                tables.keep(topic, &stored)?;
            }
            Item::Cleared { at, expired } => tables.clear(topic, rev, *at, *expired)?,
            Item::Event(value) => tables.event(topic, rev, value)?,
        }
    }
    meta.revision = rev;
    Ok(())
}
