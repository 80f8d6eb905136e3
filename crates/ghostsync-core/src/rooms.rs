//! Room that a reader or a decoder fills and others hold for a while: when the last of them lets go, it is filled again.
//!
//! Fresh memory has to be filled with zeros by the system first, which takes longer than to copy into it. What was filled
//! once is not cleared: whoever fills it again writes all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

/// Fewer bytes are not worth keeping.
const LEAST_BYTES: usize = 64 << 10;

/// Rooms that nobody holds, by their length, which is a power of two.
type Free = Mutex<HashMap<usize, Vec<Vec<u8>>>>;

/// Rooms that several threads share.
#[derive(Debug, Clone)]
pub(crate) struct Rooms(Option<Arc<Free>>);

/// A room that is held.
struct Room {
    bytes: Vec<u8>,
    free: Weak<Free>,
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(free) = self.free.upgrade() {
            let bytes = std::mem::take(&mut self.bytes);
            free.lock().unwrap_or_else(PoisonError::into_inner).entry(bytes.len()).or_default().push(bytes);
        }
    }
}

impl Rooms {
    /// Rooms that are used again; none is there yet.
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// A room of its own for whoever comes, of just the length that is needed.
    pub(crate) const fn single_use() -> Self {
        Self(None)
    }

    /// Has so many bytes written by `write`, all of them: what it leaves out is of whoever had the room before. Nothing is
    /// kept if it fails.
    pub(crate) fn fill<E>(
        &self,
        bytes: usize,
        write: impl FnOnce(&mut [u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Bytes, E> {
        let Some(free) = self.0.as_ref().filter(|_| bytes >= LEAST_BYTES) else {
            let mut space = vec![0; bytes];
            return write(&mut space).map(|()| space.into());
        };
        let room_bytes = bytes.next_power_of_two();
        let kept = free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&room_bytes).and_then(Vec::pop);
        let space = kept.unwrap_or_else(|| vec![0; room_bytes]);
        let mut room = Room { bytes: space, free: Arc::downgrade(free) };
        write(&mut room.bytes[..bytes])?;
        Ok(Bytes::from_owner(room).slice(..bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn filled(rooms: &Rooms, bytes: usize, byte: u8) -> Bytes {
        let write = |space: &mut [u8]| {
            space.fill(byte);
            Ok::<(), ()>(())
        };
        rooms.fill(bytes, write).expect("fills")
    }

    #[test]
    fn bytes_stay_what_they_are_while_they_are_held() {
        let rooms = Rooms::new();
        let held: Vec<Bytes> = (0..40).map(|byte| filled(&rooms, usize::from(byte) * 10_000, byte)).collect();
        for _ in 0..3 {
            drop((0..40).map(|number| filled(&rooms, number * 10_000, 255)).collect::<Vec<_>>());
        }
        for (byte, bytes) in (0..40).zip(held) {
            assert!(bytes.len() == usize::from(byte) * 10_000 && bytes.iter().all(|there| *there == byte), "{byte}");
        }
    }

    #[test]
    fn a_room_is_used_again_when_nobody_holds_it() {
        let rooms = Rooms::new();
        let places: HashSet<_> =
            (0..100).map(|byte| filled(&rooms, 600_000 + usize::from(byte), byte).as_ptr()).collect();
        assert_eq!(places.len(), 1);
        let part = filled(&rooms, 600_000, 7).slice(100..200);
        let place = filled(&rooms, 600_000, 8).as_ptr();
        assert!(!places.contains(&place) && part.iter().all(|byte| *byte == 7));
        drop(part);
        assert!(places.contains(&filled(&rooms, 600_000, 9).as_ptr()));
    }

    #[test]
    fn a_failure_leaves_the_room_to_the_next() {
        let rooms = Rooms::new();
        let mut place = None;
        let failed = rooms.fill(100_000, |space| {
            place = Some(space.as_ptr());
            Err("no")
        });
        assert_eq!(failed, Err("no"));
        assert_eq!(Some(filled(&rooms, 100_000, 1).as_ptr()), place);
    }

    #[test]
    fn few_bytes_have_no_room_of_many_to_themselves() {
        let rooms = Rooms::new();
        drop([filled(&rooms, 1 << 20, 1), filled(&rooms, LEAST_BYTES - 1, 1), filled(&rooms, LEAST_BYTES, 1)]);
        let Some(free) = &rooms.0 else { panic!("rooms that are kept") };
        let mut kept: Vec<usize> = free.lock().expect("no panic").keys().copied().collect();
        kept.sort_unstable();
        assert_eq!(kept, [LEAST_BYTES, 1 << 20]);
        drop(filled(&rooms, 200_000, 1));
        assert_eq!(free.lock().expect("no panic").len(), 3);
    }

    #[test]
    fn bytes_outlive_the_rooms() {
        let rooms = Rooms::new();
        let bytes = [filled(&rooms, 100_000, 3), filled(&Rooms::single_use(), 100_000, 3)];
        drop(rooms);
        assert!(bytes.iter().all(|bytes| bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == 3)));
    }
}
