//! Decodes the escapes of a string.

use std::borrow::Cow;

/// Returns the text of a string with its escapes decoded. It is UTF-8 in which a lone surrogate is
/// encoded like any code point ("WTF-8"). Its byte order is the order of code points, by which
/// Python sorts.
pub(super) fn decoded(raw: &str) -> Cow<'_, [u8]> {
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

/// Returns the first code point of a checked, non-empty piece of a string, and its length in bytes.
/// The code point may be escaped. A lone surrogate is returned as it is.
pub(super) fn first_code_point(raw: &str) -> (u32, usize) {
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
