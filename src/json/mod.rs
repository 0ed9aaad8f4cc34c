//! Canonical JSON, streamed into a hasher.
//!
//! The canonical form of a body is what Python prints for
//! `json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))`, because the Python
//! router hashes that text. RFC 8259 defines which bodies are JSON. CPython's `json` module
//! defines how they are printed: ASCII only, keys sorted by code point, only the last of equal
//! keys, floats as `repr` prints them.
//!
//! serde_json cannot do this. Its `Value` rejects lone surrogates. With its `arbitrary_precision`
//! or `raw_value` feature, which a dependency may switch on, a body can be written so that it is
//! read as the value of a different body. So [`Document`] is a flat index into the text: parsing
//! checks the grammar and records where each value lies, and writing decodes from the text again.
//! Both passes are linear in the size of the body, except for the sorting of keys.
//!
//! Most texts are canonical already. Parsing marks each value and key whose text equals its
//! canonical form, and writing copies these texts.

mod canonical;
mod members;
mod output;
mod parser;
mod pointer;
mod put;
mod text;

use std::{borrow::Cow, fmt, ops::Range};

use canonical::nearest_double;
pub use pointer::Pointer;
use text::decode;

/// Deepest nesting that is accepted. The outermost object is level 1.
///
/// CPython's own limit is its recursion limit of 1,000 minus the frames that a web framework uses.
/// This limit lies between the depth that every Python router accepts (950) and the depth that none
/// accepts (1,000). It also bounds the recursion in this module.
pub const MAX_DEPTH: usize = 975;

/// Most digits of an integer, as in CPython (`sys.int_info.default_max_str_digits`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// The reason why a text is not a JSON document that can be routed, and the byte at which it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    pub fault: JsonFault,
    /// Offset in bytes of the fault.
    pub at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    NotUtf8,
    Unexpected,
    EndOfInput,
    ControlCharacter,
    BadEscape,
    TrailingData,
    TooDeep,
    IntegerTooLong,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        match self.fault {
            JsonFault::NotUtf8 => write!(f, "not UTF-8 at byte {at}"),
            JsonFault::Unexpected => write!(f, "unexpected character at byte {at}"),
            JsonFault::EndOfInput => write!(f, "the text ends too early, at byte {at}"),
            JsonFault::ControlCharacter => {
                write!(f, "unescaped control character in a string at byte {at}")
            }
            JsonFault::BadEscape => write!(f, "unknown escape in a string at byte {at}"),
            JsonFault::TrailingData => write!(f, "more text after the value, at byte {at}"),
            JsonFault::TooDeep => {
                write!(f, "nested deeper than {MAX_DEPTH} levels at byte {at}")
            }
            JsonFault::IntegerTooLong => {
                write!(f, "an integer of more than {MAX_INTEGER_DIGITS} digits at byte {at}")
            }
        }
    }
}

impl std::error::Error for JsonError {}

/// A parsed JSON text: an index of its values, in the order of the text.
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    /// Indices of key nodes, grouped by object, and in canonical order within each object.
    members: Vec<u32>,
    /// The contents of each array and object.
    containers: Vec<Container>,
}

/// One value or key. `start..end` is its text, with the quotes of a string.
#[derive(Clone, Copy)]
struct Node {
    kind: Kind,
    /// True if the text equals its canonical form.
    is_canonical: bool,
    start: u32,
    end: u32,
    /// For an array or object, its index in `containers`. For a key, the end of its value, if the
    /// text of key and value equals the canonical form. Otherwise 0.
    inner: u32,
}

#[derive(Clone)]
struct Container {
    /// The index of the node after the last descendant.
    end: u32,
    /// The range of an object in `members`.
    members: Range<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `true`, `false`, `null` and integers.
    Word,
    Float,
    /// A string without escapes.
    String,
    /// A string with escapes.
    Escaped,
    Array,
    Object,
}

/// A value inside a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    index: u32,
}

/// A string that holds half of a surrogate pair, and so is not Unicode text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoneSurrogate;

impl<'a> Document<'a> {
    /// Returns the outermost value.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// Returns the text of a value or key, with the quotes of a string.
    fn raw(&self, node: Node) -> &'a str {
        &self.text[node.start as usize..node.end as usize]
    }

    /// Returns the text of a string or key with its escapes decoded.
    fn decoded(&self, node: Node) -> Cow<'a, [u8]> {
        let inner = &self.text[node.start as usize + 1..node.end as usize - 1];
        match node.kind {
            Kind::Escaped => Cow::Owned(decode(inner)),
            _ => Cow::Borrowed(inner.as_bytes()),
        }
    }

    /// Returns the index of the node that follows `index` and all its descendants.
    fn after(&self, index: u32) -> u32 {
        match self.nodes[index as usize] {
            Node { kind: Kind::Array | Kind::Object, inner, .. } => {
                self.containers[inner as usize].end
            }
            _ => index + 1,
        }
    }

    fn members_of(&self, object: Node) -> &[u32] {
        let Range { start, end } = self.containers[object.inner as usize].members;
        &self.members[start as usize..end as usize]
    }
}

