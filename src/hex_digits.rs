//! Hex digits.

/// Returns bytes as lower-case hex digits. `hex::encode` adds one character after the other, and
/// takes several times as long.
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; 2 * bytes.len()];
    // If the digits were missing, different events would have the same key. So a failure, which
    // cannot happen, must panic.
    hex::encode_to_slice(bytes, &mut digits).expect("two digits for each byte");
    String::from_utf8(digits).expect("hex digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn every_byte_has_two_lower_case_digits() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
        assert_eq!(hex(&[]), "");
    }
}
