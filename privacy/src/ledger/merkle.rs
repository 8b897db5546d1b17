//! The Merkle tree of RFC 6962, section 2.1: one hash commits to a list, and short proofs show that an entry is in it, or
//! that one list is the beginning of another.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256, digest};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// 32 zero bytes, where there is nothing to hash.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::take(digest(&SHA256, bytes))
    }

    /// The hash of a leaf with these contents.
    #[must_use]
    pub fn of_leaf(contents: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(contents);
        Self::take(context.finish())
    }

    fn of_node(left: Self, right: Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self::of(&bytes)
    }

    fn take(digest: ring::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl serde::Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The root of a list that only grows, in memory of its logarithm.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    /// Roots of the complete subtrees, the largest first: one for each bit of `size`.
    roots: Vec<Hash>,
    size: u64,
}

impl Frontier {
    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("one root for each bit of the size");
            root = Hash::of_node(left, root);
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// Leaves so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root; of no leaves, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev().copied();
        match roots.next() {
            None => Hash::of(b""),
            Some(smallest) => roots.fold(smallest, |right, left| Hash::of_node(left, right)),
        }
    }
}

/// A list with the hashes of all its complete subtrees, for proofs.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// At height h, the roots of the complete subtrees of 2^h leaves, from the left.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for height in 0.. {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[height];
            level.push(node);
            if level.len() % 2 == 1 {
                return;
            }
            node = Hash::of_node(level[level.len() - 2], node);
        }
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, Vec::len) as u64
    }

    /// The hash of a leaf; `None` beyond the last.
    #[must_use]
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.levels.first()?.get(usize::try_from(index).ok()?).copied()
    }

    /// The root over the first `size` leaves; `None` when there are fewer.
    #[must_use]
    pub fn root(&self, size: u64) -> Option<Hash> {
        match size {
            0 => Some(Hash::of(b"")),
            _ => (size <= self.size()).then(|| self.range(0, size)),
        }
    }

    /// The proof that the leaf at `index` is among the first `size`; `None` unless `index` < `size` ≤ [`Tree::size`].
    #[must_use]
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut low, mut high, mut proof) = (0, size, Vec::new());
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                proof.push(self.range(middle, high));
                high = middle;
            } else {
                proof.push(self.range(low, middle));
                low = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the first `old` leaves are the beginning of the first `size`; `None` unless 0 < `old` ≤ `size` ≤
    /// [`Tree::size`].
    #[must_use]
    pub fn consistency(&self, old: u64, size: u64) -> Option<Vec<Hash>> {
        if old == 0 || old > size || size > self.size() {
            return None;
        }
        let (mut low, mut high, mut proof) = (0, size, Vec::new());
        while high != old {
            let middle = low + split(high - low);
            if old <= middle {
                proof.push(self.range(middle, high));
                high = middle;
            } else {
                proof.push(self.range(low, middle));
                low = middle;
            }
        }
        if low > 0 {
            proof.push(self.range(low, high));
        }
        proof.reverse();
        Some(proof)
    }

    /// The root of the subtree over leaves `low..high`, as the recursion of section 2.1 makes it.
    fn range(&self, low: u64, high: u64) -> Hash {
        let size = high - low;
        if size.is_power_of_two() {
            let height = size.trailing_zeros();
            return self.levels[height as usize][(low >> height) as usize];
        }
        let middle = low + split(size);
        Hash::of_node(self.range(low, middle), self.range(middle, high))
    }
}

/// The root of a list given by the hashes of its leaves.
#[must_use]
pub fn root_of(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    let mut frontier = Frontier::default();
    leaves.into_iter().for_each(|leaf| frontier.push(leaf));
    frontier.root()
}

/// Whether `proof` shows that `leaf` is at `index` among `size` leaves with this `root` (RFC 9162, section 2.1.3.2).
#[must_use]
pub fn is_included(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut index, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            hash = Hash::of_node(*sibling, hash);
            let up = if index % 2 == 1 { 0 } else { index.trailing_zeros() };
            (index, last) = (index >> up, last >> up);
        } else {
            hash = Hash::of_node(hash, *sibling);
        }
        (index, last) = (index >> 1, last >> 1);
    }
    last == 0 && hash == root
}

