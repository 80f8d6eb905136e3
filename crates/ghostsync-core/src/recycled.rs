//! Room for bytes that others hold for a while: when the last of them lets go, it is used again.
//!
//! Fresh memory has to be filled with zeros by the system first, which takes longer than to copy into it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// What is taken from the system at once.
const ROOM_BYTES: usize = 4 << 20;

/// The room that one thread fills, bytes one after another, and those that several have filled.
#[derive(Debug, Default)]
pub(crate) struct Recycled {
    open: BytesMut,
    /// Empty ends of rooms that were filled: a room whose end is all that is left of it can be used again.
    full: Arc<Mutex<VecDeque<BytesMut>>>,
}

impl Recycled {
    /// For another thread: whatever of the two has filled a room, both can use it again.
    pub(crate) fn beside(&self) -> Self {
        Self { open: BytesMut::new(), full: Arc::clone(&self.full) }
    }

    /// Copies bytes to where they can be shared.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > ROOM_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        if self.open.capacity() < bytes.len() {
            self.open_another();
        }
        self.open.extend_from_slice(bytes);
        self.open.split().freeze()
    }

    /// Goes on in a room that nobody uses any more, or in a new one.
    fn open_another(&mut self) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.push_back(std::mem::take(&mut self.open));
        let free = full.iter_mut().position(|room| room.try_reclaim(ROOM_BYTES));
        self.open = free.and_then(|at| full.remove(at)).unwrap_or_else(|| BytesMut::with_capacity(ROOM_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_what_they_are_while_they_are_held() {
        let mut rooms = Recycled::default();
        let contents: Vec<Vec<u8>> = (0..40).map(|number| vec![number; 100_000 * usize::from(number)]).collect();
        let copies: Vec<Bytes> = contents.iter().map(|content| rooms.copy(content)).collect();
        assert!(copies == contents);
        // Of one room a part is held, of the others none.
        let held = copies.into_iter().nth(3).expect("a copy");
        for content in &contents {
            assert!(rooms.copy(content) == content);
        }
        assert!(held == contents[3]);
    }

    #[test]
    fn a_room_is_used_again_when_nothing_in_it_is_held() {
        let mut rooms = Recycled::default();
        let mut places = std::collections::HashSet::new();
        for number in 0..100_u8 {
            let copy = rooms.copy(&vec![number; 3 << 20]);
            places.insert(copy.as_ptr());
        }
        assert!(places.len() <= 2, "{} rooms", places.len());
    }

    #[test]
    fn what_no_room_holds_gets_its_own() {
        let content = vec![7; ROOM_BYTES + 1];
        assert!(Recycled::default().copy(&content) == content);
    }
}
