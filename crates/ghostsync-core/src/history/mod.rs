//! The log of commits: find the head, judge what may be built on it, make a commit.
