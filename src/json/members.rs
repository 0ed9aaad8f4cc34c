//! Puts the members of objects into canonical order.

use std::{cmp::Ordering, ops::Range};

use super::{Document, Kind, Node, text::decode};

/// The names of the objects that are being read. The names of an object follow those of the object
/// around it.
pub(super) struct Names {
    stack: Vec<Name>,
    decoded: Decoded,
    orders: Orders,
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
    /// The length of [`Decoded`] before this name. It is the name's index there, if the name has escapes.
    decoded: u32,
}

/// The names of one object that is being read.
pub(super) struct NamesOfObject {
    /// The place in the stack where they begin.
    begin: usize,
    last: Option<Name>,
    are_sorted: bool,
}

impl NamesOfObject {
    /// Returns whether each name follows the one before it in canonical order.
    pub(super) fn are_sorted(&self) -> bool {
        self.are_sorted
    }
}

impl Names {
    pub(super) fn new() -> Self {
        let stack = Vec::with_capacity(2 * FEW);
        Self { stack, decoded: Decoded::default(), orders: Orders::new() }
    }

    /// Begins a new object.
    pub(super) fn begin(&self) -> NamesOfObject {
        NamesOfObject { begin: self.stack.len(), last: None, are_sorted: true }
    }

    /// Adds the name of the node `key`. The name's text is `text`, without its quotes.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn push(
        &mut self,
        names: &mut NamesOfObject,
        document: &Document<'_>,
        key: usize,
        text: Range<usize>,
    ) {
        let decoded = self.decoded.0.len() as u32;
        let first_bytes = if document.nodes[key].kind == Kind::Escaped {
            let name = decode(&document.text[text]);
            let first_bytes = first_bytes(&name, name.len());
            self.decoded.0.push(name);
            first_bytes
        } else {
            first_bytes(&document.text.as_bytes()[text.start..], text.len())
        };
        let name = Name { first_bytes, key: key as u32, decoded };
        if let Some(last) = names.last.replace(name) {
            names.are_sorted &= self.decoded.order(last, name, document).is_lt();
        }
        self.stack.push(name);
    }

    /// Removes the names of a finished object. Records its keys in canonical order: sorted by code
    /// point, with only the last of equal keys.
    pub(super) fn finish(
        &mut self,
        object: &NamesOfObject,
        document: &mut Document<'_>,
    ) -> Range<u32> {
        let Self { stack, decoded, orders } = self;
        let names = &mut stack[object.begin..];
        let first_decoded = names.first().map(|first| first.decoded as usize);
        let start = document.members.len() as u32;
        // Equal keys keep the order of the text.
        let order = |a: &Name, b: &Name, document: &Document<'_>| {
            decoded.order(*a, *b, document).then(a.key.cmp(&b.key))
        };
        if object.are_sorted {
            document.members.extend(names.iter().map(|name| name.key));
        } else if let Some(places) = orders.of(names.len()) {
            let name = |place: u8| &names[usize::from(place)];
            places.sort_unstable_by(|a, b| order(name(*a), name(*b), document));
            decoded.record(places.iter().map(|place| *name(*place)), document);
        } else {
            names.sort_unstable_by(|a, b| order(a, b, document));
            decoded.record(names.iter().copied(), document);
        }
        stack.truncate(object.begin);
        decoded.0.truncate(first_decoded.unwrap_or(usize::MAX));
        start..document.members.len() as u32
    }
}

/// Largest number of members of an object whose canonical order is remembered for the next object.
const FEW: usize = 24;

/// For each small count of members, the canonical order of the last object with that count. For
/// each place in this order, it has the position of the member in the text. The objects of a list
/// mostly have the same names, so this order usually fits the next object.
struct Orders([[u8; FEW]; FEW + 1]);

impl Orders {
    fn new() -> Self {
        Self([std::array::from_fn(|place| place as u8); FEW + 1])
    }

    fn of(&mut self, members: usize) -> Option<&mut [u8]> {
        self.0.get_mut(members).map(|places| &mut places[..members])
    }
}

impl Decoded {
    /// Records the keys of these names, which are in order. Of equal names, only the last counts.
    fn record(&self, names: impl Iterator<Item = Name>, document: &mut Document<'_>) {
        let mut names = names.peekable();
        while let Some(name) = names.next() {
            let next = names.peek();
            if next.is_none_or(|next| self.order(name, *next, document).is_ne()) {
                document.members.push(name.key);
            }
        }
    }

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

/// Returns the first eight of the first `length` bytes, as a number.
#[cfg_attr(not(debug_assertions), inline(always))]
fn first_bytes(text: &[u8], length: usize) -> u64 {
    let number = match text.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => first_bytes_at_the_end(text),
    };
    let absent = u64::MAX.checked_shr(length as u32 * 8).unwrap_or(0);
    number & !absent
}

#[cold]
fn first_bytes_at_the_end(text: &[u8]) -> u64 {
    let shifted = |(index, byte): (usize, &u8)| u64::from(*byte) << (56 - index * 8);
    text.iter().enumerate().map(shifted).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::json::Document;

    #[test]
    fn objects_of_every_size_are_put_in_order_whatever_came_before() {
        let (mut text, mut expected) = (String::new(), String::new());
        for members in 0..60 {
            // The objects of a size have the same names, other names, and names in another order.
            for (prefix, step) in [("", 7), ("", 7), ("common prefix ", 7), ("", 11), ("", 7)] {
                let names = (0..members).map(|at| format!("{prefix}{}", at * step % 53));
                let names: Vec<_> = names.collect();
                let pairs = names.iter().enumerate();
                let written: Vec<_> =
                    pairs.clone().map(|(at, n)| format!("\"{n}\":{at}")).collect();
                let last: BTreeMap<_, _> = pairs.map(|(at, name)| (name, at)).collect();
                let sorted: Vec<_> = last.iter().map(|(n, at)| format!("\"{n}\":{at}")).collect();
                text += &format!("{{{}}},", written.join(","));
                expected += &format!("{{{}}},", sorted.join(","));
            }
        }
        let (text, expected) = (format!("[{text}0]"), format!("[{expected}0]"));
        let mut canonical = Vec::new();
        Document::parse(text.as_bytes()).unwrap().write_canonical(&mut canonical).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), expected);
    }
}
