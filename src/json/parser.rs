//! Reads a text by the grammar of RFC 8259, and records where each value lies.

use super::{
    Document, JsonError, JsonFault, Kind, MAX_DEPTH, MAX_INTEGER_DIGITS, Node,
    members::Names,
    text::{hex_unit, plain_run},
};

impl<'a> Document<'a> {
    /// Reads a whole body: one value, with optional white space around it.
    pub fn parse(body: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| JsonError { fault: JsonFault::NotUtf8, at: error.valid_up_to() })?;
        // Offsets are stored in 32 bits.
        assert!(u32::try_from(text.len()).is_ok(), "the body limit is below 4 GiB");
        let mut parser = Parser {
            bytes: text.as_bytes(),
            at: 0,
            names: Names::default(),
            document: Document {
                text,
                nodes: Vec::with_capacity(text.len() / BYTES_A_NODE),
                members: Vec::with_capacity(text.len() / BYTES_A_NODE / 2),
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
}

/// The least number of bytes that a key or value takes in most bodies.
const BYTES_A_NODE: usize = 8;

/// A recursive-descent parser. [`MAX_DEPTH`] bounds the recursion.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    names: Names,
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
        let (begin, mut is_sorted) = (self.names.begin(), true);
        if !self.eat_after_space(b'}') {
            loop {
                self.skip_space();
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected());
                }
                let key = self.at;
                self.string()?;
                is_sorted &= self.names.push(begin, &self.document, key..self.at);
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
        self.document.nodes[index].start = self.document.objects.len() as u32;
        let members = self.names.finish(begin, is_sorted, &mut self.document);
        self.document.objects.push(members);
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
        self.push(kind, false, 0);
        Ok(self.document.nodes.len() - 1)
    }

    fn close(&mut self, index: usize) {
        self.document.nodes[index].end = self.document.nodes.len() as u32;
    }

    fn string(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        let (mut kind, mut is_canonical) = (Kind::String, true);
        loop {
            self.at += plain_run(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    is_canonical &= self.escape()?;
                }
                Some(0x00..=0x1f) => return Err(self.fault(JsonFault::ControlCharacter)),
                Some(_) => {
                    is_canonical = false;
                    let beyond = self.bytes[self.at..].iter().take_while(|byte| **byte > b'~');
                    self.at += beyond.count();
                }
                None => return Err(self.fault(JsonFault::EndOfInput)),
            }
        }
        self.at += 1;
        self.push(kind, is_canonical, start);
        Ok(())
    }

    /// Reads an escape. Returns whether Python prints it in the same way.
    fn escape(&mut self) -> Result<bool, JsonError> {
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
        let escape = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(is_canonical_escape(escape))
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
        // A point or an exponent without digits does not belong to the number. The caller then
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
        let text = &self.bytes[start..self.at];
        let (kind, is_canonical) = if self.at > integer_end {
            (Kind::Float, is_canonical_float(text))
        } else if digits > MAX_INTEGER_DIGITS {
            return Err(JsonError { fault: JsonFault::IntegerTooLong, at: start });
        } else {
            // Python reads -0 as an integer, and integers have no sign on zero.
            (Kind::Word, text != b"-0")
        };
        self.push(kind, is_canonical, start);
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
        let start = self.at;
        self.at += word.len();
        self.push(Kind::Word, true, start);
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

    /// Adds a node whose text ends here.
    fn push(&mut self, kind: Kind, is_canonical: bool, start: usize) {
        let (start, end) = (start as u32, self.at as u32);
        self.document.nodes.push(Node { kind, is_canonical, start, end });
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
/// A decimal number of at most 15 digits is the shortest one that is read as its double, unless it
/// ends in zeros. Python prints it without an exponent if it is not too small.
fn is_canonical_float(text: &[u8]) -> bool {
    const SAFE_DIGITS: usize = 15;
    text.len() <= SAFE_DIGITS + 1
        && !text.iter().any(|byte| matches!(byte, b'e' | b'E'))
        && (!text.ends_with(b"0") || text.ends_with(b".0"))
        && !text.strip_prefix(b"-").unwrap_or(text).starts_with(b"0.000")
}
