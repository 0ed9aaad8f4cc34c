//! Reads a text by the grammar of RFC 8259, and records where each value lies.

use std::{ops::Range, str::Utf8Error};

use super::{
    Container, Document, JsonError, JsonFault, Kind, MAX_DEPTH, MAX_INTEGER_DIGITS, Node,
    members::{Names, NamesOfObject},
    text::{hex_unit, plain_run},
};

impl<'a> Document<'a> {
    /// Reads a whole body: one value, with optional white space around it.
    pub fn parse(body: &'a [u8]) -> Result<Self, JsonError> {
        let text = utf8(body)?;
        // Offsets are stored in 32 bits.
        assert!(u32::try_from(text.len()).is_ok(), "the body limit is below 4 GiB");
        let mut parser = Parser {
            bytes: text.as_bytes(),
            canonical_from: 0,
            names: Names::new(),
            document: Document {
                text,
                nodes: Vec::with_capacity(text.len() / BYTES_A_NODE),
                members: Vec::with_capacity(text.len() / BYTES_A_NODE / 2),
                containers: Vec::with_capacity(text.len() / BYTES_A_NODE / 8),
            },
        };
        let start = parser.after_space(0);
        let end = parser.value(start, 1)?;
        let (_, end) = parser.after_space(end);
        match parser.peek(end) {
            Some(_) => Err(JsonError { fault: JsonFault::TrailingData, at: end }),
            None => Ok(parser.document),
        }
    }
}

fn utf8(body: &[u8]) -> Result<&str, JsonError> {
    simdutf8::basic::from_utf8(body).or_else(|_| {
        let fault =
            |error: Utf8Error| JsonError { fault: JsonFault::NotUtf8, at: error.valid_up_to() };
        std::str::from_utf8(body).map_err(fault)
    })
}

/// The least number of bytes that a key or value takes in most bodies.
const BYTES_A_NODE: usize = 8;

/// A recursive-descent parser. [`MAX_DEPTH`] bounds the recursion. A method that reads a part of the
/// text gets the place where the part begins, and returns the place after it.
///
/// Without optimisation, an inlined function enlarges the stack of each level. So functions are inlined only
/// with optimisation, where all levels need at most 256 KB.
struct Parser<'a> {
    bytes: &'a [u8],
    /// The end of the last piece of text that differs from the canonical form. A value that begins
    /// here or later is canonical so far.
    canonical_from: usize,
    names: Names,
    document: Document<'a>,
}

