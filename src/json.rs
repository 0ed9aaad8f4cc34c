//! Canonical JSON, streamed into a hasher.
//!
//! The canonical form of a body is what Python prints for
//! `json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))`, because the Python
//! router hashes that. The rules come from RFC 8259 for what is JSON, and from CPython's `json`
//! module for how it is printed: ASCII only, keys sorted by code point, the last of equal keys
//! wins, floats as `repr` prints them.
//!
//! serde_json cannot do this: its `Value` rejects lone surrogates, and with the
//! `arbitrary_precision` or `raw_value` features (which a dependency may switch on) a body can
//! forge the value that another body has. So [`Document`] is a flat index into the text: parsing
//! checks the grammar and notes where each value lies, and writing decodes from the text again.
//! Both passes are linear in the size of the body, but for the sorting of keys.

use std::{
    borrow::Cow,
    fmt,
    io::{self, BufWriter, Write},
    ops::Range,
};

use sha2::{Digest as _, Sha256};

/// Deepest nesting that is read; the outermost object is level 1.
///
/// CPython's own limit is its recursion limit of 1,000 less the frames that a web framework
/// already uses. This lies between what every Python router accepts (950) and what none does
/// (1,000), and it bounds the recursion below.
pub const MAX_DEPTH: usize = 975;

/// Most digits of an integer, as in CPython (`sys.int_info.default_max_str_digits`).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Why a text is not a JSON document that can be routed, and at which byte.
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
    /// Indices of key nodes, object after object, each object's in canonical order.
    members: Vec<u32>,
    /// The range in `members` of each object.
    objects: Vec<Range<u32>>,
}

/// One value (or key). `start..end` is its text, without the quotes for a string; a container's
/// `start` counts its elements or names its entry in `objects`, and its `end` is the node after
/// its last descendant.
#[derive(Clone, Copy)]
struct Node {
    kind: Kind,
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `true`, `false`, `null` and integers: printed as they are written.
    Verbatim,
    Float,
    String,
    Array,
    Object,
}

/// A value inside a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: &'d Document<'d>,
    index: u32,
}

/// A string that holds half of a surrogate pair, and so no Unicode text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoneSurrogate;

impl<'a> Document<'a> {
    /// Reads a whole body: one value, with white space around it.
    pub fn parse(body: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| JsonError { fault: JsonFault::NotUtf8, at: error.valid_up_to() })?;
        // Offsets are stored in 32 bits.
        assert!(u32::try_from(text.len()).is_ok(), "the body limit is below 4 GiB");
        let mut parser = Parser {
            bytes: text.as_bytes(),
            at: 0,
            document: Document {
                text,
                nodes: Vec::new(),
                members: Vec::new(),
                objects: Vec::new(),
            },
        };
        parser.skip_space();
        parser.value(1)?;
        parser.skip_space();
        match parser.peek() {
            Some(_) => Err(parser.fault(JsonFault::TrailingData)),
            None => Ok(parser.document),
        }
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, index: 0 }
    }

    /// SHA-256 of the canonical form.
    pub fn digest(&self) -> [u8; 32] {
        let mut out = BufWriter::new(Hasher(Sha256::new()));
        let written = self.write_canonical(&mut out).and_then(|()| out.flush());
        debug_assert!(written.is_ok(), "a hasher takes everything");
        out.get_ref().0.clone().finalize().into()
    }

    /// Writes the canonical form.
    pub fn write_canonical(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_node(0, out)
    }

    fn write_node(&self, index: u32, out: &mut impl Write) -> io::Result<()> {
        let node = self.nodes[index as usize];
        match node.kind {
            // Python reads -0 as an integer, which has no sign.
            Kind::Verbatim if self.raw(index) == "-0" => out.write_all(b"0"),
            Kind::Verbatim => out.write_all(self.raw(index).as_bytes()),
            Kind::Float => write_float(self.raw(index), out),
            Kind::String => write_string(self.raw(index), out),
            Kind::Array => {
                out.write_all(b"[")?;
                let mut child = index + 1;
                while child < node.end {
                    if child > index + 1 {
                        out.write_all(b",")?;
                    }
                    self.write_node(child, out)?;
                    child = self.after(child);
                }
                out.write_all(b"]")
            }
            Kind::Object => {
                out.write_all(b"{")?;
                for (position, &key) in self.members_of(node).iter().enumerate() {
                    if position > 0 {
                        out.write_all(b",")?;
                    }
                    write_string(self.raw(key), out)?;
                    out.write_all(b":")?;
                    self.write_node(key + 1, out)?;
                }
                out.write_all(b"}")
            }
        }
    }

    fn raw(&self, index: u32) -> &'a str {
        let node = self.nodes[index as usize];
        &self.text[node.start as usize..node.end as usize]
    }

    /// The node that follows `index` and all its descendants.
    fn after(&self, index: u32) -> u32 {
        match self.nodes[index as usize] {
            Node { kind: Kind::Array | Kind::Object, end, .. } => end,
            _ => index + 1,
        }
    }

    fn members_of(&self, object: Node) -> &[u32] {
        let range = &self.objects[object.start as usize];
        &self.members[range.start as usize..range.end as usize]
    }
}

