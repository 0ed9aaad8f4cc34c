//! Splits a text into the tokens that dateutil sees.
//!
//! A token is a run of letters, a run of digits, or a single other character. The point is the
//! difficult case: it may be a separator (`Sep.20.2009`) or a decimal point (`4:30:21.447`). A run
//! continues over points. Afterwards, it is split at them unless it is one decimal number.

use super::chars::{decimal, is_digit, is_letter, is_space};

/// Returns the tokens of a text.
pub(super) fn split(text: &str) -> Vec<String> {
    // dateutil ignores NUL everywhere.
    let mut chars = text.chars().filter(|char| *char != '\0').map(simplified).peekable();
    let mut tokens = Vec::new();
    while let Some(first) = chars.next() {
        let mut run = Run::begin(first);
        while chars.next_if(|next| run.take(*next)).is_some() {}
        run.finish(&mut tokens);
    }
    tokens
}

/// Converts white space to a space, and decimal digits to ASCII. Any other character outside ASCII
/// stays as it is: it means nothing in a date, but it separates or joins tokens, and dateutil drops
/// a few tokens unread.
fn simplified(char: char) -> char {
    if is_space(char) {
        return ' ';
    }
    decimal(char).and_then(|value| char::from_digit(value, 10)).unwrap_or(char)
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
            _ if is_letter(first) => Kind::Letters,
            _ if is_digit(first) => Kind::Digits,
            _ => Kind::Single,
        };
        Self { text: first.into(), kind, saw_letters: false }
    }

    /// Adds a character to the run if it belongs to the run.
    fn take(&mut self, next: char) -> bool {
        self.saw_letters |= matches!(self.kind, Kind::Letters | Kind::DottedLetters);
        let after_point = self.text.ends_with('.');
        let (letter, digit) = (is_letter(next), is_digit(next));
        let kind = match self.kind {
            Kind::Letters if letter => Kind::Letters,
            Kind::Letters if next == '.' => Kind::DottedLetters,
            Kind::Digits if digit => Kind::Digits,
            Kind::Digits if next == '.' || (next == ',' && self.text.chars().count() >= 2) => {
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
            ("1²éa€b", &["1²", "éa", "€", "b"]),
            ("²,5", &["²", ",", "5"]),
        ] {
            assert_eq!(split(text), tokens, "{text}");
        }
    }
}
