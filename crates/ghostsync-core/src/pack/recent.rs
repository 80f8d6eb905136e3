//! What was used last, up to so many bytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map that forgets what was not used for the longest time.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    most_bytes: usize,
    bytes: usize,
    uses: u64,
    values: HashMap<K, (V, usize, u64)>,
    by_use: BTreeMap<u64, K>,
}

impl<K: Copy + Eq + Hash, V: Clone> Recent<K, V> {
    pub(crate) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, bytes: 0, uses: 0, values: HashMap::new(), by_use: BTreeMap::new() }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let (value, _, last_use) = self.values.get_mut(key)?;
        self.by_use.remove(last_use);
        self.uses += 1;
        *last_use = self.uses;
        self.by_use.insert(self.uses, *key);
        Some(value.clone())
    }

    /// Keeps a value of so many bytes; one that is too large by itself is not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        if bytes > self.most_bytes {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        self.values.insert(key, (value, bytes, self.uses));
        self.by_use.insert(self.uses, key);
        while self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else { return };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, bytes, last_use)) = self.values.remove(key) {
            self.bytes -= bytes;
            self.by_use.remove(&last_use);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut recent = Recent::new(10);
        for key in 0..3 {
            recent.insert(key, key * 10, 4);
        }
        assert_eq!((recent.get(&0), recent.get(&1), recent.get(&2)), (None, Some(10), Some(20)));
        assert_eq!(recent.get(&1), Some(10));
        recent.insert(3, 30, 4);
        assert_eq!((recent.get(&1), recent.get(&2), recent.get(&3)), (Some(10), None, Some(30)));
        recent.insert(4, 40, 11);
        assert_eq!((recent.get(&4), recent.get(&3)), (None, Some(30)));
        recent.insert(3, 31, 10);
        assert_eq!((recent.get(&3), recent.get(&1)), (Some(31), None));
        assert_eq!((recent.bytes, recent.values.len(), recent.by_use.len()), (10, 1, 1));
    }
}
