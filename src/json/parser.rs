//! Reads a text by the grammar of RFC 8259, and records where each value lies.

use std::borrow::Cow;

use super::{
    Document, JsonError, JsonFault, Kind, MAX_DEPTH, MAX_INTEGER_DIGITS, Node, text::decoded,
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
}

/// A recursive-descent parser. [`MAX_DEPTH`] bounds the recursion.
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

    /// Records the members of a finished object in canonical order: sorted by code point, with only
    /// the last of equal keys.
    fn sort_members(&mut self, index: usize) {
        let document = &mut self.document;
        let mut keys: Vec<(Cow<'_, [u8]>, u32)> = Vec::new();
        let mut key = index as u32 + 1;
        while key < document.nodes[index].end {
            keys.push((decoded(document.raw(key)), key));
            key = document.after(key + 1);
        }
        if !keys.is_sorted_by(|(a, _), (b, _)| a < b) {
            // The sort is stable, so equal keys keep the order of the text.
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
