//! A map for few entries.

use core::mem;

/// A map by number that is a sorted vector: most sessions have one subscription, for which a hash table would be four
/// times as large. Numbers that come in their order cost least; others move what is behind them.
#[derive(Debug)]
pub struct VecMap<T>(Vec<(u64, T)>);

impl<T> Default for VecMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> VecMap<T> {
    fn find(&self, key: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one with this key.
    pub fn contains(&self, key: u64) -> bool {
        self.find(key).is_ok()
    }

    /// The entry with this key.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.find(key).ok()?;
        self.0.get_mut(place).map(|(_, value)| value)
    }

    /// Puts an entry in, and gives back the one that it replaces.
    pub fn insert(&mut self, key: u64, value: T) -> Option<T> {
        if let Some(old) = self.get_mut(key) {
            return Some(mem::replace(old, value));
        }
        if self.0.is_empty() {
            self.0.reserve_exact(1);
        }
        let place = self.0.partition_point(|(other, _)| *other < key);
        self.0.insert(place, (key, value));
        None
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.find(key).ok().map(|place| self.0.remove(place).1)
    }

    /// All of them, by their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.0.iter_mut().map(|(key, value)| (*key, value))
    }

    /// The same without the keys, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(operations in proptest::collection::vec((0..8_u64, any::<Option<u8>>()), 0..60)) {
            let (mut map, mut model) = (VecMap::default(), BTreeMap::new());
            for (key, value) in operations {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(key), model.remove(&key)),
                }
                for key in 0..8 {
                    prop_assert_eq!(map.get(key), model.get(&key));
                    prop_assert_eq!(map.get_mut(key), model.get_mut(&key));
                    prop_assert_eq!(map.contains(key), model.contains_key(&key));
                }
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(map.iter().eq(model.iter().map(|(key, value)| (*key, value))));
            }
        }
    }
}
