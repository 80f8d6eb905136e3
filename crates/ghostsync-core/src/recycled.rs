//! Room for copies that others hold for a while: when the last of them lets go, it is used again.
//!
//! Fresh memory has to be filled with zeros by the system first, which takes longer than to copy into it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// The room that one thread fills, bytes one after another, and those that several have filled.
#[derive(Debug)]
pub(crate) struct Recycled {
    room_bytes: usize,
    open: BytesMut,
    /// Whether there is an open one.
    opened: bool,
    /// Ends of rooms that were filled: a room whose end is all that is left of it can be used again.
    full: Arc<Mutex<VecDeque<BytesMut>>>,
}

impl Default for Recycled {
    fn default() -> Self {
        Self::new(4 << 20)
    }
}

impl Recycled {
    /// Takes so many bytes from the system at once; more if more must lie together.
    pub(crate) fn new(room_bytes: usize) -> Self {
        Self { room_bytes, open: BytesMut::new(), opened: false, full: Arc::default() }
    }

    /// For another thread: whichever of the two has filled a room, both can use it again.
    pub(crate) fn beside(&self) -> Self {
        Self { room_bytes: self.room_bytes, open: BytesMut::new(), opened: false, full: Arc::clone(&self.full) }
    }

    /// Copies bytes to where they can be shared.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        let room = self.room_for(bytes.len());
        room.extend_from_slice(bytes);
        room.split().freeze()
    }

    /// An empty room with space for so many bytes: what is left of the open one, one that nobody uses any more, or a
    /// new one.
    fn room_for(&mut self, bytes: usize) -> &mut BytesMut {
        if self.open.capacity() < bytes {
            let wanted = bytes.max(self.room_bytes);
            let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
            full.extend(self.opened.then(|| std::mem::take(&mut self.open)));
            self.opened = true;
            let free = full.iter_mut().position(|room| room.try_reclaim(wanted));
            self.open = free.and_then(|at| full.remove(at)).unwrap_or_else(|| BytesMut::with_capacity(wanted));
        }
        &mut self.open
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        if self.opened {
            self.full.lock().unwrap_or_else(PoisonError::into_inner).push_back(std::mem::take(&mut self.open));
        }
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
    fn threads_that_end_leave_their_rooms_to_the_others() {
        let rooms = Recycled::new(1000);
        let mut places = std::collections::HashSet::new();
        for number in 0..100_u8 {
            let mut beside = rooms.beside();
            let content = vec![number; 700 + usize::from(number)];
            let copy = beside.copy(&content);
            assert!(copy == content);
            places.insert(copy.as_ptr());
        }
        assert!(places.len() <= 2, "{} rooms", places.len());
    }
}
