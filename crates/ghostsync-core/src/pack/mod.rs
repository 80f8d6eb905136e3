//! Blocks into packs and up; ranges down, verified.