impl<'d> Value<'d> {
    /// Returns the name of the type, for a person.
    pub fn type_name(self) -> &'static str {
        match self.node().kind {
            Kind::String | Kind::Escaped => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
            Kind::Float => "a number",
            Kind::Word => match self.raw() {
                "null" => "null",
                "true" | "false" => "a boolean",
                _ => "a number",
            },
        }
    }

    pub fn is_object(self) -> bool {
        self.node().kind == Kind::Object
    }

    /// Returns the member of that name. Returns `None` if there is none or this is not an object.
    pub fn get(self, name: &str) -> Option<Value<'d>> {
        if !self.is_object() {
            return None;
        }
        let document = self.document;
        let members = document.members_of(self.node());
        let decoded = |key: u32| document.decoded(document.nodes[key as usize]);
        let found =
            members.binary_search_by(|key| decoded(*key).as_ref().cmp(name.as_bytes())).ok()?;
        Some(Value { document, index: members[found] + 1 })
    }

    /// Returns whether no two members have the same name. Of equal names, only the last counts here.
    /// Other readers may take another one.
    pub fn has_unique_names(self) -> bool {
        let node = self.node();
        if !self.is_object() {
            return true;
        }
        let (mut members, mut index) = (0, self.index + 1);
        while index < self.end() {
            members += 1;
            index = self.document.after(index + 1);
        }
        members == self.document.members_of(node).len()
    }

    /// Returns the text of a string, or `None` for any other value.
    pub fn as_str(self) -> Option<Result<String, LoneSurrogate>> {
        matches!(self.node().kind, Kind::String | Kind::Escaped).then(|| {
            let bytes = self.document.decoded(self.node()).into_owned();
            String::from_utf8(bytes).map_err(|_| LoneSurrogate)
        })
    }

    /// Returns a number as the nearest double, or `None` for any other value.
    pub fn as_f64(self) -> Option<f64> {
        let is_number =
            || self.raw().starts_with(|first: char| first == '-' || first.is_ascii_digit());
        match self.node().kind {
            Kind::Float => Some(nearest_double(self.raw())),
            Kind::Word if is_number() => Some(nearest_double(self.raw())),
            _ => None,
        }
    }

    /// Returns `true` or `false`, or `None` for any other value.
    pub fn as_bool(self) -> Option<bool> {
        match self.raw() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Returns the text of a string, or a number as written. Returns `None` for any other value,
    /// and for a string with a lone surrogate.
    pub fn as_text(self) -> Option<String> {
        match self.as_str() {
            Some(text) => text.ok(),
            None => self.as_f64().map(|_| self.raw().to_owned()),
        }
    }

    /// Returns the elements of an array, or `None` for any other value.
    pub fn elements(self) -> Option<Vec<Value<'d>>> {
        if self.node().kind != Kind::Array {
            return None;
        }
        let (mut elements, mut index) = (Vec::new(), self.index + 1);
        while index < self.end() {
            elements.push(Value { document: self.document, index });
            index = self.document.after(index);
        }
        Some(elements)
    }

    /// Returns the index of the node after the value.
    fn end(self) -> u32 {
        self.document.after(self.index)
    }

    fn node(self) -> Node {
        self.document.nodes[self.index as usize]
    }

    fn raw(self) -> &'d str {
        self.document.raw(self.node())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_nearest_double_however_long_it_is() {
        let number = |text: &str| Document::parse(text.as_bytes()).unwrap().root().as_f64();
        for (text, value) in
            [("0", 0.0), ("-12", -12.0), ("1.5e3", 1500.0), ("1e400", f64::INFINITY)]
        {
            assert_eq!(number(text), Some(value), "{text}");
        }
        let balanced = format!("0.{}1e100001", "0".repeat(100_000));
        assert_eq!(number(&balanced), Some(1.0));
        for text in ["true", "null", "\"1\"", "[1]"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn repeated_names_are_found() {
        let is_unique =
            |text: &str| Document::parse(text.as_bytes()).unwrap().root().has_unique_names();
        for text in ["{}", "[1,1]", r#"{"a":1}"#, r#"{"a":{"b":1,"c":[2]},"b":1,"c":2}"#] {
            assert!(is_unique(text), "{text}");
        }
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1},"c":[1,{}],"\u0061":2}"#] {
            assert!(!is_unique(text), "{text}");
        }
        // A repeated name inside a member is not one of the object.
        assert!(is_unique(r#"{"a":{"b":1,"b":2}}"#));
    }

    #[test]
    fn every_type_has_a_name() {
        // The nodes of arrays and objects hold indices, which need not be positions in the text.
        let text = "{\"\u{fd3b5}\":[{}, [], \"\", null, true, false, 1, 1.5]}";
        let document = Document::parse(text.as_bytes()).unwrap();
        let root = document.root();
        let elements = root.get("\u{fd3b5}").unwrap().elements().unwrap();
        let mut names: Vec<_> = elements.into_iter().map(Value::type_name).collect();
        names.push(root.type_name());
        let expected = [
            "an object",
            "an array",
            "a string",
            "null",
            "a boolean",
            "a boolean",
            "a number",
            "a number",
            "an object",
        ];
        assert_eq!(names, expected);
    }
}