impl<'d> Value<'d> {
    pub fn is_object(self) -> bool {
        self.node().kind == Kind::Object
    }

    /// The member of that name; nothing when there is none, or this is no object.
    pub fn get(self, name: &str) -> Option<Value<'d>> {
        if !self.is_object() {
            return None;
        }
        let members = self.document.members_of(self.node());
        let found = members
            .binary_search_by(|&key| decoded(self.document.raw(key)).as_ref().cmp(name.as_bytes()))
            .ok()?;
        Some(Value { document: self.document, index: members[found] + 1 })
    }

    /// The text of a string; nothing for any other value.
    pub fn as_str(self) -> Option<Result<String, LoneSurrogate>> {
        (self.node().kind == Kind::String).then(|| {
            let bytes = decoded(self.document.raw(self.index)).into_owned();
            String::from_utf8(bytes).map_err(|_| LoneSurrogate)
        })
    }

    fn node(self) -> Node {
        self.document.nodes[self.index as usize]
    }
}

/// Recursive descent; [`MAX_DEPTH`] bounds the recursion.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    document: Document<'a>,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Object, depth)?;
        if !self.eat_after_space(b'}') {
            loop {
                self.skip_space();
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected());
                }
                self.string()?;
                if !self.eat_after_space(b':') {
                    return Err(self.unexpected());
                }
                self.skip_space();
                self.value(depth + 1)?;
                if self.eat_after_space(b'}') {
                    break;
                }
                self.expect_comma()?;
            }
        }
        self.close(index);
        self.sort_members(index);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(Kind::Array, depth)?;
        if !self.eat_after_space(b']') {
            loop {
                self.skip_space();
                self.value(depth + 1)?;
                if self.eat_after_space(b']') {
                    break;
                }
                self.expect_comma()?;
            }
        }
        self.close(index);
        Ok(())
    }

    fn open(&mut self, kind: Kind, depth: usize) -> Result<usize, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.fault(JsonFault::TooDeep));
        }
        self.at += 1;
        self.push(kind, 0, 0);
        Ok(self.document.nodes.len() - 1)
    }

    fn close(&mut self, index: usize) {
        self.document.nodes[index].end = self.document.nodes.len() as u32;
    }

    /// Notes the members of a finished object in canonical order: sorted by code point, and of
    /// equal keys the last.
    fn sort_members(&mut self, index: usize) {
        let document = &mut self.document;
        let mut keys: Vec<(Cow<'_, [u8]>, u32)> = Vec::new();
        let mut key = index as u32 + 1;
        while key < document.nodes[index].end {
            keys.push((decoded(document.raw(key)), key));
            key = document.after(key + 1);
        }
        if !keys.is_sorted_by(|(a, _), (b, _)| a < b) {
            // Sorting is stable, so among equal keys the text's order remains.
            keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let start = document.members.len() as u32;
        for (position, (name, key)) in keys.iter().enumerate() {
            if keys.get(position + 1).is_none_or(|(next, _)| next != name) {
                document.members.push(*key);
            }
        }
        document.nodes[index].start = document.objects.len() as u32;
        document.objects.push(start..document.members.len() as u32);
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0x00..=0x1f) => return Err(self.fault(JsonFault::ControlCharacter)),
                Some(_) => self.at += 1,
                None => return Err(self.fault(JsonFault::EndOfInput)),
            }
        }
        self.push(Kind::String, start, self.at);
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => 6,
            Some(_) => return Err(self.fault(JsonFault::BadEscape)),
            None => return Err(self.fault(JsonFault::EndOfInput)),
        };
        let hex = self.bytes.get(self.at + 2..self.at + length);
        if !hex.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(self.fault(JsonFault::BadEscape));
        }
        self.at += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.eat(b'-');
        let digits_from = self.at;
        if !self.eat(b'0') && self.digits() == 0 {
            return Err(self.unexpected());
        }
        let digits = self.at - digits_from;
        let integer_end = self.at;
        // A point or an exponent without digits does not belong to the number; what follows then
        // finds it unexpected.
        if self.eat(b'.') && self.digits() == 0 {
            self.at = integer_end;
        }
        let mantissa_end = self.at;
        if self.eat(b'e') || self.eat(b'E') {
            let _sign = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                self.at = mantissa_end;
            }
        }
        if self.at > integer_end {
            self.push(Kind::Float, start, self.at);
        } else if digits > MAX_INTEGER_DIGITS {
            return Err(JsonError { fault: JsonFault::IntegerTooLong, at: start });
        } else {
            self.push(Kind::Verbatim, start, self.at);
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected());
        }
        self.push(Kind::Verbatim, self.at, self.at + word.len());
        self.at += word.len();
        Ok(())
    }

    fn expect_comma(&mut self) -> Result<(), JsonError> {
        if self.eat(b',') { Ok(()) } else { Err(self.unexpected()) }
    }

    fn eat_after_space(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.eat(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        self.document.nodes.push(Node { kind, start: start as u32, end: end as u32 });
    }

    fn unexpected(&self) -> JsonError {
        self.fault(match self.peek() {
            Some(_) => JsonFault::Unexpected,
            None => JsonFault::EndOfInput,
        })
    }

    fn fault(&self, fault: JsonFault) -> JsonError {
        JsonError { fault, at: self.at }
    }
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text of a string without its escapes, as UTF-8 in which a lone surrogate is encoded like
/// any code point ("WTF-8"). Its byte order is the order of code points, which Python sorts by.
fn decoded(raw: &str) -> Cow<'_, [u8]> {
    let Some(first) = raw.find('\\') else {
        return Cow::Borrowed(raw.as_bytes());
    };
    let mut bytes = raw.as_bytes()[..first].to_vec();
    let mut rest = &raw[first..];
    while !rest.is_empty() {
        let (code, length) = first_code_point(rest);
        match char::from_u32(code) {
            Some(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => bytes.extend_from_slice(&[
                0xE0 | (code >> 12) as u8,
                0x80 | (code >> 6 & 0x3F) as u8,
                0x80 | (code & 0x3F) as u8,
            ]),
        }
        rest = &rest[length..];
    }
    Cow::Owned(bytes)
}

/// The code point that a checked, non-empty piece of a string begins with (escaped or not; a lone
/// surrogate as it is), and how many bytes spell it.
fn first_code_point(raw: &str) -> (u32, usize) {
    let bytes = raw.as_bytes();
    if bytes[0] != b'\\' {
        let char = raw.chars().next().unwrap_or_default();
        return (char.into(), char.len_utf8());
    }
    match bytes[1] {
        b'b' => (0x08, 2),
        b'f' => (0x0C, 2),
        b'n' => (0x0A, 2),
        b'r' => (0x0D, 2),
        b't' => (0x09, 2),
        b'u' => {
            let unit = hex_unit(&raw[2..6]);
            if let 0xD800..=0xDBFF = unit
                && bytes.get(6..8) == Some(b"\\u")
                && let low @ 0xDC00..=0xDFFF = hex_unit(&raw[8..12])
            {
                return (0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), 12);
            }
            (unit, 6)
        }
        itself => (itself.into(), 2),
    }
}