/// Whether `proof` shows that the list of `old` leaves with root `old_root` is the beginning of the list of `size` leaves
/// with root `root` (RFC 9162, section 2.1.4.2). Any list begins with itself and with nothing.
#[must_use]
pub fn is_consistent(old: u64, old_root: Hash, size: u64, root: Hash, proof: &[Hash]) -> bool {
    if old > size {
        return false;
    }
    if old == size || old == 0 {
        return proof.is_empty() && (old == 0 || old_root == root);
    }
    let path: Vec<Hash> = if old.is_power_of_two() {
        std::iter::once(old_root).chain(proof.iter().copied()).collect()
    } else {
        proof.to_vec()
    };
    let Some((first, siblings)) = path.split_first() else { return false };
    let up = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> up, (size - 1) >> up);
    let (mut old_hash, mut hash) = (*first, *first);
    for sibling in siblings {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = Hash::of_node(*sibling, old_hash);
            hash = Hash::of_node(*sibling, hash);
            let up = if node % 2 == 1 { 0 } else { node.trailing_zeros() };
            (node, last) = (node >> up, last >> up);
        } else {
            hash = Hash::of_node(hash, *sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == old_root && hash == root
}

/// Leaves on the left of a tree of `size` > 1: the largest power of two below it.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves of the reference implementation of Certificate Transparency, and the roots of their beginnings.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves() -> Vec<Hash> {
        LEAVES.iter().map(|leaf| Hash::of_leaf(&HEXLOWER.decode(leaf.as_bytes()).unwrap())).collect()
    }

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|leaf| tree.push(Hash::of_leaf(&leaf.to_be_bytes())));
        tree
    }

    #[test]
    fn the_roots_are_those_of_the_reference_implementation() {
        let mut tree = Tree::default();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(tree.root(0).unwrap().to_string(), empty);
        assert_eq!(Frontier::default().root().to_string(), empty);
        for (count, expected) in (1..).zip(ROOTS) {
            tree.push(leaves()[count - 1]);
            assert_eq!(tree.root(count as u64).unwrap().to_string(), expected);
            assert_eq!(root_of(leaves().into_iter().take(count)).to_string(), expected);
        }
    }

    #[test]
    fn every_proof_of_inclusion_holds_for_its_leaf_alone() {
        for size in 1..34 {
            let tree = tree(size);
            let root = tree.root(size).unwrap();
            for index in 0..size {
                let proof = tree.inclusion(index, size).unwrap();
                let leaf = tree.leaf(index).unwrap();
                assert!(is_included(leaf, index, size, &proof, root), "{index} of {size}");
                let other = tree.leaf((index + 1) % size).unwrap();
                assert!(size == 1 || !is_included(other, index, size, &proof, root));
                assert!(!is_included(leaf, index, size, &[&proof[..], &[leaf]].concat(), root));
                assert!(size == 1 || !is_included(leaf, index, size, &proof[1..], root));
                assert!(!is_included(leaf, size, size, &proof, root));
            }
        }
    }

    #[test]
    fn every_proof_of_consistency_holds_for_its_two_lists_alone() {
        let full = tree(33);
        for size in 1..34 {
            let root = full.root(size).unwrap();
            for old in 1..=size {
                let (proof, old_root) = (full.consistency(old, size).unwrap(), full.root(old).unwrap());
                assert!(is_consistent(old, old_root, size, root, &proof), "{old} of {size}");
                for wrong in [Hash::ZERO, full.root(old - 1).unwrap()] {
                    assert!(!is_consistent(old, wrong, size, root, &proof), "{old} of {size}");
                }
                assert!(!is_consistent(old, old_root, size, Hash::ZERO, &proof));
                for at in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[at] = Hash::ZERO;
                    assert!(!is_consistent(old, old_root, size, root, &bad), "{at} of {old} of {size}");
                    bad.remove(at);
                    assert!(!is_consistent(old, old_root, size, root, &bad), "{at} of {old} of {size}");
                }
            }
        }
        assert_eq!(full.consistency(34, 34), None);
        assert_eq!(full.consistency(0, 3), None);
        assert!(!is_consistent(4, Hash::ZERO, 3, Hash::ZERO, &[]));
    }
}
