//! One lock-step merge of two streams in tree order: pure, and the only place that decides what stands opposite what.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::error::Result;
use crate::format::page::Placed;
use crate::tree_path::TreePath;

/// Something that stands at a place in a tree.
pub(crate) trait AtPath {
    /// Where.
    fn path(&self) -> &TreePath;
}

impl AtPath for Placed {
    fn path(&self) -> &TreePath {
        &self.entry.path
    }
}

/// What stands at one path, on the left, on the right, or on both sides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pair<L, R> {
    /// On the left alone.
    Left(L),
    /// On the right alone.
    Right(R),
    /// On both sides.
    Both(L, R),
}

/// Merges two streams that are each in strict tree order.
pub(crate) struct Merge<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<L: Iterator, R: Iterator> Merge<L, R> {
    pub(crate) fn new(left: L, right: R) -> Self {
        Self { left: left.peekable(), right: right.peekable() }
    }
}

impl<A, B, L, R> Iterator for Merge<L, R>
where
    A: AtPath,
    B: AtPath,
    L: Iterator<Item = Result<A>>,
    R: Iterator<Item = Result<B>>,
{
    type Item = Result<Pair<A, B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.left.peek(), self.right.peek()) {
            (None, None) => return None,
            (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => Ordering::Greater,
            (Some(Ok(left)), Some(Ok(right))) => left.path().cmp(right.path()),
        };
        Some(match order {
            Ordering::Less => self.left.next()?.map(Pair::Left),
            Ordering::Greater => self.right.next()?.map(Pair::Right),
            Ordering::Equal => match (self.left.next()?, self.right.next()?) {
                (Ok(left), Ok(right)) => Ok(Pair::Both(left, right)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Debug, PartialEq, Eq)]
    struct At(TreePath);

    impl AtPath for At {
        fn path(&self) -> &TreePath {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_a_map(left: BTreeSet<u8>, right: BTreeSet<u8>) {
            let path = |n: &u8| TreePath::parse(format!("d{}/{n}", n % 3)).expect("valid");
            let sorted = |numbers: &BTreeSet<u8>| numbers.iter().map(path).collect::<BTreeSet<_>>();
            let (left, right) = (sorted(&left), sorted(&right));
            let mut naive = BTreeMap::<TreePath, (bool, bool)>::new();
            for path in &left { naive.entry(path.clone()).or_default().0 = true; }
            for path in &right { naive.entry(path.clone()).or_default().1 = true; }
            let stream = |paths: &BTreeSet<TreePath>| paths.iter().cloned().map(|path| Ok(At(path))).collect::<Vec<_>>().into_iter();
            let merged: Vec<_> = Merge::new(stream(&left), stream(&right)).map(|pair| match pair.expect("no errors") {
                Pair::Left(at) => (at.0, (true, false)),
                Pair::Right(at) => (at.0, (false, true)),
                Pair::Both(a, b) => { assert_eq!(a, b); (a.0, (true, true)) }
            }).collect();
            prop_assert_eq!(merged, naive.into_iter().collect::<Vec<_>>());
        }
    }
}