fn hex_unit(digits: &str) -> u32 {
    digits.bytes().fold(0, |unit, digit| unit << 4 | char::from(digit).to_digit(16).unwrap_or(0))
}

/// Prints a string as Python does with `ensure_ascii`: `\uXXXX` for all outside `' '..='~'`.
fn write_string(raw: &str, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut rest = raw;
    loop {
        let plain = rest.bytes().take_while(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
        let (run, tail) = rest.split_at(plain.count());
        out.write_all(run.as_bytes())?;
        if tail.is_empty() {
            break;
        }
        let (code, length) = first_code_point(tail);
        write_code_point(code, out)?;
        rest = &tail[length..];
    }
    out.write_all(b"\"")
}

fn write_code_point(code: u32, out: &mut impl Write) -> io::Result<()> {
    match code {
        0x22 => out.write_all(b"\\\""),
        0x5C => out.write_all(b"\\\\"),
        0x08 => out.write_all(b"\\b"),
        0x0C => out.write_all(b"\\f"),
        0x0A => out.write_all(b"\\n"),
        0x0D => out.write_all(b"\\r"),
        0x09 => out.write_all(b"\\t"),
        0x20..=0x7E => out.write_all(&[code as u8]),
        0..=0xFFFF => write!(out, "\\u{code:04x}"),
        _ => {
            let offset = code - 0x10000;
            write!(out, "\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF))
        }
    }
}

/// Prints a number with a point or an exponent as Python's `repr` of the nearest double.
fn write_float(raw: &str, out: &mut impl Write) -> io::Result<()> {
    let value = nearest_double(raw);
    if value.is_sign_negative() {
        out.write_all(b"-")?;
    }
    if value.is_infinite() {
        return out.write_all(b"Infinity");
    }
    let (digits, exponent) = shortest_digits(value.abs());
    match exponent {
        -4..=-1 => write!(out, "0.{:0>1$}", digits, digits.len() + (-exponent - 1) as usize),
        0..=15 => {
            let point = exponent as usize + 1;
            if digits.len() <= point {
                write!(out, "{digits:0<point$}.0")
            } else {
                write!(out, "{}.{}", &digits[..point], &digits[point..])
            }
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

/// The fewest digits that round-trip and are nearest to the value, without zeros at their ends,
/// and the power of ten of the first.
fn shortest_digits(value: f64) -> (String, i32) {
    // The standard library rounds up where two shortest forms are equally near; Python and this
    // crate round to even.
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [integer, fraction].concat();
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return ("0".into(), 0);
    }
    let zeros = all.len() - digits.len();
    let exponent = exponent.parse().unwrap_or(0) + integer.len() as i32 - 1 - zeros as i32;
    (digits.trim_end_matches('0').into(), exponent)
}

/// The double nearest to a JSON number, for any length of it.
fn nearest_double(raw: &str) -> f64 {
    // Rust's own parsing is exact, but it saturates an exponent of more than five digits, which
    // is wrong when as many zeros make up for it. Shorter texts cannot hold those zeros.
    const SHORT: usize = 10_000;
    // Digits after these only matter in that they are not all zero: 767 decide any double.
    const ENOUGH_DIGITS: usize = 800;
    let parse = |text: &str| text.parse().unwrap_or(f64::INFINITY);
    if raw.len() < SHORT {
        return parse(raw);
    }
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, integer) = integer.strip_prefix('-').map_or(("", integer), |rest| ("-", rest));
    let all = [integer, fraction].concat();
    let digits = all.trim_start_matches('0');
    // The value is 0.DIGITS times ten to the power of `point` plus the exponent.
    let point = integer.len() as i64 - (all.len() - digits.len()) as i64;
    let exponent = match exponent.parse::<i64>() {
        Ok(exponent) => exponent.clamp(-1 << 40, 1 << 40),
        Err(_) if exponent.starts_with('-') => -1 << 40,
        Err(_) => 1 << 40,
    };
    let magnitude = (point + exponent).clamp(-9_999, 9_999);
    let (kept, cut) = digits.split_at(digits.len().min(ENOUGH_DIGITS));
    let sticky = if cut.bytes().any(|digit| digit != b'0') { "1" } else { "" };
    parse(&format!("{sign}0.0{kept}{sticky}e{}", magnitude + 1))
}
