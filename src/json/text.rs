//! Finds and decodes the characters of a string.

/// Returns the length of the first run of characters that are printed as they are: printable ASCII
/// without quotes and backslashes.
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    // Eight bytes are examined at once, as a number. A subtraction borrows, and so sets the highest
    // bit, for a byte that is too small. A borrow also reaches the bytes after it, so only the first
    // byte found counts (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>).
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        // The exclusive or maps a quote to 0x20, and control characters to one another.
        let quote_or_control = (word ^ (EACH * 0x02)).wrapping_sub(EACH * 0x21);
        let backslash = (word ^ (EACH * 0x5C)).wrapping_sub(EACH);
        let delete_or_beyond = word.wrapping_add(EACH);
        let found = (quote_or_control | backslash | delete_or_beyond) & (EACH * 0x80);
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = |byte: &&u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    bytes.len() - rest.len() + rest.iter().take_while(plain).count()
}

/// Returns the text of a string with its escapes decoded. It is UTF-8 in which a lone surrogate is
/// encoded like any code point ("WTF-8"). Its byte order is the order of code points, by which
/// Python sorts.
pub(super) fn decode(raw: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while !rest.is_empty() {
        let (run, tail) = rest.split_at(plain_run(rest.as_bytes()));
        bytes.extend_from_slice(run.as_bytes());
        if tail.is_empty() {
            break;
        }
        let (code, length) = first_code_point(tail);
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
