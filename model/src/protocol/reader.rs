//! A reader: takes a retained snapshot and fetches its packs one by one, while others prune.

use super::state::{Reader, SESSIONS, State};
use super::{Protocol, invariants};

impl Protocol {
    pub(super) fn readable(&self, state: &State) -> Vec<u8> {
        if !self.reads || state.reader.restores > 0 {
            return Vec::new();
        }
        (0..SESSIONS as u8).filter(|&snapshot| state.newest().retains(snapshot)).collect()
    }

    pub(super) fn begin_restore(&self, state: &mut State, snapshot: u8) {
        state.reader = Reader { restores: 1, snapshot, left: state.needs[snapshot as usize].0 };
    }

    /// A pack that is gone, or is not what its placement says, is an error, unless the snapshot is still retained:
    /// then it is damage.
    pub(super) fn fetch(&self, state: &mut State) {
        let Reader { snapshot, left, .. } = state.reader;
        let pack = left & left.wrapping_neg();
        let wrong = (state.other_content ^ state.needs[snapshot as usize].1) & pack != 0;
        if state.present & pack != 0 && !wrong {
            state.reader.left &= !pack;
        } else {
            if state.newest().retains(snapshot) {
                state.breaks(invariants::READER);
            }
            state.reader.left = 0;
        }
    }
}
