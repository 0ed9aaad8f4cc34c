//! Splits a text into the tokens that dateutil sees.
//!
//! A token is a run of letters, a run of digits, or a single other character. The point is the
//! difficult case: it may be a separator (`Sep.20.2009`) or a decimal point (`4:30:21.447`). A run
//! continues over points. Afterwards, it is split at them unless it is one decimal number.

/// The zeros of the decimal digits outside ASCII, by script. The digits 1 to 9 follow each zero
/// (Unicode 14, general category Nd). Python's `int` accepts these digits like ASCII digits.
#[rustfmt::skip]
const ZEROS: [u32; 65] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6,
    0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
    0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650,
    0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50,
    0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// Returns the tokens of a text, or `None` if it holds a character that occurs in no date.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    // dateutil ignores NUL everywhere.
    let mut chars = text.chars().filter(|char| *char != '\0').map(to_ascii).peekable();
    let mut tokens = Vec::new();
    while let Some(first) = chars.next() {
        let mut run = Run::begin(first?);
        while let Some(next) = chars.peek() {
            if !run.take((*next)?) {
                break;
            }
            chars.next();
        }
        run.finish(&mut tokens);
    }
    Some(tokens)
}

/// Converts white space to a space, and digits to ASCII digits. dateutil accepts no other
/// characters outside ASCII.
fn to_ascii(char: char) -> Option<char> {
    // Python counts the four ASCII separators as white space, but Unicode does not.
    if char.is_whitespace() || ('\x1c'..='\x1f').contains(&char) {
        return Some(' ');
    }
    if char.is_ascii() {
        return Some(char);
    }
    let code = u32::from(char);
    let zero = ZEROS.iter().rfind(|zero| **zero <= code)?;
    char::from_digit(code - zero, 10)
}

/// A token while it is read.
struct Run {
    text: String,
    kind: Kind,
    /// True if a character was examined while the run was a run of letters. A letter at the end of
    /// the text does not set it, because no character is examined after it: `1.a`.
    saw_letters: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One character that is neither a letter nor a digit.
    Single,
    Letters,
    Digits,
    /// Letters after a point was seen.
    DottedLetters,
    /// Digits after a point (or a decimal comma) was seen.
    DottedDigits,
}

impl Run {
    fn begin(first: char) -> Self {
        let kind = match first {
            _ if first.is_ascii_alphabetic() => Kind::Letters,
            _ if first.is_ascii_digit() => Kind::Digits,
            _ => Kind::Single,
        };
        Self { text: first.into(), kind, saw_letters: false }
    }

    /// Adds a character to the run if it belongs to the run.
    fn take(&mut self, next: char) -> bool {
        self.saw_letters |= matches!(self.kind, Kind::Letters | Kind::DottedLetters);
        let after_point = self.text.ends_with('.');
        let (letter, digit) = (next.is_ascii_alphabetic(), next.is_ascii_digit());
        let kind = match self.kind {
            Kind::Letters if letter => Kind::Letters,
            Kind::Letters if next == '.' => Kind::DottedLetters,
            Kind::Digits if digit => Kind::Digits,
            Kind::Digits if next == '.' || (next == ',' && self.text.len() >= 2) => {
                Kind::DottedDigits
            }
            Kind::DottedLetters if next == '.' || letter => Kind::DottedLetters,
            Kind::DottedLetters if digit && after_point => Kind::DottedDigits,
            Kind::DottedDigits if next == '.' || digit => Kind::DottedDigits,
            Kind::DottedDigits if letter && after_point => Kind::DottedLetters,
            _ => return false,
        };
        self.kind = kind;
        self.text.push(next);
        true
    }

    fn finish(self, tokens: &mut Vec<String>) {
        let points = self.text.matches('.').count();
        let dotted = matches!(self.kind, Kind::DottedLetters | Kind::DottedDigits);
        if dotted && (self.saw_letters || points > 1 || self.text.ends_with(['.', ','])) {
            let pieces = self.text.split_inclusive(['.', ',']);
            for piece in pieces {
                let word = piece.trim_end_matches(['.', ',']);
                for part in [word, &piece[word.len()..]] {
                    if !part.is_empty() {
                        tokens.push(part.into());
                    }
                }
            }
        } else if self.kind == Kind::DottedDigits && points == 0 {
            tokens.push(self.text.replace(',', "."));
        } else {
            tokens.push(self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_point_separates_unless_it_is_a_decimal_point() {
        for (text, tokens) in [
            ("Sep.20.2009", &["Sep", ".", "20", ".", "2009"][..]),
            ("4:30:21.447", &["4", ":", "30", ":", "21.447"]),
            ("21,447", &["21.447"]),
            ("1,2", &["1", ",", "2"]),
            ("10h", &["10", "h"]),
            ("a.m.", &["a", ".", "m", "."]),
            ("2024-05-06", &["2024", "-", "05", "-", "06"]),
            ("1\t\u{1c}2", &["1", " ", " ", "2"]),
            ("1\u{0}2", &["12"]),
            ("\u{ff11}\u{ff12}", &["12"]),
        ] {
            assert_eq!(split(text).unwrap(), tokens, "{text}");
        }
        assert_eq!(split("\u{e9}"), None);
    }
}
