//! Finds and decodes the characters of a string.

use wide::i8x16;

/// Returns the length of the first run of characters from `at` on that are printed as they are:
/// printable ASCII without quotes and backslashes.
#[inline(always)]
pub(super) fn plain_run(text: &[u8], at: usize) -> usize {
    let mut end = at;
    loop {
        let Some(chunk) = text[end..].first_chunk() else {
            return end - at + plain_run_at_the_end(&text[end..]);
        };
        let found = not_plain(chunk);
        if found != 0 {
            return end - at + found.trailing_zeros() as usize;
        }
        end += chunk.len();
    }
}

/// Returns a bit for each byte; the lowest bit is that of the first byte. A bit is 0 if the byte is
/// printed as it is.
#[inline(always)]
fn not_plain(bytes: &[u8; 16]) -> u32 {
    let bytes = i8x16::new(bytes.map(u8::cast_signed));
    // A byte beyond ASCII is negative. XOR maps a quote to 0x20, and control characters to one
    // another.
    let quote_or_control_or_beyond = (bytes ^ i8x16::splat(0x02)).simd_lt(i8x16::splat(0x21));
    let backslash = bytes.simd_eq(i8x16::splat(0x5C));
    let delete = bytes.simd_eq(i8x16::splat(0x7F));
    (quote_or_control_or_beyond | backslash | delete).to_bitmask()
}

#[cold]
fn plain_run_at_the_end(bytes: &[u8]) -> usize {
    let plain = |byte: &&u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    bytes.iter().take_while(plain).count()
}

/// Returns the text of a string with its escapes decoded. It is UTF-8 in which a lone surrogate is
/// encoded like any code point ("WTF-8"). Its byte order is the order of code points, by which
/// Python sorts.
pub(super) fn decode(raw: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while !rest.is_empty() {
        let (run, tail) = rest.split_at(rest.find('\\').unwrap_or(rest.len()));
        bytes.extend_from_slice(run.as_bytes());
        if tail.is_empty() {
            break;
        }
        let (code, length) = escaped(tail.as_bytes());
        match char::from_u32(code) {
            Some(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => bytes.extend_from_slice(&[
                0xE0 | (code >> 12) as u8,
                0x80 | (code >> 6 & 0x3F) as u8,
                0x80 | (code & 0x3F) as u8,
            ]),
        }
        rest = &tail[length..];
    }
    bytes
}

/// Returns the code point of the escape that begins the text, and its length in bytes. The parser
/// has checked the text. A lone surrogate is returned as it is.
pub(super) fn escaped(bytes: &[u8]) -> (u32, usize) {
    match bytes[1] {
        b'b' => (0x08, 2),
        b'f' => (0x0C, 2),
        b'n' => (0x0A, 2),
        b'r' => (0x0D, 2),
        b't' => (0x09, 2),
        b'u' => {
            let unit = hex_unit(&bytes[2..6]);
            if let 0xD800..=0xDBFF = unit
                && bytes.get(6..8) == Some(b"\\u")
                && let low @ 0xDC00..=0xDFFF = hex_unit(&bytes[8..12])
            {
                return (0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), 12);
            }
            (unit, 6)
        }
        itself => (itself.into(), 2),
    }
}

/// Returns the number that hex digits make.
pub(super) fn hex_unit(digits: &[u8]) -> u32 {
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0);
    digits.iter().fold(0, |unit, digit| unit << 4 | value(*digit))
}

#[cfg(test)]
mod tests {
    use super::plain_run;

    #[test]
    fn a_run_ends_at_the_first_byte_that_is_not_plain() {
        for byte in 0..=u8::MAX {
            let is_plain = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
            for length in 1..40 {
                for place in 0..length {
                    let mut text = vec![b'x'; length];
                    text[place] = byte;
                    let end = if is_plain { length } else { place };
                    assert_eq!(plain_run(&text, 0), end, "{byte} at {place} of {length}");
                    assert_eq!(plain_run(&text, place), end - place, "{byte}");
                }
            }
        }
    }
}
