//! A directory as a stream of entries in tree order, and its files as chunks; links are never followed.
