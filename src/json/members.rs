//! Puts the members of objects into canonical order.

use std::{cmp::Ordering, ops::Range};

use super::{Document, Kind, Node, text::decode};

/// The names of the objects that are being read. The names of an object follow those of the object
/// around it.
#[derive(Default)]
pub(super) struct Names {
    stack: Vec<Name>,
    decoded: Decoded,
}

/// The texts of the names with escapes, decoded.
#[derive(Default)]
struct Decoded(Vec<Vec<u8>>);

#[derive(Clone, Copy)]
struct Name {
    /// The first eight bytes of the decoded text, as a number. Absent bytes are zero. If these
    /// numbers differ, they decide the order of two names.
    first_bytes: u64,
    /// The index of the key's node.
    key: u32,
    /// The length of [`Decoded`] before this name, which is the index of a name with escapes.
    decoded: u32,
}

impl Names {
    /// Returns the place where the names of a new object begin.
    pub(super) fn begin(&self) -> usize {
        self.stack.len()
    }

    /// Adds the last node, a key whose text is `start..end` with its quotes. Returns whether it
    /// follows the key before it in canonical order.
    pub(super) fn push(
        &mut self,
        begin: usize,
        document: &Document<'_>,
        text: Range<usize>,
    ) -> bool {
        let key = document.nodes.len() - 1;
        let raw = &document.text.as_bytes()[text.start + 1..];
        let decoded = self.decoded.0.len() as u32;
        let first_bytes = if document.nodes[key].kind == Kind::Escaped {
            let name = decode(&document.text[text.start + 1..text.end - 1]);
            let first_bytes = first_bytes(&name, name.len());
            self.decoded.0.push(name);
            first_bytes
        } else {
            first_bytes(raw, text.len() - 2)
        };
        let name = Name { first_bytes, key: key as u32, decoded };
        let before = self.stack[begin..].last().copied();
        self.stack.push(name);
        before.is_none_or(|before| self.decoded.order(before, name, document).is_lt())
    }

    /// Removes the names of a finished object. Records its keys in canonical order: sorted by code
    /// point, with only the last of equal keys.
    pub(super) fn finish(
        &mut self,
        begin: usize,
        is_sorted: bool,
        document: &mut Document<'_>,
    ) -> Range<u32> {
        let names = &mut self.stack[begin..];
        let decoded = names.first().map(|first| first.decoded as usize);
        let start = document.members.len() as u32;
        if is_sorted {
            document.members.extend(names.iter().map(|name| name.key));
        } else {
            // Equal keys keep the order of the text.
            names.sort_unstable_by(|a, b| {
                self.decoded.order(*a, *b, document).then(a.key.cmp(&b.key))
            });
            for (index, name) in names.iter().enumerate() {
                let next = names.get(index + 1);
                if next.is_none_or(|next| self.decoded.order(*name, *next, document).is_ne()) {
                    document.members.push(name.key);
                }
            }
        }
        self.stack.truncate(begin);
        self.decoded.0.truncate(decoded.unwrap_or(usize::MAX));
        start..document.members.len() as u32
    }
}

impl Decoded {
    #[inline]
    fn order(&self, a: Name, b: Name, document: &Document<'_>) -> Ordering {
        let first_bytes = a.first_bytes.cmp(&b.first_bytes);
        if first_bytes.is_ne() { first_bytes } else { self.order_of_texts(a, b, document) }
    }

    #[cold]
    fn order_of_texts(&self, a: Name, b: Name, document: &Document<'_>) -> Ordering {
        self.text(a, document).cmp(self.text(b, document))
    }

    fn text<'t>(&'t self, name: Name, document: &Document<'t>) -> &'t [u8] {
        match document.nodes[name.key as usize] {
            Node { kind: Kind::Escaped, .. } => &self.0[name.decoded as usize],
            Node { start, end, .. } => {
                &document.text.as_bytes()[start as usize + 1..end as usize - 1]
            }
        }
    }
}

/// Returns the first eight bytes of the first `length` ones, as a number.
fn first_bytes(text: &[u8], length: usize) -> u64 {
    let shifted = |(index, byte): (usize, &u8)| u64::from(*byte) << (56 - index * 8);
    let number = match text.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => text.iter().enumerate().map(shifted).sum(),
    };
    let absent = u64::MAX.checked_shr(length as u32 * 8).unwrap_or(0);
    number & !absent
}
