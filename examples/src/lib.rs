//! Programs that embed ghostsync.