impl Parser<'_> {
    /// Reads the value that begins with this byte.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn value(&mut self, (byte, at): (u8, usize), depth: usize) -> Result<usize, JsonError> {
        match byte {
            b'"' => self.string(at),
            b'-' | b'0'..=b'9' => self.number(at),
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b't' => self.literal(at, b"true"),
            b'f' => self.literal(at, b"false"),
            b'n' => self.literal(at, b"null"),
            _ => Err(self.unexpected(at)),
        }
    }

    fn object(&mut self, start: usize, depth: usize) -> Result<usize, JsonError> {
        let index = self.open(Kind::Object, start, depth)?;
        let mut names = self.names.begin();
        let (mut byte, mut at) = self.after_space(start + 1);
        if byte != b'}' {
            loop {
                let (name, key) = (at, self.document.nodes.len());
                let value = self.name((byte, at), &mut names)?;
                at = self.value(value, depth + 1)?;
                if self.canonical_from <= name {
                    self.document.nodes[key].inner = at as u32;
                }
                (byte, at) = self.after_space(at);
                match byte {
                    b',' => (byte, at) = self.after_space(at + 1),
                    b'}' => break,
                    _ => return Err(self.unexpected(at)),
                }
            }
        }
        self.end_object(index, at, &names);
        Ok(at + 1)
    }

    /// Reads a member's name, and returns the first byte of its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn name(
        &mut self,
        (byte, start): (u8, usize),
        names: &mut NamesOfObject,
    ) -> Result<(u8, usize), JsonError> {
        if byte != b'"' {
            return Err(self.unexpected(start));
        }
        let key = self.document.nodes.len();
        let end = self.string(start)?;
        self.names.push(names, &self.document, key, start + 1..end - 1);
        let (byte, at) = self.after_space(end);
        if byte != b':' {
            return Err(self.unexpected(at));
        }
        Ok(self.after_space(at + 1))
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn end_object(&mut self, index: usize, at: usize, names: &NamesOfObject) {
        if !names.are_sorted() {
            self.canonical_from = at;
        }
        let members = self.names.finish(names, &mut self.document);
        self.close(index, at + 1, members);
    }

    fn array(&mut self, start: usize, depth: usize) -> Result<usize, JsonError> {
        let index = self.open(Kind::Array, start, depth)?;
        let (mut byte, mut at) = self.after_space(start + 1);
        if byte != b']' {
            loop {
                at = self.value((byte, at), depth + 1)?;
                (byte, at) = self.after_space(at);
                match byte {
                    b',' => (byte, at) = self.after_space(at + 1),
                    b']' => break,
                    _ => return Err(self.unexpected(at)),
                }
            }
        }
        self.close(index, at + 1, 0..0);
        Ok(at + 1)
    }

    /// Adds the node of an array or object, and returns its index.
    fn open(&mut self, kind: Kind, start: usize, depth: usize) -> Result<usize, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError { fault: JsonFault::TooDeep, at: start });
        }
        self.push(kind, start, start);
        Ok(self.document.nodes.len() - 1)
    }

    fn close(&mut self, index: usize, end: usize, members: Range<u32>) {
        let Document { nodes, containers, .. } = &mut self.document;
        let after = nodes.len() as u32;
        let node = &mut nodes[index];
        node.end = end as u32;
        node.is_canonical = self.canonical_from <= node.start as usize;
        node.inner = containers.len() as u32;
        containers.push(Container { end: after, members });
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn string(&mut self, start: usize) -> Result<usize, JsonError> {
        let mut at = start + 1;
        at += plain_run(self.bytes, at);
        if self.peek(at) == Some(b'"') {
            self.push(Kind::String, start, at + 1);
            Ok(at + 1)
        } else {
            self.string_from(at, start)
        }
    }

    /// Reads a string on from the first character that is not plain.
    fn string_from(&mut self, mut at: usize, start: usize) -> Result<usize, JsonError> {
        let mut kind = Kind::String;
        loop {
            match self.peek(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    at = self.escape(at)?;
                }
                Some(0x00..=0x1f) => {
                    return Err(JsonError { fault: JsonFault::ControlCharacter, at });
                }
                Some(_) => {
                    at += self.bytes[at..].iter().take_while(|byte| **byte > b'~').count();
                    self.canonical_from = at;
                }
                None => return Err(self.unexpected(at)),
            }
            at += plain_run(self.bytes, at);
        }
        self.push(kind, start, at + 1);
        Ok(at + 1)
    }

    fn escape(&mut self, at: usize) -> Result<usize, JsonError> {
        let fault = |fault| Err(JsonError { fault, at });
        let length = match self.peek(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => 6,
            Some(_) => return fault(JsonFault::BadEscape),
            None => return fault(JsonFault::EndOfInput),
        };
        let Some(escape) = self.bytes.get(at..at + length) else {
            return fault(JsonFault::BadEscape);
        };
        if !escape[2..].iter().all(u8::is_ascii_hexdigit) {
            return fault(JsonFault::BadEscape);
        }
        if !is_canonical_escape(escape) {
            self.canonical_from = at + length;
        }
        Ok(at + length)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn number(&mut self, start: usize) -> Result<usize, JsonError> {
        let digits_from = start + usize::from(self.peek(start) == Some(b'-'));
        let integer_end = match self.peek(digits_from) {
            Some(b'0') => digits_from + 1,
            _ => self.after_digits(digits_from),
        };
        if integer_end == digits_from {
            return Err(self.unexpected(digits_from));
        }
        if let Some(b'.' | b'e' | b'E') = self.peek(integer_end) {
            return Ok(self.float(start, integer_end));
        }
        if integer_end - digits_from > MAX_INTEGER_DIGITS {
            return Err(JsonError { fault: JsonFault::IntegerTooLong, at: start });
        }
        // Python reads -0 as an integer, and integers have no sign on zero.
        if self.bytes[start..integer_end] == *b"-0" {
            self.canonical_from = integer_end;
        }
        self.push(Kind::Word, start, integer_end);
        Ok(integer_end)
    }

    /// Reads a number on from the end of its integer. A point or an exponent without digits does not
    /// belong to the number. The caller then finds it unexpected.
    fn float(&mut self, start: usize, integer_end: usize) -> usize {
        let mut end = integer_end;
        if self.peek(end) == Some(b'.') {
            let fraction_end = self.after_digits(end + 1);
            if fraction_end > end + 1 {
                end = fraction_end;
            }
        }
        if let Some(b'e' | b'E') = self.peek(end) {
            let has_sign = matches!(self.peek(end + 1), Some(b'+' | b'-'));
            let digits_from = end + 1 + usize::from(has_sign);
            let exponent_end = self.after_digits(digits_from);
            if exponent_end > digits_from {
                end = exponent_end;
            }
        }
        let kind = if end > integer_end { Kind::Float } else { Kind::Word };
        if kind == Kind::Float && !is_canonical_float(&self.bytes[start..end]) {
            self.canonical_from = end;
        }
        self.push(kind, start, end);
        end
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn after_digits(&self, mut at: usize) -> usize {
        while let Some(b'0'..=b'9') = self.peek(at) {
            at += 1;
        }
        at
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn literal<const N: usize>(&mut self, at: usize, word: &[u8; N]) -> Result<usize, JsonError> {
        if self.bytes[at..].first_chunk() != Some(word) {
            return Err(self.unexpected(at));
        }
        self.push(Kind::Word, at, at + N);
        Ok(at + N)
    }

    /// Returns the first byte that is no white space, and its place. At the end of the text, the byte
    /// is 0.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn after_space(&mut self, at: usize) -> (u8, usize) {
        match self.bytes.get(at) {
            Some(byte) if *byte > b' ' => (*byte, at),
            _ => self.after_spaces(at),
        }
    }

    fn after_spaces(&mut self, start: usize) -> (u8, usize) {
        let mut at = start;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek(at) {
            at += 1;
        }
        if at > start {
            self.canonical_from = at;
        }
        (self.peek(at).unwrap_or(0), at)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn peek(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let is_canonical = self.canonical_from <= start;
        let (start, end) = (start as u32, end as u32);
        self.document.nodes.push(Node { kind, is_canonical, start, end, inner: 0 });
    }

    #[cold]
    fn unexpected(&self, at: usize) -> JsonError {
        let fault = match self.peek(at) {
            Some(_) => JsonFault::Unexpected,
            None => JsonFault::EndOfInput,
        };
        JsonError { fault, at }
    }
}

/// Returns whether Python prints the escape in the same way.
fn is_canonical_escape(escape: &[u8]) -> bool {
    match escape {
        [_, b'u', digits @ ..] => {
            let is_shorter =
                matches!(hex_unit(digits), 0x08 | 0x09 | 0x0A | 0x0C | 0x0D | 0x20..=0x7E);
            !is_shorter && !digits.iter().any(u8::is_ascii_uppercase)
        }
        _ => escape != b"\\/",
    }
}

/// Returns whether a number with a point or an exponent certainly is what Python prints for it.
///
/// Python prints the shortest decimal number that is read as the same double. A number of at most
/// 15 digits is that shortest one, unless it ends in zeros. Python prints it without an exponent if
/// it is not too small.
fn is_canonical_float(text: &[u8]) -> bool {
    const SAFE_DIGITS: usize = 15;
    text.len() <= SAFE_DIGITS + 1
        && !text.iter().any(|byte| matches!(byte, b'e' | b'E'))
        && (!text.ends_with(b"0") || text.ends_with(b".0"))
        && !text.strip_prefix(b"-").unwrap_or(text).starts_with(b"0.000")
}
